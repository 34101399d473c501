//! Mounting: the kernel's side of the file system.
//!
//! Boxes of one user over the same layers can have one server (tests/lowers, Linux 6.18). Someone
//! keeps the mount attached in a user and a mount namespace of its own, and passes each box a clone of
//! it, `open_tree(OPEN_TREE_CLONE)`, as a descriptor. What the kernel then allows to a box in another
//! user namespace:
//!
//! * attaching such a clone with move_mount(2), once; the mount itself, which is attached elsewhere,
//!   is refused (`EINVAL`), and so is a clone that another box has attached: a clone for each box;
//! * overlayfs over it when it is attached in the box's own mount namespace. While it is detached,
//!   Linux 6.16 and newer refuse it as a layer (`EPERM`; it belongs to the namespace that made it,
//!   CVE-2025-38499). Once the overlay is mounted it has a clone of its own, and the other is
//!   detached again;
//! * reading through it, by processes whose ids are [`Mounting::uid`] and [`Mounting::gid`] outside of
//!   all namespaces: those of a box with one id, and overlayfs, which reads as who mounted it. With
//!   `for_all` it is the reverse: only the keeper's own namespace and those below may. Boxes with many
//!   ids have a server each, or one below a keeper's namespace.
//!
//! Such an overlay wants the option `xino=on`: its layers are on two file systems, and without it
//! readdir(3) and stat(2) disagree on inode numbers once a file was copied up.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::sys::mount::{Attributes, Context};

/// How it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mounting {
    /// Who mounts it, in the user namespace of the caller. Unless it is `for_all`, the kernel admits
    /// only processes whose real, effective and saved ids are these, whatever the permissions say.
    pub uid: u32,
    /// The group, with the same meaning.
    pub gid: u32,
    /// Everybody in the caller's user namespace and those below it is admitted (`allow_other`). For
    /// boxes with many ids.
    pub for_all: bool,
    /// Nothing is ever written.
    pub read_only: bool,
}

/// Makes a mount, attached nowhere yet, whose requests come through `device`, a /dev/fuse that was
/// opened in this user namespace (the kernel demands that: `EINVAL` otherwise). It needs
/// `CAP_SYS_ADMIN` there. The kernel checks permissions by the attributes that the server tells.
///
/// The first request is under way when this returns; others wait until it is answered. They fail
/// with `ENOTCONN` once nobody has the device open any more, so that the caller must close it when
/// the server has it.
pub fn mount(device: impl AsFd, how: &Mounting) -> io::Result<OwnedFd> {
    let context = Context::open(c"fuse")?;
    let set = |key: &CStr, value: String| {
        let value = CString::new(value).map_err(|_| io::ErrorKind::InvalidInput)?;
        context.set(key, &value)
    };
    context.set(c"source", c"casemate")?;
    context.set(c"subtype", c"casemate")?;
    set(c"fd", device.as_fd().as_raw_fd().to_string())?;
    set(c"rootmode", format!("{:o}", libc::S_IFDIR))?;
    set(c"user_id", how.uid.to_string())?;
    set(c"group_id", how.gid.to_string())?;
    context.flag(c"default_permissions")?;
    if how.for_all {
        context.flag(c"allow_other")?;
    }
    if how.read_only {
        context.flag(c"ro")?;
    }
    context.mount(Attributes::SAFE.and_if(how.read_only, Attributes::RDONLY))
}
