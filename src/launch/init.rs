//! PID 1 of the box: starts the program, reaps whatever is left to it, tells how the program ended,
//! and ends with it; the kernel then ends everything else in the PID namespace. It holds no
//! capability, no file but the way to the supervisor, reads nothing that comes from the box, and
//! cannot be traced or looked into.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::handover::Inherited;
use super::message::{Channel, Message};
use super::payload;
use crate::confine::capabilities;
use crate::error::{During, Result};
use crate::sandbox::Sandbox;
use crate::sys::clone::{self, Change, Forked};
use crate::sys::{process, seccomp};

/// Forks the program off and stays. Never returns.
pub(super) fn run(sandbox: &Sandbox, inherited: Inherited, terminal: Option<OwnedFd>) -> ! {
    let result = prepare().and_then(|signals| {
        let forked = clone::clone3(0).during("start", "the program's process")?;
        Ok((signals, forked))
    });
    match result {
        Ok((_, Forked::Child)) => payload::run(sandbox, inherited, terminal),
        Ok((signals, Forked::Parent(child))) => {
            drop(terminal);
            let Inherited { channel, init_filter, .. } = inherited;
            match confine(child, &channel, &signals, &init_filter) {
                Ok(program) => clone::exit_now(watch(program, &channel, &signals)),
                Err(error) => channel.fail(&error),
            }
        }
        Err(error) => inherited.channel.fail(&error),
    }
}

/// What has to hold before the program can exist: it must never find a PID 1 that it may trace.
fn prepare() -> Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().during("block", "SIGCHLD")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .during("make", "a signal descriptor")?;
    process::set_undumpable().during("make undumpable", "PID 1")?;
    Ok(signals)
}

fn confine(
    child: clone::Child,
    channel: &Channel,
    signals: &SignalFd,
    filter: &[seccomp::Instruction],
) -> Result<Pid> {
    channel.send(&Message::Started, Some(child.pidfd.as_fd()))?;
    let program = child.pid;
    drop(child);
    // Nothing it does needs a capability, whatever the program keeps.
    capabilities::drop_own()?;
    process::set_no_new_privs().during("set", "no_new_privs")?;
    let null = std::fs::File::open("/dev/null").at("open", "/dev/null")?;
    for number in 0..3 {
        clone::place_at(null.as_fd(), number).during("close", "standard streams")?;
    }
    drop(null);
    // What the supervisor held open for the plan came along with the clone.
    let mut kept = [channel.fd().as_raw_fd(), signals.as_fd().as_raw_fd()];
    kept.sort_unstable();
    clone::close_all_but(&kept).during("close", "descriptors")?;
    // Asked for again: a change of credentials may have cleared it (prctl(2)).
    process::set_parent_death_signal(libc::SIGKILL).during("set", "the parent death signal")?;
    seccomp::load(filter).during("load", "the filter of PID 1")?;
    Ok(program)
}

/// Reaps until the program has ended; returns the exit code of PID 1, which nobody reads.
fn watch(program: Pid, channel: &Channel, signals: &SignalFd) -> i32 {
    let mut fds = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(channel.fd(), PollFlags::empty()),
    ];
    loop {
        // A child that ended before the signal was looked at is found by the first round.
        while let Ok(Some((pid, change))) = clone::reap() {
            if pid != program {
                continue;
            }
            let message = match change {
                Change::Exited(code) => Message::Exited(code),
                Change::Killed(signal) => Message::Killed(signal),
                Change::Stopped => {
                    // A supervisor that is gone takes PID 1 along; nothing is left to be told.
                    let _supervisor_gone = channel.send(&Message::Stopped, None);
                    continue;
                }
            };
            let _supervisor_gone = channel.send(&message, None);
            return 0;
        }
        if poll(&mut fds, PollTimeout::NONE).is_ok() {
            // The second net beside the parent death signal.
            if fds[1].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
                return 0;
            }
            while let Ok(Some(_)) = signals.read_signal() {}
        }
    }
}
