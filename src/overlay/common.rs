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
        let mut done = 0;
        // Regular files are read whole in one call, unless a signal comes between.
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match pread(&file, rest, offset + done as i64) {
                Ok(0) => break,
                Ok(length) => done += length,
                Err(Errno::EINTR) => {}
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    })
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
