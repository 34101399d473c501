//! What is in files. Which file on disk it is, is decided for each request: who opened a file before
//! it was copied up sees what is written after that.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::uio::pwrite;
use nix::unistd::{Whence, fdatasync, fsync, lseek64};

use super::Writable;
use super::copy_up::Data;
use super::kept::errno;
use super::table::View;
use crate::index::Kind;
use crate::overlay::common;
use crate::overlay::wire::{Answer, Range, Transfer};
use crate::sys;

/// `FUSE_WRITE_KILL_SUIDGID`
const DROPS_SETID: u32 = 1 << 2;

impl Writable {
    /// A regular file in the upper directory.
    pub(super) fn file(&self, id: u64, view: &View) -> Result<Arc<OwnedFd>, Errno> {
        match view.kind {
            Kind::File => self.upper(id),
            Kind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A regular file as it is now.
    fn file_to_read(&self, id: u64) -> Result<Arc<OwnedFd>, Errno> {
        let view = self.table().view(id)?;
        match (view.upper, view.lower) {
            (Some(_), _) => self.file(id, &view),
            (None, Some(lower)) => self.lowers.open(lower),
            (None, None) => Err(Errno::EIO),
        }
    }

    fn file_to_write(&self, id: u64) -> Result<Arc<OwnedFd>, Errno> {
        let view = self.table().view(id)?;
        if view.upper.is_none() {
            self.copy_up(id, Data::All)?;
        }
        self.file(id, &view)
    }

    pub(super) fn read(&self, id: u64, range: Range, answer: &mut Answer) -> Result<(), Errno> {
        common::read(&*self.file_to_read(id)?, range, answer)
    }

    pub(super) fn write(
        &self,
        id: u64,
        offset: u64,
        data: &[u8],
        flags: u32,
    ) -> Result<usize, Errno> {
        let file = self.file_to_write(id)?;
        if flags & DROPS_SETID != 0 {
            self.drop_setid(id)?;
        }
        let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
        common::whole(data.len(), |done| {
            pwrite(&*file, data.get(done..).unwrap_or_default(), offset + done as i64)
        })
    }

    pub(super) fn seek(
        &self,
        id: u64,
        offset: u64,
        whence: u32,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let whence = match whence.cast_signed() {
            libc::SEEK_DATA => Whence::SeekData,
            libc::SEEK_HOLE => Whence::SeekHole,
            _ => return Err(Errno::EINVAL),
        };
        // The place that it moves is nobody's: reading and writing is at offsets.
        let offset = i64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = lseek64(&*self.file_to_read(id)?, offset, whence)?;
        answer.put_offset(found.cast_unsigned())
    }

    pub(super) fn allocate(
        &self,
        id: u64,
        offset: u64,
        length: u64,
        mode: u32,
    ) -> Result<(), Errno> {
        let flags = FallocateFlags::from_bits(mode.cast_signed()).ok_or(Errno::EOPNOTSUPP)?;
        let [offset, length] = [offset, length].map(i64::try_from);
        let (offset, length) =
            (offset.map_err(|_| Errno::EFBIG)?, length.map_err(|_| Errno::EFBIG)?);
        let file = self.file_to_write(id)?;
        // The kernel leaves that to the server here too (`HANDLE_KILLPRIV_V2`), without a flag.
        self.drop_setid(id)?;
        loop {
            match fallocate(&*file, flags, offset, length) {
                Err(Errno::EINTR) => {}
                done => return done,
            }
        }
    }

    pub(super) fn copy(&self, from: u64, how: &Transfer) -> Result<usize, Errno> {
        let to = self.file_to_write(how.to_node)?;
        self.drop_setid(how.to_node)?;
        // After the copy-up: it may be the same file.
        let from = self.file_to_read(from)?;
        let source = i64::try_from(how.offset).map_err(|_| Errno::EINVAL)?;
        let target = i64::try_from(how.to_offset).map_err(|_| Errno::EFBIG)?;
        // An answer has 32 bits for it.
        let length = usize::try_from(how.length.min(1 << 30)).map_err(|_| Errno::EINVAL)?;
        loop {
            match sys::tree::copy_range(&*from, source, &*to, target, length).map_err(errno) {
                Err(Errno::EINTR) => {}
                done => return done,
            }
        }
    }

    pub(super) fn sync(&self, id: u64, only_data: bool) -> Result<(), Errno> {
        if self.table().view(id)?.upper.is_none() {
            return Ok(());
        }
        let file = self.upper(id)?;
        if only_data { fdatasync(&*file) } else { fsync(&*file) }
    }
}
