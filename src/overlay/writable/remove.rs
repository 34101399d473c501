//! Removing names: whiteouts hide what the layers have.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::Writable;
use super::copy_up::rename;
use super::find::{Dir, Seen};
use super::place::{Form, is_whiteout, open_name, stat_name};
use super::table::{Shared, WORK};
use crate::index::Kind;
use crate::overlay::lowers::Id;
use crate::sys::tree::read_entries;

/// Is told a name and whether it is a whiteout; returns whether to go on.
pub(super) type EachName<'a> = dyn FnMut(&[u8], bool) -> Result<bool, Errno> + 'a;

/// The whiteout in the work directory that all others are links of.
const WHITEOUT: &[u8] = b"whiteout";

impl Writable {
    /// Puts a whiteout under a name of the work directory or of one that has nothing there.
    pub(super) fn make_whiteout(&self, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let link = || linkat(&*self.work, WHITEOUT, dir, name, AtFlags::empty());
        match link() {
            // One inode has no more than so many names; the next one begins anew.
            Err(Errno::ENOENT | Errno::EMLINK | Errno::EPERM | Errno::EOPNOTSUPP) => {
                mknodat(dir, name, SFlag::S_IFCHR, Mode::empty(), 0)?;
                self.drop_from_work(WHITEOUT);
                let _next_one_begins_anew =
                    linkat(dir, name, &*self.work, WHITEOUT, AtFlags::empty());
                Ok(())
            }
            done => done,
        }
    }

    /// Puts a whiteout in place of a file.
    fn cover(&self, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let aside = self.fresh_name();
        self.make_whiteout(&self.work, &aside)?;
        let done = rename(&self.work, &aside, dir, name, 0);
        if done.is_err() {
            self.drop_from_work(&aside);
        }
        done
    }

    /// The node of what was seen, if the kernel knows it.
    pub(super) fn known(&self, seen: &Seen) -> Option<u64> {
        let table = self.table();
        match seen {
            Seen::Upper(stat) => table.of_upper(stat.st_ino),
            Seen::Lower(lower) => table.of_lower(*lower),
        }
    }

    /// Keeps a file that is about to lose its last name usable for those who have it open.
    pub(super) fn pin(&self, id: u64) -> Result<(), Errno> {
        if self.table().view(id)?.upper.is_none() {
            return Ok(());
        }
        let fd = self.upper(id)?;
        self.table().set_pin(id, &fd)
    }

    /// Notes that a name of a node goes. Before the last one the node is pinned;
    /// [`restore`](Self::restore) undoes it all.
    pub(super) fn withdraw(&self, id: u64, dir: u64, name: &[u8]) -> Result<(), Errno> {
        let is_last = {
            let table = self.table();
            let origin = table.view(id)?.origin;
            match origin.and_then(|origin| table.shared(origin)) {
                Some(shared) => shared.links <= 1,
                None => table.only_name_is(id, dir, name),
            }
        };
        if is_last {
            self.pin(id)?;
        }
        self.table().remove_name(id, dir, name);
        Ok(())
    }

    /// Undoes [`withdraw`](Self::withdraw).
    pub(super) fn restore(&self, id: u64, dir: u64, name: &[u8]) {
        let mut table = self.table();
        table.add_name(id, dir, name);
        let _closed_outside_the_lock = table.remove_pin(id);
        drop(table);
    }

    /// A file of the layers with several names has lost one of them.
    pub(super) fn count_lost(&self, id: Option<u64>, lower: Option<Id>) -> Result<(), Errno> {
        let mut table = self.table();
        let origin = match id {
            Some(id) => table.view(id)?.origin.or(lower),
            None => lower,
        };
        let Some(origin) = origin else { return Ok(()) };
        let attributes = self.lowers.attributes(origin)?;
        if attributes.kind == Kind::Directory || attributes.links < 2 {
            return Ok(());
        }
        let before = table.shared(origin);
        let Shared { links, upper } =
            before.unwrap_or(Shared { links: attributes.links, upper: None });
        let links = links.saturating_sub(1);
        table.set_shared(origin, Shared { links, upper });
        if links > 0 || upper.is_none() {
            return Ok(());
        }
        let name = self.shared_name(origin);
        if let Some(id) = id {
            table.remove_name(id, WORK, &name);
        }
        drop(table);
        self.drop_from_work(&name);
        Ok(())
    }

    pub(super) fn unlink(&self, dir: u64, name: &[u8]) -> Result<(), Errno> {
        let dir = self.dir_to_change(dir)?;
        let upper = dir.upper.as_ref().ok_or(Errno::EIO)?;
        let seen = self.see(&dir, name)?.ok_or(Errno::ENOENT)?;
        let id = self.known(&seen);
        let _held = id.map(|id| self.busy.take(&[id]));
        // It may have been copied up meanwhile.
        let seen = self.see(&dir, name)?.ok_or(Errno::ENOENT)?;
        let below = self.below(&dir, name)?;
        if let Seen::Upper(stat) = &seen
            && Form::of(stat) == Form::Directory
        {
            return Err(Errno::EISDIR);
        }
        if let Some(id) = id {
            self.withdraw(id, dir.id, name)?;
        }
        let done = match (&seen, below) {
            (Seen::Upper(_), None) => unlinkat(&**upper, name, UnlinkatFlags::NoRemoveDir),
            (Seen::Upper(_), Some(_)) => self.cover(upper, name),
            (Seen::Lower(_), _) => self.make_whiteout(upper, name),
        };
        if let (Err(_), Some(id)) = (done, id) {
            self.restore(id, dir.id, name);
        }
        done?;
        let lower = match seen {
            Seen::Lower(lower) => Some(lower),
            Seen::Upper(_) => None,
        };
        self.count_lost(id, lower)
    }

    /// Whether a merged directory has nothing in it.
    pub(super) fn check_empty(&self, dir: &Dir) -> Result<(), Errno> {
        let mut is_empty = true;
        if let Some(upper) = &dir.upper {
            self.each_upper(upper, &mut |_, is_whiteout| {
                is_empty = is_whiteout;
                Ok(is_whiteout)
            })?;
        }
        let Some(lower) = dir.lower.filter(|_| is_empty) else {
            return if is_empty { Ok(()) } else { Err(Errno::ENOTEMPTY) };
        };
        let mut failed = Ok(());
        self.lowers.list(lower, 0, &mut |listed| {
            if matches!(listed.name, b"." | b"..") {
                return true;
            }
            match dir.upper.as_ref().map(|upper| stat_name(upper, listed.name)) {
                // Only whiteouts are there.
                Some(Ok(Some(_))) => true,
                Some(Err(errno)) => {
                    failed = Err(errno);
                    false
                }
                Some(Ok(None)) | None => {
                    is_empty = false;
                    false
                }
            }
        })?;
        failed?;
        if is_empty { Ok(()) } else { Err(Errno::ENOTEMPTY) }
    }

    /// Tells the names in a directory of the upper tree and which are whiteouts, until `each`
    /// returns false.
    pub(super) fn each_upper(&self, upper: &OwnedFd, each: &mut EachName<'_>) -> Result<(), Errno> {
        let again = open_name(upper, b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
        let mut buffer = vec![0; 32 << 10];
        loop {
            let mut count = 0;
            for entry in read_entries(again.as_fd(), &mut buffer).map_err(super::kept::errno)? {
                count += 1;
                if matches!(entry.name, b"." | b"..") {
                    continue;
                }
                let hides = match entry.kind {
                    libc::DT_CHR | libc::DT_UNKNOWN => {
                        stat_name(upper, entry.name)?.is_some_and(|stat| is_whiteout(&stat))
                    }
                    _ => false,
                };
                if !each(entry.name, hides)? {
                    return Ok(());
                }
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn remove_directory(&self, dir: u64, name: &[u8]) -> Result<(), Errno> {
        let dir = self.dir_to_change(dir)?;
        let upper = dir.upper.as_ref().ok_or(Errno::EIO)?;
        let seen = self.see(&dir, name)?.ok_or(Errno::ENOENT)?;
        let (id, _) = self.enter(&dir, name, &seen)?;
        let done = self.remove_known_directory(&dir, upper, name, id);
        self.forget(std::iter::once((id, 1)));
        done
    }

    fn remove_known_directory(
        &self,
        dir: &Dir,
        upper: &OwnedFd,
        name: &[u8],
        id: u64,
    ) -> Result<(), Errno> {
        let _held = self.busy.take(&[id]);
        let inner = self.dir(id)?;
        self.check_empty(&inner)?;
        let below = self.below(dir, name)?;
        self.withdraw(id, dir.id, name)?;
        let done = match &inner.upper {
            None => self.make_whiteout(upper, name),
            // Without whiteouts in it one call will do.
            Some(_) if below.is_none() => match unlinkat(upper, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => self.take_away(upper, name, false),
                done => done,
            },
            Some(_) => self.take_away(upper, name, true),
        };
        if done.is_err() {
            self.restore(id, dir.id, name);
        }
        done
    }

    /// Moves a directory that has nothing but whiteouts out of the tree, and removes it there.
    pub(super) fn take_away(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        leaves_whiteout: bool,
    ) -> Result<(), Errno> {
        let aside = self.fresh_name();
        if leaves_whiteout {
            self.make_whiteout(&self.work, &aside)?;
            if let Err(errno) = rename(&self.work, &aside, dir, name, libc::RENAME_EXCHANGE) {
                self.drop_from_work(&aside);
                return Err(errno);
            }
        } else {
            rename(dir, name, &self.work, &aside, 0)?;
        }
        // It is out of the tree: what fails now is only room on disk until the next start.
        let _room_until_then = self.remove_aside(&aside);
        Ok(())
    }

    fn remove_aside(&self, name: &[u8]) -> Result<(), Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let dir = open_name(&self.work, name, flags, 0)?;
        self.each_upper(&dir, &mut |name, _| {
            unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?;
            Ok(true)
        })?;
        unlinkat(&*self.work, name, UnlinkatFlags::RemoveDir)
    }
}
