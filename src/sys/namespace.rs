//! What user namespaces say of themselves (ioctl_ns(2)), and the ids of this process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{check, check_fd};

/// `NS_GET_PARENT` (Linux 4.9)
const PARENT: u32 = 0xb702;
/// `NS_GET_OWNER_UID` (Linux 4.11)
const OWNER: u32 = 0xb704;

/// The user namespace that a user namespace was made in. `EPERM` where it is not one of those that
/// the caller's own is, or is above.
pub fn parent(namespace: impl AsFd) -> io::Result<OwnedFd> {
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: the request takes no argument and returns a new descriptor.
    check_fd(unsafe { libc::ioctl(fd, PARENT.into(), 0) }.into())
}

/// Who made a user namespace, as an id of the caller's own.
pub fn owner(namespace: impl AsFd) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: the request writes a uid_t, which is live.
    check(unsafe { libc::ioctl(fd, OWNER.into(), &raw mut uid) })?;
    Ok(uid)
}

/// Becomes another user of this user namespace, with these supplementary groups and no others. The
/// permitted capabilities stay, and are effective again; this process stays dumpable, as one that
/// has done nothing in another's name yet, so that its own files in /proc are its own.
pub fn become_id(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let before = super::process::capabilities()?;
    let list: Vec<libc::gid_t> = groups.to_vec();
    // SAFETY: the list is live and of the length passed.
    check(unsafe { libc::syscall(libc::SYS_setgroups, list.len(), list.as_ptr()) })?;
    super::process::set_keep_capabilities(true)?;
    // SAFETY: plain system calls on integers, for this thread, which is the only one.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    super::process::set_keep_capabilities(false)?;
    super::process::set_capabilities(before)?;
    super::process::set_dumpable()
}
