//! New names: files, directories, links.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::Writable;
use super::copy_up::{Data, rename, write_all};
use super::find::{Dir, OPAQUE};
use super::kept::{errno, physical};
use super::place::{Form, is_whiteout, open_name, stat_name};
use super::table::{Shared, View, WORK};
use crate::index::Kind;
use crate::index::override_stat::Override;
use crate::overlay::common::NAME_MAX;
use crate::overlay::owners::Owners;
use crate::overlay::wire::Entry;
use crate::sys;

/// The most names of one file, as many as ext4 has: each is remembered, and all are looked through.
const MOST_LINKS: usize = 65_000;

/// What is to be made.
pub(super) struct New<'a> {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    /// Who makes it.
    pub(super) owner: (u32, u32),
    pub(super) device: (u32, u32),
    /// Of a symbolic link.
    pub(super) target: &'a [u8],
}

impl Writable {
    /// A directory that something is to be made in: in the upper directory.
    pub(super) fn dir_to_change(&self, id: u64) -> Result<Dir, Errno> {
        let view = self.table().view(id)?;
        if view.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if view.upper.is_none() {
            self.copy_up(id, Data::All)?;
        }
        self.dir(id)
    }

    pub(super) fn make(&self, dir: u64, name: &[u8], new: &New<'_>) -> Result<Entry, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let dir = self.dir_to_change(dir)?;
        // Before there is anything that would have to be undone.
        self.table().check_room()?;
        let upper = dir.upper.as_ref().ok_or(Errno::EIO)?;
        let below = self.below(&dir, name)?;
        let mut mode = new.mode & 0o7777;
        let (uid, mut gid) = match self.owners {
            Owners::All(..) => self.own(),
            Owners::Image => new.owner,
        };
        // What inode_init_owner() does for other file systems.
        if let Some(group) = self.group_of(&dir) {
            gid = if self.owners == Owners::Image { group } else { gid };
            mode |= if new.kind == Kind::Directory { libc::S_ISGID } else { 0 };
        }
        let kept = self.to_keep(new.kind, mode, (uid, gid), new.device);
        // Where nothing is in the way and one call does it all it is done in place.
        let hides = below.is_some() && new.kind == Kind::Directory;
        let in_place = kept.is_none() && !hides;
        let first =
            if in_place { self.make_at(upper, name, new, mode, None) } else { Err(Errno::EEXIST) };
        let (fd, stat) = match first {
            Err(Errno::EEXIST) => {
                let hidden = match stat_name(upper, name)? {
                    None if below.is_none() => false,
                    Some(found) if is_whiteout(&found) => true,
                    _ => return Err(Errno::EEXIST),
                };
                self.make_aside(upper, name, new, mode, kept, hidden)?
            }
            done => done?,
        };
        let view = View {
            kind: new.kind,
            number: self.number(stat.st_ino),
            lower: None,
            origin: None,
            upper: Some(stat.st_ino),
            kept,
            is_temporary: false,
        };
        let id = self.table().enter_made(view, dir.id, name);
        if let Some(fd) = fd {
            self.files.keep(id, &Arc::new(fd));
        }
        let links = u32::try_from(stat.st_nlink).unwrap_or(u32::MAX);
        Ok(self.entry(id, self.shown(&view, &stat, links)))
    }

    fn is_whited(&self, upper: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
        Ok(stat_name(upper, name)?.is_some_and(|stat| is_whiteout(&stat)))
    }

    /// The group that a directory hands on, if it does.
    fn group_of(&self, dir: &Dir) -> Option<u32> {
        // On disk no file has the bit: what has it says so in its attribute.
        dir.kept.filter(|kept| kept.mode & libc::S_ISGID != 0).map(|kept| kept.gid)
    }

    /// Makes something under a name that is free.
    fn make_at(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        new: &New<'_>,
        mode: u32,
        kept: Option<Override>,
    ) -> Result<(Option<OwnedFd>, FileStat), Errno> {
        let form = Form::with(new.kind, kept);
        let wanted = physical(form, mode);
        let bits = Mode::from_bits_truncate(wanted);
        let mut file = None;
        match form {
            Form::File => {
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOATIME;
                file = Some(open_name(dir, name, flags, wanted)?);
            }
            Form::Directory => mkdirat(dir, name, bits)?,
            Form::Other if new.kind == Kind::Symlink => symlinkat(new.target, dir, name)?,
            Form::Other => mknodat(dir, name, SFlag::S_IFIFO, bits, 0)?,
        }
        self.complete(dir, name, new, (form, mode), file).inspect_err(|_| {
            // There may be no descriptor left for what is there now.
            let flag = match form {
                Form::Directory => UnlinkatFlags::RemoveDir,
                _ => UnlinkatFlags::NoRemoveDir,
            };
            let _stays_if_it_must = unlinkat(dir, name, flag);
        })
    }

    /// Gives what was just made the rest.
    fn complete(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        new: &New<'_>,
        (form, mode): (Form, u32),
        file: Option<OwnedFd>,
    ) -> Result<(Option<OwnedFd>, FileStat), Errno> {
        let fd = match (form, file) {
            (_, Some(file)) => {
                write_all(&file, new.target, 0)?;
                file
            }
            (Form::Directory, None) => {
                open_name(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?
            }
            (_, None) => {
                if new.kind == Kind::Fifo {
                    self.set_fifo_mode(dir, name, mode)?;
                }
                return Ok((None, stat_name(dir, name)?.ok_or(Errno::EIO)?));
            }
        };
        let mut stat = fstat(&fd)?;
        // The mask of this process, or the file system's own idea of it.
        let wanted = physical(form, mode);
        if stat.st_mode & 0o7777 != wanted {
            nix::sys::stat::fchmod(&fd, Mode::from_bits_truncate(wanted))?;
            stat = fstat(&fd)?;
        }
        Ok((Some(fd), stat))
    }

    /// Makes something in the work directory and moves it to its name when it is complete.
    fn make_aside(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        new: &New<'_>,
        mode: u32,
        kept: Option<Override>,
        over_whiteout: bool,
    ) -> Result<(Option<OwnedFd>, FileStat), Errno> {
        let aside = self.fresh_name();
        let done = (|| {
            let (fd, _) = self.make_at(&self.work, &aside, new, mode, kept)?;
            if let Some(fd) = &fd {
                let form = Form::with(new.kind, kept);
                if kept.is_some() {
                    self.keep(fd, form, mode, None, kept)?;
                }
                if form == Form::Directory {
                    sys::tree::set_xattr(fd, OPAQUE, b"y", 0).map_err(errno)?;
                }
            }
            match over_whiteout && new.kind == Kind::Directory {
                true => {
                    rename(&self.work, &aside, dir, name, libc::RENAME_EXCHANGE)?;
                    self.drop_from_work(&aside);
                }
                false => {
                    let flags = if over_whiteout { 0 } else { libc::RENAME_NOREPLACE };
                    rename(&self.work, &aside, dir, name, flags)?;
                }
            }
            let stat = match &fd {
                Some(fd) => fstat(fd)?,
                None => stat_name(dir, name)?.ok_or(Errno::EIO)?,
            };
            Ok((fd, stat))
        })();
        if done.is_err() {
            self.drop_made(&aside, new.kind == Kind::Directory);
        }
        done
    }

    /// A file that has no name yet; on disk it has one in the work directory.
    pub(super) fn make_temporary(&self, dir: u64, new: &New<'_>) -> Result<Entry, Errno> {
        self.dir(dir)?;
        self.table().check_room()?;
        let name = self.fresh_name();
        let mode = new.mode & 0o7777;
        let owner = match self.owners {
            Owners::All(..) => self.own(),
            Owners::Image => new.owner,
        };
        let kept = self.to_keep(Kind::File, mode, owner, (0, 0));
        let done = (|| {
            let (fd, stat) = self.make_at(&self.work, &name, new, mode, kept)?;
            if let Some(fd) = &fd
                && kept.is_some()
            {
                self.keep(fd, Form::File, mode, None, kept)?;
            }
            let view = View {
                kind: Kind::File,
                number: self.number(stat.st_ino),
                lower: None,
                origin: None,
                upper: Some(stat.st_ino),
                kept,
                is_temporary: true,
            };
            let id = self.table().enter_made(view, WORK, &name);
            if let Some(fd) = fd {
                self.files.keep(id, &Arc::new(fd));
            }
            Ok(self.entry(id, self.shown(&view, &stat, 0)))
        })();
        if done.is_err() {
            self.drop_from_work(&name);
        }
        done
    }

    /// Another name for a file.
    pub(super) fn link(&self, of: u64, dir: u64, name: &[u8]) -> Result<Entry, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.copy_up(of, Data::All)?;
        let dir = self.dir_to_change(dir)?;
        let upper = dir.upper.as_ref().ok_or(Errno::EIO)?;
        let _held = self.busy.take(&[of]);
        let found = {
            let table = self.table();
            if table.names(of) >= MOST_LINKS {
                return Err(Errno::EMLINK);
            }
            table.name(of).ok_or(Errno::ENOENT)?
        };
        let source = self.upper(found.dir)?;
        let in_place = linkat(&*source, &found.name[..], &**upper, name, AtFlags::empty());
        match in_place {
            Err(Errno::EEXIST) if self.is_whited(upper, name)? => {
                let aside = self.fresh_name();
                linkat(&*source, &found.name[..], &*self.work, &aside[..], AtFlags::empty())?;
                if let Err(errno) = rename(&self.work, &aside, upper, name, 0) {
                    self.drop_from_work(&aside);
                    return Err(errno);
                }
            }
            done => done?,
        }
        let mut table = self.table();
        let view = table.view(of)?;
        table.add_name(of, dir.id, name);
        table.again(of);
        if view.is_temporary {
            table.remove_name(of, WORK, &found.name);
            table.change(of, |view| view.is_temporary = false);
        }
        if let Some(origin) = view.origin
            && let Some(Shared { links, upper }) = table.shared(origin)
        {
            table.set_shared(origin, Shared { links: links.saturating_add(1), upper });
        }
        drop(table);
        if view.is_temporary {
            self.drop_from_work(&found.name);
        }
        Ok(self.entry(of, self.attributes(of)?))
    }
}
