//! A command under a real terminal, with the test at the keyboard.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid, fchown};

use super::command::{Run, wait_until};
use super::leftovers::Shared;
use super::stream::Stream;
use super::user::{is_root, user};

/// How long the test waits for what it expects to see.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Pty {
    keyboard: File,
    screen: Stream,
    child: Child,
    slave: OwnedFd,
    _shared: Shared,
}

mod ioctl {
    //! The one call for which nix has no function of its own.
    #![allow(unsafe_code)]
    nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, nix::pty::Winsize);

    pub(super) fn resize(fd: i32, size: &nix::pty::Winsize) {
        // SAFETY: the descriptor is open for the length of the call, and the kernel only reads the size.
        unsafe { set_window_size(fd, size) }.unwrap();
    }
}

impl Pty {
    /// Starts the command as the leader of a session whose terminal is a new one of 24 by 80.
    pub fn start(run: Run) -> Self {
        Pty::sized(run, 24, 80)
    }

    /// As `start`, with a terminal of that size.
    pub fn sized(run: Run, rows: u16, columns: u16) -> Self {
        let shared = Shared::take();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        if is_root() {
            let (uid, gid) = (Uid::from_raw(user().uid), Gid::from_raw(user().gid));
            fchown(slave.as_fd(), Some(uid), Some(gid)).unwrap();
        }
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let run = run.env("TERM", "xterm").wrapped_in("setsid", &["--ctty"]);
        let child = run.command().stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let keyboard = File::from(master);
        let screen = Stream::collect(keyboard.try_clone().unwrap());
        Pty { keyboard, screen, child, slave, _shared: shared }
    }

    /// An interactive bash with job control and the prompt `$ `, which is there on return.
    pub fn shell() -> Self {
        let shell = Run::bash("")
            .env("PS1", "outer> ")
            .env("BASH_SILENCE_DEPRECATION_WARNING", "1")
            .replace_arguments(&["--norc", "--noprofile", "--noediting", "-i"]);
        let mut pty = Pty::start(shell);
        pty.expect("outer> ");
        pty
    }

    pub fn write(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Types a line.
    pub fn line(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Waits for the text on the screen, after what was expected before.
    pub fn expect(&mut self, pattern: &str) -> String {
        self.screen.expect(pattern, PATIENCE)
    }

    /// Whether the text appears within a short time.
    pub fn shows(&mut self, pattern: &str, patience: Duration) -> bool {
        self.screen.wait_for(pattern, patience).is_some()
    }

    pub fn screen(&self) -> String {
        self.screen.text()
    }

    pub fn resize(&mut self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        ioctl::resize(self.keyboard.as_raw_fd(), &size);
    }

    /// The terminal's settings, to compare before and after.
    pub fn settings(&self) -> nix::sys::termios::Termios {
        nix::sys::termios::tcgetattr(&self.slave).unwrap()
    }

    /// Waits for the end of the command.
    pub fn wait(mut self) -> ExitStatus {
        self.wait_here()
    }

    /// Waits for the end of the command; how it ended, and all that was written to the screen.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = self.wait_here();
        // What was written is read by another thread.
        std::thread::sleep(Duration::from_millis(100));
        (status, self.screen())
    }

    fn wait_here(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        match wait_until(&mut self.child, deadline) {
            Some(status) => status,
            None => panic!("did not end in time; the screen:\n{}", self.screen()),
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}
