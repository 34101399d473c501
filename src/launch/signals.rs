//! What casemate hears of signals while a box runs: a descriptor for those that it passes on, and a
//! timer.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;
use nix::sys::signal::{SigEvent, SigSet, SigevNotify, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::error::{During, Result};

/// Signals that are passed on to the program. SIGTTIN and SIGTTOU keep their meaning for casemate
/// itself, in the background of a shell; SIGPIPE and faults are its own.
const FORWARDED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Signals that end a program which does nothing about them.
pub(super) const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// How long poll(2) may wait for signals and all else: without an end where there is no time at which
/// something has to be done.
pub(super) fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up, so that the deadline has passed when poll returns.
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

/// Blocks them, and opens the descriptor that they are read from.
pub(super) fn block() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in FORWARDED {
        set.add(signal);
    }
    set.thread_block().during("block", "signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .during("make", "a signal descriptor")
}

/// A timer that continues this process at a time; gone when dropped.
pub(super) fn wake_at(deadline: Instant) -> Result<Timer> {
    let event = SigevNotify::SigevSignal { signal: Signal::SIGCONT, si_value: 0 };
    let mut timer =
        Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(event)).during("make", "a timer")?;
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    timer
        .set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())
        .during("set", "a timer")?;
    Ok(timer)
}
