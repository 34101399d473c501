//! Two threads for one layer: one reads and hashes its tar stream, the other makes the files.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::error::{Error, Result};
use crate::image::{Digest, Hashing};

const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 8;
/// The most that a layer may unpack to, headers and all.
const MAX_STREAM: u64 = 512 << 30;

/// What the reading thread has read.
struct Stream {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
    left: u64,
}

impl Read for Stream {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let taken = target.len().min(there.len());
        target[..taken].copy_from_slice(&there[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.buffer.len() {
            // A closed channel is the end, or a failure that the reading thread tells itself.
            let Ok(next) = self.full.recv() else { return Ok(&[]) };
            let used = std::mem::replace(&mut self.buffer, next);
            // No room for one more empty buffer: it is freed instead.
            let _recycled = self.empty.try_send(used);
            self.position = 0;
            self.left = self.left.checked_sub(self.buffer.len() as u64).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "unpacks to more than 512 GiB")
            })?;
        }
        Ok(&self.buffer[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

/// What a run came to.
pub(super) struct Ran<C> {
    /// The consumer's result.
    pub(super) consumed: Result<C>,
    /// The digest of the stream, as far as it was read.
    pub(super) digest: Digest,
    /// Its length.
    pub(super) size: u64,
}

/// Runs `consume` on a stream that another thread reads and hashes, to its end where `consume`
/// succeeds: what comes after an archive's end is part of the digest. Where it fails, the stream is
/// read on if `to_the_end`. A failure to read is the run's.
pub(super) fn run<C>(
    source: impl Read + Send,
    to_the_end: bool,
    consume: impl FnOnce(&mut dyn BufRead) -> Result<C>,
) -> Result<Ran<C>> {
    std::thread::scope(|scope| {
        let (full, full_in) = sync_channel::<Vec<u8>>(BUFFERS);
        let (empty, empty_in) = sync_channel::<Vec<u8>>(BUFFERS);
        let reader = std::thread::Builder::new()
            .name("casemate-read".to_owned())
            .spawn_scoped(scope, move || {
                let mut source = Hashing::new(source);
                read(&mut source, &full, &empty_in, to_the_end)?;
                let size = source.count();
                Ok((source.digest(), size))
            })
            .map_err(|error| Error::os("start", "a thread", error))?;
        let mut stream =
            Stream { full: full_in, empty, buffer: Vec::new(), position: 0, left: MAX_STREAM };
        let consumed = consume(&mut stream);
        drop(stream);
        let read: Result<(Digest, u64), io::Error> = reader
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the reading thread ended by itself")));
        let (digest, size) = read.map_err(|error| match error.raw_os_error() {
            Some(_) => Error::os("read", "the archive", error),
            None => Error::new(error.to_string()),
        })?;
        Ok(Ran { consumed, digest, size })
    })
}

fn read(
    source: &mut impl Read,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
    to_the_end: bool,
) -> io::Result<()> {
    let mut wanted = true;
    let mut spare = None;
    while wanted || to_the_end {
        let next = spare.take().or_else(|| empty.try_recv().ok());
        let mut buffer = next.unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let mut filled = 0;
        while filled < BUFFER {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            break;
        }
        buffer.truncate(filled);
        if wanted {
            // The consumer failed; its error is the one that counts.
            wanted = full.send(buffer).is_ok();
        } else {
            spare = Some(buffer);
        }
    }
    Ok(())
}
