//! Packed bytes on their way to the workers, hashed as they pass.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::error::{During, Error, Result};
use crate::image::{Digest, Hashing};

/// The most that an ordinary user may ask for a pipe (pipe(7), /proc/sys/fs/pipe-max-size).
const PIPE: i32 = 1 << 20;
const BUFFER: usize = 256 << 10;

/// A pipe as large as may be: reading and writing end.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC).during("make", "a pipe")?;
    // A smaller one is slower and does the same.
    let _slower = fcntl(&writing, FcntlArg::F_SETPIPE_SZ(PIPE));
    Ok((reading, writing))
}

/// What has passed.
pub(super) struct Fed {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Fed {
    /// Goes on only with the digest that was expected.
    pub(super) fn check(self, expected: Option<Digest>) -> Result<Self> {
        match expected {
            Some(expected) if expected != self.digest => Err(Error::new(format!(
                "content has the digest {}, should be {expected}",
                self.digest
            ))),
            _ => Ok(self),
        }
    }
}

/// A stream of packed bytes that is being read.
pub(super) struct Feed<'a> {
    raw: Hashing<&'a mut dyn Read>,
    seen: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Feed<'a> {
    /// Starts at the stream's present position; `seen` is told how many bytes came.
    pub(super) fn new(raw: &'a mut dyn Read, seen: &'a (dyn Fn(u64) + Sync)) -> Self {
        Feed { raw: Hashing::new(raw), seen }
    }

    /// Writes the stream into a pipe, until its end or until nobody reads any more. The pipe is
    /// closed then.
    pub(super) fn send_into(&mut self, pipe: OwnedFd) -> Result<()> {
        let mut pipe = File::from(pipe);
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = self.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            match pipe.write_all(&buffer[..read]) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.during("write to", "the unpacking process")?,
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.raw.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(unreadable(&error)),
                Ok(read) => {
                    (self.seen)(read as u64);
                    return Ok(read);
                }
            }
        }
    }

    /// Reads what is left, and says what it all was.
    pub(super) fn finish(mut self) -> Result<Fed> {
        let mut buffer = vec![0; BUFFER];
        while self.read(&mut buffer)? > 0 {}
        let size = self.raw.count();
        Ok(Fed { digest: self.raw.digest(), size })
    }
}

/// A failure to read the packed bytes.
pub(super) fn unreadable(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) => Error::os("read", "the archive", nix::errno::Errno::from_raw(errno)),
        None => Error::carried(error).unwrap_or_else(|| Error::new(error.to_string())),
    }
}
