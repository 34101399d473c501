//! Renaming. Files of the layers are copied up first; so are directories, with all that is in them,
//! as long as that is not much: the kernel's overlayfs gives `EXDEV` for them without privilege, and
//! so does this for large ones.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Writable;
use super::copy_up::{Data, rename};
use super::find::{Dir, OPAQUE, Seen};
use super::kept::errno;
use super::place::{is_whiteout, stat_name};
use crate::index::Kind;
use crate::overlay::common::NAME_MAX;
use crate::sys;

/// The most entries that are copied up for the renaming of a directory.
const MOST_COPIED: usize = 10_000;

/// The most room on disk that they may take, in bytes: whoever renames waits for it.
const MOST_COPIED_BYTES: u64 = 1 << 30;

/// One side of a rename.
struct Side<'a> {
    dir: Dir,
    name: &'a [u8],
    /// The node there, known by one more lookup.
    id: Option<u64>,
}

impl Side<'_> {
    fn upper(&self) -> Result<&OwnedFd, Errno> {
        self.dir.upper.as_deref().ok_or(Errno::EIO)
    }
}

impl Writable {
    pub(super) fn rename(
        &self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        if to.1.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        // Whiteouts are nobody's to make, as in the kernel's overlayfs.
        if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE) != 0 {
            return Err(Errno::EINVAL);
        }
        let from = self.side(from)?;
        let to = match self.side(to) {
            Ok(to) => to,
            Err(errno) => {
                self.leave(&from);
                return Err(errno);
            }
        };
        let done = self.rename_sides(&from, &to, flags);
        self.leave(&from);
        self.leave(&to);
        done
    }

    fn side<'a>(&self, (dir, name): (u64, &'a [u8])) -> Result<Side<'a>, Errno> {
        let dir = self.dir_to_change(dir)?;
        let id = match self.see(&dir, name)? {
            Some(seen) => Some(self.enter(&dir, name, &seen)?.0),
            None => None,
        };
        Ok(Side { dir, name, id })
    }

    fn leave(&self, side: &Side<'_>) {
        self.forget(side.id.map(|id| (id, 1)).into_iter());
    }

    fn rename_sides(&self, from: &Side<'_>, to: &Side<'_>, flags: u32) -> Result<(), Errno> {
        let source = from.id.ok_or(Errno::ENOENT)?;
        let is_exchange = flags & libc::RENAME_EXCHANGE != 0;
        match to.id {
            Some(_) if flags & libc::RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
            None if is_exchange => return Err(Errno::ENOENT),
            // Two names of one file.
            Some(target) if target == source => return Ok(()),
            _ => {}
        }
        let is_dir = |id| Ok::<_, Errno>(self.table().view(id)?.kind == Kind::Directory);
        let source_is_dir = is_dir(source)?;
        if let Some(target) = to.id.filter(|_| !is_exchange) {
            match (source_is_dir, is_dir(target)?) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) => self.check_empty(&self.dir(target)?)?,
                (false, false) => {}
            }
        }
        self.make_movable(source)?;
        if let Some(target) = to.id.filter(|_| is_exchange) {
            self.make_movable(target)?;
        }
        let both: Vec<u64> = [Some(source), to.id].into_iter().flatten().collect();
        let _held = self.busy.take(&both);
        self.be_there(source, from)?;
        match to.id {
            Some(target) if is_exchange => self.exchange(from, to, source, target),
            target => self.replace(from, to, source, target),
        }
    }

    /// Brings up what is to be renamed; a directory so that it no longer shows any layer.
    fn make_movable(&self, id: u64) -> Result<(), Errno> {
        let view = self.table().view(id)?;
        match view.kind == Kind::Directory && view.lower.is_some() {
            true => self.copy_all_up(id),
            false => self.copy_up(id, Data::All),
        }
    }

    /// Of a file with several names in the layers perhaps another one was copied up.
    fn be_there(&self, id: u64, side: &Side<'_>) -> Result<(), Errno> {
        let upper = side.upper()?;
        if stat_name(upper, side.name)?.is_some() {
            return Ok(());
        }
        let origin = self.table().view(id)?.origin.ok_or(Errno::EIO)?;
        let shared = self.shared_name(origin);
        let flags = nix::fcntl::AtFlags::empty();
        nix::unistd::linkat(&*self.work, &shared[..], upper, side.name, flags)?;
        self.table().add_name(id, side.dir.id, side.name);
        Ok(())
    }

    /// A directory that goes where the layers have something must not be merged with that.
    fn hide_below(&self, id: u64, side: &Side<'_>) -> Result<(), Errno> {
        let is_dir = self.table().view(id)?.kind == Kind::Directory;
        if is_dir && self.below(&side.dir, side.name)?.is_some() {
            let fd = self.upper(id)?;
            sys::tree::set_xattr(&*fd, OPAQUE, b"y", 0).map_err(errno)?;
        }
        Ok(())
    }

    fn exchange(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        source: u64,
        target: u64,
    ) -> Result<(), Errno> {
        self.be_there(target, to)?;
        self.hide_below(source, to)?;
        self.hide_below(target, from)?;
        let _moving = self.move_things();
        rename(from.upper()?, from.name, to.upper()?, to.name, libc::RENAME_EXCHANGE)?;
        let mut table = self.table();
        table.remove_name(source, from.dir.id, from.name);
        table.remove_name(target, to.dir.id, to.name);
        table.add_name(source, to.dir.id, to.name);
        table.add_name(target, from.dir.id, from.name);
        Ok(())
    }

    fn replace(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        source: u64,
        target: Option<u64>,
    ) -> Result<(), Errno> {
        let leaves_whiteout = self.below(&from.dir, from.name)?.is_some();
        self.hide_below(source, to)?;
        let in_the_way = stat_name(to.upper()?, to.name)?;
        let is_dir = self.table().view(source)?.kind == Kind::Directory;
        if let Some(target) = target {
            self.withdraw(target, to.dir.id, to.name)?;
        }
        let done = match in_the_way {
            // A directory takes the place of nothing but an empty directory.
            Some(stat) if is_dir => {
                let moved = self.change_places(from, to, source);
                moved.and_then(|()| {
                    let gone = match (is_whiteout(&stat), leaves_whiteout) {
                        (true, true) => Ok(()),
                        (true, false) => {
                            unlinkat(from.upper()?, from.name, UnlinkatFlags::NoRemoveDir)
                        }
                        (false, leaves) => self.take_away(from.upper()?, from.name, leaves),
                    };
                    if gone.is_err() {
                        // Nobody is to find the other directory under the old name.
                        self.change_places(to, from, source)?;
                    }
                    gone
                })
            }
            _ => self.move_over(from, to, source, leaves_whiteout),
        };
        if let (Err(_), Some(target)) = (done, target) {
            self.restore(target, to.dir.id, to.name);
        }
        done?;
        let Some(target) = target else { return Ok(()) };
        let lower = match in_the_way {
            None => self.table().view(target)?.origin,
            Some(_) => None,
        };
        self.count_lost(Some(target), lower)
    }

    fn change_places(&self, from: &Side<'_>, to: &Side<'_>, source: u64) -> Result<(), Errno> {
        let _moving = self.move_things();
        rename(from.upper()?, from.name, to.upper()?, to.name, libc::RENAME_EXCHANGE)?;
        self.note_move(from, to, source);
        Ok(())
    }

    fn move_over(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        source: u64,
        leaves_whiteout: bool,
    ) -> Result<(), Errno> {
        let _moving = self.move_things();
        let (old, new) = (from.upper()?, to.upper()?);
        if leaves_whiteout {
            match rename(old, from.name, new, to.name, libc::RENAME_WHITEOUT) {
                // Not every file system has it.
                Err(Errno::EINVAL | Errno::EPERM) => {
                    // What takes room comes first: a name that is left must not show a layer again.
                    let aside = self.fresh_name();
                    self.make_whiteout(&self.work, &aside)?;
                    let moved = rename(old, from.name, new, to.name, 0)
                        .and_then(|()| rename(&self.work, &aside, old, from.name, 0));
                    moved.inspect_err(|_| self.drop_from_work(&aside))?;
                }
                done => done?,
            }
        } else {
            rename(old, from.name, new, to.name, 0)?;
        }
        self.note_move(from, to, source);
        Ok(())
    }

    fn note_move(&self, from: &Side<'_>, to: &Side<'_>, source: u64) {
        let mut table = self.table();
        table.remove_name(source, from.dir.id, from.name);
        table.add_name(source, to.dir.id, to.name);
    }

    /// Copies up a directory with everything in it, so that it is one of the upper directory alone.
    /// `EXDEV` where that is too much.
    fn copy_all_up(&self, id: u64) -> Result<(), Errno> {
        self.copy_up(id, Data::All)?;
        let mut known = Vec::new();
        let done = self.copy_below_up(id, &mut known);
        self.forget(known.into_iter().map(|id| (id, 1)));
        done
    }

    fn copy_below_up(&self, id: u64, known: &mut Vec<u64>) -> Result<(), Errno> {
        // First how much it is: what is too much is not begun.
        let mut directories = vec![id];
        let mut files = Vec::new();
        let (mut at, mut bytes) = (0, 0_u64);
        while let Some(dir) = directories.get(at).copied() {
            at += 1;
            let dir = self.dir(dir)?;
            let mut names: Vec<Vec<u8>> = Vec::new();
            let room = MOST_COPIED.saturating_sub(known.len());
            if let Some(lower) = dir.lower {
                self.lowers.list(lower, 0, &mut |listed| {
                    if !matches!(listed.name, b"." | b"..") {
                        names.push(listed.name.to_vec());
                    }
                    names.len() <= room
                })?;
            }
            if names.len() > room {
                return Err(Errno::EXDEV);
            }
            for name in names {
                let Some(seen) = self.see(&dir, &name)? else { continue };
                let (child, shown) = self.enter(&dir, &name, &seen)?;
                known.push(child);
                if let Seen::Lower(_) = seen {
                    bytes = bytes.saturating_add(shown.blocks.saturating_mul(512));
                }
                if bytes > MOST_COPIED_BYTES {
                    return Err(Errno::EXDEV);
                }
                let view = self.table().view(child)?;
                match view.kind {
                    Kind::Directory if view.lower.is_some() => directories.push(child),
                    _ if matches!(seen, Seen::Lower(_)) => files.push((child, dir.id, name)),
                    _ => {}
                }
            }
        }
        for directory in &directories {
            self.copy_up(*directory, Data::All)?;
        }
        for (file, dir, name) in files {
            self.copy_up(file, Data::All)?;
            let side = Side { dir: self.dir(dir)?, name: &name, id: None };
            let _held = self.busy.take(&[file]);
            self.be_there(file, &side)?;
        }
        // The innermost first: each is complete when it stops showing the layers.
        for directory in directories.iter().rev() {
            let _held = self.busy.take(&[*directory]);
            let fd = self.upper(*directory)?;
            sys::tree::set_xattr(&*fd, OPAQUE, b"y", 0).map_err(errno)?;
            let mut table = self.table();
            let view = table.view(*directory)?;
            if let (Some(lower), Some(ino)) = (view.lower, view.upper) {
                table.set_origin(ino, lower);
                table.change(*directory, |view| {
                    (view.origin, view.lower) = (Some(lower), None);
                });
            }
        }
        Ok(())
    }
}
