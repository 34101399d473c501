//! Who of the server's threads reads requests. One does as long as it keeps up: what a request costs
//! is above all waking a thread on another processor, and one that looks for the next request a while
//! longer before it sleeps needs no waking. The others take a turn when requests are waiting while it
//! works, or when one takes it long: a disk may have to be asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many requests that were there already when the one before was answered say that one thread is
/// not enough.
const BEHIND: u32 = 4;

/// How long a request may take before another thread stands in.
const LONG: Duration = Duration::from_millis(1);

/// What the threads know of each other.
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
    /// Since when the first thread has been at one request, in nanoseconds since `start`; 0 while it
    /// is at none.
    busy_since: AtomicU64,
    start: Instant,
}

#[derive(Default)]
struct State {
    /// The first thread does not sleep.
    is_awake: bool,
    /// How many are wanted besides.
    wanted: u32,
    has_ended: bool,
}

/// What a thread that is not the first one is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Read,
    End,
}

impl Turns {
    pub(super) fn new() -> Self {
        Turns {
            state: Mutex::default(),
            changed: Condvar::new(),
            busy_since: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// The first thread sleeps from now on, or does no longer.
    pub(super) fn awake(&self, is_awake: bool) {
        self.lock().is_awake = is_awake;
        if is_awake {
            self.changed.notify_all();
        }
    }

    /// The first thread begins with a request.
    pub(super) fn begin(&self, at_once: u32) {
        self.busy_since.store(self.now(), Ordering::Relaxed);
        if at_once != 0 && at_once.is_multiple_of(BEHIND) {
            self.lock().wanted += 1;
            self.changed.notify_one();
        }
    }

    /// It is through with it.
    pub(super) fn done(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// Whether it has been at one request for as long as that.
    pub(super) fn is_late(&self, patience: Duration) -> bool {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => false,
            since => u128::from(self.now().saturating_sub(since)) >= patience.as_nanos(),
        }
    }

    /// Waits until a thread is wanted besides the first. `rank` is its number, from 1: the higher, the
    /// later it looks after the first.
    pub(super) fn wait(&self, rank: u32) -> Turn {
        let patience = LONG * rank;
        let mut state = self.lock();
        loop {
            if state.has_ended {
                return Turn::End;
            }
            if state.wanted > 0 {
                state.wanted -= 1;
                return Turn::Read;
            }
            state = if state.is_awake {
                if self.is_late(patience) {
                    return Turn::Read;
                }
                let waited = self.changed.wait_timeout(state, patience);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Nobody needs to wait any more.
    pub(super) fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    fn now(&self) -> u64 {
        // Never 0, which has its own meaning; 500 years fit.
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn others_take_turns_when_the_first_is_behind_or_late_and_end_with_it() {
        let turns = Turns::new();
        thread::scope(|scope| {
            let other = scope.spawn(|| [turns.wait(1), turns.wait(1), turns.wait(1)]);
            turns.awake(true);
            for at_once in 0..=BEHIND {
                turns.begin(at_once);
                turns.done();
            }
            // The one request that is never done.
            turns.begin(0);
            while !turns.is_late(LONG * 20) {
                thread::yield_now();
            }
            turns.end();
            let [first, second, _] = other.join().unwrap();
            assert_eq!((first, second), (Turn::Read, Turn::Read));
        });
        assert_eq!(turns.wait(2), Turn::End);
    }
}
