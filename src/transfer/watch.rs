//! Who watches a transfer.

use crate::image::Digest;

/// Told how a transfer goes, by several threads. Layers are counted from 0 in the order in which
/// they are listed at the beginning.
pub trait Watch: Sync {
    /// These layers are going to be transferred, of so many bytes each. `present` others are there.
    fn begin(&self, layers: &[(Digest, u64)], present: usize);
    /// More bytes of a layer have gone over.
    fn moved(&self, layer: usize, bytes: u64);
    /// A layer is complete, verified and in its place.
    fn done(&self, layer: usize);
}

/// Nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {
    fn begin(&self, _: &[(Digest, u64)], _: usize) {}
    fn moved(&self, _: usize, _: u64) {}
    fn done(&self, _: usize) {}
}
