//! Every unsafe line of casemate: thin, safe wrappers over system calls, on owned or borrowed
//! descriptors and C strings. Nothing here knows what a sandbox is.
#![allow(unsafe_code)]

pub mod channel;
pub mod clone;
pub mod extents;
pub mod fs;
pub mod fuse;
pub mod map;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod seccomp;
pub mod tree;
pub mod tty;

use std::io;
use std::os::fd::OwnedFd;

/// The result of a call that returns -1 and sets errno.
fn check(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The result of a call that returns a new descriptor, or -1 and errno.
fn check_fd(result: i64) -> io::Result<OwnedFd> {
    check(result)?;
    // A descriptor is an int; the kernel returns no other value here.
    Ok(fs::own(result as i32))
}
