//! A strict, streaming tar reader: ustar, GNU and PAX, with both kinds of sparse files.
//!
//! The `tar` crate writes our archives and does not read them, because reading foreign ones needs
//! what it lacks: PAX records are taken by their length (it splits them at line breaks, so that a
//! binary attribute value can smuggle a `path` record), extended headers are bounded in memory, and
//! sparse files in PAX form are understood. PAX always wins over the header (CVE-2025-62518).

mod header;
mod pax;
mod sparse;

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

use header::{BLOCK, Header};
use pax::Records;
pub use sparse::Extent;

/// The longest extended header (path, link target, PAX records). A file's attributes are at most
/// 64 KiB each in the kernel, its path 4 KiB.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with its data.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name for an earlier entry.
    HardLink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// Something else, by its type byte.
    Other(u8),
}

/// One entry: everything but its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, as the archive has it.
    pub path: Vec<u8>,
    /// The target of a symbolic or hard link.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of the file, holes included.
    pub size: u64,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes in the file; anything else is a hole. One extent for an ordinary file.
    pub extents: Vec<Extent>,
    /// Where the data starts in the archive.
    pub offset: u64,
    /// How many bytes of data the archive has for it.
    pub stored: u64,
}

/// A stream that can go forward without reading.
pub trait Skip: Read + Sized {
    /// Leaves out `count` bytes; going beyond the end is an error.
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(cut_short()) }
    }
}

impl Skip for &mut dyn Read {}
impl Skip for &[u8] {}

impl Skip for &File {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let here = self.stream_position()?;
        let there = here.checked_add(count).ok_or_else(cut_short)?;
        if there > self.metadata()?.len() {
            return Err(cut_short());
        }
        self.seek(SeekFrom::Start(there)).map(drop)
    }
}

/// Reads a tar stream entry by entry.
pub struct Reader<R> {
    inner: R,
    position: u64,
    /// Data of the present entry that is still to come, and the padding after it.
    data_left: u64,
    padding: u64,
    ended: bool,
}

impl<R: Skip> Reader<R> {
    /// Starts at the stream's present position.
    pub fn new(inner: R) -> Self {
        Reader { inner, position: 0, data_left: 0, padding: 0, ended: false }
    }

    /// The stream behind, for what comes after the archive.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The stream behind, between two entries or beside one's data.
    pub fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Whether the archive's end marker was seen. Many readers take a missing one for an end as
    /// well; an archive without one may have been cut between two entries.
    pub fn has_end_marker(&self) -> bool {
        self.ended
    }

    /// The next entry, after leaving out what was not read of the present one.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut records = Records::default();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            let extended = long_path.is_some() || long_link.is_some() || !records.is_empty();
            let Some(header) = self.header()? else {
                return if extended { Err(cut_short()) } else { Ok(None) };
            };
            match header.kind_byte() {
                b'x' => records = Records::parse(&self.extension(&header)?)?,
                b'g' => {
                    // Global records are comments in practice (git archive). Readers disagree on
                    // whether those that rename or resize count, so that they are refused.
                    if Records::parse(&self.extension(&header)?)?.changes_entries() {
                        return Err(wrong("global PAX records that rename or resize entries"));
                    }
                }
                b'L' => long_path = Some(until_nul(self.extension(&header)?)),
                b'K' => long_link = Some(until_nul(self.extension(&header)?)),
                _ => return self.entry(&header, records, long_path, long_link).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        records: Records,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Entry> {
        let mut stored = records.size()?.map_or_else(|| header.size(), Ok)?;
        let mut path = long_path.unwrap_or_else(|| header.path());
        if let Some(value) = records.get(b"path") {
            path = value.to_vec();
        }
        let mut link = long_link.unwrap_or_else(|| header.link());
        if let Some(value) = records.get(b"linkpath") {
            link = value.to_vec();
        }
        let kind = match header.kind_byte() {
            // Archives older than POSIX mark a directory by the slash alone.
            0 | b'0' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        let (mut size, mut extents) = (stored, None);
        if header.kind_byte() == b'S' {
            let map = sparse::old_gnu(header, || self.block())?;
            (size, extents) = (map.size, Some(map.extents));
        } else if kind == Kind::File && records.is_sparse() {
            if let Some(name) = records.get(b"GNU.sparse.name") {
                path = name.to_vec();
            }
            let map = if records.get(b"GNU.sparse.major") == Some(b"1") {
                let (map, length) = sparse::pax_1(&records, || self.block())?;
                stored = stored.checked_sub(length).ok_or_else(|| wrong("sparse map"))?;
                map
            } else {
                sparse::pax_0(&records)?
            };
            (size, extents) = (map.size, Some(map.extents));
        }
        if let Some(extents) = &extents {
            sparse::check(extents, size, stored)?;
        }
        // A hard link may repeat the size of its target without the data: POSIX archives carry it
        // only where PAX says so, and every reader in use takes it for none.
        if matches!(kind, Kind::HardLink | Kind::Symlink | Kind::Directory) {
            if kind == Kind::HardLink && stored != 0 && records.size()?.is_some() {
                return Err(wrong("hard link with data"));
            }
            (size, stored) = (0, 0);
        }
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice | Kind::Fifo) {
            (size, stored) = (0, 0);
        }
        self.data_left = stored;
        self.padding = padding(stored);
        let whole = Extent { offset: 0, length: stored };
        Ok(Entry {
            link,
            kind,
            mode: header.mode()?,
            uid: records.id(b"uid")?.map_or_else(|| header.uid(), Ok)?,
            gid: records.id(b"gid")?.map_or_else(|| header.gid(), Ok)?,
            size,
            mtime: records.mtime()?.map_or_else(|| header.mtime(), Ok)?,
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => header.device()?,
                _ => (0, 0),
            },
            xattrs: records.into_xattrs(),
            extents: extents.unwrap_or_else(|| vec![whole]),
            offset: self.position,
            stored,
            path,
        })
    }

    /// Reads data of the present entry; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(cut_short());
        }
        self.took(read);
        Ok(read)
    }

    fn took(&mut self, count: usize) {
        self.data_left -= count as u64;
        self.position += count as u64;
    }

    /// The next header, or none at the end of the archive.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let left = self.data_left.checked_add(self.padding).ok_or_else(|| wrong("size"))?;
        if left > 0 {
            self.inner.skip(left)?;
            self.position = self.position.checked_add(left).ok_or_else(|| wrong("archive size"))?;
            (self.data_left, self.padding) = (0, 0);
        }
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut_short()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK as u64;
        if block.iter().all(|&byte| byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        Header::check(block).map(Some)
    }

    /// One block that belongs to the header: part of a sparse map.
    fn block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.inner.read_exact(&mut block).map_err(short)?;
        self.position += BLOCK as u64;
        Ok(block)
    }

    /// The data of an extended header.
    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = header.size()?;
        if size > MAX_EXTENSION {
            return Err(wrong("extended header larger than 1 MiB"));
        }
        let mut data = vec![0; size as usize];
        self.inner.read_exact(&mut data).map_err(short)?;
        self.position += size;
        self.padding = padding(size);
        Ok(data)
    }
}

impl<R: Skip + BufRead> Reader<R> {
    /// Gives `take` the next data of the present entry, at most `most` bytes, where it lies in the
    /// stream's own buffer; `take` takes all of it. Returns how many bytes that were, 0 at the end.
    pub fn take_data<E: From<Cut>>(
        &mut self,
        most: u64,
        take: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let most = usize::try_from(self.data_left.min(most)).unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(0);
        }
        let data = self.inner.fill_buf().map_err(Cut)?;
        if data.is_empty() {
            return Err(Cut(cut_short()).into());
        }
        let count = data.len().min(most);
        take(&data[..count])?;
        self.inner.consume(count);
        self.took(count);
        Ok(count as u64)
    }
}

/// The archive broke off or could not be read.
pub struct Cut(pub io::Error);

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    data.truncate(end);
    data
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short")
}

fn short(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { cut_short() } else { error }
}

/// A format error.
fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a valid tar archive: {what}"))
}

#[cfg(test)]
mod tests;
