//! The index of a tree on disk, for a layer that has none that could be read.
//!
//! What the disk does not say is filled in: symbolic links and FIFOs cannot have the attribute that
//! keeps owners, so that they are root's here, as nearly all are in images.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, major, minor};
use nix::unistd::{Whence, lseek};

use super::builder::full_blocks;
use super::override_stat::{self, Override};
use super::{Attributes, Builder, Full, Kind, Limits, Node, blocks};
use crate::error::{During, Error, Result};
use crate::sys::fs::{Resolve, get_xattr, list_xattrs, openat2};

/// As much as the largest layer that is unpacked can have.
const LIMITS: Limits = Limits { entries: 8 << 20, bytes: 1 << 30 };
/// The deepest directory that is unpacked.
const MAX_DEPTH: usize = 512;
/// What the kernel gives as a path at the most.
const PATH_MAX: usize = 4095;

const FILE: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// Walks the tree of a layer. No symbolic link is followed, and no more than a few descriptors are
/// open at once.
pub fn walk(root: &OwnedFd) -> Result<Builder> {
    let mut walk = Walk { root, builder: Builder::new(LIMITS), links: HashMap::new() };
    walk.builder.mark_walked();
    let mut path = Vec::new();
    let top = walk.directory(Node::ROOT, &path)?;
    // The directories on the way, each with those in it that are still to come.
    let mut way = vec![(0, top)];
    while let Some((length, left)) = way.last_mut() {
        path.truncate(*length);
        let Some((name, node)) = left.pop() else {
            way.pop();
            continue;
        };
        join(&mut path, &name);
        if way.len() > MAX_DEPTH || path.len() > PATH_MAX {
            return Err(broken(&path, "is nested too deeply"));
        }
        let inner = walk.directory(node, &path)?;
        way.push((path.len(), inner));
    }
    Ok(walk.builder)
}

struct Walk<'a> {
    root: &'a OwnedFd,
    builder: Builder,
    /// Files with several names, in this layer or elsewhere, by device and inode number.
    links: HashMap<(u64, u64), Node>,
}

impl Walk<'_> {
    /// Notes a directory and what is in it; returns the directories in it.
    fn directory(&mut self, node: Node, path: &[u8]) -> Result<Vec<(Box<[u8]>, Node)>> {
        let shown = OsStr::from_bytes(path);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let dir =
            openat2(self.root.as_fd(), Path::new(shown), flags, 0, Resolve::BeneathNoSymlinks)
                .at("open", shown)?;
        let stat = fstat(&dir).at("stat", shown)?;
        let mut attributes = attributes_of(&stat, Kind::Directory);
        self.extended(&dir, &mut attributes, path)?.give(&mut self.builder, node, path)?;
        self.builder.set(node, &attributes);

        let mut directories = Vec::new();
        let again = openat(
            &dir,
            ".",
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .at("open", shown)?;
        let mut entries = Dir::from_fd(again).at("read", shown)?;
        for entry in entries.iter() {
            let entry = entry.at("read", shown)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut full = path.to_vec();
            join(&mut full, name.to_bytes());
            let made = self.entry(node, &dir, name, &full)?;
            if self.builder.kind(made) == Kind::Directory {
                directories.push((name.to_bytes().into(), made));
            }
        }
        Ok(directories)
    }

    fn entry(
        &mut self,
        parent: Node,
        dir: &OwnedFd,
        name: &std::ffi::CStr,
        path: &[u8],
    ) -> Result<Node> {
        let shown = OsStr::from_bytes(path);
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).at("stat", shown)?;
        let kind = Kind::of(&stat);
        let name = name.to_bytes();
        let full = |_: Full| broken(path, "is more than an index can hold");
        let identity = (stat.st_dev, stat.st_ino);
        let has_more = stat.st_nlink > 1 && kind != Kind::Directory;
        if has_more && let Some(node) = self.links.get(&identity).copied() {
            self.builder.link(parent, name, node).map_err(full)?;
            return Ok(node);
        }
        let mut attributes = attributes_of(&stat, kind);
        let (mut extended, mut target) = (Extended::default(), Vec::new());
        match kind {
            Kind::File => {
                let file =
                    openat(dir, OsStr::from_bytes(name), FILE, Mode::empty()).at("open", shown)?;
                attributes.blocks = data_blocks(&file, &stat).at("read", shown)?;
                extended = self.extended(&file, &mut attributes, path)?;
            }
            Kind::Symlink => {
                let link = readlinkat(dir, OsStr::from_bytes(name)).at("read", shown)?;
                target = link.as_bytes().to_vec();
            }
            _ => (),
        }
        let node = self.builder.make(parent, name, &attributes, &target).map_err(full)?;
        extended.give(&mut self.builder, node, path)?;
        if has_more {
            self.links.insert(identity, node);
        }
        Ok(node)
    }

    /// Reads the attributes of an open file: ours are those that it has in the image, the others are
    /// the image's own.
    fn extended(
        &self,
        file: &OwnedFd,
        attributes: &mut Attributes,
        path: &[u8],
    ) -> Result<Extended> {
        let shown = OsStr::from_bytes(path);
        let mut extended = Extended::default();
        for name in list_xattrs(file).at("list the attributes of", shown)? {
            let read = || get_xattr(file, &name).at("read an attribute of", shown);
            if name.as_c_str() == override_stat::NAME {
                let value = read()?.unwrap_or_default();
                apply(&value, attributes).ok_or_else(|| {
                    broken(path, "has an owner and mode that cannot be read in its attributes")
                })?;
            } else if name.as_c_str() == OPAQUE {
                let is_opaque = read()?.is_some_and(|value| value == b"y");
                attributes.is_opaque = is_opaque && attributes.kind == Kind::Directory;
            } else if is_images_own(name.to_bytes())
                && let Some(value) = read()?
            {
                extended.0.push((name.clone(), value));
            }
        }
        Ok(extended)
    }
}

const OPAQUE: &std::ffi::CStr = c"user.overlay.opaque";

/// Whether an extended attribute is the image's own affair. `trusted.*` and `security.*` are not,
/// nor is what overlayfs and the container tools would take for their own: a file with a foreign
/// `user.overlay.metacopy` cannot even be opened.
pub fn is_images_own(name: &[u8]) -> bool {
    let foreign = [&b"user.overlay."[..], b"user.containers.", b"user.fuseoverlayfs."];
    name.starts_with(b"user.")
        && !foreign.iter().any(|prefix| name.starts_with(prefix))
        && name != b"user.rootlesscontainers"
}

/// The extended attributes of the image's own.
#[derive(Default)]
struct Extended(Vec<(CString, Vec<u8>)>);

impl Extended {
    fn give(self, builder: &mut Builder, node: Node, path: &[u8]) -> Result<()> {
        for (name, value) in self.0 {
            let full = |_: Full| broken(path, "is more than an index can hold");
            builder.set_xattr(node, name.to_bytes(), &value).map_err(full)?;
        }
        Ok(())
    }
}

/// What is on disk, for want of anything else.
fn attributes_of(stat: &FileStat, kind: Kind) -> Attributes {
    // Their owners are the user's, since nobody else's can be had.
    let is_lost = matches!(kind, Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Whiteout);
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Attributes {
        kind,
        mode: if kind == Kind::Whiteout { 0 } else { stat.st_mode & 0o7777 },
        uid: if is_lost { 0 } else { stat.st_uid },
        gid: if is_lost { 0 } else { stat.st_gid },
        size: if kind == Kind::File { stat.st_size.unsigned_abs() } else { 0 },
        blocks: 0,
        mtime: match kind {
            Kind::Whiteout => (0, 0),
            _ => (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        },
        device: match is_device {
            true => (number(major(stat.st_rdev)), number(minor(stat.st_rdev))),
            false => (0, 0),
        },
        ..Attributes::implied()
    }
}

/// Takes owner, mode and type of the attribute; a regular file may stand in for another thing, and
/// nothing else may.
fn apply(value: &[u8], attributes: &mut Attributes) -> Option<()> {
    let kept = Override::parse(value)?;
    match kept.kind {
        None => (),
        Some(kind) if kind == attributes.kind => (),
        Some(kind @ (Kind::CharDevice | Kind::BlockDevice)) if attributes.kind == Kind::File => {
            (attributes.kind, attributes.device) = (kind, kept.device);
            (attributes.size, attributes.blocks) = (0, 0);
        }
        Some(_) => return None,
    }
    (attributes.uid, attributes.gid, attributes.mode) = (kept.uid, kept.gid, kept.mode);
    Some(())
}

/// The blocks that hold data. Only a file that takes less than its size is looked at: it has holes,
/// or the file system has packed it.
fn data_blocks(file: &OwnedFd, stat: &FileStat) -> io::Result<u64> {
    let size = stat.st_size.unsigned_abs();
    if stat.st_blocks.unsigned_abs() * 512 >= size {
        return Ok(full_blocks(size));
    }
    let mut pieces = Vec::new();
    let mut position = 0;
    while let Some(start) = seek(file, position, Whence::SeekData)? {
        let end = seek(file, start, Whence::SeekHole)?.unwrap_or(stat.st_size);
        if end <= start {
            break;
        }
        pieces.push((start.unsigned_abs(), (end - start).unsigned_abs()));
        position = end;
    }
    Ok(blocks(pieces.into_iter()))
}

fn seek(file: &OwnedFd, position: i64, whence: Whence) -> io::Result<Option<i64>> {
    match lseek(file, position, whence) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn broken(path: &[u8], what: &str) -> Error {
    let path = Path::new(OsStr::from_bytes(path)).display();
    Error::new(format!("index the layer's /{path}: {what}"))
        .hint("`casemate store check` says what is wrong with the layer")
}
