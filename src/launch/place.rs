//! Places in the new root: every path is walked by descriptor, with the new root as its root, so
//! that a symbolic link in an image or in a writable grant cannot lead out of it (CVE-2026-87766).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::error::{During, Error, Result};
use crate::sys::fs::{Resolve, identity, openat2};

const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// How a directory that is itself a symbolic link is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// As what it points to, inside the root.
    Follow,
    /// As what it points to, inside the root and on its own mount: what a box writes for itself must
    /// not end in a directory that was granted.
    FollowHere,
    /// As an attack: something is about to be mounted there.
    Refuse,
}

/// A directory of the new root, made with its parents where it is missing.
pub(super) fn directory(
    root: BorrowedFd<'_>,
    path: &Path,
    mode: u32,
    last: Last,
) -> Result<OwnedFd> {
    let inside = below(path);
    let flags = DIRECTORY | if last == Last::Refuse { libc::O_NOFOLLOW } else { 0 };
    let (resolve, above) = match last {
        Last::FollowHere => (Resolve::InRootMount, Last::FollowHere),
        Last::Follow | Last::Refuse => (Resolve::InRoot, Last::Follow),
    };
    match openat2(root, inside, flags, 0, resolve) {
        Ok(fd) => return Ok(fd),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => return Err(not_a_directory(root, path, &error)),
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::os("make directory", path.display(), Errno::EINVAL));
    };
    let parent = directory(root, parent, 0o755, above)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(mode)) {
        // Somebody else made it, or a dangling link has its name: the open below tells.
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => {
            return Err(Error::os("make directory", path.display(), error).hint(
                "a mount point in a directory of the host that you cannot write must exist already",
            ));
        }
    }
    openat2(parent.as_fd(), name, flags | libc::O_NOFOLLOW, 0, Resolve::InRoot)
        .map_err(|error| not_a_directory(root, path, &error))
}

fn not_a_directory(root: BorrowedFd<'_>, path: &Path, error: &std::io::Error) -> Error {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let is_link = openat2(root, below(path), flags, 0, Resolve::InRoot)
        .and_then(identity)
        .is_ok_and(|found| found.kind == libc::S_IFLNK);
    if is_link {
        Error::new(format!(
            "mount at {}: it is a symbolic link, which a mount point must not be",
            path.display()
        ))
        .hint("name the directory that it points to")
    } else {
        Error::os("open directory", path.display(), error)
    }
}

/// A place for a file to be mounted on: an existing file, or a new empty one. A symbolic link is
/// replaced, never followed.
pub(super) fn file(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let (parent, name) = parent_of(root, path, Last::Follow)?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    match openat2(parent.as_fd(), name, flags, 0, Resolve::InRoot) {
        Ok(fd) => match identity(&fd).at("stat", path)?.kind {
            libc::S_IFLNK => {}
            libc::S_IFDIR => {
                return Err(Error::os("mount a file at", path.display(), Errno::EISDIR));
            }
            _ => return Ok(fd),
        },
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => return Err(Error::os("open", path.display(), &error)),
    }
    drop(fresh(parent.as_fd(), name, path)?);
    openat2(parent.as_fd(), name, flags, 0, Resolve::InRoot).at("open", path)
}

/// What is there, be it a symbolic link. Nothing is made.
pub(super) fn existing(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    openat2(root, below(path), libc::O_PATH | libc::O_NOFOLLOW, 0, Resolve::InRoot).at("open", path)
}

/// A new file with this content, in the place of whatever had its name.
pub(super) fn write(root: BorrowedFd<'_>, path: &Path, content: &[u8]) -> Result<()> {
    let (parent, name) = parent_of(root, path, Last::FollowHere)?;
    fresh(parent.as_fd(), name, path)?.write_all(content).at("write", path)
}

/// A symbolic link; one that is there already stays.
pub(super) fn link(root: BorrowedFd<'_>, path: &Path, to: &Path) -> Result<()> {
    let (parent, name) = parent_of(root, path, Last::FollowHere)?;
    match symlinkat(to, &parent, name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(Error::os("make link", path.display(), error)),
    }
}

fn parent_of<'a>(
    root: BorrowedFd<'_>,
    path: &'a Path,
    last: Last,
) -> Result<(OwnedFd, &'a std::ffi::OsStr)> {
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => {
            Ok((directory(root, parent, 0o755, last)?, name))
        }
        _ => Err(Error::os("open", path.display(), Errno::EINVAL)),
    }
}

fn fresh(parent: BorrowedFd<'_>, name: &std::ffi::OsStr, path: &Path) -> Result<File> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    match openat2(parent, name, flags, 0o644, Resolve::BeneathNoSymlinks) {
        Ok(fd) => return Ok(File::from(fd)),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(Error::os("make", path.display(), &error)),
    }
    unlinkat(parent, name, UnlinkatFlags::NoRemoveDir).at("replace", path)?;
    openat2(parent, name, flags, 0o644, Resolve::BeneathNoSymlinks).map(File::from).at("make", path)
}

/// The path without its leading slash: openat2(2) takes it relative to the root.
fn below(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
