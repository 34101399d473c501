//! The tar stream on its way to the unpacker; all but the contents of files is recorded.

use std::io::{self, BufRead, Read};

use crate::image::tar::{Extent, Skip};
use crate::store::skeleton::Writer;

/// A stream that is recorded as it is read.
pub(super) struct Taped<'a> {
    inner: &'a mut dyn BufRead,
    record: Option<Writer>,
    /// What is read now is a file's, and is found there again.
    in_contents: bool,
}

impl<'a> Taped<'a> {
    pub(super) fn new(inner: &'a mut dyn BufRead, record: Option<Writer>) -> Self {
        Taped { inner, record, in_contents: false }
    }

    /// The bytes that follow are contents of this file.
    pub(super) fn contents(&mut self, path: &[u8], extents: &[Extent]) -> io::Result<()> {
        self.in_contents = true;
        self.record.as_mut().map_or(Ok(()), |record| record.file(path, extents))
    }

    /// The contents have all been read.
    pub(super) fn resume(&mut self) {
        self.in_contents = false;
    }

    /// What was at a path was moved.
    pub(super) fn replaced(&mut self, path: &[u8], number: u64) -> io::Result<()> {
        self.record.as_mut().map_or(Ok(()), |record| record.replaced(path, number))
    }

    /// Reads what is left and ends the record.
    pub(super) fn finish(mut self, buffer: &mut [u8]) -> io::Result<()> {
        while self.read(buffer)? > 0 {}
        self.record.map_or(Ok(()), Writer::finish)
    }
}

impl Read for Taped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(record) = self.record.as_mut().filter(|_| !self.in_contents) {
            record.raw(&buffer[..read])?;
        }
        Ok(read)
    }
}

impl BufRead for Taped<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    /// Only contents are taken in this way; what is recorded is read.
    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
    }
}

impl Skip for Taped<'_> {}
