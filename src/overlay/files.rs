//! The files that are open for reading: a bounded number, the ones used last.

use std::collections::HashMap;
use std::hash::Hash;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// The most descriptors that are kept.
const MOST: usize = 4096;

/// How many descriptors are left to the rest of the process.
const SPARE: usize = 64;

/// Descriptors by key. When there are as many as may be, one that was not used for a while makes
/// room for the next (the clock algorithm: what is used gets a second chance).
pub(super) struct Files<K> {
    clock: Mutex<Clock<K>>,
    most: usize,
}

struct Clock<K> {
    places: HashMap<K, usize>,
    slots: Vec<Slot<K>>,
    hand: usize,
}

struct Slot<K> {
    key: K,
    file: Arc<OwnedFd>,
    was_used: bool,
}

impl<K: Copy + Eq + Hash> Files<K> {
    /// For as many as RLIMIT_NOFILE allows, at most some 4,000.
    pub(super) fn new() -> Result<Self, Errno> {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let soft = usize::try_from(soft).unwrap_or(usize::MAX);
        Ok(Files::of(soft.saturating_sub(SPARE).min(MOST)))
    }

    /// For at most so many.
    pub(super) fn of(most: usize) -> Self {
        let clock = Clock { places: HashMap::new(), slots: Vec::new(), hand: 0 };
        Files { clock: Mutex::new(clock), most: most.max(1) }
    }

    /// For no more than so many. Nothing is open yet.
    pub(super) fn keep_at_most(&mut self, most: usize) {
        self.most = self.most.min(most).max(1);
    }

    /// The descriptor of a key, from `open` where it is not there. It stays usable as long as it is
    /// held, whatever becomes of its place here.
    pub(super) fn get(
        &self,
        key: K,
        open: impl Fn() -> Result<OwnedFd, Errno>,
    ) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(file) = self.lock().find(key) {
            return Ok(file);
        }
        // Not under the lock: the disk may be asked. Two threads may open the same file at once,
        // and the later one's descriptor is kept.
        let file = match open() {
            // Those that are held in requests count too. Nothing else here opens files.
            Err(Errno::EMFILE | Errno::ENFILE) => {
                self.clear();
                open()?
            }
            done => done?,
        };
        let file = Arc::new(file);
        let _closed_outside_the_lock = self.lock().put(key, Arc::clone(&file), self.most);
        Ok(file)
    }

    /// The descriptor of a key, where it is there.
    pub(super) fn find(&self, key: K) -> Option<Arc<OwnedFd>> {
        self.lock().find(key)
    }

    /// Keeps a descriptor for a key.
    pub(super) fn keep(&self, key: K, file: &Arc<OwnedFd>) {
        let _closed_outside_the_lock = self.lock().put(key, Arc::clone(file), self.most);
    }

    /// Gives up the descriptor of a key; it is closed when nobody uses it any more.
    pub(super) fn give_up(&self, key: K) -> Option<Arc<OwnedFd>> {
        self.lock().remove(key)
    }

    /// Gives up all of them.
    pub(super) fn clear(&self) {
        let mut clock = self.lock();
        let slots = std::mem::take(&mut clock.slots);
        clock.places.clear();
        clock.hand = 0;
        drop(clock);
        drop(slots);
    }

    fn lock(&self) -> MutexGuard<'_, Clock<K>> {
        // Nothing in here panics.
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Clock<K> {
    fn find(&mut self, key: K) -> Option<Arc<OwnedFd>> {
        let slot = self.slots.get_mut(*self.places.get(&key)?)?;
        slot.was_used = true;
        Some(Arc::clone(&slot.file))
    }

    fn remove(&mut self, key: K) -> Option<Arc<OwnedFd>> {
        let place = self.places.remove(&key)?;
        let gone = self.slots.swap_remove(place);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.key, place);
        }
        Some(gone.file)
    }

    /// Returns what had to go.
    fn put(&mut self, key: K, file: Arc<OwnedFd>, most: usize) -> Option<Arc<OwnedFd>> {
        let slot = Slot { key, file, was_used: false };
        if let Some(taken) = self.places.get(&key).and_then(|place| self.slots.get_mut(*place)) {
            return Some(std::mem::replace(taken, slot).file);
        }
        if self.slots.len() < most {
            self.places.insert(key, self.slots.len());
            self.slots.push(slot);
            return None;
        }
        loop {
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            // The second round finds no mark left.
            let under_hand = self.slots.get_mut(self.hand)?;
            if !std::mem::take(&mut under_hand.was_used) {
                let gone = std::mem::replace(under_hand, slot);
                self.places.remove(&gone.key);
                self.places.insert(key, self.hand);
                return Some(gone.file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::memfd;
    use std::cell::Cell;

    #[test]
    fn what_is_used_stays_and_the_number_is_bounded() {
        let files = Files::of(8);
        let opened = Cell::new(0);
        let get = |key: u32| {
            files.get(key, || {
                opened.set(opened.get() + 1);
                memfd(c"file").map_err(|_| Errno::EIO)
            })
        };
        get(0).unwrap();
        for key in 1..100 {
            get(key).unwrap();
            get(0).unwrap();
        }
        assert_eq!(opened.get(), 100);
        let clock = files.lock();
        assert_eq!((clock.slots.len(), clock.places.len()), (8, 8));
        for (key, place) in &clock.places {
            assert_eq!(clock.slots[*place].key, *key);
        }
    }

    #[test]
    fn without_descriptors_the_kept_ones_go() {
        let files = Files::of(8);
        for key in 0..8 {
            files.get(key, || memfd(c"file").map_err(|_| Errno::EIO)).unwrap();
        }
        let first = Cell::new(true);
        let open = || match first.replace(false) {
            true => Err(Errno::EMFILE),
            false => memfd(c"file").map_err(|_| Errno::EIO),
        };
        files.get(9, open).unwrap();
        assert_eq!(files.lock().slots.len(), 1);
        assert_eq!(files.get(10, || Err(Errno::EACCES)).unwrap_err(), Errno::EACCES);
    }
}
