//! Changes of a tree by directory descriptor and name, where the `nix` crate has no call for them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::check;

/// renameat2(2) with its flags (`RENAME_*`).
pub fn rename(
    a: impl AsFd,
    a_name: &CStr,
    b: impl AsFd,
    b_name: &CStr,
    flags: u32,
) -> io::Result<()> {
    // SAFETY: both names are live C strings, both descriptors are borrowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            a.as_fd().as_raw_fd(),
            a_name.as_ptr(),
            b.as_fd().as_raw_fd(),
            b_name.as_ptr(),
            flags,
        )
    })
}

/// fsetxattr(2) with its flags (`XATTR_*`).
pub fn set_xattr(fd: impl AsFd, name: &CStr, value: &[u8], flags: i32) -> io::Result<()> {
    // SAFETY: the name is a live C string and the value a live slice of the length that is passed.
    check(unsafe {
        libc::fsetxattr(
            fd.as_fd().as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    })
}

/// fremovexattr(2).
pub fn remove_xattr(fd: impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a live C string.
    check(unsafe { libc::fremovexattr(fd.as_fd().as_raw_fd(), name.as_ptr()) })
}

/// ioctl(2) with FICLONE: a file gets the contents of another one, whose blocks both then share.
pub fn clone_file(to: impl AsFd, from: impl AsFd) -> io::Result<()> {
    // SAFETY: the argument is a descriptor's number, no memory is touched.
    check(unsafe {
        libc::ioctl(to.as_fd().as_raw_fd(), libc::FICLONE as _, from.as_fd().as_raw_fd())
    })
}

/// copy_file_range(2) from and to a place; how much was copied.
pub fn copy_range(
    from: impl AsFd,
    mut start: i64,
    to: impl AsFd,
    mut at: i64,
    length: usize,
) -> io::Result<usize> {
    // SAFETY: both places are live numbers, both descriptors are borrowed.
    let copied = unsafe {
        libc::copy_file_range(
            from.as_fd().as_raw_fd(),
            &raw mut start,
            to.as_fd().as_raw_fd(),
            &raw mut at,
            length,
            0,
        )
    };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

/// One entry of a directory as getdents64(2) gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Where reading goes on behind it.
    pub next: u64,
    /// `DT_*`
    pub kind: u8,
    /// The name.
    pub name: &'a [u8],
}

/// getdents64(2): fills the buffer with entries from the descriptor's position on; none at the end.
pub fn read_entries<'a>(
    directory: BorrowedFd<'_>,
    buffer: &'a mut [u8],
) -> io::Result<impl Iterator<Item = DirEntry<'a>> + use<'a>> {
    // SAFETY: the buffer is a live slice of the length passed.
    let length = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            directory.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    check(length)?;
    let mut rest: &'a [u8] = buffer.get(..length as usize).unwrap_or_default();
    Ok(std::iter::from_fn(move || {
        // struct linux_dirent64: d_ino, d_off, d_reclen, d_type, d_name.
        let ino = u64::from_ne_bytes(*rest.first_chunk()?);
        let next = u64::from_ne_bytes(*rest.get(8..)?.first_chunk()?);
        let length = usize::from(u16::from_ne_bytes(*rest.get(16..)?.first_chunk()?));
        let kind = *rest.get(18)?;
        let name = rest.get(19..length)?.split(|byte| *byte == 0).next()?;
        rest = rest.get(length..)?;
        Some(DirEntry { ino, next, kind, name })
    }))
}
