//! The caller's terminal and the box's: bytes go to and fro, and nothing else. The program never
//! holds a descriptor of the caller's terminal, so that no ioctl of its reaches it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr,
};
use nix::unistd::{read, write};

use crate::error::{During, Error, Result};
use crate::sys::tty;

/// One direction's bytes in between; a terminal's own buffer holds 4096.
const BUFFER: usize = 16384;

/// The master side of the box's terminal, between the caller's standard input and output.
pub(super) struct Relay {
    master: OwnedFd,
    /// The other side, so that the terminal lasts while no process of the box has it open: one may
    /// open it again. That the box has ended is known otherwise.
    _slave: OwnedFd,
    /// The caller's terminal as it was, if standard input is one.
    before: Option<Termios>,
    to_box: Pending,
    to_caller: Pending,
    input_open: bool,
}

/// Bytes that were read and not yet written.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    done: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    fn fill(&mut self, from: BorrowedFd<'_>) -> nix::Result<usize> {
        self.bytes.resize(BUFFER, 0);
        self.done = 0;
        let result = read(from, &mut self.bytes);
        self.bytes.truncate(result.unwrap_or(0));
        result
    }

    /// One write of what a pipe that polls as writable takes without waiting (pipe(7), PIPE_BUF).
    fn write_some(&mut self, to: BorrowedFd<'_>) -> Result<()> {
        let end = self.bytes.len().min(self.done + libc::PIPE_BUF);
        match write(to, &self.bytes[self.done..end]) {
            Ok(count) => self.done += count,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(Error::os("write to", "standard output", error)),
        }
        Ok(())
    }

    fn flush(&mut self, to: BorrowedFd<'_>) -> nix::Result<()> {
        while !self.is_empty() {
            match write(to, &self.bytes[self.done..]) {
                Ok(count) => self.done += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Relay {
    pub(super) fn start(master: OwnedFd) -> Result<Relay> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .during("set up", "the pseudo-terminal")?;
        let slave = tty::peer(&master).during("open", "the pseudo-terminal")?;
        let mut relay = Relay {
            master,
            _slave: slave,
            before: tcgetattr(io::stdin()).ok(),
            to_box: Pending::default(),
            to_caller: Pending::default(),
            input_open: true,
        };
        relay.copy_window_size();
        relay.take_over()?;
        Ok(relay)
    }

    /// Gives every key to the box: its own terminal makes lines and signals of them.
    pub(super) fn take_over(&mut self) -> Result<()> {
        if let Some(before) = self.before.as_ref().filter(|_| is_in_foreground()) {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).during("set up", "the terminal")?;
            self.copy_window_size();
        }
        Ok(())
    }

    /// The caller's terminal as it was.
    pub(super) fn restore(&mut self) {
        if let Some(before) = self.before.as_ref().filter(|_| is_in_foreground()) {
            // A terminal that has gone away needs no settings.
            let _hung_up = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }

    pub(super) fn copy_window_size(&self) {
        let size = tty::window_size(io::stdin()).or_else(|_| tty::window_size(io::stdout()));
        if let Ok(size) = size {
            // The box's terminal exists as long as its master side; a size cannot be refused.
            let _always_taken = tty::set_window_size(&self.master, size);
        }
    }

    /// What is worth waiting for: the master side, standard input, standard output. A descriptor
    /// that nothing is wanted of is not polled, or its hang-up would wake us for ever.
    fn wanted(&self) -> [PollFlags; 3] {
        let want = |condition: bool, flag: PollFlags| {
            if condition { flag } else { PollFlags::empty() }
        };
        let readable = want(self.to_caller.is_empty(), PollFlags::POLLIN);
        let writable = want(!self.to_box.is_empty(), PollFlags::POLLOUT);
        [
            readable | writable,
            want(self.input_open && self.to_box.is_empty(), PollFlags::POLLIN),
            want(!self.to_caller.is_empty(), PollFlags::POLLOUT),
        ]
    }

    /// Adds it to a poll; `transfer` gets the answers in the same order.
    pub(super) fn interests<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let all = [self.master.as_fd(), STDIN.as_fd(), STDOUT.as_fd()];
        for (fd, wanted) in all.into_iter().zip(self.wanted()) {
            if !wanted.is_empty() {
                fds.push(PollFd::new(fd, wanted));
            }
        }
    }

    /// Moves what can be moved without waiting.
    pub(super) fn transfer(&mut self, ready: &[bool]) -> Result<()> {
        let mut answers = ready.iter().copied();
        let [master_ready, input_ready, output_ready] =
            self.wanted().map(|wanted| !wanted.is_empty() && answers.next().unwrap_or(false));
        if input_ready {
            match self.to_box.fill(STDIN.as_fd()) {
                Ok(0) | Err(Errno::EIO) => self.end_of_input(),
                Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(error) => return Err(Error::os("read", "standard input", error)),
            }
        }
        self.to_box.flush(self.master.as_fd()).during("write to", "the pseudo-terminal")?;
        if master_ready && self.to_caller.is_empty() {
            match self.to_caller.fill(self.master.as_fd()) {
                Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(error) => return Err(Error::os("read", "the pseudo-terminal", error)),
            }
        }
        // Only what surely finds room: a reader that is stuck must not stop the supervisor.
        if output_ready { self.to_caller.write_some(STDOUT.as_fd()) } else { Ok(()) }
    }

    /// The end of a piped input is the end-of-file character to a program at a terminal.
    fn end_of_input(&mut self) {
        self.input_open = false;
        let end = tcgetattr(&self.master)
            .map_or(4, |settings| settings.control_chars[SpecialCharacterIndices::VEOF as usize]);
        self.to_box = Pending { bytes: vec![end], done: 0 };
    }

    /// Passes on what the program wrote last, for as long as somebody reads it; `hurry` gives a
    /// reader one second, and a signal to casemate ends the waiting.
    pub(super) fn drain(&mut self, signals: BorrowedFd<'_>, hurry: bool) -> Result<()> {
        let patience = if hurry { PollTimeout::from(1000u16) } else { PollTimeout::NONE };
        loop {
            while !self.to_caller.is_empty() {
                let mut fds = [
                    PollFd::new(STDOUT.as_fd(), PollFlags::POLLOUT),
                    PollFd::new(signals, PollFlags::POLLIN),
                ];
                poll(&mut fds, patience).during("wait for", "standard output")?;
                let is_ready =
                    |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
                // A reader that went away needs nothing more.
                if !is_ready(&fds[0]) || self.to_caller.write_some(STDOUT.as_fd()).is_err() {
                    return Ok(());
                }
            }
            match self.to_caller.fill(self.master.as_fd()) {
                Ok(count) if count > 0 => {}
                _ => return Ok(()),
            }
        }
    }
}

/// Whether the caller's terminal is ours to set: in the background it would stop us (SIGTTOU), and
/// the settings are those of whoever is in the foreground.
fn is_in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Standard input, as something that can be borrowed for as long as a poll takes.
static STDIN: std::sync::LazyLock<io::Stdin> = std::sync::LazyLock::new(io::stdin);
/// Standard output, likewise; its buffer is not used.
static STDOUT: std::sync::LazyLock<io::Stdout> = std::sync::LazyLock::new(io::stdout);
