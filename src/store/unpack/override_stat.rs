//! Ownership, mode and device numbers that an ordinary user cannot set, kept in the attribute that
//! containers/storage and fuse-overlayfs read: `uid:gid:0mode:type`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat};

use crate::index::override_stat::NAME;
use crate::sys::fs::{replace_xattr, set_xattr};

/// An owner as the image has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The owner that files made in a tree show: the user, and a group that a setgid directory above
/// the store may have decided.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Shown(Owner);

impl Shown {
    /// The owner of what is made in a directory, by the directory's own.
    pub(in crate::store) fn of(dir: &OwnedFd) -> Result<Self, Errno> {
        let stat = fstat(dir)?;
        Ok(Shown(Owner { uid: stat.st_uid, gid: stat.st_gid }))
    }

    /// Keeps mode and true owner of a regular file that was made with its [`shown_mode`].
    pub(super) fn write_file(&self, file: &OwnedFd, owner: Owner, mode: u32) -> io::Result<()> {
        self.keep(file, owner, mode, shown_mode(mode), "file")
    }

    /// As [`Shown::write_file`], for a directory; the sticky bit does no harm and stays.
    pub(super) fn write_directory(&self, dir: &OwnedFd, owner: Owner, mode: u32) -> io::Result<()> {
        let shown = mode & 0o1777 | 0o700;
        fchmod(dir, Mode::from_bits_truncate(shown))?;
        if owner != self.0 || mode != shown {
            return self.keep(dir, owner, mode, shown, "dir");
        }
        // It may have been made with another owner, implied or by an earlier entry.
        match replace_xattr(dir, NAME, value(owner, mode, "dir").as_bytes()) {
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => Ok(()),
            replaced => replaced,
        }
    }

    /// For the empty file that stands in for a device.
    pub(super) fn write_device(
        &self,
        file: &OwnedFd,
        owner: Owner,
        mode: u32,
        kind: &str,
    ) -> io::Result<()> {
        set_xattr(file, NAME, value(owner, mode, kind).as_bytes())
    }

    fn keep(
        &self,
        file: impl AsFd,
        owner: Owner,
        mode: u32,
        physical: u32,
        kind: &str,
    ) -> io::Result<()> {
        if owner == self.0 && mode == physical {
            return Ok(());
        }
        set_xattr(file, NAME, value(owner, mode, kind).as_bytes())
    }
}

fn value(owner: Owner, mode: u32, kind: &str) -> String {
    format!("{}:{}:{mode:04o}:{kind}", owner.uid, owner.gid)
}

/// The mode that a regular file has on disk. The owner may always read and write, and nobody else
/// gets a setuid program of the user's (CVE-2021-41091).
pub(super) fn shown_mode(mode: u32) -> u32 {
    mode & 0o777 | 0o600
}
