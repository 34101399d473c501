//! The host's files as `sandbox::resolve` sees them: opened with the user's own rights, described
//! by what they are and not by what they are called.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use serde::Serialize;

use crate::sys::fs::{self, Identity};

/// A file of the host that a box will see: its canonical path, and what it was when it was opened.
/// The box looks it up again in its own mount namespace, without following symbolic links, and
/// goes on only if it finds the very same file (CVE-2021-30465, CVE-2024-42472 were such races).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The path without symbolic links.
    #[serde(serialize_with = "crate::text::path")]
    pub path: PathBuf,
    /// Device, inode and type.
    #[serde(skip)]
    pub identity: Identity,
}

/// The host's files. Tests put a made-up one in its place.
pub trait World {
    /// Opens a path as the user would and says what it is.
    fn open(&mut self, path: &Path) -> io::Result<Source>;

    /// Where a symbolic link points, or `None` for anything else that is there.
    fn link(&self, path: &Path) -> io::Result<Option<PathBuf>>;

    /// Whether the user may make files in a directory.
    fn may_write(&self, directory: &Path) -> bool;

    /// The names in a directory, sorted, `limit` at most.
    fn names(&self, directory: &Path, limit: usize) -> io::Result<Vec<OsString>>;

    /// The content of a file of at most `limit` bytes.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
}

/// The real world. It keeps everything it opened open, so that no inode number can come to mean
/// another file before the box has found it again.
#[derive(Default)]
pub struct Live {
    held: Vec<OwnedFd>,
}

impl World for Live {
    fn open(&mut self, path: &Path) -> io::Result<Source> {
        let fd = fs::open_path(path)?;
        let identity = fs::identity(&fd)?;
        let name = fs::descriptor_link(&fd)?;
        self.held.push(fd);
        Ok(Source { path: PathBuf::from(OsString::from_vec(name)), identity })
    }

    fn link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        match std::fs::read_link(path) {
            Ok(target) => Ok(Some(target)),
            // readlink(2): EINVAL says that it is something else.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn may_write(&self, directory: &Path) -> bool {
        let mode = AccessFlags::W_OK | AccessFlags::X_OK;
        faccessat(AT_FDCWD, directory, mode, AtFlags::AT_EACCESS).is_ok()
    }

    fn names(&self, directory: &Path, limit: usize) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(directory)?.take(limit);
        let mut names =
            entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        // As the user's own open(2): /dev/stdin and a shell's <(…) are magic links, and FIFOs.
        let mut file = std::fs::File::open(path)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut content = vec![0; limit.saturating_add(1).min(8192)];
        let mut length = 0;
        loop {
            let count = file.read(&mut content[length..])?;
            length += count;
            if length > limit {
                return Err(io::Error::from_raw_os_error(libc::EFBIG));
            }
            if count == 0 {
                content.truncate(length);
                return Ok(content);
            }
            if length == content.len() {
                content.resize((2 * length).min(limit.saturating_add(1)), 0);
            }
        }
    }
}
