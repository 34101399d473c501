//! Two trees side by side: whether a layer is still what its stream says.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstatat};

use crate::error::{During, Result};
use crate::sys::fs::{get_xattr, list_xattrs};

/// The most differences that are told.
const ENOUGH: usize = 10;

const TIME: &str = "has another modification time";

/// How a tree differs from what it should be, apart from the contents of its files; a line each, no
/// more than ten. Files with one identity in `wanted` have one in `found`.
pub(super) fn differences(found: &OwnedFd, wanted: &OwnedFd) -> Result<Vec<String>> {
    let mut compare = Compare { lines: Vec::new(), links: BTreeMap::new() };
    compare.directory(found, wanted, Path::new(""))?;
    Ok(compare.lines)
}

struct Compare {
    lines: Vec<String>,
    /// Files of the wanted tree with several names: where the first one was found.
    links: BTreeMap<(u64, u64), (u64, u64)>,
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Compare {
    fn say(&mut self, path: &Path, what: &str) {
        if self.lines.len() < ENOUGH {
            self.lines.push(format!("/{}: {what}", path.display()));
        }
    }

    fn directory(&mut self, found: &OwnedFd, wanted: &OwnedFd, path: &Path) -> Result<()> {
        self.attributes(found, wanted, path)?;
        let here = names(found).at("read", path)?;
        let there = names(wanted).at("read", path)?;
        for name in here.iter().filter(|name| there.binary_search(name).is_err()) {
            self.say(&join(path, name), "is not in the layer");
        }
        for name in &there {
            if self.lines.len() >= ENOUGH {
                return Ok(());
            }
            let full = join(path, name);
            if here.binary_search(name).is_err() {
                self.say(&full, "is missing");
                continue;
            }
            self.entry(found, wanted, name, &full)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        found: &OwnedFd,
        wanted: &OwnedFd,
        name: &CString,
        path: &Path,
    ) -> Result<()> {
        let stat = |dir: &OwnedFd| {
            fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).at("stat", path)
        };
        let (here, there) = (stat(found)?, stat(wanted)?);
        for (differs, what) in [
            (kind(&here) != kind(&there), "is of another type"),
            (here.st_mode != there.st_mode, "has another mode"),
            (here.st_uid != there.st_uid, "belongs to another user"),
            (kind(&there) != libc::S_IFDIR && here.st_size != there.st_size, "has another size"),
            // A whiteout's time is that of its making, and nobody sees it.
            (kind(&there) != libc::S_IFCHR && time(&here) != time(&there), TIME),
            (here.st_rdev != there.st_rdev, "has another device number"),
        ] {
            if differs {
                self.say(path, what);
                // What made the time of a directory another one is in it.
                if kind(&there) != libc::S_IFDIR || what != TIME {
                    return Ok(());
                }
            }
        }
        if there.st_nlink > 1 && kind(&there) != libc::S_IFDIR {
            let first = self.links.entry((there.st_dev, there.st_ino));
            if *first.or_insert((here.st_dev, here.st_ino)) != (here.st_dev, here.st_ino) {
                self.say(path, "is not a hard link to the file that it should be one of");
            }
        }
        let open = |dir: &OwnedFd, flags| openat(dir, name.as_c_str(), flags, Mode::empty());
        match kind(&there) {
            libc::S_IFDIR => {
                let here = open(found, DIRECTORY).at("open", path)?;
                let there = open(wanted, DIRECTORY).at("open", path)?;
                self.directory(&here, &there, path)
            }
            libc::S_IFREG => {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let here = open(found, flags).at("open", path)?;
                let there = open(wanted, flags).at("open", path)?;
                self.attributes(&here, &there, path)
            }
            libc::S_IFLNK => {
                let target = |dir: &OwnedFd| readlinkat(dir, name.as_c_str()).at("read", path);
                if target(found)? != target(wanted)? {
                    self.say(path, "leads elsewhere");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn attributes(&mut self, found: &OwnedFd, wanted: &OwnedFd, path: &Path) -> Result<()> {
        let attributes = |file: &OwnedFd| -> io::Result<Vec<(CString, Option<Vec<u8>>)>> {
            let names = list_xattrs(file)?.into_iter();
            // Those of the system are not the layer's: a label that SELinux gave, an ACL.
            let names = names.filter(|name| name.to_bytes().starts_with(b"user."));
            names.map(|name| get_xattr(file, &name).map(|value| (name, value))).collect()
        };
        if attributes(found).at("read attributes of", path)?
            != attributes(wanted).at("read attributes of", path)?
        {
            self.say(path, "has other extended attributes");
        }
        Ok(())
    }
}

fn kind(stat: &FileStat) -> u32 {
    stat.st_mode & libc::S_IFMT
}

fn time(stat: &FileStat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec)
}

fn join(path: &Path, name: &CString) -> PathBuf {
    path.join(OsString::from_vec(name.to_bytes().to_vec()))
}

fn names(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::openat(dir, ".", DIRECTORY, Mode::empty())?.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}
