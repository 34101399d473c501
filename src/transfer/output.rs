//! Where an archive is written: a file that is there whole or not at all, or a stream.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat};

use crate::error::{During, Error, Result};

/// Something that an archive is written to. What is written to a file has no name before
/// [`Output::commit`]: of what fails or is killed, nothing is left.
pub struct Output {
    file: File,
    /// What to call it in an error.
    shown: String,
    place: Option<Place>,
}

/// Where a file is going to be.
struct Place {
    dir: OwnedFd,
    name: OsString,
    /// The name that it has meanwhile, on file systems that have no files without one.
    temporary: Option<OsString>,
}

impl Output {
    /// Standard output, or anything else that is open.
    pub fn stream(fd: OwnedFd, shown: &str) -> Self {
        Output { file: File::from(fd), shown: shown.to_owned(), place: None }
    }

    /// A file. One that is there is replaced in the end; a pipe or device is written to.
    pub fn file(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(Error::os("write", &shown, Errno::EISDIR)
                .hint("-o names the archive that is to be made, a file")),
            Ok(there) if !there.is_file() => {
                let file = File::options().write(true).open(path).at("open", path)?;
                Ok(Output { file, shown, place: None })
            }
            // What a symbolic link leads to is replaced, and not the link.
            Ok(_) => Output::whole(&std::fs::canonicalize(path).at("find", path)?, shown),
            Err(_) => Output::whole(path, shown),
        }
    }

    fn whole(path: &Path, shown: String) -> Result<Self> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return Err(Error::os("write", &shown, Errno::EISDIR));
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = openat(AT_FDCWD, parent, flags, Mode::empty())
            .at("open", parent)
            .map_err(|error| error.hint("-o names a file in a directory that is there"))?;
        let (file, temporary) = unnamed(&dir, &name).map_err(|errno| {
            let error = Error::os("make", &shown, errno);
            match errno {
                Errno::EACCES | Errno::EPERM | Errno::EROFS => {
                    error.hint("-o names a file in a directory that you can write to")
                }
                errno => with_room(error, errno),
            }
        })?;
        Ok(Output { file, shown, place: Some(Place { dir, name, temporary }) })
    }

    /// Gives the file its name, in place of what had it.
    pub fn commit(mut self) -> Result<()> {
        let Some(mut place) = self.place.take() else { return Ok(()) };
        let (file, shown) = (&self.file, &self.shown);
        let done = file
            .sync_data()
            .map_err(|error| crate::error::Errno::from(error).0)
            .and_then(|()| place.name(file));
        done.map_err(|errno| with_room(Error::os("write", shown, errno), errno))
    }
}

impl Place {
    fn name(&mut self, file: &File) -> Result<(), Errno> {
        if self.temporary.is_none() {
            // linkat(2) replaces nothing, and AT_EMPTY_PATH is for root before Linux 6.10.
            let open = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let name = temporary(&self.name);
            linkat(AT_FDCWD, &open, &self.dir, name.as_os_str(), LinkatFlags::AT_SYMLINK_FOLLOW)?;
            self.temporary = Some(name);
        }
        let Some(from) = &self.temporary else { return Ok(()) };
        renameat(&self.dir, from.as_os_str(), &self.dir, self.name.as_os_str())?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            // It is clearly no archive by its name, where it cannot be removed.
            let _left = unlinkat(&self.dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let errno = crate::error::Errno::from(error).0;
                let error = Error::os("write", &self.shown, errno);
                Err(io::Error::other(with_room(error, errno)))
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn with_room(error: Error, errno: Errno) -> Error {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => {
            error.hint("make room, or write it to another file system; -o - is standard output")
        }
        Errno::EFBIG => {
            error.hint("the file system, or `ulimit -f`, has no room for so long a file")
        }
        _ => error,
    }
}

/// A new file in a directory, and the name that it has if it must have one.
fn unnamed(dir: impl AsFd, name: &OsStr) -> Result<(File, Option<OsString>), Errno> {
    let mode = Mode::from_bits_truncate(0o666);
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(dir.as_fd(), ".", flags | OFlag::O_TMPFILE, mode) {
        // Not every file system has O_TMPFILE: NFS, FAT and FUSE do not.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => {
            let name = temporary(name);
            let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL;
            Ok((File::from(openat(dir.as_fd(), name.as_os_str(), flags, mode)?), Some(name)))
        }
        opened => Ok((File::from(opened?), None)),
    }
}

fn temporary(name: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    // NAME_MAX is 255 bytes.
    let kept = &name.as_bytes()[..name.len().min(200)];
    let mut temporary = vec![b'.'];
    temporary.extend_from_slice(kept);
    temporary.extend_from_slice(format!(".{}.partial", std::process::id()).as_bytes());
    OsString::from_vec(temporary)
}
