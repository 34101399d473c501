//! Answers that have to wait until the kernel has dropped pages.
//!
//! Telling the kernel waits for pages that another program has just asked this server for. So no
//! more than one thread is at it at any time, and whoever comes meanwhile leaves the answer to that
//! one: the others go on serving, and there is always one (see [`super::server`]).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wire::Stale;

/// The answers that wait. Behind each is a program that waits for it, so there are no more of them
/// than threads in the box.
#[derive(Default)]
pub(super) struct Notices {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Notice>,
    /// A thread is at them.
    is_tended: bool,
}

/// An answer, and what is to be dropped before.
pub(super) struct Notice {
    pub(super) stale: Stale,
    pub(super) answer: Box<[u8]>,
    /// Where the request came from: an answer goes nowhere else.
    pub(super) device: Arc<OwnedFd>,
}

impl Notices {
    /// Leaves an answer here. True says that the caller is to go on with [`next`](Self::next) until
    /// there is none.
    pub(super) fn add(&self, notice: Notice) -> bool {
        let mut queue = self.lock();
        queue.waiting.push_back(notice);
        !std::mem::replace(&mut queue.is_tended, true)
    }

    /// The answer that has waited longest.
    pub(super) fn next(&self) -> Option<Notice> {
        let mut queue = self.lock();
        let next = queue.waiting.pop_front();
        queue.is_tended = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::memfd;

    #[test]
    fn one_thread_tends_to_all_that_wait_and_the_next_one_begins_anew() {
        let notices = Notices::default();
        let device = Arc::new(memfd(c"device").unwrap());
        let notice = |node| Notice {
            stale: Stale { node, offset: 0, length: 1 },
            answer: [].into(),
            device: Arc::clone(&device),
        };
        assert!(notices.add(notice(1)));
        assert!(!notices.add(notice(2)));
        let node = |next: Option<Notice>| next.map(|notice| notice.stale.node);
        assert_eq!(node(notices.next()), Some(1));
        assert!(!notices.add(notice(3)));
        assert_eq!((node(notices.next()), node(notices.next())), (Some(2), Some(3)));
        assert_eq!(node(notices.next()), None);
        assert!(notices.add(notice(4)));
    }
}
