//! Which root file system a box gets, and why.

pub mod host;

use serde::Serialize;

use crate::profile;

/// Where writes to an image's root go until the box ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scratch {
    /// A tmpfs in the box's own mount namespace.
    Memory,
    /// A directory below the store.
    Disk,
}

/// Chooses between them. A tmpfs can hold the upper layer only where it keeps `user.*` attributes
/// (Linux 6.6): overlayfs marks a directory that was made anew as opaque with one.
pub fn scratch(asked: profile::Scratch, tmpfs_xattrs: bool) -> (Scratch, &'static str) {
    match (asked, tmpfs_xattrs) {
        (profile::Scratch::Disk, _) => (Scratch::Disk, "asked for"),
        (profile::Scratch::Memory, _) => (Scratch::Memory, "asked for"),
        (profile::Scratch::Auto, true) => {
            (Scratch::Memory, "this kernel's tmpfs can hold an upper layer")
        }
        (profile::Scratch::Auto, false) => {
            (Scratch::Disk, "this kernel's tmpfs cannot hold an upper layer (Linux 6.6 can)")
        }
    }
}
