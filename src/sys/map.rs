//! mmap(2) of whole files, for reading.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

/// The bytes of a file, in memory as long as this is kept. A file that becomes shorter meanwhile
/// ends the process with SIGBUS when what is gone is read: map only what nobody else changes.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// Maps a file as long as it is now, with PROT_READ and MAP_PRIVATE. `EINVAL` for an empty one.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let size = nix::sys::stat::fstat(file.as_fd())?.st_size;
        let length =
            usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is touched.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Mapping { start, length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes at `start` are mapped readable until `self` is dropped. Nobody who
        // keeps to the rules writes to the file; if the user does so all the same, the bytes read
        // are other bytes, which every reader has to expect of a file anyway, and none of them is
        // read twice for one decision. A file cut short is survivable: the kernel answers the
        // access beyond its end with SIGBUS, which ends the process that reads, before it could act
        // on anything; that process is a server whose end its box is told of.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no slice of it outlives it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

// SAFETY: the memory is only ever read, and belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared reading needs no order.
unsafe impl Sync for Mapping {}
