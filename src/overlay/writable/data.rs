//! What is in files. Which file on disk it is, is decided for each request: who opened a file before
//! it was copied up sees what is written after that.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::fstat;
use nix::sys::uio::pwrite;
use nix::unistd::{Whence, fdatasync, fsync, lseek64};

use super::Writable;
use super::copy_up::Data;
use super::kept::errno;
use super::table::View;
use crate::index::Kind;
use crate::overlay::common;
use crate::overlay::wire::{Answer, Range, Stale, Transfer};
use crate::sys;

/// `FUSE_WRITE_KILL_SUIDGID`
const DROPS_SETID: u32 = 1 << 2;

/// The handle of files that are written past the page cache. All others are opened without asking,
/// and have the handle 0.
pub(super) const DIRECT: u64 = 1;

/// What is written.
pub(super) struct Part<'a> {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
    /// `FUSE_WRITE_*`
    pub(super) flags: u32,
}

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
    fn file_to_read(&self, id: u64, view: View) -> Result<Arc<OwnedFd>, Errno> {
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
        // First: a write that this one does not see has to see that there was this one.
        let view = self.table().view_to_read(id)?;
        common::read(&*self.file_to_read(id, view)?, range, answer)
    }

    pub(super) fn write(&self, id: u64, part: &Part<'_>, answer: &mut Answer) -> Result<(), Errno> {
        let file = self.file_to_write(id)?;
        let dropped_setid = part.flags & DROPS_SETID != 0 && self.drop_setid(id)?;
        let offset = i64::try_from(part.offset).map_err(|_| Errno::EFBIG)?;
        let write = || {
            common::whole(part.data.len(), |done| {
                pwrite(&*file, part.data.get(done..).unwrap_or_default(), offset + done as i64)
            })
        };
        // Where pages are written through, some are locked until this is answered, and all have what
        // is written.
        let (length, has_stale) = match part.handle {
            DIRECT => self.write_past_pages(id, &file, write)?,
            _ => (write()?, false),
        };
        if has_stale || part.handle == DIRECT && dropped_setid {
            answer.drop_first(Stale { node: id, offset: part.offset, length: length as u64 });
        }
        answer.put_length(u32::try_from(length).map_err(|_| Errno::EIO)?)
    }

    /// Also says whether the kernel may have pages of what was there before: it drops them itself
    /// before such a write, but what it reads while the write is under way stays (up to Linux 6.18
    /// at least). Until it has dropped those too (see [`FileSystem::dropped`]) the file is as long as
    /// it was, or the last page would have zeros where it grew.
    ///
    /// [`FileSystem::dropped`]: crate::overlay::FileSystem::dropped
    fn write_past_pages(
        &self,
        id: u64,
        file: &OwnedFd,
        write: impl FnOnce() -> Result<usize, Errno>,
    ) -> Result<(usize, bool), Errno> {
        let size = fstat(file)?.st_size.cast_unsigned();
        self.table().set_growing(id, size);
        let written = write();
        let mut table = self.table();
        // Whoever reads from now on gets what was written.
        let has_stale = table.was_read(id) && written.is_ok();
        if !has_stale {
            table.set_grown(id);
        }
        Ok((written?, has_stale))
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
        let view = self.table().view(id)?;
        let found = lseek64(&*self.file_to_read(id, view)?, offset, whence)?;
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
        let view = self.table().view(from)?;
        let from = self.file_to_read(from, view)?;
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
