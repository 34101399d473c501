//! The process that inflates. It has a descriptor to read, one to write, and nothing else.

use std::fs::File;
use std::io::{self, Read, Write};

use super::job::{Answer, Job};
use super::worker::{answer, confine, receive_job};
use crate::confine::seccomp::{Architecture, Policy};
use crate::error::{Error, Result};
use crate::image::Compression;
use crate::sys::channel::Channel;

const BUFFER: usize = 256 << 10;
/// A stream may unpack to this much whatever its packed size, and beyond it to [`MAX_RATIO`] times
/// as much as was read of it. Deflate reaches 1032 for zeroes and 5 for programs; Zstandard has no
/// bound of its own.
const FREE: u64 = 1 << 30;
const MAX_RATIO: u64 = 250;

/// Takes jobs until there are no more.
pub(super) fn serve(channel: &Channel) -> Result<()> {
    confine(channel, None, &Policy::for_inflater(Architecture::native()))?;
    let mut buffer = vec![0; BUFFER];
    while let Some((job, fds)) = receive_job(channel)? {
        let mut fds = fds.into_iter().map(File::from);
        let (Job::Inflate { compression }, Some(from), Some(to)) = (job, fds.next(), fds.next())
        else {
            return Err(Error::new("the inflater got a job that is none"));
        };
        let done = inflate(compression, from, to, &mut buffer);
        let told = match done {
            Ok(()) => Answer::Inflated,
            Err(error) => Answer::failed(&error, None),
        };
        answer(channel, &told)?;
    }
    Ok(())
}

/// Counts what is read, for the ratio.
struct Counted {
    file: File,
    count: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

fn inflate(compression: Compression, from: File, mut to: File, buffer: &mut [u8]) -> Result<()> {
    let name = compression.name();
    let broken = |error: io::Error| match error.raw_os_error() {
        Some(_) => Error::os("read", "the archive", error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::new(format!("the {name} stream is cut short"))
                .hint("bring the archive here again; what made or copied it did not finish")
        }
        None => Error::new(format!("the {name} stream is broken: {error}")),
    };
    let packed = std::rc::Rc::new(std::cell::Cell::new(0));
    let counted = Counted { file: from, count: std::rc::Rc::clone(&packed) };
    let counted = io::BufReader::with_capacity(BUFFER, counted);
    let mut decoder = compression.decode(counted).map_err(broken)?;
    let mut unpacked = 0u64;
    loop {
        let mut filled = 0;
        // Whole buffers, since a reader is woken for each write.
        while filled < buffer.len() {
            match decoder.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(broken(error)),
            }
        }
        if filled == 0 {
            return Ok(());
        }
        unpacked += filled as u64;
        if unpacked > FREE && unpacked / MAX_RATIO > packed.get() {
            return Err(Error::new(format!(
                "the {name} stream unpacks to more than {MAX_RATIO} times its size"
            ))
            .hint("if it really is so, unpack it yourself and import the tar"));
        }
        match to.write_all(&buffer[..filled]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Error::os("write to", "the unpacking process", error)),
            Ok(()) => (),
        }
    }
}
