//! The processes that read foreign archives, and the way to them.
//!
//! ```text
//! casemate ──packed bytes──► inflater ──tar stream──► unpacker ──► staging/<random>/layer-N
//!   digest of the packed       no files at all          digest of the stream; files
//!   bytes                                                below staging/<random> only
//! ```
//!
//! Each runs under a filter of its own that ends it at the first call it has no use for, and
//! Landlock leaves the unpacker its staging directory and the inflater nothing. The two are apart
//! so that a fault in a decompressor (the one for Zstandard is C) gains nothing: what it can do is
//! to write other bytes, and these are hashed behind it, so that no layer gets the name of another.
//! They are forked once for an import, before it has threads, and take one layer after the other.

mod feed;
mod inflater;
mod job;
mod unpacker;
mod worker;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use self::feed::{Fed, Feed, pipe};
use self::job::{Answer, Job};
use self::worker::Worker;
use super::staging::Staging;
use super::unpack::Unpacked;
use crate::error::{Error, Result};
use crate::image::{Compression, Digest, Inflate, Packed, Section, peek};

/// The longest packed beginning that tells how a stream is packed.
const HEAD: usize = 512;

/// An inflater and an unpacker that work together.
struct Pair {
    inflater: Worker,
    unpacker: Worker,
}

/// The processes of one import.
pub(super) struct Workshop {
    free: Mutex<Vec<Pair>>,
    returned: Condvar,
}

/// A layer that was unpacked.
pub(super) struct Done {
    /// The packed side.
    pub(super) packed: Packed,
    /// What was seen in it.
    pub(super) unpacked: Unpacked,
    /// The digest of the tar stream.
    pub(super) diff_id: Digest,
    /// Its length in bytes.
    pub(super) size: u64,
}

impl Workshop {
    /// Starts `pairs` pairs for a staging directory. Call it before there are threads.
    pub(super) fn open(staging: &Staging, pairs: usize) -> Result<Self> {
        let mut free: Vec<Pair> = Vec::new();
        for _ in 0..pairs {
            free.push(Pair {
                inflater: Worker::start("inflater", inflater::serve)?,
                unpacker: Worker::start("unpacker", |channel| {
                    unpacker::serve(channel, staging.path())
                })?,
            });
        }
        Ok(Workshop { free: Mutex::new(free), returned: Condvar::new() })
    }

    /// Runs one layer through a pair, and waits for a free one.
    fn with<T>(&self, work: impl FnOnce(&mut Pair) -> Result<T>) -> Result<T> {
        let mut free = self.lock();
        let mut pair = loop {
            match free.pop() {
                Some(pair) => break pair,
                None => free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        let done = work(&mut pair);
        self.lock().push(pair);
        self.returned.notify_one();
        done
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pair>> {
        // Nothing in here panics between taking and giving back.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unpacks a stream as it arrives into the directory `dir` of the staging directory. The packed
    /// bytes are read to the end and hashed even where unpacking fails: a wrong digest says more
    /// than what the wrong bytes look like.
    pub(super) fn unpack(
        &self,
        dir: &str,
        raw: &mut (dyn Read + Send),
        expected: Option<Digest>,
        seen: &(dyn Fn(u64) + Sync),
    ) -> Result<Done> {
        self.with(|pair| {
            let (head, mut raw) = peek(raw, HEAD).map_err(|error| feed::unreadable(&error))?;
            let mut feed = Feed::new(&mut raw, seen);
            let packing = match Compression::detect(&head) {
                Ok(packing) => packing,
                Err(error) => {
                    // The digest goes first here too.
                    feed.finish()?.check(expected)?;
                    return Err(error);
                }
            };
            let job = Job::Unpack { dir: dir.to_owned(), outline: false, section: None };
            let (reading, writing) = pipe()?;
            // Both are waited for whatever comes of the other: an answer that is left in a channel
            // would be taken for that of the pair's next layer.
            let (fed, inflated, answer) = if packing == Compression::None {
                pair.unpacker.send(&job, &[reading.as_fd()])?;
                drop(reading);
                let fed = feed.send_into(writing);
                (fed, Ok(Answer::Inflated), pair.unpacker.receive())
            } else {
                let (stream_out, stream_in) = pipe()?;
                let inflate = Job::Inflate { compression: packing };
                pair.inflater.send(&inflate, &[reading.as_fd(), stream_in.as_fd()])?;
                pair.unpacker.send(&job, &[stream_out.as_fd()])?;
                drop((reading, stream_out, stream_in));
                let fed = feed.send_into(writing);
                (fed, pair.inflater.receive(), pair.unpacker.receive())
            };
            fed?;
            let (inflated, answer) = (inflated?, answer?);
            // What is left on the network would not help against a full disk.
            if matches!(answer, Answer::Failed { system: true, .. }) {
                return Err(answer.into_error());
            }
            let Fed { digest, size } = feed.finish()?.check(expected)?;
            // A stream that broke explains an archive that ends too soon.
            if let Answer::Failed { .. } = inflated {
                return Err(inflated.into_error());
            }
            let Answer::Unpacked { unpacked, digest: diff_id, size: stream } = answer else {
                return Err(answer.into_error());
            };
            let packed = Packed { digest, size, compression: packing };
            Ok(Done { packed, unpacked, diff_id, size: stream })
        })
    }

    /// As [`Workshop::unpack`], for packed bytes that lie in a file: where they are plain, the
    /// unpacker reads them there itself.
    pub(super) fn unpack_section(
        &self,
        dir: &str,
        mut section: Section,
        expected: Option<Digest>,
        seen: &(dyn Fn(u64) + Sync),
    ) -> Result<Done> {
        let head = section.head(HEAD).map_err(|error| feed::unreadable(&error))?;
        if Compression::detect(&head).ok() != Some(Compression::None) {
            return self.unpack(dir, &mut section, expected, seen);
        }
        self.with(|pair| {
            let place = Some((section.position(), section.len()));
            let job = Job::Unpack { dir: dir.to_owned(), outline: false, section: place };
            pair.unpacker.send(&job, &[section.file()])?;
            let answer = pair.unpacker.receive()?;
            let (digest, size) = match &answer {
                Answer::Unpacked { digest, size, .. } => (*digest, *size),
                Answer::Failed { stream: Some((digest, size)), .. } => (*digest, *size),
                _ => return Err(answer.into_error()),
            };
            Fed { digest, size }.check(expected)?;
            let Answer::Unpacked { unpacked, .. } = answer else {
                return Err(answer.into_error());
            };
            seen(size);
            let packed = Packed { digest, size, compression: Compression::None };
            Ok(Done { packed, unpacked, diff_id: digest, size })
        })
    }
}

impl Workshop {
    /// Unpacks a tar stream that `make` writes, which is not packed; where it is an outline, without
    /// the contents of its files, which are holes then.
    pub(super) fn unpack_made(
        &self,
        dir: &str,
        outline: bool,
        make: impl FnOnce(OwnedFd) -> Result<()>,
    ) -> Result<Done> {
        self.with(|pair| {
            let (reading, writing) = pipe()?;
            let job = Job::Unpack { dir: dir.to_owned(), outline, section: None };
            pair.unpacker.send(&job, &[reading.as_fd()])?;
            drop(reading);
            let made = make(writing);
            // Where the unpacker ended first, writing to it failed, and its own words count.
            let answer = pair.unpacker.receive()?;
            match answer {
                Answer::Unpacked { unpacked, digest, size } => {
                    made?;
                    let packed = Packed { digest, size, compression: Compression::None };
                    Ok(Done { packed, unpacked, diff_id: digest, size })
                }
                failed if made.is_ok() || closed(&made) => Err(failed.into_error()),
                _ => made.and_then(|()| Err(Error::new("unpack: no answer"))),
            }
        })
    }
}

/// Whether nobody read any more.
fn closed(made: &Result<()>) -> bool {
    made.as_ref().is_err_and(|error| error.errno() == Some(Errno::EPIPE))
}

impl Inflate for Workshop {
    /// Inflates a whole archive. The reader ends early where the packed bytes are broken, which
    /// `finish` tells.
    fn inflate(
        &self,
        packed: Section,
        compression: Compression,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        self.with(|pair| {
            let (reading, writing): (OwnedFd, OwnedFd) = pipe()?;
            pair.inflater.send(&Job::Inflate { compression }, &[packed.file(), writing.as_fd()])?;
            drop(writing);
            let taken = take(&mut File::from(reading));
            match pair.inflater.receive()? {
                failed @ Answer::Failed { .. } => Err(failed.into_error()),
                _ => taken,
            }
        })
    }
}
