//! Where things are in the upper directory: by descriptors that are opened again when they are
//! needed, one component after the other, without following anything.

use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use super::Writable;
use super::table::{Gone, ROOT, Table, WORK};
use crate::index::Kind;
use crate::index::override_stat::Override;

/// What a thing on disk is opened as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A regular file, for itself or in place of what the user cannot make.
    File,
    Directory,
    /// Opened for reference only.
    Other,
}

impl Form {
    pub(super) fn of(stat: &FileStat) -> Self {
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Form::File,
            libc::S_IFDIR => Form::Directory,
            _ => Form::Other,
        }
    }

    /// What stands for something of a kind in the upper directory.
    pub(super) fn for_kind(kind: Kind) -> Self {
        match kind {
            Kind::File | Kind::CharDevice | Kind::BlockDevice | Kind::Socket => Form::File,
            Kind::Directory => Form::Directory,
            Kind::Symlink | Kind::Fifo | Kind::Whiteout => Form::Other,
        }
    }

    /// The same, where this is kept beside it: a file stands for what cannot have attributes itself.
    pub(super) fn with(kind: Kind, kept: Option<Override>) -> Self {
        match (Form::for_kind(kind), kept) {
            (Form::Other, Some(_)) => Form::File,
            (form, _) => form,
        }
    }

    fn flags(self) -> OFlag {
        match self {
            // Reading is no access: a write to the inode for every file that is read.
            Form::File => OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOATIME,
            Form::Directory => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            Form::Other => OFlag::O_PATH,
        }
    }
}

/// openat2(2) of a name in a directory.
pub(super) fn open_name(
    dir: &OwnedFd,
    name: &[u8],
    flags: OFlag,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).mode(Mode::from_bits_truncate(mode)).resolve(resolve);
    loop {
        match openat2(dir, name, how) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            done => return done,
        }
    }
}

/// fstatat(2) of a name; `None` where there is none.
pub(super) fn stat_name(dir: &OwnedFd, name: &[u8]) -> Result<Option<FileStat>, Errno> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0
}

/// That names stay what they are, save those that are made or removed.
pub(super) type Still<'a> = RwLockReadGuard<'a, ()>;

impl Writable {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps all things where they are.
    pub(super) fn still(&self) -> Still<'_> {
        self.moving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets this thread alone move things, for the length of a system call.
    pub(super) fn move_things(&self) -> RwLockWriteGuard<'_, ()> {
        self.moving.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor of a node in the upper directory.
    pub(super) fn upper(&self, id: u64) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(known) = self.at_hand(id) {
            return Ok(known);
        }
        self.upper_while(&self.still(), id)
    }

    fn at_hand(&self, id: u64) -> Option<Arc<OwnedFd>> {
        match id {
            ROOT => Some(Arc::clone(&self.root)),
            WORK => Some(Arc::clone(&self.work)),
            _ => self.files.find(id),
        }
    }

    fn upper_while(&self, _still: &Still<'_>, id: u64) -> Result<Arc<OwnedFd>, Errno> {
        // Up to a directory that is open, and down again.
        let mut way = Vec::new();
        let mut at = id;
        let mut found = loop {
            if let Some(known) = self.at_hand(at) {
                break known;
            }
            let table = self.table();
            if let Some(pin) = table.pin(at) {
                break pin;
            }
            let view = table.view(at)?;
            let name = table.name(at).ok_or(Errno::ESTALE)?;
            let dir = name.dir;
            way.push((at, view.form(), name.name, view.upper));
            at = dir;
        };
        for (at, form, name, ino) in way.into_iter().rev() {
            let opened = match open_name(&found, &name, form.flags(), 0) {
                Err(Errno::EMFILE | Errno::ENFILE) => {
                    self.files.clear();
                    open_name(&found, &name, form.flags(), 0)
                }
                done => done,
            };
            let opened = Arc::new(opened.map_err(lost)?);
            // Somebody else has changed the directory.
            if ino != Some(fstat(&opened)?.st_ino) {
                return Err(Errno::EIO);
            }
            self.files.keep(at, &opened);
            found = opened;
        }
        Ok(found)
    }

    /// Does something by the directory and name of a node in the upper directory; by the descriptor
    /// where it has no name any more.
    pub(super) fn by_name<T>(
        &self,
        id: u64,
        act: impl FnOnce(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let still = self.still();
        let name = self.table().name(id);
        match name {
            Some(name) => act(&*self.upper_while(&still, name.dir)?, &name.name),
            None => act(&*self.upper_while(&still, id)?, b""),
        }
    }

    /// What is on disk.
    pub(super) fn stat(&self, id: u64) -> Result<FileStat, Errno> {
        if let Some(known) = self.at_hand(id) {
            return fstat(&known);
        }
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
        self.by_name(id, |dir, name| fstatat(dir, name, flags))
    }

    /// A name for the work directory that was never used in this mount.
    pub(super) fn fresh_name(&self) -> Vec<u8> {
        let number = self.names.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("#{number}").into_bytes()
    }

    /// The kernel gives up lookups of nodes.
    pub(super) fn forget(&self, nodes: impl Iterator<Item = (u64, u64)>) {
        let mut gone = Gone::default();
        let mut table = self.table();
        for (id, lookups) in nodes {
            table.forget(id, lookups, &mut gone);
        }
        drop(table);
        for id in gone.nodes {
            self.files.give_up(id);
        }
        for name in gone.work {
            self.drop_from_work(&name);
        }
    }
}

/// What should be there and is not.
fn lost(errno: Errno) -> Errno {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO => Errno::EIO,
        other => other,
    }
}
