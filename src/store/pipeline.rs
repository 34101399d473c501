//! Two threads for one layer: one reads, hashes and inflates, the other hashes what comes out and
//! makes the files. Writing files takes about as long as inflating, so that this halves the time.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::error::{Error, Result};
use crate::image::{Compression, Digest, Hashing, peek};

const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 8;
/// The most that a layer may unpack to, headers and all.
const MAX_STREAM: u64 = 512 << 30;

/// The packed side of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) compression: Compression,
}

/// What a producer sends its tar stream to.
pub(super) struct Sink {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    closed: bool,
}

impl Sink {
    /// Whether the other side has ended early. It does so only when it failed, and then its error
    /// counts and not the producer's.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    fn send(&mut self) -> io::Result<()> {
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        let full = std::mem::replace(&mut self.buffer, next);
        self.buffer.clear();
        self.full.send(full).map_err(|_| {
            self.closed = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }

    /// Sends all that a reader has; reads into the buffers that are sent.
    fn send_all(&mut self, reader: &mut dyn Read) -> Result<(), SendError> {
        loop {
            self.buffer.resize(BUFFER, 0);
            let mut filled = 0;
            while filled < BUFFER {
                match reader.read(&mut self.buffer[filled..]) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                    Err(error) => return Err(SendError::Read(error)),
                }
            }
            self.buffer.truncate(filled);
            if filled == 0 {
                return Ok(());
            }
            self.send().map_err(|_| SendError::Closed)?;
        }
    }
}

enum SendError {
    Read(io::Error),
    Closed,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = BUFFER - self.buffer.len();
        let taken = room.min(data.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == BUFFER {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

/// The other end of a [`Sink`].
struct Stream {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
    left: u64,
}

impl Read for Stream {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.position == self.buffer.len() {
            // A closed channel is the end, or a failure that the producer reports itself.
            let Ok(next) = self.full.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.buffer, next);
            // No room for one more empty buffer: it is freed instead.
            let _recycled = self.empty.try_send(used);
            self.position = 0;
            self.left = self.left.checked_sub(self.buffer.len() as u64).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "unpacks to more than 512 GiB")
            })?;
        }
        let taken = target.len().min(self.buffer.len() - self.position);
        target[..taken].copy_from_slice(&self.buffer[self.position..self.position + taken]);
        self.position += taken;
        Ok(taken)
    }
}

/// What a run came to.
pub(super) struct Ran<P, C> {
    /// The producer's result.
    pub(super) produced: P,
    /// The consumer's result.
    pub(super) consumed: C,
    /// The digest of the whole stream.
    pub(super) digest: Digest,
    /// Its length.
    pub(super) size: u64,
}

/// Runs a producer of a tar stream beside its consumer. A failure of the producer explains one of
/// the consumer, and goes first.
pub(super) fn run<P: Send, C>(
    produce: impl FnOnce(&mut Sink) -> Result<P> + Send,
    consume: impl FnOnce(&mut dyn Read) -> Result<C>,
) -> Result<Ran<P, C>> {
    std::thread::scope(|scope| {
        let (full, full_in) = sync_channel(BUFFERS);
        let (empty, empty_in) = sync_channel(BUFFERS);
        let mut sink =
            Sink { full, empty: empty_in, buffer: Vec::with_capacity(BUFFER), closed: false };
        let producer = std::thread::Builder::new()
            .name("casemate-read".to_owned())
            .spawn_scoped(scope, move || produce(&mut sink))
            .map_err(|error| Error::os("start", "a thread", error))?;
        let stream =
            Stream { full: full_in, empty, buffer: Vec::new(), position: 0, left: MAX_STREAM };
        let mut stream = Hashing::new(stream);
        let consumed = consume(&mut stream).and_then(|done| {
            // What comes after the archive's end is part of the digest.
            stream.drain().map_err(|error| Error::new(error.to_string()))?;
            Ok(done)
        });
        // Closes the channel, for a producer that still sends.
        let size = stream.count();
        let digest = stream.digest();
        let produced = producer
            .join()
            .unwrap_or_else(|_| Err(Error::new("the reading thread ended without a result")))?;
        Ok(Ran { produced, consumed: consumed?, digest, size })
    })
}

/// Sends a packed layer, unpacked. `expected` is verified even where unpacking fails: a wrong digest
/// says more than what the wrong bytes look like.
pub(super) fn send_packed(
    raw: impl Read + Send,
    expected: Option<(Digest, u64)>,
    sink: &mut Sink,
) -> Result<Packed> {
    let read_error = |error: &io::Error| match error.raw_os_error() {
        Some(errno) => Error::os("read", "the archive", nix::errno::Errno::from_raw(errno)),
        None => Error::new(error.to_string()),
    };
    let mut hashing = Hashing::new(raw);
    let (head, stream) = peek(&mut hashing, 512).map_err(|error| read_error(&error))?;
    let sent = Compression::detect(&head).and_then(|compression| {
        let name = match compression {
            Compression::None => "tar",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        let broken = |error: io::Error| match error.raw_os_error() {
            Some(_) => read_error(&error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::new(format!("the {name} stream is cut short"))
            }
            None => Error::new(format!("the {name} stream is broken: {error}")),
        };
        let mut decoder = compression.decode(stream).map_err(broken)?;
        match sink.send_all(&mut decoder) {
            Err(SendError::Read(error)) => Err(broken(error)),
            Ok(()) | Err(SendError::Closed) => Ok(compression),
        }
    });
    hashing.drain().map_err(|error| read_error(&error))?;
    let size = hashing.count();
    let digest = hashing.digest();
    if let Some((expected, _)) = expected
        && digest != expected
    {
        return Err(Error::new(format!("content has the digest {digest}, should be {expected}")));
    }
    Ok(Packed { digest, size, compression: sent? })
}
