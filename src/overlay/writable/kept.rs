//! What an ordinary user cannot give a file, kept beside it: owner, mode, type
//! (`user.containers.override_stat`, in the form that the store's layers have).

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, fchmod};

use super::Writable;
use super::place::Form;
use super::table::View;
use crate::index::Kind;
use crate::index::override_stat::{self, Override};
use crate::overlay::common::BLOCK;
use crate::overlay::owners::Owners;
use crate::overlay::readonly::kind_bits;
use crate::overlay::wire::{Attributes, Times};
use crate::sys;

/// The errno of an I/O error of the standard library.
pub(super) fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The bits that every file on disk has, so that it can be worked with.
pub(super) fn needed(form: Form) -> u32 {
    match form {
        Form::Directory => 0o700,
        Form::File | Form::Other => 0o600,
    }
}

/// The mode on disk of something that is to show another.
pub(super) fn physical(form: Form, mode: u32) -> u32 {
    // No program of the host is to become somebody by it.
    mode & 0o1777 | needed(form)
}

impl Writable {
    /// The owner of what says nothing about that: who runs the box.
    pub(super) fn own(&self) -> (u32, u32) {
        match self.owners {
            Owners::All(uid, gid) => (uid, gid),
            Owners::Image => (0, 0),
        }
    }

    fn is_own(&self, owner: (u32, u32)) -> bool {
        self.owners != Owners::Image || owner == self.own()
    }

    /// What must be kept beside a file that is to show this; `None` where the disk says it.
    pub(super) fn to_keep(
        &self,
        kind: Kind,
        mode: u32,
        owner: (u32, u32),
        device: (u32, u32),
    ) -> Option<Override> {
        let form = Form::for_kind(kind);
        let is_plain = match kind {
            Kind::File | Kind::Directory => physical(form, mode) == mode && owner == self.own(),
            // They cannot have attributes: a file stands for one whose owner matters.
            Kind::Symlink => self.is_own(owner),
            Kind::Fifo => physical(form, mode) == mode && self.is_own(owner),
            Kind::Whiteout => true,
            Kind::Socket | Kind::CharDevice | Kind::BlockDevice => false,
        };
        let (uid, gid) = owner;
        let stands = !matches!(kind, Kind::File | Kind::Directory);
        let kind = stands.then_some(kind);
        (!is_plain).then_some(Override { uid, gid, mode: mode & 0o7777, kind, device })
    }

    /// Gives an open file the mode on disk and what is kept beside it.
    pub(super) fn keep(
        &self,
        fd: &OwnedFd,
        form: Form,
        mode: u32,
        had: Option<Override>,
        kept: Option<Override>,
    ) -> Result<(), Errno> {
        if let Some(kept) = kept {
            let value = kept.to_string();
            sys::fs::set_xattr(fd, override_stat::NAME, value.as_bytes()).map_err(errno)?;
        }
        fchmod(fd, Mode::from_bits_truncate(physical(form, mode)))?;
        if had.is_some() && kept.is_none() {
            sys::tree::remove_xattr(fd, override_stat::NAME).map_err(errno)?;
        }
        Ok(())
    }

    /// Reads what is kept beside an open file.
    pub(super) fn read_kept(&self, fd: &OwnedFd) -> Result<Option<Override>, Errno> {
        match sys::fs::get_xattr(fd, override_stat::NAME).map_err(errno) {
            // What is none is the program's of another time, or a broken disk.
            Ok(value) => Ok(value.and_then(|value| Override::parse(&value))),
            Err(Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The attributes of what is in the upper directory, as the kernel is told them.
    pub(super) fn shown(&self, view: &View, stat: &FileStat, links: u32) -> Attributes {
        let (own_uid, own_gid) = self.own();
        let (mut uid, mut gid, mut mode) = (own_uid, own_gid, stat.st_mode & 0o7777);
        let mut device = (0, 0);
        if let Some(kept) = view.kept {
            (uid, gid) = self.owners.show(kept.uid, kept.gid);
            (mode, device) = (kept.mode, kept.device);
        }
        let is_data = matches!(view.kind, Kind::File | Kind::Directory | Kind::Symlink);
        let nanoseconds = |value: i64| u32::try_from(value).unwrap_or(0);
        Attributes {
            ino: view.number,
            size: if is_data { stat.st_size.unsigned_abs() } else { 0 },
            blocks: stat.st_blocks.unsigned_abs(),
            times: Times {
                access: (stat.st_atime, nanoseconds(stat.st_atime_nsec)),
                modification: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
                change: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
            },
            mode: kind_bits(view.kind) | mode,
            links,
            uid,
            gid,
            device: Attributes::device(device.0, device.1),
            block_size: BLOCK,
        }
    }
}
