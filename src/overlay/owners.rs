//! Whose the files are, as the box sees them.

/// How owners of the image become those of the mount. Ids are those of the mount's user namespace;
/// one that it does not have shows as the overflow id (65534).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// All files belong to this user and group: for a box with one id.
    All(u32, u32),
    /// They belong to whom the image says: for a box with many ids.
    Image,
}

impl Owners {
    /// The owner to show for one of the image.
    pub fn show(self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            Owners::All(uid, gid) => (uid, gid),
            Owners::Image => (uid, gid),
        }
    }
}
