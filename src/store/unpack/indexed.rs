//! The layer's index, made beside its tree: each entry that became a file is told here, and what
//! that does to the tree is done once more to a tree of names in memory.
//!
//! A layer with more names than this process has memory for gets no index here; one is made from
//! its tree when it is needed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::name::Name;
use crate::error::{During, Error, Result};
use crate::image::tar::{Entry, Kind as EntryKind};
use crate::index::{self, Attributes, Builder, Full, Kind, Limits, Node, is_images_own};
use crate::store::with_space_hint;

/// The unpacker has 64 MiB for everything.
const LIMITS: Limits = Limits { entries: 300_000, bytes: 24 << 20 };
/// The times that every file system keeps; ext4 with small inodes has 32 bits for the seconds.
const TIMES: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;

/// The index of the tree that is being made.
pub(super) struct Indexed {
    /// The layer's directory.
    dir: OwnedFd,
    /// None where it was given up.
    builder: Option<Builder>,
    /// The directory that was looked for last.
    parent: Option<(Name, Node)>,
}

/// What gives an index up: it is too large, or the tree is not what it was thought to be.
struct GivenUp;

impl From<Full> for GivenUp {
    fn from(Full: Full) -> Self {
        GivenUp
    }
}

type Step<T = ()> = std::result::Result<T, GivenUp>;

impl Indexed {
    /// For the tree of a layer, whose directory this is.
    pub(super) fn beside(dir: &OwnedFd) -> Result<Self> {
        let dir = dir.try_clone().during("duplicate", "a descriptor")?;
        Ok(Indexed { dir, builder: Some(Builder::new(LIMITS)), parent: None })
    }

    fn step(&mut self, step: impl FnOnce(&mut Self) -> Step) {
        if self.builder.is_some() && step(self).is_err() {
            self.builder = None;
        }
    }

    /// An entry has become what it says, in the place of whatever was there.
    pub(super) fn entry(&mut self, name: &Name, entry: &Entry) {
        self.step(|own| own.made(name, entry));
    }

    /// A directory was made because something is in it.
    pub(super) fn implied(&mut self, name: &Name) {
        self.step(|own| own.directory(name).map(drop));
    }

    /// A whiteout was met: it hides what lower layers have under the name, and nothing of this one.
    pub(super) fn whiteout(&mut self, name: &Name) {
        self.step(|own| {
            let dir = own.directory(&name.parent())?;
            let leaf = name.leaf().as_bytes();
            let builder = own.builder()?;
            match builder.find(dir, leaf) {
                Some(node) if builder.kind(node) == Kind::Directory => builder.set_opaque(node),
                Some(_) => (),
                None => drop(builder.make(dir, leaf, &whiteout(), b"")?),
            }
            Ok(())
        });
    }

    /// A directory was marked opaque.
    pub(super) fn opaque(&mut self, name: &Name) {
        self.step(|own| {
            let dir = own.directory(name)?;
            own.builder()?.set_opaque(dir);
            Ok(())
        });
    }

    /// Writes the index, unless it was given up.
    pub(super) fn finish(self) -> Result<()> {
        let Some(builder) = self.builder else { return Ok(()) };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(&self.dir, "index", flags, mode).during("make", "the layer's index")?;
        let mut file = BufWriter::with_capacity(64 << 10, File::from(file));
        builder.write(&mut file).and_then(|()| file.flush()).map_err(|error| {
            let errno = crate::error::Errno::from(error).0;
            with_space_hint(Error::os("write", "the layer's index", errno), errno)
        })
    }

    fn builder(&mut self) -> Step<&mut Builder> {
        self.builder.as_mut().ok_or(GivenUp)
    }

    /// A directory; what is missing of it is made, as the tree makes it.
    fn directory(&mut self, name: &Name) -> Step<Node> {
        if name.is_root() {
            return Ok(Node::ROOT);
        }
        if let Some((known, node)) = &self.parent
            && known == name
        {
            return Ok(*node);
        }
        let builder = self.builder()?;
        let mut dir = Node::ROOT;
        for part in name.path().as_os_str().as_bytes().split(|&byte| byte == b'/') {
            let found = builder.find(dir, part);
            dir = match found.map(|node| (node, builder.kind(node))) {
                Some((node, Kind::Directory)) => node,
                Some((_, Kind::Whiteout)) => {
                    let opaque = Attributes { is_opaque: true, ..Attributes::implied() };
                    builder.make(dir, part, &opaque, b"")?
                }
                None => builder.make(dir, part, &Attributes::implied(), b"")?,
                Some(_) => return Err(GivenUp),
            };
        }
        self.parent = Some((name.clone(), dir));
        Ok(dir)
    }

    fn made(&mut self, name: &Name, entry: &Entry) -> Step {
        if !TIMES.contains(&entry.mtime.0) {
            return Err(GivenUp);
        }
        if name.is_root() {
            let builder = self.builder()?;
            builder.set(Node::ROOT, &attributes(entry, Kind::Directory));
            return give_xattrs(builder, Node::ROOT, entry);
        }
        let dir = self.directory(&name.parent())?;
        let leaf = name.leaf().as_bytes();
        let builder = self.builder.as_mut().ok_or(GivenUp)?;
        let found = builder.find(dir, leaf).map(|node| (node, builder.kind(node)));
        let kind = match entry.kind {
            EntryKind::HardLink => return self.link(dir, name, entry),
            EntryKind::Directory => {
                let node = match found {
                    Some((node, Kind::Directory)) => {
                        builder.set(node, &attributes(entry, Kind::Directory));
                        node
                    }
                    found => {
                        let is_opaque = matches!(found, Some((_, Kind::Whiteout)));
                        let attributes =
                            Attributes { is_opaque, ..attributes(entry, Kind::Directory) };
                        builder.make(dir, leaf, &attributes, b"")?
                    }
                };
                return give_xattrs(builder, node, entry);
            }
            EntryKind::File => Kind::File,
            EntryKind::Symlink => Kind::Symlink,
            EntryKind::CharDevice => Kind::CharDevice,
            EntryKind::BlockDevice => Kind::BlockDevice,
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Other(_) => return Err(GivenUp),
        };
        let target = if kind == Kind::Symlink { entry.link.as_slice() } else { b"" };
        let node = builder.make(dir, leaf, &attributes(entry, kind), target)?;
        if kind == Kind::File {
            give_xattrs(builder, node, entry)?;
        }
        self.replaced(found);
        Ok(())
    }

    fn link(&mut self, dir: Node, name: &Name, entry: &Entry) -> Step {
        let target = Name::clean(&entry.link).map_err(|_| GivenUp)?;
        if target == *name {
            return Ok(());
        }
        let builder = self.builder.as_mut().ok_or(GivenUp)?;
        let node = target
            .path()
            .iter()
            .try_fold(Node::ROOT, |dir, part| builder.find(dir, part.as_bytes()));
        let node = node.ok_or(GivenUp)?;
        let leaf = name.leaf().as_bytes();
        let found = builder.find(dir, leaf).map(|node| (node, builder.kind(node)));
        builder.link(dir, leaf, node)?;
        self.replaced(found);
        Ok(())
    }

    /// A directory that gave way took those in it along.
    fn replaced(&mut self, found: Option<(Node, Kind)>) {
        if matches!(found, Some((_, Kind::Directory))) {
            self.parent = None;
        }
    }
}

fn whiteout() -> Attributes {
    Attributes { kind: Kind::Whiteout, mode: 0, size: 0, blocks: 0, ..Attributes::implied() }
}

fn attributes(entry: &Entry, kind: Kind) -> Attributes {
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let pieces = entry.extents.iter().map(|extent| (extent.offset, extent.length));
    Attributes {
        kind,
        mode: if kind == Kind::Symlink { 0o777 } else { entry.mode },
        uid: entry.uid,
        gid: entry.gid,
        size: if kind == Kind::File { entry.size } else { 0 },
        blocks: if kind == Kind::File { index::blocks(pieces) } else { 0 },
        mtime: entry.mtime,
        device: if is_device { entry.device } else { (0, 0) },
        ..Attributes::implied()
    }
}

/// As they are set on the file: one that has the attribute already gets the new value.
fn give_xattrs(builder: &mut Builder, node: Node, entry: &Entry) -> Step {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_images_own(name)) {
        builder.set_xattr(node, name, value)?;
    }
    Ok(())
}
