//! Changes of attributes.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{UtimensatFlags, fstat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{ftruncate, linkat};

use super::Writable;
use super::copy_up::{Data, rename, write_all};
use super::kept::errno;
use super::place::{Form, open_name};
use super::table::View;
use crate::index::override_stat::Override;
use crate::index::{Kind, is_images_own};
use crate::overlay::owners::Owners;
use crate::overlay::wire::{Answer, Change, SetTime};
use crate::sys;

fn time(of: Option<SetTime>) -> TimeSpec {
    match of {
        None => TimeSpec::UTIME_OMIT,
        Some(SetTime::Now) => TimeSpec::UTIME_NOW,
        Some(SetTime::At(seconds, nanoseconds)) => {
            TimeSpec::new(seconds, i64::from(nanoseconds.min(999_999_999)))
        }
    }
}

impl Writable {
    pub(super) fn set_attributes(&self, id: u64, change: &Change) -> Result<(), Errno> {
        if let Owners::All(uid, gid) = self.owners
            && (change.uid.is_some_and(|wanted| wanted != uid)
                || change.gid.is_some_and(|wanted| wanted != gid))
        {
            return Err(Errno::EPERM);
        }
        let data = if change.size == Some(0) { Data::None } else { Data::All };
        self.copy_up(id, data)?;
        let _held = self.busy.take(&[id]);
        let view = self.table().view(id)?;
        if let Some(size) = change.size {
            let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
            ftruncate(&*self.file(id, &view)?, size)?;
        }
        let is_chown = change.uid.is_some() || change.gid.is_some();
        let drops = change.drops_setid || is_chown && view.kind != Kind::Directory;
        if change.mode.is_some() || is_chown || drops {
            self.set_owner_and_mode(id, &view, change, drops)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let (access, modification) = (time(change.atime), time(change.mtime));
            // What stands for it may be another file now.
            let form = self.table().view(id)?.form();
            match form {
                Form::Other => {
                    self.by_name(id, |dir, name| {
                        // Linux takes an empty name for the descriptor itself only so.
                        if name.is_empty() {
                            return Err(Errno::ENOENT);
                        }
                        let flags = UtimensatFlags::NoFollowSymlink;
                        utimensat(dir, name, &access, &modification, flags)
                    })?;
                }
                _ => futimens(&*self.upper(id)?, &access, &modification)?,
            }
        }
        Ok(())
    }

    fn set_owner_and_mode(
        &self,
        id: u64,
        view: &View,
        change: &Change,
        drops: bool,
    ) -> Result<(), Errno> {
        let form = view.form();
        let fd = self.upper(id)?;
        let (mut owner, mut mode, device) = match view.kept {
            Some(kept) => ((kept.uid, kept.gid), kept.mode, kept.device),
            None => (self.own(), fstat(&*fd)?.st_mode & 0o7777, (0, 0)),
        };
        if let Some(wanted) = change.mode {
            mode = wanted & 0o7777;
        }
        if drops {
            // setgid without the group's execute bit is a mark for locking, not a privilege.
            let is_group = mode & libc::S_IXGRP != 0;
            mode &= !(libc::S_ISUID | if is_group { libc::S_ISGID } else { 0 });
        }
        if self.owners == Owners::Image {
            owner = (change.uid.unwrap_or(owner.0), change.gid.unwrap_or(owner.1));
        }
        let mut kept = self.to_keep(view.kind, mode, owner, device);
        if form == Form::Other {
            return match kept {
                Some(kept) => self.stand_in(id, view, kept),
                // The disk can say it.
                None if view.kind == Kind::Fifo => {
                    self.by_name(id, |dir, name| self.set_fifo_mode(dir, name, mode))
                }
                None => Ok(()),
            };
        }
        if kept.is_none() && Form::for_kind(view.kind) == Form::Other {
            // What stands for it goes on standing for it.
            let (uid, gid) = owner;
            kept = Some(Override { uid, gid, mode, kind: Some(view.kind), device });
        }
        self.keep(&fd, form, mode, view.kept, kept)?;
        self.table().change(id, |view| view.kept = kept);
        Ok(())
    }

    /// Puts a file in place of a symbolic link or a FIFO, which can say neither whose it is nor every
    /// mode. `EPERM` where not all of its names are known, since the others would stay what it was.
    fn stand_in(&self, id: u64, view: &View, kept: Override) -> Result<(), Errno> {
        let stat = self.stat(id)?;
        let names = self.table().all_names(id);
        if names.is_empty() || u64::try_from(names.len()) != Ok(stat.st_nlink) {
            return Err(Errno::EPERM);
        }
        let target = match view.kind {
            Kind::Symlink => {
                self.by_name(id, |dir, name| nix::fcntl::readlinkat(dir, name))?.into_vec()
            }
            _ => Vec::new(),
        };
        // A name in the work directory for each of them, before any is replaced.
        let asides: Vec<_> = names.iter().map(|_| self.fresh_name()).collect();
        let done = (|| {
            let first = asides.first().ok_or(Errno::EIO)?;
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOATIME;
            let fd = open_name(&self.work, first, flags, 0o600)?;
            write_all(&fd, &target, 0)?;
            self.keep(&fd, Form::File, kept.mode, None, Some(kept))?;
            let access = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
            let modification = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
            futimens(&fd, &access, &modification)?;
            for aside in asides.iter().skip(1) {
                linkat(&*self.work, &first[..], &*self.work, &aside[..], AtFlags::empty())?;
            }
            for (name, aside) in names.iter().zip(&asides) {
                rename(&self.work, aside, &*self.upper(name.dir)?, &name.name, 0)?;
            }
            Ok((fstat(&fd)?.st_ino, fd))
        })();
        let (ino, fd) =
            done.inspect_err(|_| asides.iter().for_each(|aside| self.drop_from_work(aside)))?;
        let number = if view.origin.is_some() { view.number } else { self.number(ino) };
        self.table().replace_upper(id, ino, number, kept);
        self.files.give_up(id);
        self.files.keep(id, &Arc::new(fd));
        Ok(())
    }

    /// Drops setuid and setgid, where a write must.
    pub(super) fn drop_setid(&self, id: u64) -> Result<(), Errno> {
        let has_setid = |view: &View| view.kept.is_some_and(|kept| kept.mode & 0o6000 != 0);
        if !has_setid(&self.table().view(id)?) {
            return Ok(());
        }
        let _held = self.busy.take(&[id]);
        // Its mode may have been changed meanwhile.
        let view = self.table().view(id)?;
        self.set_owner_and_mode(id, &view, &Change::default(), true)
    }

    pub(super) fn set_xattr(
        &self,
        id: u64,
        name: &[u8],
        value: Option<&[u8]>,
        flags: u32,
    ) -> Result<(), Errno> {
        if !is_images_own(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let kind = self.table().view(id)?.kind;
        if !matches!(kind, Kind::File | Kind::Directory) {
            return Err(Errno::EPERM);
        }
        let c_name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        if value.is_none() && self.xattr(id, &c_name)?.is_none() {
            return Err(Errno::ENODATA);
        }
        self.copy_up(id, Data::All)?;
        let fd = self.upper(id)?;
        let done = match value {
            Some(value) => sys::tree::set_xattr(&*fd, &c_name, value, flags.cast_signed()),
            None => sys::tree::remove_xattr(&*fd, &c_name),
        };
        done.map_err(errno)
    }

    fn xattr(&self, id: u64, name: &CString) -> Result<Option<Vec<u8>>, Errno> {
        let view = self.table().view(id)?;
        match (view.upper, view.lower) {
            (Some(_), _) if view.form() == Form::Other => Ok(None),
            (Some(_), _) => sys::fs::get_xattr(&*self.upper(id)?, name).map_err(errno),
            (None, Some(lower)) => {
                Ok(self.lowers.xattr(lower, name.to_bytes()).map(<[u8]>::to_vec))
            }
            (None, None) => Err(Errno::EIO),
        }
    }

    pub(super) fn get_xattr(
        &self,
        id: u64,
        name: &[u8],
        size: u32,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        // Asked before the first write to a file, and by `ls -l`: nothing else is ever there.
        if !is_images_own(name) {
            return Err(Errno::ENODATA);
        }
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let value = self.xattr(id, &name)?.ok_or(Errno::ENODATA)?;
        answer.put_sized(&value, size)
    }

    pub(super) fn list_xattrs(&self, id: u64, size: u32, answer: &mut Answer) -> Result<(), Errno> {
        let view = self.table().view(id)?;
        let mut names = Vec::new();
        let mut add = |name: &[u8]| {
            if is_images_own(name) {
                names.extend_from_slice(name);
                names.push(0);
            }
        };
        match (view.upper, view.lower) {
            (Some(_), _) if view.form() == Form::Other => {}
            (Some(_), _) => {
                let found = sys::fs::list_xattrs(&*self.upper(id)?).map_err(errno)?;
                found.iter().for_each(|name| add(name.to_bytes()));
            }
            (None, Some(lower)) => {
                self.lowers.xattrs(lower).for_each(|(name, _)| add(name));
            }
            (None, None) => return Err(Errno::EIO),
        }
        answer.put_sized(&names, size)
    }
}
