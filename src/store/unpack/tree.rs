//! The tree being made: every name is looked up below its root, and no symbolic link is followed.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::name::Name;
use super::override_stat::{Owner, Shown};
use crate::store::remove;
use crate::sys::fs::{Resolve, openat2, set_xattr};

/// How many directories are kept open. An archive goes through its tree in order, so that a cache
/// that is emptied when full serves as well as one that ages.
const OPEN_DIRECTORIES: usize = 256;

/// A directory tree under a root that was opened before the first entry (CVE-2021-29136).
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    open: HashMap<Name, Rc<OwnedFd>>,
    shown: Shown,
    aside: Option<Aside>,
    implied: Vec<Name>,
}

/// Where files go that a later entry of the same layer replaces: the stream still has them.
pub(super) struct Aside {
    layer: OwnedFd,
    dir: Option<OwnedFd>,
    moved: u64,
    /// Not yet recorded.
    new: Vec<(Name, u64)>,
}

impl Aside {
    /// Beside the tree of a layer.
    pub(super) fn in_layer(layer: OwnedFd) -> Self {
        Aside { layer, dir: None, moved: 0, new: Vec::new() }
    }

    fn take(&mut self, parent: &OwnedFd, name: &Name) -> Result<(), Errno> {
        let dir = match &self.dir {
            Some(dir) => dir,
            None => {
                mkdirat(&self.layer, REPLACED, Mode::S_IRWXU)?;
                self.dir.insert(openat(&self.layer, REPLACED, DIRECTORY, Mode::empty())?)
            }
        };
        self.moved += 1;
        renameat(parent, name.leaf(), dir, self.moved.to_string().as_str())?;
        self.new.push((name.clone(), self.moved));
        Ok(())
    }
}

/// What stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    Nothing,
    Directory,
    Whiteout,
    Symlink,
    Other,
}

impl Present {
    fn of(stat: &FileStat) -> Self {
        match SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT) {
            SFlag::S_IFDIR => Present::Directory,
            SFlag::S_IFLNK => Present::Symlink,
            SFlag::S_IFCHR if stat.st_rdev == 0 => Present::Whiteout,
            _ => Present::Other,
        }
    }
}

/// Why a directory could not be opened or made.
pub(super) enum Blocked {
    /// The kernel refused.
    Os(Errno),
    /// Something that is no directory is in the way: what, and where.
    By(Present, Name),
}

impl From<Errno> for Blocked {
    fn from(errno: Errno) -> Self {
        Blocked::Os(errno)
    }
}

impl From<io::Error> for Blocked {
    fn from(error: io::Error) -> Self {
        Blocked::Os(crate::error::Errno::from(error).0)
    }
}

/// The directory of a layer that holds what was replaced.
const REPLACED: &str = "replaced";

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Tree {
    /// Takes an empty directory; an archive need not have an entry for its root.
    pub(super) fn new(root: OwnedFd, shown: Shown, aside: Option<Aside>) -> io::Result<Self> {
        shown.write_directory(&root, Owner { uid: 0, gid: 0 }, 0o755)?;
        Ok(Tree {
            root: Rc::new(root),
            open: HashMap::new(),
            shown,
            aside,
            implied: vec![Name::root()],
        })
    }

    /// What files of this tree show as their owner.
    pub(super) fn shown(&self) -> Shown {
        self.shown
    }

    /// A directory of the tree; what is missing of it is made, owned by root.
    pub(super) fn directory(&mut self, name: &Name) -> Result<Rc<OwnedFd>, Blocked> {
        if name.is_root() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(open) = self.open.get(name) {
            return Ok(Rc::clone(open));
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let found = openat2(self.root.as_fd(), name.path(), flags, 0, Resolve::BeneathNoSymlinks);
        let fd = match found {
            Ok(fd) => fd,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => self.make_missing(name)?,
                _ => return Err(error.into()),
            },
        };
        Ok(self.keep(name, fd))
    }

    /// A directory of the tree, if it is there.
    pub(super) fn existing(&mut self, name: &Name) -> Result<Option<Rc<OwnedFd>>, Blocked> {
        if name.is_root() || self.open.contains_key(name) {
            return self.directory(name).map(Some);
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        match openat2(self.root.as_fd(), name.path(), flags, 0, Resolve::BeneathNoSymlinks) {
            Ok(fd) => Ok(Some(self.keep(name, fd))),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(None),
                _ => Err(error.into()),
            },
        }
    }

    /// Makes the last component of `name` a directory, and those before it.
    fn make_missing(&mut self, name: &Name) -> Result<OwnedFd, Blocked> {
        let parent = self.directory(&name.parent())?;
        let leaf = name.leaf();
        let covered = match self.present(&parent, name)? {
            Present::Directory => return Ok(openat(&parent, leaf, DIRECTORY, Mode::empty())?),
            Present::Nothing => false,
            Present::Whiteout => {
                unlinkat(&parent, leaf, UnlinkatFlags::NoRemoveDir)?;
                true
            }
            other => return Err(Blocked::By(other, name.clone())),
        };
        mkdirat(&parent, leaf, Mode::S_IRWXU)?;
        let fd = openat(&parent, leaf, DIRECTORY, Mode::empty())?;
        if covered {
            set_opaque(&fd)?;
        }
        self.shown.write_directory(&fd, Owner { uid: 0, gid: 0 }, 0o755)?;
        self.implied.push(name.clone());
        Ok(fd)
    }

    /// Directories that were made since this was last asked, because something is in them.
    pub(super) fn implied(&mut self) -> Vec<Name> {
        std::mem::take(&mut self.implied)
    }

    /// Remembers an open directory.
    pub(super) fn keep(&mut self, name: &Name, fd: OwnedFd) -> Rc<OwnedFd> {
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        let fd = Rc::new(fd);
        self.open.insert(name.clone(), Rc::clone(&fd));
        fd
    }

    /// What stands at the last component of a name in its open parent.
    pub(super) fn present(&self, parent: &OwnedFd, name: &Name) -> Result<Present, Errno> {
        match fstatat(parent, name.leaf(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Present::of(&stat)),
            Err(Errno::ENOENT) => Ok(Present::Nothing),
            Err(errno) => Err(errno),
        }
    }

    /// Removes what stands at a name, and says what it was.
    pub(super) fn clear(&mut self, parent: &OwnedFd, name: &Name) -> Result<Present, Blocked> {
        let present = self.present(parent, name)?;
        if present == Present::Directory {
            // A directory that gives way takes the open ones below it along; what is written to
            // those would be lost.
            self.open.retain(|open, _| !open.is_within(name));
        }
        match (present, &mut self.aside) {
            (Present::Nothing, _) => (),
            (Present::Directory | Present::Other, Some(aside)) => aside.take(parent, name)?,
            (Present::Directory, None) => remove::tree(parent, name.leaf())?,
            _ => unlinkat(parent, name.leaf(), UnlinkatFlags::NoRemoveDir)?,
        }
        Ok(present)
    }

    /// What was moved aside since this was last asked: its name, and its number there.
    pub(super) fn replaced(&mut self) -> Vec<(Name, u64)> {
        self.aside.as_mut().map(|aside| std::mem::take(&mut aside.new)).unwrap_or_default()
    }
}

/// Opens the last component of a name, a directory.
pub(super) fn open_directory(parent: &OwnedFd, name: &Name) -> Result<OwnedFd, Errno> {
    openat(parent, name.leaf(), DIRECTORY, Mode::empty())
}

/// Marks a directory: nothing of the layers below shows in it.
pub(super) fn set_opaque(dir: &OwnedFd) -> io::Result<()> {
    set_xattr(dir, c"user.overlay.opaque", b"y")
}

/// Puts the kernel overlay's whiteout at a name: a 0:0 character device, which an ordinary user may
/// make since Linux 5.8.
pub(super) fn put_whiteout(parent: &OwnedFd, leaf: &std::ffi::OsStr) -> Result<(), Errno> {
    mknodat(parent, leaf, SFlag::S_IFCHR, Mode::empty(), 0)
}
