//! Names and attributes: what is under a name in the merged tree.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};

use super::Writable;
use super::kept::{errno, needed, physical};
use super::place::{Form, is_whiteout, open_name, stat_name};
use super::table::{Shared, View, WORK};
use crate::index::Kind;
use crate::index::override_stat::Override;
use crate::overlay::common::NAME_MAX;
use crate::overlay::lowers::Id;
use crate::overlay::readonly::show;
use crate::overlay::wire::{Attributes, Entry, Timeout};
use crate::sys;

/// overlayfs' mark of a directory that hides what the layers have there.
pub(super) const OPAQUE: &std::ffi::CStr = c"user.overlay.opaque";

/// A directory in which something is looked for.
pub(super) struct Dir {
    pub(super) id: u64,
    pub(super) upper: Option<Arc<OwnedFd>>,
    pub(super) lower: Option<Id>,
    /// Its mode and group, where they matter to what is made in it.
    pub(super) kept: Option<Override>,
}

/// What was found under a name.
pub(super) enum Seen {
    Upper(FileStat),
    Lower(Id),
}

impl Writable {
    pub(super) fn dir(&self, id: u64) -> Result<Dir, Errno> {
        let view = self.table().view(id)?;
        if view.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let upper = view.upper.map(|_| self.upper(id)).transpose()?;
        Ok(Dir { id, upper, lower: view.lower, kept: view.kept })
    }

    /// What the layers have under a name in a directory, whatever the upper directory says.
    pub(super) fn below(&self, dir: &Dir, name: &[u8]) -> Result<Option<Id>, Errno> {
        match dir.lower {
            Some(lower) => self.lowers.lookup(lower, name),
            None => Ok(None),
        }
    }

    pub(super) fn see(&self, dir: &Dir, name: &[u8]) -> Result<Option<Seen>, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if let Some(upper) = &dir.upper
            && let Some(stat) = stat_name(upper, name)?
        {
            return Ok((!is_whiteout(&stat)).then_some(Seen::Upper(stat)));
        }
        Ok(self.below(dir, name)?.map(Seen::Lower))
    }

    /// Makes what was seen known, by one lookup that is to be forgotten.
    pub(super) fn enter(
        &self,
        dir: &Dir,
        name: &[u8],
        seen: &Seen,
    ) -> Result<(u64, Attributes), Errno> {
        match seen {
            Seen::Upper(stat) => {
                let known = {
                    let mut table = self.table();
                    let id = table.of_upper(stat.st_ino).filter(|id| table.again(*id));
                    if let Some(id) = id {
                        table.add_name(id, dir.id, name);
                    }
                    id
                };
                let id = match known {
                    Some(id) => id,
                    None => self.enter_unknown(dir, name, stat)?,
                };
                Ok((id, self.attributes_of(id, Some(stat))?))
            }
            Seen::Lower(lower) => {
                let id = self.enter_lower(dir.id, name, *lower)?;
                Ok((id, self.attributes_of(id, None)?))
            }
        }
    }

    /// What is in the upper directory, and was not asked for in this mount or not for long.
    fn enter_unknown(&self, dir: &Dir, name: &[u8], stat: &FileStat) -> Result<u64, Errno> {
        let upper = dir.upper.as_ref().ok_or(Errno::EIO)?;
        let (form, mut kind) = (Form::of(stat), Kind::of(stat));
        let (mut kept, mut lower, mut fd) = (None, None, None);
        if form != Form::Other {
            let opened = self.open_usable(upper, name, stat, form)?;
            kept = self.read_kept(&opened)?;
            match kept.and_then(|kept| kept.kind) {
                Some(Kind::Directory | Kind::Whiteout) | None => (),
                Some(_) if form == Form::Directory => (),
                Some(stands_for) => kind = stands_for,
            }
            if form == Form::Directory {
                let is_opaque = sys::fs::get_xattr(&opened, OPAQUE).map_err(errno)?;
                if is_opaque.is_none_or(|value| value != b"y") {
                    lower = self.below(dir, name)?;
                }
                if let Some(below) = lower
                    && self.lowers.attributes(below)?.kind != Kind::Directory
                {
                    lower = None;
                }
            }
            fd = Some(Arc::new(opened));
        }
        let mut table = self.table();
        let origin = table.origin(stat.st_ino);
        let number = match origin.or(lower) {
            Some(id) => self.lowers.number(id),
            None => self.number(stat.st_ino),
        };
        let upper = Some(stat.st_ino);
        let view = View { kind, number, lower, origin, upper, kept, is_temporary: false };
        let id = table.enter(view, dir.id, name)?;
        // It stays reachable when this name goes, and the layers' other names remain.
        if let Some(origin) = origin
            && table.shared(origin).is_some_and(|shared| shared.upper == upper)
        {
            table.add_name(id, WORK, &self.shared_name(origin));
        }
        drop(table);
        if let Some(fd) = fd {
            self.files.keep(id, &fd);
        }
        Ok(id)
    }

    /// Opens what another program has put into the upper directory, overlayfs perhaps, which leaves
    /// modes that a server without privilege cannot work with.
    fn open_usable(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        stat: &FileStat,
        form: Form,
    ) -> Result<OwnedFd, Errno> {
        use nix::fcntl::OFlag;
        let flags = match form {
            Form::Directory => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            _ => OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        };
        let mode = stat.st_mode & 0o7777;
        if mode & needed(form) == needed(form) {
            return open_name(dir, name, flags, 0);
        }
        let reading = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = open_name(dir, name, reading, 0)?;
        // Attributes can be set only on what may be written to.
        fchmod(&opened, Mode::from_bits_truncate(physical(form, mode)))?;
        if self.read_kept(&opened)?.is_none() {
            let kind = if form == Form::Directory { Kind::Directory } else { Kind::File };
            let kept = self.to_keep(kind, mode, self.own(), (0, 0));
            self.keep(&opened, form, mode, None, kept)?;
        }
        open_name(dir, name, flags, 0)
    }

    fn enter_lower(&self, dir: u64, name: &[u8], lower: Id) -> Result<u64, Errno> {
        let kind = self.lowers.attributes(lower)?.kind;
        let mut table = self.table();
        let number = self.lowers.number(lower);
        let mut view = View {
            kind,
            number,
            lower: Some(lower),
            origin: (kind != Kind::Directory).then_some(lower),
            upper: None,
            kept: None,
            is_temporary: false,
        };
        // One of several names, of which another was copied up.
        let copied = table.shared(lower).and_then(|shared| shared.upper);
        if let Some(ino) = copied {
            if let Some(id) = table.of_upper(ino).filter(|id| table.again(*id)) {
                return Ok(id);
            }
            drop(table);
            let known = self.shared_name(lower);
            let fd = open_name(&self.work, &known, nix::fcntl::OFlag::O_PATH, 0)?;
            let stat = fstat(&fd)?;
            view.kept = match Form::of(&stat) {
                Form::File => {
                    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK;
                    self.read_kept(&open_name(&self.work, &known, flags, 0)?)?
                }
                _ => None,
            };
            (view.lower, view.upper) = (None, Some(ino));
            return self.table().enter(view, WORK, &known);
        }
        table.enter(view, dir, name)
    }

    /// The inode number of what only the upper directory has.
    pub(super) fn number(&self, ino: u64) -> u64 {
        self.lowers.end().wrapping_add(ino)
    }

    /// The name in the work directory of a file with several names in the layers.
    pub(super) fn shared_name(&self, lower: Id) -> Vec<u8> {
        format!("={}", self.lowers.number(lower)).into_bytes()
    }

    pub(super) fn attributes(&self, id: u64) -> Result<Attributes, Errno> {
        self.attributes_of(id, None)
    }

    /// When something was made, where that was in this mount or in an earlier one with the same upper
    /// directory: no image tells it, and of a copy the disk has the wrong one.
    pub(super) fn birth_time(&self, id: u64) -> Result<Option<(i64, u32)>, Errno> {
        let view = self.table().view(id)?;
        if view.upper.is_none() || view.lower.is_some() || view.origin.is_some() {
            return Ok(None);
        }
        sys::fs::birth_time(&*self.upper(id)?).map_err(errno)
    }

    fn attributes_of(&self, id: u64, stat: Option<&FileStat>) -> Result<Attributes, Errno> {
        let (view, shared, has_name) = {
            let table = self.table();
            let view = table.view(id)?;
            let shared = view.origin.and_then(|origin| table.shared(origin));
            (view, shared, table.has_name(id))
        };
        let links = |found: u32| match shared {
            Some(Shared { links, .. }) => links,
            None if view.is_temporary => 0,
            // How many directories a merged one has is not known without going through it.
            None if view.kind == Kind::Directory => match has_name || id == super::table::ROOT {
                true if view.lower.is_none() => found,
                is_there => u32::from(is_there),
            },
            None => found,
        };
        match (view.upper, view.lower) {
            (Some(_), _) => {
                let found = match stat {
                    Some(stat) => *stat,
                    None => self.stat(id)?,
                };
                let count = u32::try_from(found.st_nlink).unwrap_or(u32::MAX);
                Ok(self.shown(&view, &found, links(count)))
            }
            (None, Some(lower)) => {
                let mut shown = show(&self.lowers.attributes(lower)?, view.number, self.owners);
                let gone = if has_name { shown.links } else { 0 };
                shown.links = links(gone);
                Ok(shown)
            }
            (None, None) => Err(Errno::EIO),
        }
    }

    /// An entry that the kernel may keep for ever: nobody else changes the tree.
    pub(super) fn entry(&self, node: u64, attributes: Attributes) -> Entry {
        let (names, attributes_for) = (Timeout::NEVER, Timeout::NEVER);
        Entry { node, generation: 0, names, attributes_for, attributes }
    }

    pub(super) fn lookup(&self, dir: u64, name: &[u8]) -> Result<Entry, Errno> {
        let dir = self.dir(dir)?;
        let Some(seen) = self.see(&dir, name)? else {
            return Ok(Entry::none(Timeout::NEVER));
        };
        let (id, attributes) = self.enter(&dir, name, &seen)?;
        Ok(self.entry(id, attributes))
    }
}
