//! Who works on a node: one thread at a time changes where it is.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// The nodes that are being copied up, renamed or removed.
#[derive(Default)]
pub(super) struct Busy {
    nodes: Mutex<HashSet<u64>>,
    changed: Condvar,
}

/// Held as long as a thread works on some nodes.
pub(super) struct Held<'a> {
    busy: &'a Busy,
    nodes: Vec<u64>,
}

impl Busy {
    /// Waits until nobody works on any of the nodes, and takes them, all at once: who waits for some
    /// holds none.
    pub(super) fn take(&self, nodes: &[u64]) -> Held<'_> {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        // Nothing panics while it is held.
        let mut taken = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        while nodes.iter().any(|node| taken.contains(node)) {
            taken = self.changed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.extend(&nodes);
        Held { busy: self, nodes }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut taken = self.busy.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for node in &self.nodes {
            taken.remove(node);
        }
        drop(taken);
        self.busy.changed.notify_all();
    }
}
