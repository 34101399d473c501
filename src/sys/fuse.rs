//! /dev/fuse, the kernel's end of a file system in a process (fuse(4)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::check;
use super::fs::{Resolve, cwd, openat2};

/// `_IOR(229, 0, uint32_t)` (linux/fuse.h).
pub const FUSE_DEV_IOC_CLONE: u32 = 0x8004_e500;

/// Opens the device. The mount that will use it must be made in the same user namespace.
pub fn open_device() -> io::Result<OwnedFd> {
    openat2(cwd(), "/dev/fuse", libc::O_RDWR, 0, Resolve::NoSymlinks)
}

/// Binds a device that was just opened to the connection of another one (FUSE_DEV_IOC_CLONE, Linux
/// 4.2): requests come through either. Before Linux 5.12 both must come from one user namespace.
pub fn clone_device(of: impl AsFd, into: impl AsFd) -> io::Result<()> {
    let number = of.as_fd().as_raw_fd();
    // SAFETY: the call reads a number of 32 bits, which is live.
    check(unsafe {
        libc::ioctl(into.as_fd().as_raw_fd(), FUSE_DEV_IOC_CLONE as _, &raw const number)
    })
}
