//! Copy-up: what is only in the layers comes into the upper directory before it is changed.
//!
//! A copy is made in the work directory and renamed into its place when it is complete. Files keep
//! data, holes, attributes, owner, mode and times; their directories keep their times.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstat, futimens, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{UnlinkatFlags, Whence, ftruncate, linkat, lseek64, symlinkat, unlinkat};

use super::Writable;
use super::kept::{errno, physical};
use super::place::{Form, open_name};
use super::table::{Name, Shared, WORK};
use crate::index::override_stat::Override;
use crate::index::{Attributes, Kind};
use crate::overlay::lowers::Id;
use crate::sys;

/// How much is copied at once where the kernel cannot.
const PIECE: usize = 256 << 10;

/// How much of a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    All,
    /// It is emptied next.
    None,
}

/// What was made in the work directory.
struct Copy {
    name: Vec<u8>,
    fd: Option<OwnedFd>,
    ino: u64,
    kept: Option<Override>,
}

impl Writable {
    /// Brings a node into the upper directory, and first the directories above it.
    pub(super) fn copy_up(&self, id: u64, data: Data) -> Result<(), Errno> {
        let mut way = Vec::new();
        let mut at = id;
        {
            let table = self.table();
            while table.view(at)?.upper.is_none() {
                way.push(at);
                match table.name(at) {
                    Some(name) => at = name.dir,
                    None => break,
                }
            }
        }
        for at in way.into_iter().rev() {
            self.copy_one_up(at, if at == id { data } else { Data::All })?;
        }
        Ok(())
    }

    fn copy_one_up(&self, id: u64, data: Data) -> Result<(), Errno> {
        let _held = self.busy.take(&[id]);
        let (view, name) = {
            let table = self.table();
            (table.view(id)?, table.name(id))
        };
        if view.upper.is_some() {
            return Ok(());
        }
        let lower = view.lower.ok_or(Errno::EIO)?;
        let from = self.lowers.attributes(lower)?;
        let copy = self.copy_into_work(lower, &from, data)?;
        let done = match &name {
            Some(name) => self.put_copy(id, lower, &from, &copy, name),
            None if self.has_others(lower, &from) => self.keep_for_others(id, lower, &from, &copy),
            None => self.keep_unnamed(id, &copy),
        };
        if done.is_err() {
            let is_dir = from.kind == Kind::Directory;
            self.drop_made(&copy.name, is_dir);
        }
        done
    }

    /// Moves a copy to where it belongs.
    fn put_copy(
        &self,
        id: u64,
        lower: Id,
        from: &Attributes,
        copy: &Copy,
        name: &Name,
    ) -> Result<(), Errno> {
        let dir = self.upper(name.dir)?;
        let before = fstat(&dir)?;
        let has_others = from.links > 1 && from.kind != Kind::Directory;
        let mut names = vec![name.clone()];
        if has_others {
            // The other names lead there as long as the mount lives.
            let shared = self.shared_name(lower);
            rename(&self.work, &copy.name, &self.work, &shared, 0)?;
            let linked = linkat(&*self.work, &shared[..], &*dir, &name.name[..], AtFlags::empty());
            if let Err(errno) = linked {
                self.drop_from_work(&shared);
                return Err(errno);
            }
            names.push(Name { dir: WORK, name: shared.into() });
        } else {
            rename(&self.work, &copy.name, &dir, &name.name, libc::RENAME_NOREPLACE)?;
        }
        // What is in it has not changed.
        let kept = TimeSpec::new(before.st_mtime, before.st_mtime_nsec);
        let _only_a_time = futimens(&*dir, &TimeSpec::UTIME_OMIT, &kept);
        let mut table = self.table();
        table.raise(id, copy.ino, copy.kept);
        if from.kind != Kind::Directory {
            table.set_names(id, &names);
            table.set_origin(copy.ino, lower);
        }
        if has_others {
            let links = table.shared(lower).map_or(from.links, |shared| shared.links);
            table.set_shared(lower, Shared { links, upper: Some(copy.ino) });
        }
        drop(table);
        self.keep_descriptor(id, copy);
        Ok(())
    }

    /// Whether a file that lost the names it was asked for by has others in the layers.
    fn has_others(&self, lower: Id, from: &Attributes) -> bool {
        let links = self.table().shared(lower).map_or(from.links, |shared| shared.links);
        from.kind != Kind::Directory && from.links > 1 && links > 0
    }

    /// Keeps the copy of a file where its other names lead to.
    fn keep_for_others(
        &self,
        id: u64,
        lower: Id,
        from: &Attributes,
        copy: &Copy,
    ) -> Result<(), Errno> {
        let name = self.shared_name(lower);
        rename(&self.work, &copy.name, &self.work, &name, 0)?;
        let mut table = self.table();
        table.raise(id, copy.ino, copy.kept);
        table.set_names(id, &[Name { dir: WORK, name: name.into() }]);
        table.set_origin(copy.ino, lower);
        let links = table.shared(lower).map_or(from.links, |shared| shared.links);
        table.set_shared(lower, Shared { links, upper: Some(copy.ino) });
        drop(table);
        self.keep_descriptor(id, copy);
        Ok(())
    }

    /// Keeps the copy of a file that has no name any more.
    fn keep_unnamed(&self, id: u64, copy: &Copy) -> Result<(), Errno> {
        let fd = match &copy.fd {
            Some(fd) => fd.try_clone().map_err(errno)?,
            None => open_name(&self.work, &copy.name, OFlag::O_PATH, 0)?,
        };
        let mut table = self.table();
        table.set_pin(id, &Arc::new(fd))?;
        table.raise(id, copy.ino, copy.kept);
        drop(table);
        self.drop_from_work(&copy.name);
        Ok(())
    }

    fn keep_descriptor(&self, id: u64, copy: &Copy) {
        if let Some(fd) = copy.fd.as_ref().and_then(|fd| fd.try_clone().ok()) {
            self.files.keep(id, &Arc::new(fd));
        }
    }

    pub(super) fn drop_from_work(&self, name: &[u8]) {
        // A name that stays is removed when the directory is next used.
        let _stays_until_then = unlinkat(&*self.work, name, UnlinkatFlags::NoRemoveDir);
    }

    /// Removes from the work directory what was made for something that then failed.
    pub(super) fn drop_made(&self, name: &[u8], is_dir: bool) {
        let flag = if is_dir { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        let _stays_until_then = unlinkat(&*self.work, name, flag);
    }

    fn copy_into_work(&self, lower: Id, from: &Attributes, data: Data) -> Result<Copy, Errno> {
        let name = self.fresh_name();
        let made = self.copy_as(&name, lower, from, data);
        if made.is_err() {
            self.drop_made(&name, from.kind == Kind::Directory);
        }
        made
    }

    fn copy_as(
        &self,
        name: &[u8],
        lower: Id,
        from: &Attributes,
        data: Data,
    ) -> Result<Copy, Errno> {
        let kept = self.to_keep(from.kind, from.mode, (from.uid, from.gid), from.device);
        let form = Form::with(from.kind, kept);
        let work = &*self.work;
        let mtime = TimeSpec::new(from.mtime.0, i64::from(from.mtime.1));
        let fd = match form {
            Form::File => {
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOATIME;
                open_name(work, name, flags, 0o600)?
            }
            Form::Directory => {
                mkdirat(work, name, Mode::S_IRWXU)?;
                open_name(work, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?
            }
            Form::Other => {
                if from.kind == Kind::Symlink {
                    symlinkat(self.lowers.target(lower)?, work, name)?;
                } else {
                    let mode = Mode::from_bits_truncate(physical(form, from.mode));
                    mknodat(work, name, SFlag::S_IFIFO, mode, 0)?;
                    self.set_fifo_mode(work, name, from.mode)?;
                }
                utimensat(work, name, &mtime, &mtime, UtimensatFlags::NoFollowSymlink)?;
                let stat = nix::sys::stat::fstatat(work, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                return Ok(Copy { name: name.to_vec(), fd: None, ino: stat.st_ino, kept: None });
            }
        };
        if from.kind == Kind::File && data == Data::All {
            self.copy_data(&*self.lowers.open(lower)?, &fd, from.size)?;
        }
        if from.kind == Kind::Symlink {
            write_all(&fd, self.lowers.target(lower)?, 0)?;
        }
        for (name, value) in self.lowers.xattrs(lower) {
            let name = std::ffi::CString::new(name).map_err(|_| Errno::EIO)?;
            sys::fs::set_xattr(&fd, &name, value).map_err(errno)?;
        }
        self.keep(&fd, form, from.mode, None, kept)?;
        futimens(&fd, &mtime, &mtime)?;
        let ino = fstat(&fd)?.st_ino;
        Ok(Copy { name: name.to_vec(), fd: Some(fd), ino, kept })
    }

    /// A FIFO's mode may have been cut by the mask of this process.
    pub(super) fn set_fifo_mode(&self, dir: &OwnedFd, name: &[u8], mode: u32) -> Result<(), Errno> {
        let fifo = open_name(dir, name, OFlag::O_RDWR | OFlag::O_NONBLOCK, 0)?;
        let mode = physical(Form::Other, mode);
        nix::sys::stat::fchmod(&fifo, Mode::from_bits_truncate(mode))
    }

    /// Copies a file as cheaply as its file systems allow, and leaves out what it leaves out.
    fn copy_data(&self, from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
        if size == 0 {
            return Ok(());
        }
        // Where blocks cannot be shared once they never can.
        if self.can_clone.load(Ordering::Relaxed) {
            match sys::tree::clone_file(to, from).map_err(errno) {
                Ok(()) => return Ok(()),
                Err(Errno::ENOSPC | Errno::EDQUOT | Errno::EIO) => (),
                Err(_) => self.can_clone.store(false, Ordering::Relaxed),
            }
        }
        let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
        ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let start = match lseek64(from, at, Whence::SeekData) {
                Ok(start) => start,
                Err(Errno::ENXIO) => break,
                Err(errno) => return Err(errno),
            };
            let end = lseek64(from, start, Whence::SeekHole)?.min(size);
            self.copy_piece(from, to, start, end)?;
            at = end.max(start + 1);
        }
        Ok(())
    }

    fn copy_piece(&self, from: &OwnedFd, to: &OwnedFd, start: i64, end: i64) -> Result<(), Errno> {
        let mut at = start;
        let mut buffer = Vec::new();
        while at < end {
            let left = usize::try_from(end - at).map_err(|_| Errno::EINVAL)?;
            if self.can_copy.load(Ordering::Relaxed) {
                match sys::tree::copy_range(from, at, to, at, left).map_err(errno) {
                    // The file ends before its index says so.
                    Ok(0) => return Ok(()),
                    Ok(length) => {
                        at += length as i64;
                        continue;
                    }
                    Err(Errno::EINTR) => continue,
                    Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EIO | Errno::EFBIG)) => {
                        return Err(errno);
                    }
                    // Between these file systems it cannot be done.
                    Err(_) => self.can_copy.store(false, Ordering::Relaxed),
                }
            }
            buffer.resize(left.min(PIECE), 0);
            let length = match pread(from, &mut buffer, at) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            write_all(to, buffer.get(..length).unwrap_or_default(), at)?;
            at += length as i64;
        }
        Ok(())
    }
}

/// pwrite(2) until all is written.
pub(super) fn write_all(to: &OwnedFd, bytes: &[u8], at: i64) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match pwrite(to, rest, at + done as i64) {
            Ok(0) => return Err(Errno::EIO),
            Ok(length) => done += length,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// renameat2(2) of names.
pub(super) fn rename(
    a: &OwnedFd,
    a_name: &[u8],
    b: &OwnedFd,
    b_name: &[u8],
    flags: u32,
) -> Result<(), Errno> {
    let [a_name, b_name] =
        [a_name, b_name].map(|name| std::ffi::CString::new(name).map_err(|_| Errno::EINVAL));
    sys::tree::rename(a, &a_name?, b, &b_name?, flags).map_err(errno)
}
