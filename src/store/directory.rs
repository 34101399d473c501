//! A root file system in a directory, as a tar stream that is the same for the same files: names in
//! order, nothing followed, no access or change times.

use std::collections::HashMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, major, minor};
use nix::unistd::{getegid, geteuid};
use tar::{Builder, EntryType, Header};

use crate::error::{During, Error, Result};

/// Writes a directory as a tar stream. Files of the user's own become root's, since that is whose
/// they are meant to be in the box; other owners stay.
pub(super) fn send(root: OwnedFd, sink: &mut impl Write) -> Result<()> {
    let mut walk = Walk {
        builder: Builder::new(sink),
        own: (geteuid().as_raw(), getegid().as_raw()),
        links: HashMap::new(),
    };
    let stat = fstat(&root).at("stat", ".")?;
    let mut header = walk.header(&stat, EntryType::Directory)?;
    walk.append(&mut header, &stat, Path::new("./"), io::empty())?;
    walk.directory(&root, Path::new(""))?;
    let sink = walk.builder.into_inner().map_err(|error| closed(&error))?;
    sink.flush().map_err(|error| closed(&error))
}

/// The stream is taken by the unpacking side; when that ends early, its error is the one to show.
fn closed(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::os("write to", "the unpacking process", error),
        None => Error::new(format!("unpack the directory's files: {error}")),
    }
}

struct Walk<W: Write> {
    builder: Builder<W>,
    own: (u32, u32),
    /// Files with several names, by identity: the first name of each.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Walk<W> {
    fn directory(&mut self, dir: &OwnedFd, path: &Path) -> Result<()> {
        let mut names: Vec<CString> = Vec::new();
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        for entry in Dir::openat(dir, ".", flags, Mode::empty()).at("read", path)?.iter() {
            let entry = entry.at("read", path)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        for name in names {
            let full = path.join(OsString::from_vec(name.to_bytes().to_vec()));
            self.entry(dir, &name, &full)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, name: &CString, path: &Path) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let stat = fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).at("stat", path)?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => EntryType::Directory,
            libc::S_IFREG => EntryType::Regular,
            libc::S_IFLNK => EntryType::Symlink,
            libc::S_IFIFO => EntryType::Fifo,
            libc::S_IFCHR => EntryType::Char,
            libc::S_IFBLK => EntryType::Block,
            // A socket is of use only to the process that made it; tar leaves it out as well.
            _ => return Ok(()),
        };
        let mut header = self.header(&stat, kind)?;
        if stat.st_nlink > 1 && kind != EntryType::Directory {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned() {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.append_link(&mut header, &stat, path, &first);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match kind {
            EntryType::Directory => {
                let inner = openat(dir, name.as_c_str(), flags | OFlag::O_DIRECTORY, Mode::empty())
                    .at("open", path)?;
                self.append(&mut header, &stat, path, io::empty())?;
                self.directory(&inner, path)
            }
            EntryType::Regular => {
                let file = openat(dir, name.as_c_str(), flags, Mode::empty()).at("open", path)?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                header.set_size(size);
                let mut content = Exactly { file: File::from(file), left: size };
                self.append(&mut header, &stat, path, &mut content)
            }
            EntryType::Symlink => {
                let target = readlinkat(dir, name.as_c_str()).at("read the link", path)?;
                self.append_link(&mut header, &stat, path, Path::new(&target))
            }
            _ => self.append(&mut header, &stat, path, io::empty()),
        }
    }

    fn header(&self, stat: &FileStat, kind: EntryType) -> Result<Header> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        let owner = |id: u32, own: u32| u64::from(if id == own { 0 } else { id });
        header.set_uid(owner(stat.st_uid, self.own.0));
        header.set_gid(owner(stat.st_gid, self.own.1));
        header.set_size(0);
        // Before 1970 the header cannot say; the PAX record does.
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let number = |number: u64| {
                u32::try_from(number).map_err(|_| Error::new("a device number is out of range"))
            };
            let failed = |error: io::Error| Error::new(error.to_string());
            header.set_device_major(number(major(stat.st_rdev))?).map_err(failed)?;
            header.set_device_minor(number(minor(stat.st_rdev))?).map_err(failed)?;
        }
        Ok(header)
    }

    fn times(&mut self, stat: &FileStat) -> Result<()> {
        if stat.st_mtime >= 0 && stat.st_mtime_nsec == 0 {
            return Ok(());
        }
        let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec);
        let text = if seconds >= 0 || nanoseconds == 0 {
            format!("{seconds}.{nanoseconds:09}")
        } else {
            format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
        };
        let records = [("mtime", text.as_bytes())];
        self.builder.append_pax_extensions(records).map_err(|error| closed(&error))
    }

    fn append(
        &mut self,
        header: &mut Header,
        stat: &FileStat,
        path: &Path,
        content: impl Read,
    ) -> Result<()> {
        self.times(stat)?;
        self.builder.append_data(header, path, content).map_err(|error| failed(&error, path))
    }

    fn append_link(
        &mut self,
        header: &mut Header,
        stat: &FileStat,
        path: &Path,
        target: &Path,
    ) -> Result<()> {
        self.times(stat)?;
        // As bytes: the crate's own way would tidy the target.
        self.builder.append_link(header, path, target).map_err(|error| failed(&error, path))
    }
}

fn failed(error: &io::Error, path: &Path) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::os("read", path.display(), error),
        None => closed(error),
    }
}

/// As many bytes as the header says. A file that shrinks meanwhile is an error: the stream cannot be
/// put right any more.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::other("a file became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}
