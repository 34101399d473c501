//! Blocks that files have in common: FICLONE, FIDEDUPERANGE and FIEMAP.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::check;

/// `_IOW(0x94, 9, int)` (linux/fs.h).
const FICLONE: libc::c_ulong = 0x4004_9409;
/// `_IOWR(0x94, 54, struct file_dedupe_range)` (linux/fs.h).
const FIDEDUPERANGE: libc::c_ulong = 0xc018_9436;
/// `_IOWR('f', 11, struct fiemap)` (linux/fiemap.h).
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
const DIFFERS: i32 = 1;
/// The most that is asked for in one call; btrfs itself stops at 16 MiB.
const AT_ONCE: u64 = 16 << 20;

/// `struct file_dedupe_range` with one destination.
#[repr(C)]
struct DedupeRange {
    src_offset: u64,
    src_length: u64,
    dest_count: u16,
    reserved1: u16,
    reserved2: u32,
    dest_fd: i64,
    dest_offset: u64,
    bytes_deduped: u64,
    status: i32,
    reserved: u32,
}

/// Gives a file the contents of another one in the same file system, by having its blocks (FICLONE,
/// Linux 4.5). `EOPNOTSUPP` where the file system cannot.
pub fn clone_blocks(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    // SAFETY: two borrowed descriptors; the call takes the second one as its argument.
    check(unsafe { libc::ioctl(to.as_fd().as_raw_fd(), FICLONE as _, from.as_fd().as_raw_fd()) })
}

/// Lets a file have the blocks of another one of the same length where they hold the same bytes,
/// which the kernel compares. Returns how many bytes they share now, fewer than `length` where they
/// differ. `EOPNOTSUPP` where the file system cannot.
pub fn share_blocks(from: impl AsFd, to: impl AsFd, length: u64) -> io::Result<u64> {
    let mut done = 0;
    while done < length {
        let mut range = DedupeRange {
            src_offset: done,
            src_length: (length - done).min(AT_ONCE),
            dest_count: 1,
            reserved1: 0,
            reserved2: 0,
            dest_fd: to.as_fd().as_raw_fd().into(),
            dest_offset: done,
            bytes_deduped: 0,
            status: 0,
            reserved: 0,
        };
        // SAFETY: the structure is live, laid out as the kernel has it, and has room for the one
        // destination that it counts.
        check(unsafe {
            libc::ioctl(from.as_fd().as_raw_fd(), FIDEDUPERANGE as _, &raw mut range)
        })?;
        match range.status {
            DIFFERS => break,
            status if status < 0 => return Err(io::Error::from_raw_os_error(-status)),
            _ if range.bytes_deduped == 0 => break,
            _ => done += range.bytes_deduped,
        }
    }
    Ok(done)
}

/// How many extents are asked for in one call.
const EXTENTS: usize = 64;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` with room for some extents.
#[repr(C)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [RawExtent; EXTENTS],
}

const EXTENT_LAST: u32 = 0x1;
const EXTENT_SHARED: u32 = 0x2000;

/// The parts of a file's room on disk that other files have as well (FIEMAP_EXTENT_SHARED): where
/// they lie, and their lengths in bytes. `EOPNOTSUPP` where the file system does not say.
pub fn shared_extents(file: impl AsFd) -> io::Result<Vec<(u64, u64)>> {
    let mut shared = Vec::new();
    let mut start = 0;
    loop {
        let mut map = Map {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped: 0,
            count: EXTENTS as u32,
            reserved: 0,
            extents: [RawExtent::default(); EXTENTS],
        };
        // SAFETY: the structure is live, laid out as the kernel has it, and has room for as many
        // extents as it says.
        check(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) })?;
        let extents = map.extents.get(..map.mapped as usize).unwrap_or_default();
        let of_others = extents.iter().filter(|extent| extent.flags & EXTENT_SHARED != 0);
        shared.extend(of_others.map(|extent| (extent.physical, extent.length)));
        let Some(last) = extents.last() else { return Ok(shared) };
        let next = last.logical.saturating_add(last.length);
        // One that does not go on would never end.
        if last.flags & EXTENT_LAST != 0 || next <= start {
            return Ok(shared);
        }
        start = next;
    }
}
