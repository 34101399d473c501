//! Mounting: the kernel's side of the file system.

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
