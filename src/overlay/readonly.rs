//! The merged layers, to be read only. The kernel may keep all it is told without limit, since
//! layers never change; it asks once, and then the file system is the kernel's own memory.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

use super::common::{self, BLOCK, NAME_MAX};
use super::lowers::{Id, Lowers};
use super::owners::Owners;
use super::server::FileSystem;
use super::wire::{
    self, Answer, Attributes, Entry, Features, Limits, Listing, Operation, Range, Request, Timeout,
    Times,
};
use crate::confine::landlock::Access;
use crate::confine::seccomp::{Architecture, Policy};
use crate::index::{self, Kind};

/// A file system that shows [`Lowers`]. It keeps nothing of its own: the number of a node is that of
/// the layers.
pub struct ReadOnly {
    lowers: Lowers,
    owners: Owners,
    has_xattrs: bool,
}

impl ReadOnly {
    /// Shows these layers as files of these owners.
    pub fn new(lowers: Lowers, owners: Owners) -> Self {
        let has_xattrs = lowers.any_xattrs();
        ReadOnly { lowers, owners, has_xattrs }
    }

    fn id(&self, request: &Request<'_>) -> Result<Id, Errno> {
        self.lowers.id(request.node).ok_or(Errno::ESTALE)
    }

    fn attributes(&self, id: Id) -> Result<Attributes, Errno> {
        Ok(show(&self.lowers.attributes(id)?, self.lowers.number(id), self.owners))
    }

    fn entry(&self, id: Id) -> Result<Entry, Errno> {
        Ok(Entry {
            node: self.lowers.number(id),
            generation: 0,
            names: Timeout::NEVER,
            attributes_for: Timeout::NEVER,
            attributes: self.attributes(id)?,
        })
    }

    fn lookup(&self, directory: Id, name: &[u8], answer: &mut Answer) -> Result<(), Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let entry = match self.lowers.lookup(directory, name)? {
            Some(id) => self.entry(id)?,
            None => Entry::none(Timeout::NEVER),
        };
        answer.put_entry(&entry)
    }

    fn read(&self, id: Id, range: Range, answer: &mut Answer) -> Result<(), Errno> {
        common::read(self.lowers.open(id)?, range, answer)
    }

    fn read_directory(
        &self,
        directory: Id,
        range: Range,
        with_attributes: bool,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let mut listing = Listing::new(answer, range.size);
        let mut failed = None;
        self.lowers.list(directory, range.offset, &mut |listed| {
            let number = self.lowers.number(listed.id);
            let (kind, next) = (kind_bits(listed.kind), listed.next);
            if !with_attributes {
                return listing.push(listed.name, number, kind, next, None);
            }
            // These two are not looked up, and so are not to be forgotten later.
            let entry = match listed.name {
                b"." | b".." => Ok(Entry::none(Timeout::NOW)),
                _ => self.entry(listed.id),
            };
            match entry {
                Ok(entry) => listing.push(listed.name, number, kind, next, Some(&entry)),
                Err(errno) => {
                    failed = Some(errno);
                    false
                }
            }
        })?;
        match failed {
            // What came before it is told first.
            Some(errno) if answer.is_empty() => Err(errno),
            _ => Ok(()),
        }
    }

    fn seek(&self, id: Id, offset: u64, whence: u32, answer: &mut Answer) -> Result<(), Errno> {
        let whence = match whence.cast_signed() {
            libc::SEEK_DATA => Whence::SeekData,
            libc::SEEK_HOLE => Whence::SeekHole,
            _ => return Err(Errno::EINVAL),
        };
        // The place that it moves is nobody's: reading is at offsets.
        let offset = i64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = lseek64(&self.lowers.open(id)?, offset, whence)?;
        answer.put_offset(found.cast_unsigned())
    }

    fn statistics(&self, answer: &mut Answer) -> Result<(), Errno> {
        common::statistics(self.lowers.base(self.lowers.root())?, answer)
    }

    fn get_xattr(&self, id: Id, name: &[u8], size: u32, answer: &mut Answer) -> Result<(), Errno> {
        let value = self.lowers.xattr(id, name).ok_or(Errno::ENODATA)?;
        answer.put_sized(value, size)
    }

    fn list_xattrs(&self, id: Id, size: u32, answer: &mut Answer) -> Result<(), Errno> {
        let mut names = Vec::new();
        for (name, _) in self.lowers.xattrs(id) {
            names.extend_from_slice(name);
            names.push(0);
        }
        answer.put_sized(&names, size)
    }
}

impl FileSystem for ReadOnly {
    fn features(&self) -> Features {
        Features::ASYNC_READ
            .and(Features::BIG_WRITES)
            .and(Features::CACHE_SYMLINKS)
            .and(Features::DO_READDIRPLUS)
            .and(Features::EXPLICIT_INVAL_DATA)
            .and(Features::MAX_PAGES)
            .and(Features::NO_OPENDIR_SUPPORT)
            .and(Features::NO_OPEN_SUPPORT)
            .and(Features::PARALLEL_DIROPS)
    }

    fn limits(&self) -> Limits {
        // The least that there is to agree on: nothing is written.
        Limits { max_write: 4096, pages: 256, background: 64 }
    }

    fn answer(&self, request: &Request<'_>, answer: &mut Answer) -> Result<(), Errno> {
        match &request.operation {
            Operation::Lookup { name } => self.lookup(self.id(request)?, name, answer),
            Operation::GetAttributes { .. } => {
                answer.put_attributes(&self.attributes(self.id(request)?)?, Timeout::NEVER)
            }
            Operation::Read(range) => self.read(self.id(request)?, *range, answer),
            Operation::ReadDirectory { range, with_attributes } => {
                self.read_directory(self.id(request)?, *range, *with_attributes, answer)
            }
            Operation::ReadLink => answer.put(self.lowers.target(self.id(request)?)?),
            Operation::Seek { offset, whence, .. } => {
                self.seek(self.id(request)?, *offset, *whence, answer)
            }
            Operation::Statistics => self.statistics(answer),
            // The kernel takes `ENOSYS` for all times to come, and does not ask again.
            Operation::GetXattr { .. } | Operation::ListXattr { .. } if !self.has_xattrs => {
                Err(Errno::ENOSYS)
            }
            Operation::GetXattr { name, size } => {
                self.get_xattr(self.id(request)?, name, *size, answer)
            }
            Operation::ListXattr { size } => self.list_xattrs(self.id(request)?, *size, answer),
            Operation::Access { mask } if mask & libc::W_OK.cast_unsigned() != 0 => {
                Err(Errno::EROFS)
            }
            Operation::Access { .. }
            | Operation::Destroy
            | Operation::Forget { .. }
            | Operation::BatchForget(_)
            | Operation::Release { .. }
            | Operation::ReleaseDirectory { .. }
            | Operation::Sync { .. }
            | Operation::SyncDirectory { .. }
            | Operation::SyncFileSystem => Ok(()),
            // Opening and closing is nobody's business here, and told so the kernel stops asking;
            // images tell no birth times, which is all that `StatX` is asked for; and no request
            // takes so long that it needs interrupting.
            Operation::Init(_)
            | Operation::Open(_)
            | Operation::OpenDirectory(_)
            | Operation::Flush { .. }
            | Operation::StatX { .. }
            | Operation::Interrupt { .. }
            | Operation::Other(_) => Err(Errno::ENOSYS),
            Operation::SetAttributes(_)
            | Operation::SymbolicLink { .. }
            | Operation::MakeNode { .. }
            | Operation::MakeDirectory { .. }
            | Operation::Unlink { .. }
            | Operation::RemoveDirectory { .. }
            | Operation::Rename { .. }
            | Operation::Link { .. }
            | Operation::Create { .. }
            | Operation::TemporaryFile { .. }
            | Operation::Write { .. }
            | Operation::SetXattr { .. }
            | Operation::RemoveXattr { .. }
            | Operation::Allocate { .. }
            | Operation::Copy(_) => Err(Errno::EROFS),
        }
    }

    fn directories(&self) -> Vec<(BorrowedFd<'_>, Access)> {
        self.lowers.descriptors().map(|fs| (fs, Access::Read)).collect()
    }

    fn calls(&self, arch: Architecture) -> Policy {
        Policy::for_overlay_reader(arch)
    }
}

/// The attributes of a node of a layer as the kernel is told them.
pub(super) fn show(of: &index::Attributes, number: u64, owners: Owners) -> Attributes {
    let (uid, gid) = owners.show(of.uid, of.gid);
    // An image tells no other times.
    let times = Times { access: of.mtime, modification: of.mtime, change: of.mtime };
    // How many directories a merged one has is not known without going through it; programs take 1
    // for that, as the kernel's overlayfs has it.
    let links = if of.kind == Kind::Directory { 1 } else { of.links };
    Attributes {
        ino: number,
        size: of.size,
        blocks: of.blocks,
        times,
        mode: kind_bits(of.kind) | of.mode & 0o7777,
        links,
        uid,
        gid,
        device: Attributes::device(of.device.0, of.device.1),
        block_size: BLOCK,
    }
}

/// The type of a file in a mode.
pub(super) fn kind_bits(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Directory => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
        Kind::Fifo => libc::S_IFIFO,
        Kind::Socket => libc::S_IFSOCK,
        Kind::CharDevice | Kind::Whiteout => libc::S_IFCHR,
        Kind::BlockDevice => libc::S_IFBLK,
    }
}

/// That a lowers' root has the number that the kernel gives it.
const _: () = assert!(wire::ROOT == 1);
