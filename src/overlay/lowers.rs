//! The layers of an image as one tree that is only read: names from above hide those below,
//! whiteouts hide them too, opaque directories all of them (overlayfs.rst, "whiteouts and opaque
//! directories"). It knows no FUSE: it is asked, and answers from the indexes of the layers.
//!
//! Directories that are in several layers are one. Nothing is kept for a node, so that it does not
//! matter how many are known to the kernel: all that grows has a bound.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, PoisonError, RwLock};

use nix::errno::Errno;

use super::files::Files;
use crate::error::{During, Error, Result};
use crate::index::{Attributes, Kind, LayerIndex, Node};
use crate::sys::fs::{Resolve, openat2};

/// Of how many directories the parts are remembered; some 80 bytes each.
const REMEMBERED: usize = 16384;

/// The prefix of overlayfs' own marks, which are never shown.
const MARKS: &[u8] = b"user.overlay.";

/// What a name of the merged tree stands for: a node of one layer. A directory is named by its
/// topmost part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id {
    layer: u32,
    node: Node,
}

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The name; `.` and `..` come first.
    pub name: &'a [u8],
    /// What it stands for.
    pub id: Id,
    /// Its type.
    pub kind: Kind,
    /// The offset at which listing goes on behind it.
    pub next: u64,
}

struct Layer {
    fs: OwnedFd,
    index: LayerIndex,
    /// The number of its root.
    first: u64,
}

/// The merged layers. They never change, and neither does any answer.
pub struct Lowers {
    /// The topmost first.
    layers: Vec<Layer>,
    parts: RwLock<HashMap<Id, Arc<[Id]>>>,
    files: Files<Id>,
}

impl Lowers {
    /// Takes the layers, the topmost first: the directory of each one's tree, and its index.
    pub fn new(layers: Vec<(OwnedFd, LayerIndex)>) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::new("merge layers: there are none"));
        }
        let mut first = 1;
        let layers = layers
            .into_iter()
            .map(|(fs, index)| {
                let layer = Layer { fs, first, index };
                first += u64::from(layer.index.len());
                layer
            })
            .collect();
        let files = Files::new().during("get", "the limit on open files")?;
        Ok(Lowers { layers, parts: RwLock::default(), files })
    }

    /// Keeps no more files open than so many, where others in the process need theirs.
    pub(super) fn keep_at_most(&mut self, files: usize) {
        self.files.keep_at_most(files);
    }

    /// The root of the tree.
    pub fn root(&self) -> Id {
        Id { layer: 0, node: Node::ROOT }
    }

    /// The directories of the layers' trees.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.layers.iter().map(|layer| layer.fs.as_fd())
    }

    /// The number of a node: 1 for the root, and never the same for two. It depends on the layers
    /// only, and stays below 2^32 unless they have more nodes than that.
    pub fn number(&self, id: Id) -> u64 {
        let first = self.layer(id).map_or(0, |layer| layer.first);
        first + u64::from(id.node.0)
    }

    /// The node of a number.
    pub fn id(&self, number: u64) -> Option<Id> {
        let after = self.layers.partition_point(|layer| layer.first <= number);
        let layer = after.checked_sub(1)?;
        let found = self.layers.get(layer)?;
        let node = u32::try_from(number - found.first).ok()?;
        let id = Id { layer: u32::try_from(layer).ok()?, node: Node(node) };
        (node < found.index.len()).then_some(id)
    }

    /// One more than the largest number.
    pub fn end(&self) -> u64 {
        self.layers.last().map_or(1, |last| last.first + u64::from(last.index.len()))
    }

    /// Attributes, a directory's from its topmost part.
    pub fn attributes(&self, id: Id) -> Result<Attributes, Errno> {
        // A node that the index does not have is a broken index: an I/O error.
        self.layer(id).and_then(|layer| layer.index.attributes(id.node)).ok_or(Errno::EIO)
    }

    /// What a name in a directory stands for.
    pub fn lookup(&self, directory: Id, name: &[u8]) -> Result<Option<Id>, Errno> {
        let parts = self.parts(directory)?;
        for part in parts.iter() {
            let Some(found) = self.child(*part, name) else { continue };
            return match self.attributes(found)?.kind {
                Kind::Whiteout => Ok(None),
                _ => Ok(Some(found)),
            };
        }
        Ok(None)
    }

    /// The directory that a directory is in; the root's is itself.
    pub fn parent(&self, directory: Id) -> Result<Id, Errno> {
        let layer = self.layer(directory).ok_or(Errno::EIO)?;
        if directory.node == Node::ROOT {
            return Ok(self.root());
        }
        let (up, _) = layer.index.place(directory.node).ok_or(Errno::EIO)?;
        let parts = self.parts(Id { node: up, ..directory })?;
        parts.first().copied().ok_or(Errno::EIO)
    }

    /// Tells the entries of a directory, `.` and `..` first and then in the order of their names,
    /// from an offset on, until `each` returns false. 0 is the beginning; other offsets are those
    /// that came with an entry, at any time. One that never came ends the list.
    pub fn list(
        &self,
        directory: Id,
        from: u64,
        each: &mut dyn FnMut(&Listed<'_>) -> bool,
    ) -> Result<(), Errno> {
        let parts = self.parts(directory)?;
        for (offset, name) in [b".".as_slice(), b".."].into_iter().enumerate() {
            if from > offset as u64 {
                continue;
            }
            let id = if offset == 0 { directory } else { self.parent(directory)? };
            let next = offset as u64 + 1;
            if !each(&Listed { name, id, kind: Kind::Directory, next }) {
                return Ok(());
            }
        }
        let mut heads = Heads::at(self, &parts, from)?;
        while let Some((id, name, next)) = heads.next(self, &parts) {
            let kind = self.attributes(id)?.kind;
            if kind != Kind::Whiteout && !each(&Listed { name, id, kind, next }) {
                break;
            }
        }
        Ok(())
    }

    /// The target of a symbolic link.
    pub fn target(&self, id: Id) -> Result<&[u8], Errno> {
        self.layer(id).and_then(|layer| layer.index.target(id.node)).ok_or(Errno::EINVAL)
    }

    /// Whether any layer has extended attributes of its own.
    pub fn any_xattrs(&self) -> bool {
        self.layers.iter().any(|layer| layer.index.any_xattrs())
    }

    /// The extended attributes of a node, names and values.
    pub fn xattrs(&self, id: Id) -> impl Iterator<Item = (&[u8], &[u8])> {
        let all = self.layer(id).map(|layer| layer.index.xattrs(id.node));
        all.into_iter().flatten().filter(|(name, _)| !name.starts_with(MARKS))
    }

    /// The value of one of them.
    pub fn xattr(&self, id: Id, name: &[u8]) -> Option<&[u8]> {
        self.xattrs(id).find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// A regular file, open for reading. The descriptor is shared: it is read at offsets only.
    pub fn open(&self, id: Id) -> Result<Arc<OwnedFd>, Errno> {
        match self.attributes(id)?.kind {
            Kind::File => {}
            Kind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        self.files.get(id, || self.open_new(id))
    }

    /// The path of a node below the directory of its layer; of a file with several names, one.
    pub fn path(&self, id: Id) -> Result<Vec<u8>, Errno> {
        self.layer(id).and_then(|layer| layer.index.path(id.node)).ok_or(Errno::EIO)
    }

    /// The directory of the tree that a node's path starts from.
    pub fn base(&self, id: Id) -> Result<BorrowedFd<'_>, Errno> {
        self.layer(id).map(|layer| layer.fs.as_fd()).ok_or(Errno::EIO)
    }

    fn open_new(&self, id: Id) -> Result<OwnedFd, Errno> {
        // What is no regular file after all is not waited for. Reading does not count as an access:
        // a write to the layer's inode for every file that is read, and of no use to anybody.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let (base, path) = (self.base(id)?, self.path(id)?);
        let open = |flags| {
            openat2(base, OsStr::from_bytes(&path), flags, 0, Resolve::BeneathNoSymlinks)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        };
        match open(flags | libc::O_NOATIME) {
            // Only the owner may ask for that.
            Err(Errno::EPERM) => open(flags),
            // The index has it and the tree does not.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Err(Errno::EIO),
            done => done,
        }
    }

    fn layer(&self, id: Id) -> Option<&Layer> {
        self.layers.get(usize::try_from(id.layer).ok()?)
    }

    fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        let node = self.layer(directory)?.index.child(directory.node, name)?;
        Some(Id { node, ..directory })
    }

    /// The directories of the layers that a directory consists of, the topmost first. Asked of one
    /// of them, whichever it is, since its path is that of all of them.
    fn parts(&self, directory: Id) -> Result<Arc<[Id]>, Errno> {
        let layer = self.layer(directory).ok_or(Errno::EIO)?;
        if let Some(known) = self.remembered(directory) {
            return Ok(known);
        }
        if self.attributes(directory)?.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        // Up to one that is known, and down again. `place` leads to lower numbers only.
        let mut way = Vec::new();
        let mut at = directory;
        let mut parts = loop {
            if at.node == Node::ROOT {
                break self.roots()?;
            }
            if let Some(known) = self.remembered(at) {
                break known;
            }
            let (up, name) = layer.index.place(at.node).ok_or(Errno::EIO)?;
            way.push((at, name));
            at = Id { node: up, ..at };
        };
        for (id, name) in way.into_iter().rev() {
            parts = self.below(&parts, name)?;
            if !parts.contains(&id) {
                return Err(Errno::EIO);
            }
            self.remember(id, &parts);
        }
        Ok(parts)
    }

    /// The roots, down to one that is opaque.
    fn roots(&self) -> Result<Arc<[Id]>, Errno> {
        let mut roots = Vec::new();
        for layer in 0..self.layers.len() {
            let root =
                Id { layer: u32::try_from(layer).map_err(|_| Errno::EIO)?, node: Node::ROOT };
            roots.push(root);
            if self.attributes(root)?.is_opaque {
                break;
            }
        }
        Ok(roots.into())
    }

    /// The parts of a directory in a directory that has these parts.
    fn below(&self, parts: &[Id], name: &[u8]) -> Result<Arc<[Id]>, Errno> {
        let mut found = Vec::new();
        for part in parts {
            let Some(child) = self.child(*part, name) else { continue };
            let attributes = self.attributes(child)?;
            // A whiteout, or another file, ends what shows from below.
            if attributes.kind != Kind::Directory {
                break;
            }
            found.push(child);
            if attributes.is_opaque {
                break;
            }
        }
        Ok(found.into())
    }

    fn remembered(&self, directory: Id) -> Option<Arc<[Id]>> {
        // Nothing panics while it is held.
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts.get(&directory).cloned()
    }

    fn remember(&self, directory: Id, found: &Arc<[Id]>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        // Trees are gone through in order, so that emptying it serves as well as ageing.
        if parts.len() >= REMEMBERED {
            parts.clear();
        }
        parts.insert(directory, Arc::clone(found));
    }
}

/// Where listing stands in each of the parts of a directory.
struct Heads {
    positions: Vec<u32>,
}

/// The offset of the first entry that is neither `.` nor `..`.
const FIRST: u64 = 2;

impl Heads {
    /// An offset says which entry came last: its position in its part, and which part that is. The
    /// positions in the others follow from its name, so that nothing needs to be remembered.
    fn at(lowers: &Lowers, parts: &[Id], from: u64) -> Result<Self, Errno> {
        let Some(last) = from.checked_sub(FIRST + 1) else {
            return Ok(Heads { positions: vec![0; parts.len()] });
        };
        let count = parts.len().max(1) as u64;
        let (which, position) = (last % count, u32::try_from(last / count));
        let which = usize::try_from(which).map_err(|_| Errno::EINVAL)?;
        let part = parts.get(which).ok_or(Errno::EIO)?;
        let name = position.ok().and_then(|position| lowers.at(*part, position));
        let positions = match name {
            Some((name, _)) => {
                parts.iter().map(|part| lowers.position_after(*part, name)).collect()
            }
            None => vec![u32::MAX; parts.len()],
        };
        Ok(Heads { positions })
    }

    /// The next name in order, from the topmost part that has it, and the offset behind it.
    fn next<'a>(&mut self, lowers: &'a Lowers, parts: &[Id]) -> Option<(Id, &'a [u8], u64)> {
        let heads = || parts.iter().zip(&self.positions).enumerate();
        let (which, found, name, position) = heads()
            .filter_map(|(which, (part, position))| {
                let (name, node) = lowers.at(*part, *position)?;
                Some((which, Id { node, ..*part }, name, *position))
            })
            // Of equal ones the first.
            .min_by_key(|(_, _, name, _)| *name)?;
        for (part, position) in parts.iter().zip(&mut self.positions) {
            if lowers.at(*part, *position).is_some_and(|(other, _)| other == name) {
                *position += 1;
            }
        }
        let count = parts.len().max(1) as u64;
        let next = FIRST + 1 + u64::from(position) * count + which as u64;
        Some((found, name, next))
    }
}

impl Lowers {
    fn at(&self, directory: Id, position: u32) -> Option<(&[u8], Node)> {
        self.layer(directory)?.index.child_at(directory.node, position)
    }

    /// How many names of a part are not behind this one in order.
    fn position_after(&self, directory: Id, name: &[u8]) -> u32 {
        let Some(layer) = self.layer(directory) else { return 0 };
        let (mut low, mut high) = (0, layer.index.children_len(directory.node));
        while low < high {
            let middle = low + (high - low) / 2;
            match layer.index.child_at(directory.node, middle) {
                Some((found, _)) if found <= name => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}
