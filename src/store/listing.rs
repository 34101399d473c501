//! The files of a layer by what could make them equal to files of other layers. It is a hint of
//! where to look and nothing more: whoever shares files compares them, so that a list that is wrong
//! or missing costs room and does no harm.
//!
//! The file `files` of a layer is a line that says the version, and then records: a byte that says
//! what, then
//!
//! ```text
//! F  length:u16  path  size:u64  content:u32  all:u32   a file with checksums of two of its blocks,
//!                                                       and of all else that a hard link has in common
//! L  length:u16  path                                   that file has another name in this layer
//! ```
//!
//! in little-endian order.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;

use flate2::Crc;

/// Smaller files are left out: together they are two hundredths of a system's bytes, and more than
/// half of its files.
pub(super) const SMALLEST: u64 = 4096;
/// A layer that has more files than this shares no more of them.
const MOST: u64 = 1 << 20;
const MAX_PATH: usize = 4096;
const VERSION: &[u8] = b"casemate files 1\n";

/// A file that could be equal to one of another layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its path in the layer.
    pub(super) path: Vec<u8>,
    /// Its size in bytes.
    pub(super) size: u64,
    /// A checksum of its first and last block.
    pub(super) content: u32,
    /// A checksum of path, mode, owner, time and attributes.
    pub(super) all: u32,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A file.
    File(Listed),
    /// A file that has another name in the layer.
    Linked(Vec<u8>),
}

/// Writes one while a layer is unpacked.
pub(super) struct Writer {
    file: BufWriter<File>,
    count: u64,
}

impl Writer {
    /// Takes a new file.
    pub(super) fn new(file: OwnedFd) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(64 << 10, File::from(file));
        file.write_all(VERSION)?;
        Ok(Writer { file, count: 0 })
    }

    /// Adds a file, if it is large enough to be worth it.
    pub(super) fn file(&mut self, file: &Listed) -> io::Result<()> {
        if file.size < SMALLEST || !self.begin(b'F', &file.path)? {
            return Ok(());
        }
        self.file.write_all(&file.size.to_le_bytes())?;
        self.file.write_all(&file.content.to_le_bytes())?;
        self.file.write_all(&file.all.to_le_bytes())
    }

    /// Notes that a file has another name.
    pub(super) fn linked(&mut self, path: &[u8]) -> io::Result<()> {
        self.begin(b'L', path).map(drop)
    }

    fn begin(&mut self, kind: u8, path: &[u8]) -> io::Result<bool> {
        // A file that is not noted as linked must not be listed either.
        let Some(length) = u16::try_from(path.len()).ok().filter(|_| path.len() <= MAX_PATH) else {
            return Ok(false);
        };
        self.count += 1;
        if kind == b'F' && self.count > MOST {
            return Ok(false);
        }
        self.file.write_all(&[kind])?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(path)?;
        Ok(true)
    }

    /// Writes out what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads one.
pub(super) struct Reader {
    file: BufReader<File>,
}

impl Reader {
    /// Starts at the beginning of a file; `None` where it is of another version.
    pub(super) fn new(file: File) -> io::Result<Option<Self>> {
        let mut file = BufReader::with_capacity(64 << 10, file);
        let mut version = [0; VERSION.len()];
        file.read_exact(&mut version)?;
        Ok((version == VERSION).then_some(Reader { file }))
    }

    /// The next record.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        if self.file.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let [kind] = self.array()?;
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length > MAX_PATH {
            return Err(damaged());
        }
        let mut path = vec![0; length];
        self.file.read_exact(&mut path)?;
        Ok(Some(match kind {
            b'F' => Record::File(Listed {
                path,
                size: u64::from_le_bytes(self.array()?),
                content: u32::from_le_bytes(self.array()?),
                all: u32::from_le_bytes(self.array()?),
            }),
            b'L' => Record::Linked(path),
            _ => return Err(damaged()),
        }))
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.file.read_exact(&mut array)?;
        Ok(array)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the layer's list of files is damaged")
}

/// A checksum of fields, of which none can run into the next.
pub(super) fn checksum<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut crc = Crc::new();
    for field in fields {
        crc.update(&(field.len() as u64).to_le_bytes());
        crc.update(field);
    }
    crc.sum()
}

/// Adds to the checksum of a file's contents what counts of them: the first block and the last. It
/// is compared before anything is shared, and reading all of it twice takes as long as writing it.
pub(super) fn sample(content: &mut Crc, size: u64, position: u64, data: &[u8]) {
    let part = |from: u64, to: u64| {
        let offset = |at: u64| {
            usize::try_from(at.saturating_sub(position)).unwrap_or(usize::MAX).min(data.len())
        };
        &data[offset(from)..offset(to).max(offset(from))]
    };
    content.update(part(0, SMALLEST));
    content.update(part(size.saturating_sub(SMALLEST).max(SMALLEST), size));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_small_files_are_left_out() {
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap().into()).unwrap();
        let listed =
            |path: &[u8], size| Listed { path: path.to_vec(), size, content: 1 << 31, all: 7 };
        writer.file(&listed(b"a/\xff", SMALLEST)).unwrap();
        writer.file(&listed(b"small", SMALLEST - 1)).unwrap();
        writer.file(&listed(&[b'x'; MAX_PATH + 1], 1 << 40)).unwrap();
        writer.linked(b"a/\xff").unwrap();
        writer.finish().unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut reader = Reader::new(file).unwrap().unwrap();
        assert_eq!(reader.next().unwrap(), Some(Record::File(listed(b"a/\xff", SMALLEST))));
        assert_eq!(reader.next().unwrap(), Some(Record::Linked(b"a/\xff".to_vec())));
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(checksum([&b"ab"[..], b"c"]), checksum([&b"a"[..], b"bc"]));
    }
}
