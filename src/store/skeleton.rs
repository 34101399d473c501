//! What a layer's tar stream has beside the contents of files, kept so that the very same stream can
//! be made again from the tree: to verify it, to save it, to push it. (containers/storage keeps its
//! `tar-split` for this.)
//!
//! The file is a raw deflate stream of records: a byte that says what, then
//!
//! ```text
//! R  length:u32  bytes                 these bytes, as they were
//! F  length:u32  path  count:u32  (offset:u64 length:u64)*   these parts of that file
//! X  length:u32  path  number:u64      what was at the path so far is now at replaced/<number>
//! ```
//!
//! in little-endian order. Deflate, by a library in Rust: what the confined unpacker wrote is read
//! outside of it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use crate::image::tar::Extent;

/// Bytes are gathered into records of this size.
const GATHER: usize = 64 << 10;
const MAX_PATH: u32 = 8 << 10;
const MAX_EXTENTS: u32 = 1 << 20;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// Bytes of the stream.
    Raw(Vec<u8>),
    /// Contents of a file, by its path in the layer.
    File { path: Vec<u8>, extents: Vec<Extent> },
    /// A later entry took the place of an earlier one, which was moved.
    Replaced { path: Vec<u8>, number: u64 },
}

/// Writes one while a layer is unpacked.
pub(super) struct Writer {
    encoder: DeflateEncoder<BufWriter<File>>,
    pending: Vec<u8>,
}

impl Writer {
    /// Takes a new file.
    pub(super) fn new(file: OwnedFd) -> Self {
        let file = BufWriter::with_capacity(GATHER, File::from(file));
        let encoder = DeflateEncoder::new(file, flate2::Compression::fast());
        Writer { encoder, pending: Vec::with_capacity(2 * GATHER) }
    }

    /// Bytes of the stream that are no file's contents.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= GATHER { self.gathered() } else { Ok(()) }
    }

    fn gathered(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        self.bytes(b'R', &pending)?;
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    /// The contents of a file.
    pub(super) fn file(&mut self, path: &[u8], extents: &[Extent]) -> io::Result<()> {
        self.gathered()?;
        self.bytes(b'F', path)?;
        let count = u32::try_from(extents.len()).map_err(|_| too_long())?;
        self.encoder.write_all(&count.to_le_bytes())?;
        for extent in extents {
            self.encoder.write_all(&extent.offset.to_le_bytes())?;
            self.encoder.write_all(&extent.length.to_le_bytes())?;
        }
        Ok(())
    }

    /// What was at a path was moved to make room.
    pub(super) fn replaced(&mut self, path: &[u8], number: u64) -> io::Result<()> {
        self.gathered()?;
        self.bytes(b'X', path)?;
        self.encoder.write_all(&number.to_le_bytes())
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| too_long())?;
        self.encoder.write_all(&[kind])?;
        self.encoder.write_all(&length.to_le_bytes())?;
        self.encoder.write_all(bytes)
    }

    /// Writes out what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.gathered()?;
        self.encoder.finish()?.flush()
    }
}

/// Reads one.
pub(super) struct Reader {
    decoder: DeflateDecoder<BufReader<File>>,
}

impl Reader {
    /// Starts at the beginning of a file.
    pub(super) fn new(file: File) -> Self {
        Reader { decoder: DeflateDecoder::new(BufReader::new(file)) }
    }

    /// The next record.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let mut kind = [0];
        if self.decoder.read(&mut kind)? == 0 {
            return Ok(None);
        }
        Ok(Some(match kind[0] {
            b'R' => Record::Raw(self.bytes(2 * GATHER as u32 + (1 << 20))?),
            b'F' => {
                let path = self.bytes(MAX_PATH)?;
                let count = u32::from_le_bytes(self.array()?);
                if count > MAX_EXTENTS {
                    return Err(damaged());
                }
                let mut extents = Vec::new();
                for _ in 0..count {
                    let offset = u64::from_le_bytes(self.array()?);
                    let length = u64::from_le_bytes(self.array()?);
                    extents.push(Extent { offset, length });
                }
                Record::File { path, extents }
            }
            b'X' => {
                let path = self.bytes(MAX_PATH)?;
                Record::Replaced { path, number: u64::from_le_bytes(self.array()?) }
            }
            _ => return Err(damaged()),
        }))
    }

    fn bytes(&mut self, limit: u32) -> io::Result<Vec<u8>> {
        let length = u32::from_le_bytes(self.array()?);
        if length > limit {
            return Err(damaged());
        }
        let mut bytes = vec![0; length as usize];
        self.decoder.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.decoder.read_exact(&mut array)?;
        Ok(array)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the layer's skeleton is damaged")
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a record of the layer's skeleton is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap().into());
        let long = vec![7; 3 * GATHER];
        writer.raw(b"ab").unwrap();
        writer.raw(b"c").unwrap();
        let extents = vec![Extent { offset: 1, length: 2 }, Extent { offset: 5, length: 6 }];
        writer.file(b"a/\xff", &extents).unwrap();
        writer.replaced(b"a", 3).unwrap();
        writer.raw(&long).unwrap();
        writer.finish().unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut reader = Reader::new(file);
        let mut next = || reader.next().unwrap();
        assert_eq!(next(), Some(Record::Raw(b"abc".to_vec())));
        assert_eq!(next(), Some(Record::File { path: b"a/\xff".to_vec(), extents }));
        assert_eq!(next(), Some(Record::Replaced { path: b"a".to_vec(), number: 3 }));
        assert_eq!(next(), Some(Record::Raw(long)));
        assert_eq!(next(), None);
    }
}
