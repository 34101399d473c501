//! What requests consist of.

use nix::errno::Errno;

use super::request::{Change, Open, Range, SetTime, is_name};

/// The fields of a request, taken from its front; `EINVAL` where it is too short.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Fields(bytes)
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Errno> {
        let (front, rest) = self.0.split_at_checked(length).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(front)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Errno> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*front))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Errno> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(u64::from_ne_bytes(*front))
    }

    pub(super) fn four(&mut self) -> Result<[u32; 4], Errno> {
        Ok([self.u32()?, self.u32()?, self.u32()?, self.u32()?])
    }

    pub(super) fn flag(&mut self, bit: u32) -> Result<bool, Errno> {
        Ok(self.u32()? & bit != 0)
    }

    /// Bytes that a NUL ends.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Errno> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::EINVAL)?;
        let string = self.bytes(end)?;
        self.bytes(1)?;
        Ok(string)
    }

    pub(super) fn name(&mut self) -> Result<&'a [u8], Errno> {
        let name = self.string()?;
        if is_name(name) { Ok(name) } else { Err(Errno::EINVAL) }
    }

    pub(super) fn open(&mut self) -> Result<Open, Errno> {
        Ok(Open { flags: self.u32()?, open_flags: self.u32()? })
    }

    /// `struct fuse_read_in`, whose rest is of no use here.
    pub(super) fn range(&mut self) -> Result<Range, Errno> {
        Ok(Range { handle: self.u64()?, offset: self.u64()?, size: self.u32()? })
    }

    /// The beginning of `struct fuse_getattr_in`.
    pub(super) fn optional_handle(&mut self) -> Result<Option<u64>, Errno> {
        const FUSE_GETATTR_FH: u32 = 1;
        let is_there = self.flag(FUSE_GETATTR_FH)?;
        self.u32()?;
        let handle = self.u64()?;
        Ok(is_there.then_some(handle))
    }

    /// `struct fuse_setattr_in`
    pub(super) fn change(&mut self) -> Result<Change, Errno> {
        let valid = self.u32()?;
        self.u32()?;
        let [handle, size, _lock_owner] = [self.u64()?, self.u64()?, self.u64()?];
        let times = [self.u64()?, self.u64()?, self.u64()?].map(u64::cast_signed);
        let nanoseconds = [self.u32()?, self.u32()?, self.u32()?];
        let [mode, _, uid, gid] = self.four()?;
        self.u32()?;
        let has = |bit: u32| valid & 1 << bit != 0;
        let time = |which: usize, bit, now| match (times.get(which), nanoseconds.get(which)) {
            _ if !has(bit) => None,
            _ if has(now) => Some(SetTime::Now),
            (Some(seconds), Some(nanoseconds)) => Some(SetTime::At(*seconds, *nanoseconds)),
            _ => None,
        };
        let [_, _, ctime] = times;
        let [_, _, ctime_nanoseconds] = nanoseconds;
        // The bits are `FATTR_*`.
        Ok(Change {
            mode: has(0).then_some(mode),
            uid: has(1).then_some(uid),
            gid: has(2).then_some(gid),
            size: has(3).then_some(size),
            atime: time(0, 4, 7),
            mtime: time(1, 5, 8),
            handle: has(6).then_some(handle),
            ctime: has(10).then_some((ctime, ctime_nanoseconds)),
            drops_setid: has(11),
        })
    }
}
