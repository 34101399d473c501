//! The index of a layer: what the overlay's server must know of every file without a look at the
//! disk. One file beside the layer's tree, mapped into memory and read in place.
//!
//! The file was written by a process that read a foreign archive, and lies on a disk: whatever is in
//! it, reading never panics, never loops, and leaves the tree by no name. What does not fit is not
//! there.

mod builder;
mod compare;
mod format;
pub mod override_stat;
mod walk;

use std::fs::File;
use std::sync::Arc;

use nix::sys::stat::FileStat;

use crate::error::{During, Error, Result};
use crate::sys::map::Mapping;

pub use builder::{Builder, Full, Limits};
pub use compare::differences;
pub use walk::{is_images_own, walk};

use format::{ANY_XATTRS, ENTRY, Entry, HEADER, Header, MAGIC, NODE, Piece, Record, WALKED, XATTR};

/// The longest path that a call takes, without its NUL byte.
const PATH_MAX: usize = 4095;
const NAME_MAX: usize = 255;

/// The index of one layer, mapped into memory. Copies share the mapping.
#[derive(Debug, Clone)]
pub struct LayerIndex {
    map: Arc<Mapping>,
    header: Header,
}

/// A file, directory or other thing in one layer, by its number there. It has several names where
/// there are hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(pub u32);

impl Node {
    /// The layer's root directory.
    pub const ROOT: Node = Node(0);
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket. No image has one; a tree that is walked may.
    Socket,
    /// A character device, as the image has it; on disk it is an empty file.
    CharDevice,
    /// A block device, as the image has it; on disk it is an empty file.
    BlockDevice,
    /// The overlay's mark that the layers below have nothing under this name (a 0:0 character
    /// device on disk).
    Whiteout,
}

impl Kind {
    /// What is on disk: a whiteout is a 0:0 character device.
    pub fn of(stat: &FileStat) -> Self {
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFCHR if stat.st_rdev == 0 => Kind::Whiteout,
            libc::S_IFCHR => Kind::CharDevice,
            _ => Kind::BlockDevice,
        }
    }
}

/// The attributes of a node, as the image has them and not as they are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// What it is.
    pub kind: Kind,
    /// The permission bits with setuid, setgid and sticky (0o7777); 0o777 for symbolic links.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes of a file, or of a symbolic link's target; 4096 for directories, 0 otherwise.
    pub size: u64,
    /// 512-byte blocks that hold data, by 4 KiB: holes do not count, nor what a file system takes or
    /// saves.
    pub blocks: u64,
    /// When it was modified: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// How many names it has in the layer; of a directory, two and its directories.
    pub links: u32,
    /// Nothing of the layers below shows in this directory.
    pub is_opaque: bool,
    /// It has extended attributes of the image's own.
    pub has_xattrs: bool,
}

impl LayerIndex {
    /// Maps an index. The error says what is wrong with a file that is none; its contents are
    /// verified where they are used.
    pub fn open(file: &File) -> Result<Self> {
        let length = file.metadata().during("stat", "the layer's index")?.len();
        if length < HEADER as u64 {
            return Err(unusable("is too short"));
        }
        let map = Mapping::of(file).during("map", "the layer's index")?;
        let Some((header, rest)) = map.split_first_chunk::<HEADER>() else {
            return Err(unusable("is too short"));
        };
        let (magic, version) = (&header[..15], header[15]);
        if magic != &MAGIC[..15] {
            return Err(unusable("is none"));
        }
        if version != MAGIC[15] {
            return Err(unusable("has a format that this version does not know"));
        }
        let header = Header::decode(header);
        let wanted = u64::from(header.nodes) * NODE as u64
            + u64::from(header.entries) * ENTRY as u64
            + u64::from(header.bytes);
        if wanted != rest.len() as u64 {
            return Err(unusable("is not as long as it should be"));
        }
        let index = LayerIndex { map: Arc::new(map), header };
        match index.attributes(Node::ROOT) {
            Some(root) if root.kind == Kind::Directory => Ok(index),
            _ => Err(unusable("has no root directory")),
        }
    }

    /// How many nodes there are; they are numbered from 0.
    #[allow(clippy::len_without_is_empty, reason = "there is always a root")]
    pub fn len(&self) -> u32 {
        self.header.nodes
    }

    /// How many names there are in all directories.
    pub fn names(&self) -> u32 {
        self.header.entries
    }

    /// The attributes of a node; `None` where there is no such node.
    pub fn attributes(&self, node: Node) -> Option<Attributes> {
        self.record(node).map(|record| record.attributes)
    }

    /// What a directory has under a name: a binary search.
    pub fn child(&self, dir: Node, name: &[u8]) -> Option<Node> {
        let entries = self.entries(dir)?;
        let (mut low, mut high) = (0, entries.length);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(entries.start + middle)?;
            match self.piece(entry.name)?.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    return self.named(dir, entries.start + middle).map(|(_, node)| node);
                }
            }
        }
        None
    }

    /// How many names a directory has; 0 for what is none.
    pub fn children_len(&self, dir: Node) -> u32 {
        self.entries(dir).map_or(0, |entries| entries.length)
    }

    /// The name at a position of a directory, and what it leads to; names are sorted bytewise.
    pub fn child_at(&self, dir: Node, position: u32) -> Option<(&[u8], Node)> {
        let entries = self.entries(dir)?;
        (position < entries.length).then_some(())?;
        self.named(dir, entries.start + position)
    }

    /// The target of a symbolic link.
    pub fn target(&self, node: Node) -> Option<&[u8]> {
        let record = self.record(node).filter(|record| record.attributes.kind == Kind::Symlink)?;
        let target = self.piece(record.own)?;
        (!target.is_empty() && target.len() <= PATH_MAX && !target.contains(&0)).then_some(target)
    }

    /// One name of a node, and the directory that has it, which has a lower number. `None` for the
    /// root.
    pub fn place(&self, node: Node) -> Option<(Node, &[u8])> {
        let place = self.record(node).filter(|_| node != Node::ROOT)?.place;
        let entry = self.entry(place)?;
        let dir = Node(entry.parent);
        let entries = self.entries(dir)?;
        let is_in = place >= entries.start && place - entries.start < entries.length;
        // Numbers that only go down end at the root.
        (is_in && entry.node == node.0 && dir < node).then_some(())?;
        self.named(dir, place).map(|(name, _)| (dir, name))
    }

    /// The path of one name of a node below the layer's root, without a slash before it; empty for
    /// the root.
    pub fn path(&self, node: Node) -> Option<Vec<u8>> {
        self.record(node)?;
        let (mut names, mut length, mut at) = (Vec::new(), 0, node);
        while at != Node::ROOT {
            let (dir, name) = self.place(at)?;
            length += name.len() + 1;
            (length <= PATH_MAX + 1).then_some(())?;
            names.push(name);
            at = dir;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// The extended attributes that the image gives a node: names with `user.` before them, sorted,
    /// and values.
    pub fn xattrs(&self, node: Node) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.record(node).and_then(|record| self.piece(record.xattrs));
        std::iter::from_fn(move || {
            let (lengths, bytes) = rest.take()?.split_first_chunk::<XATTR>()?;
            let lengths = u64::from_le_bytes(*lengths);
            let (name, value) = (lengths as u32 as usize, (lengths >> 32) as usize);
            let (name, bytes) = bytes.split_at_checked(name)?;
            let (value, bytes) = bytes.split_at_checked(value)?;
            rest = Some(bytes);
            (name.starts_with(b"user.") && !name.contains(&0)).then_some((name, value))
        })
    }

    /// Whether any node has extended attributes.
    pub fn any_xattrs(&self) -> bool {
        self.header.flags & ANY_XATTRS != 0
    }

    /// Whether it was made from the tree on disk, which does not say whose symbolic links and FIFOs
    /// are.
    pub fn is_walked(&self) -> bool {
        self.header.flags & WALKED != 0
    }

    fn record(&self, node: Node) -> Option<Record> {
        (node.0 < self.header.nodes).then_some(())?;
        Record::decode(self.bytes(HEADER, node.0, NODE)?.first_chunk()?)
    }

    fn entry(&self, number: u32) -> Option<Entry> {
        (number < self.header.entries).then_some(())?;
        let start = HEADER + self.header.nodes as usize * NODE;
        Some(Entry::decode(self.bytes(start, number, ENTRY)?.first_chunk()?))
    }

    /// The record of a number in a section.
    fn bytes(&self, section: usize, number: u32, size: usize) -> Option<&[u8]> {
        let start = section + number as usize * size;
        self.map.get(start..start + size)
    }

    fn piece(&self, piece: Piece) -> Option<&[u8]> {
        let section =
            HEADER + self.header.nodes as usize * NODE + self.header.entries as usize * ENTRY;
        let start = section + piece.start as usize;
        self.map.get(start..start + piece.length as usize)
    }

    /// The entries of a directory.
    fn entries(&self, dir: Node) -> Option<Piece> {
        let record = self.record(dir).filter(|record| record.attributes.kind == Kind::Directory)?;
        let end = record.own.start.checked_add(record.own.length)?;
        (end <= self.header.entries).then_some(record.own)
    }

    /// An entry of a directory, if it is a name that it can have. A directory has no more than one
    /// name, and the root none: who goes down never comes to where he was.
    fn named(&self, dir: Node, number: u32) -> Option<(&[u8], Node)> {
        let entry = self.entry(number).filter(|entry| entry.parent == dir.0)?;
        let node = Node(entry.node);
        let record = self.record(node).filter(|_| node != Node::ROOT)?;
        if record.attributes.kind == Kind::Directory && (record.place != number || node <= dir) {
            return None;
        }
        let name = self.piece(entry.name).filter(|name| is_name(name))?;
        Some((name, node))
    }
}

/// The 512-byte blocks of a file that has data at these places, which are given in order: start and
/// length in bytes. See [`Attributes::blocks`].
pub fn blocks(pieces: impl Iterator<Item = (u64, u64)>) -> u64 {
    let (mut pages, mut next) = (0, 0);
    for (start, length) in pieces.filter(|(_, length)| *length > 0) {
        let first = (start / 4096).max(next);
        let end = start.saturating_add(length).div_ceil(4096).max(first);
        pages += end - first;
        next = end;
    }
    pages * 8
}

/// Whether it may be the name of something in a directory.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

fn unusable(why: &str) -> Error {
    Error::new(format!("the layer's index {why}"))
        .hint("`casemate store check --repair` makes it anew")
}

#[cfg(test)]
mod tests;
