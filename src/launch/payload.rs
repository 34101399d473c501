//! The program's process, from the fork to execve(2): what only it gets, in the order in which the
//! kernel takes the means away. Seccomp is last.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Pid, setpgid, setsid, tcsetpgrp};

use super::handover::Inherited;
use super::message::Channel;
use crate::confine::rlimits;
use crate::error::{During, Error, Exit, Result};
use crate::sandbox::{Program, Sandbox};
use crate::sys::fs::{self, Resolve};
use crate::sys::{clone, process, seccomp};

/// Becomes the program. Never returns: what fails is told to the supervisor.
pub(super) fn run(sandbox: &Sandbox, inherited: Inherited, terminal: Option<OwnedFd>) -> ! {
    let Inherited { filter, channel, .. } = inherited;
    match become_program(sandbox, filter, &channel, terminal) {
        Ok(never) => match never {},
        Err(error) => channel.fail(&error),
    }
}

fn become_program(
    sandbox: &Sandbox,
    filter: Option<Vec<seccomp::Instruction>>,
    channel: &Channel,
    terminal: Option<OwnedFd>,
) -> Result<Infallible> {
    match &terminal {
        Some(slave) => take_terminal(&sandbox.program, slave)?,
        // Away from the caller's terminal: nothing can be pushed into its input (CVE-2017-5226).
        None => setsid().during("start", "a session").map(drop)?,
    }
    drop(terminal);
    // The dispositions are the defaults since the first step; the mask is PID 1's.
    SigSet::empty().thread_set_mask().during("reset", "the signal mask")?;
    process::reset_personality().during("reset", "the personality")?;
    for limit in &sandbox.rlimits {
        rlimits::apply(limit)?;
    }
    enter(&sandbox.program.workdir)?;
    process::set_no_new_privs().during("set", "no_new_privs")?;
    if let Some(labels) = &sandbox.lsm {
        labels.on_exec()?;
    }
    if let Some(rules) = &sandbox.landlock {
        rules.apply()?;
    }
    let program = Prepared::new(&sandbox.program)?;
    // The way to the supervisor goes at execve(2); nothing else is open beyond the three.
    clone::close_all_but(&[channel.fd().as_raw_fd()]).during("close", "descriptors")?;
    if let Some(filter) = &filter {
        seccomp::load(filter).during("load", "the seccomp filter")?;
    }
    program.execute()
}

/// The foreground process group of the box's terminal is the program's own, with PID 1 as the
/// leader of the session: so Ctrl-Z stops the program although no shell runs it.
fn take_terminal(program: &Program, slave: &OwnedFd) -> Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).during("make", "a process group")?;
    // A background process that takes the terminal is stopped by SIGTTOU, unless it blocks that.
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ttou), None).during("block", "SIGTTOU")?;
    tcsetpgrp(slave, nix::unistd::getpid()).during("take", "the terminal")?;
    for (number, on_terminal) in (0..).zip(program.terminal) {
        if on_terminal {
            clone::place_at(slave.as_fd(), number).during("put in place", "the terminal")?;
        }
    }
    Ok(())
}

fn enter(workdir: &Path) -> Result<()> {
    // No magic links: /proc/self/fd/N would lead to whatever is open (CVE-2024-21626).
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = fs::openat2(fs::cwd(), workdir, flags, 0, Resolve::Ordinary)
        .at("enter workdir", workdir)
        .map_err(|error| {
            error.hint("--workdir names a directory in the box; --volume brings one in")
        })?;
    nix::unistd::fchdir(&directory).at("enter workdir", workdir)?;
    let cwd = nix::unistd::getcwd().at("enter workdir", workdir)?;
    if !cwd.is_absolute() {
        return Err(Error::new(format!("enter workdir {}: outside the root", workdir.display())));
    }
    Ok(())
}

/// Raises the score that the out-of-memory killer goes by, for the whole box: it goes before the
/// user's own programs (proc_pid_oom_score_adj(5)). Anyone may raise their own.
pub(super) fn make_likelier_oom_victim() -> Result<()> {
    let path = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(path).at("read", path)?;
    let now: i32 = now.trim().parse().unwrap_or(0);
    std::fs::write(path, (now + 100).min(1000).to_string()).at("write", path)
}

/// The program with all that execve(2) takes, so that nothing is allocated behind the filter.
struct Prepared {
    argv: Vec<CString>,
    environment: Vec<CString>,
    candidates: Vec<CString>,
}

impl Prepared {
    fn new(program: &Program) -> Result<Prepared> {
        let c_string = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| Error::new("run: an argument holds a NUL byte"))
        };
        let argv = program
            .argv
            .iter()
            .map(|word| c_string(word.as_bytes()))
            .collect::<Result<Vec<_>>>()?;
        let environment = program
            .environment
            .iter()
            .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
            .collect::<Result<Vec<_>>>()?;
        let command = program.argv.first().map(|word| word.as_os_str()).unwrap_or_default();
        let candidates = candidates(command, program)
            .iter()
            .map(|path| c_string(path))
            .collect::<Result<Vec<_>>>()?;
        Ok(Prepared { argv, environment, candidates })
    }

    /// Tries each place in turn, as execvp(3) does. Not for a script without `#!`: guessing a shell
    /// is the shell's business.
    fn execute(&self) -> Result<Infallible> {
        let mut worst = libc::ENOENT;
        let mut at = self.candidates.first();
        for candidate in &self.candidates {
            let Err(error) = process::execute(candidate, &self.argv, &self.environment);
            match error.raw_os_error().unwrap_or(libc::EIO) {
                libc::ENOENT | libc::ENOTDIR if !is_there(candidate) => {}
                errno => {
                    worst = errno;
                    at = Some(candidate);
                    // Only a refusal lets the search go on; anything else is about this file.
                    if errno != libc::EACCES {
                        break;
                    }
                }
            }
        }
        Err(self.failure(worst, at))
    }

    fn failure(&self, errno: i32, at: Option<&CString>) -> Error {
        let name = self.argv.first().map(show).unwrap_or_default();
        let errno = nix::errno::Errno::from_raw(errno);
        match errno {
            nix::errno::Errno::ENOENT if at.is_some_and(is_there) => {
                Error::os("execute", &name, errno).exit(Exit::NotFound).hint(
                    "the file is there; its interpreter (the #! line) or its dynamic loader is not in the box",
                )
            }
            nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR => {
                let error = if name.contains('/') {
                    Error::os("execute", &name, errno)
                } else {
                    Error::new(format!("execute {name}: command not found"))
                        .hint("none of the directories in the box's PATH has it")
                };
                error.exit(Exit::NotFound)
            }
            _ => {
                let error = Error::os("execute", &name, errno).exit(Exit::CannotExecute);
                match errno {
                    nix::errno::Errno::ENOEXEC => {
                        error.hint("not a program for this machine, or a script without a #! line")
                    }
                    nix::errno::Errno::EACCES => error.hint(
                        "the file is a directory, lacks its execute bit, or lies on a noexec mount",
                    ),
                    _ => error,
                }
            }
        }
    }
}

fn is_there(path: &CString) -> bool {
    nix::sys::stat::lstat(path.as_c_str()).is_ok()
}

fn show(word: &CString) -> String {
    crate::text::plain(word.as_bytes())
}

/// Where the command may be: itself where it has a slash, else in each directory of the box's PATH.
fn candidates(command: &OsStr, program: &Program) -> Vec<Vec<u8>> {
    if command.as_bytes().contains(&b'/') {
        return vec![command.as_bytes().to_vec()];
    }
    let path = program.environment.iter().find(|(name, _)| name == "PATH");
    let path = path.map(|(_, value)| value.as_bytes()).unwrap_or_default();
    path.split(|byte| *byte == b':')
        .map(|directory| {
            // An empty entry is the working directory (environ(7)).
            let directory = if directory.is_empty() { b"." } else { directory };
            [directory, b"/", command.as_bytes()].concat()
        })
        .collect()
}
