//! The merged layers with an upper directory over them, which takes everything that is written:
//! what the kernel's overlayfs does, done by a process.
//!
//! The upper directory has overlayfs' own format as of its option `userxattr`: whiteouts are 0:0
//! character devices, `user.overlay.opaque` marks directories that hide what is below them. A
//! directory that was kept can be mounted by either. What an ordinary user cannot give a file is in
//! `user.containers.override_stat` beside it; files on disk belong to the user always, who can read
//! and write them. What cannot have attributes, a file stands for where there is something to say: for
//! devices and sockets always, for FIFOs and symbolic links of another owner or an odd mode.
//!
//! Only this server changes the tree, so that the kernel may keep all that it is told for ever, and
//! files are opened without asking. Which file on disk a request is about is decided when it comes.
//!
//! Not kept in the upper directory, and so known only as long as the mount lives: which names of the
//! layers are the same file as one that was copied up under another name (later they are what the
//! layers have), and inode numbers of files that were copied up. Owners of symbolic links and FIFOs,
//! which can have no attributes, are not kept at all. Files cannot share blocks by `FICLONE` from
//! within the mount, since that is an ioctl of two descriptors, of which FUSE hands on none;
//! copy_file_range(2) does it where the file system can.

mod busy;
mod change;
mod copy_up;
mod data;
mod find;
mod kept;
mod list;
mod make;
mod place;
mod remove;
mod rename;
mod table;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::common;
use super::files::Files;
use super::lowers::Lowers;
use super::owners::Owners;
use super::server::FileSystem;
use super::wire::{Answer, Features, Limits, Operation, Range, Request, Timeout};
use crate::confine::landlock::Access;
use crate::confine::seccomp::{Architecture, Policy};
use crate::error::{During, Result};
use crate::index::Kind;
use crate::sys;

use busy::Busy;
use make::New;
use place::open_name;
use table::{ROOT, Table, View};

/// The most descriptors of the layers that are kept open, the most of the upper directory, and the
/// most for open files that were removed; each at most a quarter of what the process may have, which
/// leaves one for what requests open.
const MOST_FILES: u64 = 4096;

/// The longest target of a symbolic link, in bytes: `PATH_MAX` with its NUL.
const LONGEST_TARGET: u32 = 4095;

/// How deep the work directory is emptied. What is left there is never deep.
const DEEPEST: usize = 8;

/// A writable file system: [`Lowers`], and an upper directory.
pub struct Writable {
    lowers: Lowers,
    owners: Owners,
    is_volatile: bool,
    has_xattrs: bool,
    root: Arc<OwnedFd>,
    work: Arc<OwnedFd>,
    table: Mutex<Table>,
    files: Files<u64>,
    busy: Busy,
    moving: RwLock<()>,
    names: AtomicU64,
    can_clone: AtomicBool,
    can_copy: AtomicBool,
}

/// Where what is written goes.
pub struct Upper {
    /// The directory that has it, of the user's own, on a file system with `user.*` attributes.
    pub directory: OwnedFd,
    /// One beside it on the same mount, for this alone: all that is in it is removed.
    pub work: OwnedFd,
    /// Nothing of it is needed after the mount: fsync(2) does nothing, as with overlayfs'
    /// `volatile`.
    pub is_volatile: bool,
    /// Files have extended attributes (`user.*`), those of the layers too. Without them the kernel
    /// does not ask for any, which it otherwise does before the first write to each file and for each
    /// file that `ls -l` shows, and remembers few of the answers.
    pub has_xattrs: bool,
}

impl Writable {
    /// Lays an upper directory, which may have something from an earlier mount in it, over the
    /// layers. The limit on open files of this process is shared by both; 16,384 serve all there is,
    /// with fewer files are opened again more often, and fewer can be open without a name (`EMFILE`
    /// for unlink(2) of one more).
    pub fn new(mut lowers: Lowers, owners: Owners, upper: Upper) -> Result<Self> {
        let Upper { directory, work, is_volatile, has_xattrs } = upper;
        empty(&work, DEEPEST).during("empty", "the overlay's work directory")?;
        let (soft, _) =
            getrlimit(Resource::RLIMIT_NOFILE).during("get", "the limit on open files")?;
        let most = usize::try_from((soft / 4).min(MOST_FILES)).unwrap_or(1);
        lowers.keep_at_most(most);
        let stat = fstat(&directory).during("stat", "the overlay's upper directory")?;
        let view = View {
            kind: Kind::Directory,
            number: lowers.number(lowers.root()),
            lower: Some(lowers.root()),
            origin: None,
            upper: Some(stat.st_ino),
            kept: None,
            is_temporary: false,
        };
        let root = Arc::new(directory);
        let writable = Writable {
            lowers,
            owners,
            is_volatile,
            has_xattrs,
            work: Arc::new(work),
            table: Mutex::new(Table::new(view, most)),
            files: Files::of(most),
            busy: Busy::default(),
            moving: RwLock::default(),
            names: AtomicU64::new(0),
            can_clone: AtomicBool::new(true),
            can_copy: AtomicBool::new(true),
            root: Arc::clone(&root),
        };
        writable.adopt_root().during("read", "the overlay's upper directory")?;
        Ok(writable)
    }

    /// The root shows what the layers say of it until it is changed: a new upper directory is as
    /// whoever made it left it.
    fn adopt_root(&self) -> std::result::Result<(), Errno> {
        let mut kept = self.read_kept(&self.root)?;
        if kept.is_none() {
            let from = self.lowers.attributes(self.lowers.root())?;
            let fresh = self.to_keep(Kind::Directory, from.mode, (from.uid, from.gid), (0, 0));
            self.keep(&self.root, place::Form::Directory, from.mode, None, fresh)?;
            for (name, value) in self.lowers.xattrs(self.lowers.root()) {
                let name = std::ffi::CString::new(name).map_err(|_| Errno::EIO)?;
                sys::fs::set_xattr(&*self.root, &name, value).map_err(kept::errno)?;
            }
            kept = fresh;
        }
        self.table().change(ROOT, |view| view.kept = kept);
        Ok(())
    }

    fn statistics(&self, answer: &mut Answer) -> std::result::Result<(), Errno> {
        common::statistics(&*self.root, answer)
    }

    fn read_link(&self, id: u64, answer: &mut Answer) -> std::result::Result<(), Errno> {
        use std::os::unix::ffi::OsStrExt;
        let view = self.table().view(id)?;
        if view.kind != Kind::Symlink {
            return Err(Errno::EINVAL);
        }
        match (view.upper, view.lower) {
            (Some(_), _) if view.form() == place::Form::File => {
                let whole = Range { handle: 0, offset: 0, size: LONGEST_TARGET };
                common::read(&*self.upper(id)?, whole, answer)
            }
            (Some(_), _) => {
                let target = self.by_name(id, |dir, name| nix::fcntl::readlinkat(dir, name))?;
                answer.put(target.as_bytes())
            }
            (None, Some(lower)) => answer.put(self.lowers.target(lower)?),
            (None, None) => Err(Errno::EIO),
        }
    }

    fn make_node(
        &self,
        request: &Request<'_>,
        name: &[u8],
        mode: u32,
        device: u32,
        answer: &mut Answer,
    ) -> std::result::Result<(), Errno> {
        // As `Attributes::device` makes it.
        let device = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => Kind::File,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            // That is how overlays say that there is nothing.
            libc::S_IFCHR if device == (0, 0) => return Err(Errno::EPERM),
            libc::S_IFCHR => Kind::CharDevice,
            libc::S_IFBLK => Kind::BlockDevice,
            _ => return Err(Errno::EINVAL),
        };
        let owner = (request.uid, request.gid);
        let entry =
            self.make(request.node, name, &New { kind, mode, owner, device, target: b"" })?;
        answer.put_entry(&entry)
    }
}

/// Removes what is in a directory.
fn empty(directory: &OwnedFd, deepest: usize) -> std::result::Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let again = open_name(directory, b".", flags, 0)?;
    let mut buffer = vec![0; 32 << 10];
    loop {
        let mut names: Vec<(Vec<u8>, u8)> = Vec::new();
        for entry in sys::tree::read_entries(again.as_fd(), &mut buffer).map_err(kept::errno)? {
            if !matches!(entry.name, b"." | b"..") {
                names.push((entry.name.to_vec(), entry.kind));
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        for (name, _) in names {
            match unlinkat(directory, &name[..], UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR | Errno::EPERM) if deepest > 0 => {
                    let inner = match open_name(directory, &name, flags, 0) {
                        // overlayfs makes directories there that nobody can open.
                        Err(Errno::EACCES) => {
                            let by = FchmodatFlags::NoFollowSymlink;
                            fchmodat(directory, &name[..], Mode::S_IRWXU, by)?;
                            open_name(directory, &name, flags, 0)?
                        }
                        done => done?,
                    };
                    empty(&inner, deepest - 1)?;
                    unlinkat(directory, &name[..], UnlinkatFlags::RemoveDir)?;
                }
                done => done?,
            }
        }
    }
}

impl FileSystem for Writable {
    fn features(&self) -> Features {
        Features::ASYNC_READ
            .and(Features::BIG_WRITES)
            .and(Features::CACHE_SYMLINKS)
            .and(Features::DO_READDIRPLUS)
            .and(Features::EXPLICIT_INVAL_DATA)
            .and(Features::HANDLE_KILLPRIV_V2)
            .and(Features::MAX_PAGES)
            .and(Features::NO_OPENDIR_SUPPORT)
            .and(Features::NO_OPEN_SUPPORT)
            .and(Features::PARALLEL_DIROPS)
            // `ls -l` asks for access lists, which the kernel remembers only so.
            .and(Features::POSIX_ACL)
    }

    fn limits(&self) -> Limits {
        Limits { max_write: 1 << 20, pages: 256, background: 64 }
    }

    fn answer(&self, request: &Request<'_>, answer: &mut Answer) -> std::result::Result<(), Errno> {
        let node = request.node;
        let owner = (request.uid, request.gid);
        match &request.operation {
            Operation::Lookup { name } => answer.put_entry(&self.lookup(node, name)?),
            Operation::Forget { lookups } => {
                self.forget(std::iter::once((node, *lookups)));
                Ok(())
            }
            Operation::BatchForget(nodes) => {
                self.forget(nodes.iter());
                Ok(())
            }
            Operation::GetAttributes { .. } => {
                answer.put_attributes(&self.attributes(node)?, Timeout::NEVER)
            }
            Operation::StatX { .. } => {
                let birth = self.birth_time(node)?;
                answer.put_statx(&self.attributes(node)?, birth, Timeout::NEVER)
            }
            Operation::SetAttributes(change) => {
                self.set_attributes(node, change)?;
                answer.put_attributes(&self.attributes(node)?, Timeout::NEVER)
            }
            Operation::ReadLink => self.read_link(node, answer),
            Operation::SymbolicLink { name, target } => {
                let (kind, mode, device) = (Kind::Symlink, 0o777, (0, 0));
                let new = New { kind, mode, owner, device, target };
                answer.put_entry(&self.make(node, name, &new)?)
            }
            Operation::MakeNode { name, mode, device, .. } => {
                self.make_node(request, name, *mode, *device, answer)
            }
            Operation::MakeDirectory { name, mode, .. } => {
                let (kind, device) = (Kind::Directory, (0, 0));
                let new = New { kind, mode: *mode, owner, device, target: b"" };
                answer.put_entry(&self.make(node, name, &new)?)
            }
            Operation::TemporaryFile { mode, .. } => {
                let (kind, device) = (Kind::File, (0, 0));
                let new = New { kind, mode: *mode, owner, device, target: b"" };
                answer.put_entry(&self.make_temporary(node, &new)?)?;
                answer.put_open(0, FOPEN_KEEP_CACHE)
            }
            Operation::Unlink { name } => self.unlink(node, name),
            Operation::RemoveDirectory { name } => self.remove_directory(node, name),
            Operation::Rename { name, new_directory, new_name, flags } => {
                self.rename((node, name), (*new_directory, new_name), *flags)
            }
            Operation::Link { of, name } => answer.put_entry(&self.link(*of, node, name)?),
            Operation::Read(range) => self.read(node, *range, answer),
            Operation::Write { offset, data, write_flags, .. } => {
                let length = self.write(node, *offset, data, *write_flags)?;
                answer.put_length(u32::try_from(length).map_err(|_| Errno::EIO)?)
            }
            Operation::ReadDirectory { range, with_attributes } => {
                self.read_directory(node, *range, *with_attributes, answer)
            }
            Operation::Statistics => self.statistics(answer),
            // The kernel takes it for all times to come.
            Operation::GetXattr { .. }
            | Operation::ListXattr { .. }
            | Operation::SetXattr { .. }
            | Operation::RemoveXattr { .. }
                if !self.has_xattrs =>
            {
                Err(Errno::ENOSYS)
            }
            Operation::GetXattr { name, size } => self.get_xattr(node, name, *size, answer),
            Operation::ListXattr { size } => self.list_xattrs(node, *size, answer),
            Operation::SetXattr { name, value, flags } => {
                self.set_xattr(node, name, Some(value), *flags)
            }
            Operation::RemoveXattr { name } => self.set_xattr(node, name, None, 0),
            Operation::Seek { offset, whence, .. } => self.seek(node, *offset, *whence, answer),
            Operation::Allocate { offset, length, mode, .. } => {
                self.allocate(node, *offset, *length, *mode)
            }
            Operation::Copy(how) => {
                let length = self.copy(node, how)?;
                answer.put_length(u32::try_from(length).map_err(|_| Errno::EIO)?)
            }
            // And this.
            Operation::Sync { .. } | Operation::SyncDirectory { .. } if self.is_volatile => {
                Err(Errno::ENOSYS)
            }
            Operation::Sync { only_data, .. } | Operation::SyncDirectory { only_data, .. } => {
                self.sync(node, *only_data)
            }
            Operation::SyncFileSystem if self.is_volatile => Ok(()),
            Operation::SyncFileSystem => sys::fs::syncfs(&*self.root).map_err(kept::errno),
            Operation::Access { .. }
            | Operation::Destroy
            | Operation::Release { .. }
            | Operation::ReleaseDirectory { .. } => Ok(()),
            // Files are opened without asking, made by `MakeNode`, and nothing is to be done when one is
            // closed. `Create` could have what is only written go past the page cache
            // (`FOPEN_DIRECT_IO`), which takes two fifths off the time of unpacking. But up to Linux
            // 6.18 the kernel keeps pages that it reads while such a write is under way: they are old,
            // and one of them that is changed through a mapping goes over what was written.
            Operation::Init(_)
            | Operation::Open(_)
            | Operation::OpenDirectory(_)
            | Operation::Create { .. }
            | Operation::Flush { .. }
            | Operation::Interrupt { .. }
            | Operation::Other(_) => Err(Errno::ENOSYS),
        }
    }

    fn directories(&self) -> Vec<(BorrowedFd<'_>, Access)> {
        let layers = self.lowers.descriptors().map(|fs| (fs, Access::Read));
        let own = [&self.root, &self.work].map(|fd| (fd.as_fd(), Access::Unpack));
        layers.chain(own).collect()
    }

    fn calls(&self, arch: Architecture) -> Policy {
        Policy::for_overlay_writer(arch)
    }
}

/// What was cached of a file stays (linux/fuse.h).
const FOPEN_KEEP_CACHE: u32 = 1 << 1;
