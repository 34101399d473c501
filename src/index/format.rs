//! The file: a header, a record for each node, a record for each name, and the bytes that they
//! point to. Numbers are little-endian.
//!
//! Nodes are numbered breadth first, in the order in which the names lead to them, and the bytes lie
//! in the order of what points to them, so that equal trees have equal files. The names of one
//! directory lie together, sorted bytewise.

use super::{Attributes, Kind};

/// What the file starts with; the last byte is the version of the format.
pub(super) const MAGIC: [u8; 16] = *b"casemate-index\0\x01";
/// Magic, then the number of nodes, of names, of bytes, and the flags, four bytes each.
pub(super) const HEADER: usize = 32;
pub(super) const NODE: usize = 64;
pub(super) const ENTRY: usize = 16;
/// A flag of the header: some node has extended attributes.
pub(super) const ANY_XATTRS: u32 = 1;
/// A flag of the header: made from the tree on disk, which does not say all.
pub(super) const WALKED: u32 = 2;
/// The lengths of an attribute's name and value, before both.
pub(super) const XATTR: usize = 8;

const OPAQUE: u32 = 1 << 24;

/// The header's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) nodes: u32,
    pub(super) entries: u32,
    pub(super) bytes: u32,
    pub(super) flags: u32,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut record = [0; HEADER];
        record[..16].copy_from_slice(&MAGIC);
        put(&mut record, 16, &[self.nodes, self.entries, self.bytes, self.flags]);
        record
    }

    pub(super) fn decode(record: &[u8; HEADER]) -> Self {
        let number = |at| get(record, at);
        Header { nodes: number(16), entries: number(20), bytes: number(24), flags: number(28) }
    }
}

/// A piece of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Piece {
    pub(super) start: u32,
    pub(super) length: u32,
}

/// A node as it is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) attributes: Attributes,
    /// One of its names: the number of the entry. The root's means nothing.
    pub(super) place: u32,
    /// The entries of a directory, or the target of a symbolic link.
    pub(super) own: Piece,
    pub(super) xattrs: Piece,
}

impl Record {
    pub(super) fn encode(&self) -> [u8; NODE] {
        let attributes = &self.attributes;
        let own = match attributes.kind {
            Kind::CharDevice | Kind::BlockDevice => [attributes.device.0, attributes.device.1],
            _ => [self.own.start, self.own.length],
        };
        let opaque = if attributes.is_opaque { OPAQUE } else { 0 };
        let mut record = [0; NODE];
        record[..8].copy_from_slice(&attributes.mtime.0.to_le_bytes());
        record[8..16].copy_from_slice(&attributes.size.to_le_bytes());
        record[16..24].copy_from_slice(&attributes.blocks.to_le_bytes());
        put(
            &mut record,
            24,
            &[
                attributes.mtime.1,
                attributes.mode & 0o7777 | attributes.kind.number() << 16 | opaque,
                attributes.uid,
                attributes.gid,
                attributes.links,
                self.place,
                own[0],
                own[1],
                self.xattrs.start,
                self.xattrs.length,
            ],
        );
        record
    }

    /// `None` for a kind that there is not.
    pub(super) fn decode(record: &[u8; NODE]) -> Option<Self> {
        let number = |at| get(record, at);
        let long = |at| u64::from(get(record, at)) | u64::from(get(record, at + 4)) << 32;
        let bits = number(28);
        let kind = Kind::from_number(bits >> 16 & 0xff)?;
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let (first, second) = (number(48), number(52));
        Some(Record {
            attributes: Attributes {
                kind,
                mode: bits & 0o7777,
                uid: number(32),
                gid: number(36),
                size: long(8),
                blocks: long(16),
                // A time that statx(2) could not have is none that the kernel would take.
                mtime: (long(0).cast_signed(), number(24).min(999_999_999)),
                device: if is_device { (first, second) } else { (0, 0) },
                links: number(40),
                is_opaque: bits & OPAQUE != 0 && kind == Kind::Directory,
                has_xattrs: number(60) > 0,
            },
            place: number(44),
            own: match is_device {
                true => Piece::default(),
                false => Piece { start: first, length: second },
            },
            xattrs: Piece { start: number(56), length: number(60) },
        })
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Piece,
    pub(super) parent: u32,
    pub(super) node: u32,
}

impl Entry {
    pub(super) fn encode(&self) -> [u8; ENTRY] {
        let mut record = [0; ENTRY];
        put(&mut record, 0, &[self.name.start, self.name.length, self.parent, self.node]);
        record
    }

    pub(super) fn decode(record: &[u8; ENTRY]) -> Self {
        let number = |at| get(record, at);
        Entry {
            name: Piece { start: number(0), length: number(4) },
            parent: number(8),
            node: number(12),
        }
    }
}

impl Kind {
    pub(super) fn number(self) -> u32 {
        match self {
            Kind::File => 1,
            Kind::Directory => 2,
            Kind::Symlink => 3,
            Kind::Fifo => 4,
            Kind::Socket => 5,
            Kind::CharDevice => 6,
            Kind::BlockDevice => 7,
            Kind::Whiteout => 8,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Kind::File,
            2 => Kind::Directory,
            3 => Kind::Symlink,
            4 => Kind::Fifo,
            5 => Kind::Socket,
            6 => Kind::CharDevice,
            7 => Kind::BlockDevice,
            8 => Kind::Whiteout,
            _ => return None,
        })
    }
}

fn put(record: &mut [u8], at: usize, numbers: &[u32]) {
    for (place, number) in record[at..].chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// The number at a place of a record that has it.
fn get(record: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&record[at..at + 4]);
    u32::from_le_bytes(bytes)
}
