//! Imports under way. Each has a directory that it holds locked; one whose lock is free is what a
//! crash left, and goes.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Store, open_directory, remove, with_space_hint};
use crate::error::{During, Error, Result};
use crate::sys::fs::syncfs;

/// A directory for one import, removed when dropped.
pub(super) struct Staging {
    path: PathBuf,
    parent: OwnedFd,
    name: OsString,
    /// The lock is on the open directory itself.
    dir: Flock<OwnedFd>,
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Staging {
    /// Makes a new one.
    pub(super) fn new(store: &Store) -> Result<Self> {
        let path = store.path.join("staging");
        let parent = open_directory(&path)?;
        loop {
            let name = OsString::from(format!("{:016x}", random()?));
            let full = path.join(&name);
            match mkdirat(&parent, name.as_os_str(), Mode::S_IRWXU) {
                Err(Errno::EEXIST) => continue,
                Err(errno) => {
                    return Err(with_space_hint(Error::os("make", full.display(), errno), errno));
                }
                Ok(()) => (),
            }
            // Between mkdir and lock another process may take it for a crashed one and remove it.
            let dir = match openat(&parent, name.as_os_str(), DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT) => continue,
                opened => opened.at("open", &full)?,
            };
            let dir = Flock::lock(dir, FlockArg::LockExclusive)
                .map_err(|(_, errno)| errno)
                .at("lock", &full)?;
            if fstat(&*dir).at("stat", &full)?.st_nlink > 0 {
                return Ok(Staging { path: full, parent, name, dir });
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it and opens it.
    pub(super) fn directory(&self, name: &str) -> Result<OwnedFd> {
        make_and_open(&*self.dir, name, &self.path)
    }

    /// An empty file without a name.
    pub(super) fn scratch(&self) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(&*self.dir, "scratch", flags, mode).at("make", &self.path)?;
        unlinkat(&*self.dir, "scratch", UnlinkatFlags::NoRemoveDir).at("unlink", &self.path)?;
        Ok(File::from(file))
    }

    /// Removes a directory in it.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        remove::tree(&self.dir, name).at("remove", path)
    }

    /// Writes all of the file system out, so that what is renamed afterwards is whole.
    pub(super) fn sync(&self) -> Result<()> {
        syncfs(&*self.dir).at("sync", &self.path)
    }

    /// Puts a finished directory in its place; false where one is there already.
    pub(super) fn publish_directory(&self, name: &str, to: &Path) -> Result<bool> {
        match renameat(&*self.dir, name, nix::fcntl::AT_FDCWD, to) {
            Ok(()) => Ok(true),
            // Layers are never empty directories, so that rename(2) cannot replace one.
            Err(Errno::EEXIST | Errno::ENOTEMPTY) => Ok(false),
            Err(errno) => Err(Error::os("rename to", to.display(), errno)),
        }
    }

    /// Writes a file here, and puts it in its place with a rename when the disk has it.
    pub(super) fn publish_file(&self, content: &[u8], to: &Path) -> Result<()> {
        let file = write_file(&*self.dir, "file", content)?;
        file.sync_data().map_err(|error| unwritten("file", &error))?;
        renameat(&*self.dir, "file", nix::fcntl::AT_FDCWD, to).at("rename to", to)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next command that writes to the store.
        let _left_for_later = remove::tree(&self.parent, &self.name);
    }
}

/// Makes a directory and opens it.
pub(super) fn make_and_open(dir: impl AsFd, name: &str, path: &Path) -> Result<OwnedFd> {
    mkdirat(dir.as_fd(), name, Mode::S_IRWXU).map_err(|errno| {
        with_space_hint(Error::os("make", path.join(name).display(), errno), errno)
    })?;
    openat(dir.as_fd(), name, DIRECTORY, Mode::empty()).at("open", path.join(name))
}

/// Writes a new file.
pub(super) fn write_file(dir: impl AsFd, name: &str, content: &[u8]) -> Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = openat(dir.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR).at("make", name)?;
    let mut file = File::from(file);
    file.write_all(content).map_err(|error| unwritten(name, &error))?;
    Ok(file)
}

fn unwritten(name: &str, error: &std::io::Error) -> Error {
    let errno = crate::error::Errno::from(error).0;
    with_space_hint(Error::os("write", name, errno), errno)
}

/// Removes what crashed imports left.
pub(super) fn clean(store: &Store) -> Result<()> {
    let path = store.path.join("staging");
    let parent = open_directory(&path)?;
    for entry in std::fs::read_dir(&path).at("read", &path)? {
        let name = entry.at("read", &path)?.file_name();
        remove_if_abandoned(&parent, &name).at("remove", path.join(&name))?;
    }
    Ok(())
}

/// Removes one directory of staging that belongs to no process.
pub(super) fn remove_if_abandoned(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let dir = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => return Ok(()),
        // No import makes anything but directories here.
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            return unlinkat(parent, name, UnlinkatFlags::NoRemoveDir);
        }
        Err(errno) => return Err(errno),
    };
    // Held until it is gone, so that two cleaning processes do not meet in it.
    match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => Ok(()),
        Err((_, errno)) => Err(errno),
        Ok(_held) => match remove::tree(parent, name) {
            Err(Errno::ENOENT) => Ok(()),
            removed => removed,
        },
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    std::io::Read::read_exact(
        &mut File::open("/dev/urandom").at("open", "/dev/urandom")?,
        &mut bytes,
    )
    .at("read", "/dev/urandom")?;
    Ok(u64::from_ne_bytes(bytes))
}
