//! A box's writable layer on disk, for as long as the box runs.

use std::path::Path;

use super::Store;
use super::staging::Staging;
use crate::error::Result;

/// A directory among those of imports under way: locked by its process, removed at its end, and,
/// where that was a crash, by the next command that writes to the store.
pub struct Scratch(Staging);

impl Scratch {
    /// Makes one.
    pub fn create(data_home: &Path) -> Result<Scratch> {
        Staging::new(&Store::open(data_home)?).map(Scratch)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
