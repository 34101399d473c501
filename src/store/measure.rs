//! What layers take on disk. A file with several names takes its room once, and gives it back with
//! the last of them; where a file system shares blocks between files (reflinks), each is counted,
//! and what they have in common can be asked for.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, FsType, XFS_SUPER_MAGIC, fstatfs};

use super::{DIRECTORY, open_directory};
use crate::error::{During, Error, Result};
use crate::sys::extents::shared_extents;
use crate::sys::fs::{Resolve, c_path, openat2};

/// The file systems of which files can share blocks.
const SHARING: [FsType; 3] = [BTRFS_SUPER_MAGIC, XFS_SUPER_MAGIC, BCACHEFS_SUPER_MAGIC];
const BCACHEFS_SUPER_MAGIC: FsType = FsType(0xca45_1a4e);

/// `st_blocks` counts in these, whatever the file system's own are (stat(3)).
const BLOCK: u64 = 512;

/// A file with several names.
struct Linked {
    bytes: u64,
    links: u64,
    seen: u64,
    /// The trees that it was seen in, ascending.
    trees: Vec<usize>,
}

/// Trees that were walked through.
#[derive(Default)]
pub(super) struct Measured {
    /// Bytes of what has one name, tree by tree.
    own: Vec<u64>,
    linked: HashMap<(u64, u64), Linked>,
    /// Where the blocks lie that several files have, and their bytes, if they are asked for.
    blocks: Option<Vec<(u64, u64)>>,
}

impl Measured {
    /// Looks also for blocks that files share, which takes longer, if the file system of `dir` can
    /// have them.
    pub(super) fn with_blocks(dir: &OwnedFd) -> Self {
        let can = fstatfs(dir).is_ok_and(|fs| SHARING.contains(&fs.filesystem_type()));
        Measured { blocks: can.then(Vec::new), ..Measured::default() }
    }

    /// Walks through a tree and returns its number.
    pub(super) fn add(&mut self, path: &Path) -> Result<usize> {
        let tree = self.own.len();
        self.own.push(0);
        let root = open_directory(path)?;
        let stat = fstat(&root).at("stat", path)?;
        self.count(tree, &stat);
        // By path and not by descriptor: a deep tree would need one for every level.
        let mut left = vec![PathBuf::new()];
        while let Some(directory) = left.pop() {
            let failed = |errno: Errno| Error::os("read", path.join(&directory).display(), errno);
            let opened =
                openat2(root.as_fd(), &directory, DIRECTORY, 0, Resolve::BeneathNoSymlinks);
            let opened = match opened {
                // Staging goes while it is looked at, and overlayfs closes a directory of its own.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EACCES)) => {
                    continue;
                }
                opened => opened.at("open", path.join(&directory))?,
            };
            self.directory(tree, &opened, &directory, &mut left).map_err(failed)?;
        }
        Ok(tree)
    }

    fn directory(
        &mut self,
        tree: usize,
        dir: &OwnedFd,
        path: &Path,
        left: &mut Vec<PathBuf>,
    ) -> Result<(), Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        for entry in Dir::openat(dir, c".", flags, Mode::empty())?.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => continue,
                stat => stat?,
            };
            self.count(tree, &stat);
            if let Some(blocks) = &mut self.blocks
                && stat.st_mode & libc::S_IFMT == libc::S_IFREG
            {
                let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
                let file = openat(dir, name, flags, Mode::empty());
                // One that went meanwhile has nothing in common with others.
                blocks.extend(
                    file.ok().and_then(|file| shared_extents(file).ok()).unwrap_or_default(),
                );
            }
            if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                use std::os::unix::ffi::OsStrExt;
                left.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
        Ok(())
    }

    fn count(&mut self, tree: usize, stat: &FileStat) {
        let bytes = stat.st_blocks.cast_unsigned() * BLOCK;
        // The links of a directory are its children.
        if stat.st_nlink == 1 || stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            self.own[tree] += bytes;
            return;
        }
        let linked = self.linked.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| Linked {
            bytes,
            links: stat.st_nlink,
            seen: 0,
            trees: Vec::new(),
        });
        linked.seen += 1;
        if linked.trees.last() != Some(&tree) {
            linked.trees.push(tree);
        }
    }

    /// The bytes that the trees take for which this holds.
    pub(super) fn taken(&self, is_counted: impl Fn(usize) -> bool) -> u64 {
        let own = (0..self.own.len()).filter(|tree| is_counted(*tree)).map(|tree| self.own[tree]);
        let linked = self.linked.values().filter(|file| file.trees.iter().any(|t| is_counted(*t)));
        own.sum::<u64>() + linked.map(|file| file.bytes).sum::<u64>()
    }

    /// The bytes that would come free if the trees went for which this holds.
    pub(super) fn freed(&self, goes: impl Fn(usize) -> bool) -> u64 {
        let own = (0..self.own.len()).filter(|tree| goes(*tree)).map(|tree| self.own[tree]);
        // A name outside of all trees keeps a file as well.
        let linked = self
            .linked
            .values()
            .filter(|file| file.seen >= file.links && file.trees.iter().all(|tree| goes(*tree)));
        own.sum::<u64>() + linked.map(|file| file.bytes).sum::<u64>()
    }

    /// The bytes that files take once instead of once in each of their trees, or in each file.
    pub(super) fn saved(&self) -> u64 {
        let linked = self.linked.values().map(|file| file.bytes * (file.trees.len() as u64 - 1));
        linked.sum::<u64>() + self.blocks.as_deref().map_or(0, overlap)
    }
}

/// How many bytes are in more than one of the extents, each counted once less than it is there.
fn overlap(extents: &[(u64, u64)]) -> u64 {
    let mut extents = extents.to_vec();
    extents.sort_unstable();
    let (mut common, mut end) = (0, 0);
    for (start, length) in extents {
        let next = start.saturating_add(length);
        common += end.min(next).saturating_sub(start);
        end = end.max(next);
    }
    common
}

/// The bytes that one file takes; 0 where it is not there.
pub(super) fn file(dir: &OwnedFd, name: &str) -> Result<u64, Errno> {
    let name = c_path(name).map_err(|_| Errno::EINVAL)?;
    match fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(stat.st_blocks.cast_unsigned() * BLOCK),
        Err(Errno::ENOENT) => Ok(0),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_overlaps_is_counted_once_less() {
        assert_eq!(overlap(&[]), 0);
        assert_eq!(overlap(&[(10, 5), (20, 5), (10, 5)]), 5);
        assert_eq!(overlap(&[(0, 10), (2, 3), (4, 10)]), 3 + 6);
    }

    #[test]
    fn linked_files_count_once_and_go_with_their_last_name() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| home.path().join(path);
        for dir in ["a/deep/er", "b", "outside"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        let data = vec![1; 40_000];
        for name in ["a/own", "a/deep/er/shared", "a/kept", "a/twice"] {
            fs::write(at(name), &data).unwrap();
        }
        fs::hard_link(at("a/deep/er/shared"), at("b/shared")).unwrap();
        fs::hard_link(at("a/kept"), at("outside/kept")).unwrap();
        fs::hard_link(at("a/twice"), at("a/again")).unwrap();
        std::os::unix::fs::symlink("/", at("b/link")).unwrap();
        let size = |path: &str| fs::symlink_metadata(at(path)).unwrap().blocks() * BLOCK;
        let file = size("a/own");
        let a = size("a") + size("a/deep") + size("a/deep/er");
        let b = size("b") + size("b/link");
        let mut measured = Measured::default();
        assert_eq!(measured.add(&at("a")).unwrap(), 0);
        assert_eq!(measured.add(&at("b")).unwrap(), 1);
        assert_eq!(measured.taken(|_| true), a + b + 4 * file);
        assert_eq!(measured.taken(|tree| tree == 1), b + file);
        assert_eq!(measured.freed(|tree| tree == 0), a + 2 * file);
        assert_eq!(measured.freed(|tree| tree == 1), b);
        assert_eq!(measured.freed(|_| true), a + b + 3 * file);
        assert_eq!(measured.saved(), file);
    }
}
