//! What both file systems answer alike.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::statfs::fstatfs;
use nix::sys::uio::pread;

use super::wire::{Answer, Range, Statistics};

/// The longest name of every file system of Linux.
pub(super) const NAME_MAX: usize = 255;

/// What programs read at once, in bytes.
pub(super) const BLOCK: u32 = 4096;

/// Answers with this part of a file.
pub(super) fn read(file: impl AsFd, range: Range, answer: &mut Answer) -> Result<(), Errno> {
    let offset = i64::try_from(range.offset).map_err(|_| Errno::EINVAL)?;
    let size = usize::try_from(range.size).map_err(|_| Errno::EINVAL)?;
    answer.fill(size, |buffer| {
        whole(buffer.len(), |done| {
            pread(&file, buffer.get_mut(done..).unwrap_or_default(), offset + done as i64)
        })
    })
}

/// Reads or writes so many bytes, as far as that goes: `part` does it from a place on, and says how
/// many it did. A regular file takes one call, unless a signal comes between or the disk is full.
pub(super) fn whole(
    length: usize,
    mut part: impl FnMut(usize) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut done = 0;
    while done < length {
        match part(done) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::EINTR) => {}
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Answers with what the file system below has free.
pub(super) fn statistics(below: impl AsFd, answer: &mut Answer) -> Result<(), Errno> {
    let base = fstatfs(below)?;
    let block_size = u32::try_from(base.block_size()).unwrap_or(BLOCK);
    answer.put_statistics(&Statistics {
        blocks: base.blocks(),
        free: base.blocks_free(),
        available: base.blocks_available(),
        files: base.files(),
        free_files: base.files_free(),
        block_size,
        name_max: NAME_MAX as u32,
        fragment_size: block_size,
    })
}
