//! Unpacks a layer's tar stream into a tree in the kernel overlay's own format (`userxattr`).
//!
//! Archives are foreign: parents are looked up with openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS),
//! the last component with calls that never follow, so that neither a name nor a link made earlier
//! leads out of the tree (CVE-2018-20990, CVE-2026-33056).

mod indexed;
mod name;
mod override_stat;
mod tape;
mod times;
mod tree;

use std::ffi::{CString, OsStr};
use std::io::{self, BufRead};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::Crc;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, ftruncate, linkat, mkfifoat, symlinkat, unlinkat};
use serde::{Deserialize, Serialize};

use self::indexed::Indexed;
use self::name::{Marker, Name};
use self::override_stat::Owner;
pub(super) use self::override_stat::Shown;
use self::tape::Taped;
use self::times::Times;
use self::tree::{Aside, Blocked, Present, Tree};
use super::staging::make_and_open;
use super::{listing, skeleton};
use crate::error::{During, Error, Result};
use crate::image::tar::{Cut, Entry, Extent, Kind, Reader};
use crate::index::is_images_own;
use crate::sys::fs::{c_path, set_mtime, set_mtime_of, set_xattr};

/// The most entries of one layer. The largest public images have about a million in all layers.
const MAX_ENTRIES: u64 = 4_000_000;
/// The most bytes of data of one layer.
const MAX_BYTES: u64 = 256 << 30;
/// What the shortest piece of a file takes on disk.
const BLOCK: u64 = 4096;
const BUFFER: usize = 64 << 10;

/// What was unpacked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unpacked {
    /// Entries of the archive.
    pub(super) entries: u64,
    /// Bytes of file data.
    pub(super) bytes: u64,
    /// The root itself is opaque: nothing of the layers below shows.
    pub(super) opaque_root: bool,
    /// The archive ended with its end marker.
    pub(super) end_marker: bool,
}

/// Where a stream is unpacked, and what is kept beside the tree.
pub(super) struct Target {
    root: OwnedFd,
    shown: Shown,
    times: std::fs::File,
    index: Indexed,
    /// What is kept beside the tree of a layer.
    kept: Option<Kept>,
}

/// What is kept beside a tree.
struct Kept {
    /// Where what a later entry replaces goes.
    aside: Aside,
    /// What the stream has beside the files.
    record: skeleton::Writer,
    /// The files that other layers may have as well.
    listing: listing::Writer,
}

impl Target {
    /// A layer's directory: the tree goes to `fs`, the stream's remainder to `skeleton`, a list of
    /// the larger files to `files`, and what the overlay must know to `index`.
    pub(super) fn layer(dir: &OwnedFd, shown: Shown) -> Result<Self> {
        let root = make_and_open(dir, "fs", Path::new("the layer"))?;
        let times = times_file(dir)?;
        let index = Indexed::beside(dir)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(dir, "skeleton", flags, mode).during("make", "the layer's skeleton")?;
        let record = skeleton::Writer::new(file);
        let file = openat(dir, "files", flags, mode).during("make", "the layer's list of files")?;
        let listing = listing::Writer::new(file).during("write", "the layer's list of files")?;
        let dir = dir.try_clone().during("duplicate", "a descriptor")?;
        let kept = Kept { aside: Aside::in_layer(dir), record, listing };
        Ok(Target { root, shown, times, index, kept: Some(kept) })
    }

    /// A directory whose `fs` gets the tree without the contents of its files: they have their
    /// sizes and are holes. What the stream should have become, to compare, with its `index`.
    pub(super) fn outline(dir: &OwnedFd, shown: Shown) -> Result<Self> {
        let root = make_and_open(dir, "fs", Path::new("the outline"))?;
        let index = Indexed::beside(dir)?;
        Ok(Target { root, shown, times: times_file(dir)?, index, kept: None })
    }
}

/// A file without a name for the times of directories.
fn times_file(dir: &OwnedFd) -> Result<std::fs::File> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = openat(dir, "times", flags, Mode::S_IRUSR | Mode::S_IWUSR);
    let file = file.during("make", "a file for times")?;
    unlinkat(dir, "times", UnlinkatFlags::NoRemoveDir).during("unlink", "the file for times")?;
    Ok(file.into())
}

/// Unpacks a stream to its very end.
pub(super) fn unpack(stream: &mut dyn BufRead, target: Target) -> Result<Unpacked> {
    let (aside, record, listing) = match target.kept {
        Some(kept) => (Some(kept.aside), Some(kept.record), Some(kept.listing)),
        None => (None, None, None),
    };
    let tree = Tree::new(target.root, target.shown, aside)
        .map_err(|error| Reason::from(error).of("./"))?;
    let mut unpacker = Unpacker {
        tree,
        times: Times::new(target.times),
        index: target.index,
        listing,
        blocks: 0,
        done: Unpacked::default(),
    };
    // The root is there before any entry.
    unpacker.note_implied().map_err(|reason| reason.of("./"))?;
    let mut reader = Reader::new(Taped::new(stream, record));
    while let Some(entry) = reader.next_entry().map_err(|error| unreadable(&error))? {
        unpacker
            .entry(&entry, &mut reader)
            .and_then(|()| unpacker.note_implied())
            .map_err(|reason| reason.of(OsStr::from_bytes(&entry.path)))?;
    }
    unpacker.done.end_marker = reader.has_end_marker();
    // What comes after the end marker is part of the stream, and of its digest.
    reader.into_inner().finish(&mut vec![0; BUFFER]).map_err(|error| unreadable(&error))?;
    unpacker.finish()
}

type Tar<'a> = Reader<Taped<'a>>;

struct Unpacker {
    tree: Tree,
    /// Directories get their times last: making what is in them changes them.
    times: Times,
    index: Indexed,
    /// None where an outline is made, which has no data.
    listing: Option<listing::Writer>,
    /// Blocks on disk at the least.
    blocks: u64,
    done: Unpacked,
}

/// Why an entry was not unpacked.
enum Reason {
    Os(Errno),
    Words(String),
    /// The archive ended or broke inside the entry.
    Archive(io::Error),
}

impl Reason {
    /// The error, about the entry of this name.
    fn of(self, name: impl AsRef<OsStr>) -> Error {
        let path = std::path::Path::new(name.as_ref()).display();
        match self {
            Reason::Archive(error) => unreadable(&error).within(format_args!("entry {path}")),
            Reason::Words(words) => Error::new(format!("entry {path}: {words}")),
            Reason::Os(errno) => {
                let error = Error::os("entry", path, errno);
                match errno {
                    Errno::EOPNOTSUPP => error.hint(
                        "the store needs a file system that keeps user.* extended attributes; \
                         set XDG_DATA_HOME to a directory on one",
                    ),
                    errno => super::with_space_hint(error, errno),
                }
            }
        }
    }
}

impl From<Errno> for Reason {
    fn from(errno: Errno) -> Self {
        Reason::Os(errno)
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        Reason::Os(crate::error::Errno::from(error).0)
    }
}

impl From<Cut> for Reason {
    fn from(cut: Cut) -> Self {
        Reason::Archive(cut.0)
    }
}

impl From<&'static str> for Reason {
    fn from(words: &'static str) -> Self {
        Reason::Words(words.to_owned())
    }
}

impl From<Blocked> for Reason {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::Os(errno) => Reason::Os(errno),
            Blocked::By(present, name) => {
                let what = match present {
                    Present::Symlink => "a symbolic link",
                    _ => "not a directory",
                };
                Reason::Words(format!("its parent {} is {what}", name.path().display()))
            }
        }
    }
}

/// A failure to read the archive itself.
fn unreadable(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) => {
            let errno = Errno::from_raw(errno);
            super::with_space_hint(Error::os("read", "the layer", errno), errno)
        }
        None => Error::new(error.to_string()),
    }
}

type Done = std::result::Result<(), Reason>;

impl Unpacker {
    fn entry(&mut self, entry: &Entry, reader: &mut Tar<'_>) -> Done {
        self.done.entries += 1;
        self.done.bytes = self.done.bytes.saturating_add(entry.stored);
        if self.done.entries > MAX_ENTRIES {
            return Err("the layer has more than 4 million entries".into());
        }
        // Each piece of a sparse file takes a block, however short it is.
        self.blocks = self.blocks.saturating_add(entry.extents.len() as u64);
        if self.done.bytes.max(self.blocks.saturating_mul(BLOCK)) > MAX_BYTES {
            return Err("the layer has more than 256 GiB of data".into());
        }
        let name = Name::clean(&entry.path)?;
        if name.is_root() {
            return self.root(entry);
        }
        let parent_name = name.parent();
        if name::passes_marker(&parent_name) {
            return Err("lies inside a whiteout".into());
        }
        match name::marker(name.leaf())? {
            Marker::None => (),
            Marker::Whiteout(hidden) => return self.whiteout(&parent_name, hidden),
            Marker::Opaque => return self.opaque(&parent_name),
            Marker::Aufs => return Ok(()),
        }
        let parent = self.tree.directory(&parent_name)?;
        self.make(&parent, &name, entry, reader)?;
        self.index.entry(&name, entry);
        self.record_replaced(reader)
    }

    /// Directories that an entry only implies get a time too, a fixed one, so that the same layer is
    /// always the same tree. One that has its own entry later gets that one's.
    fn note_implied(&mut self) -> Done {
        for name in self.tree.implied() {
            self.times.add(&name, (0, 0))?;
            self.index.implied(&name);
        }
        Ok(())
    }

    /// Records what an entry has replaced. The order counts: contents that the stream has later
    /// are those of the new file.
    fn record_replaced(&mut self, reader: &mut Tar<'_>) -> Done {
        for (name, number) in self.tree.replaced() {
            reader.inner_mut().replaced(name.path().as_os_str().as_bytes(), number)?;
        }
        Ok(())
    }

    fn make(&mut self, parent: &OwnedFd, name: &Name, entry: &Entry, reader: &mut Tar<'_>) -> Done {
        match entry.kind {
            Kind::Directory => self.make_directory(parent, name, entry),
            Kind::File => self.file(parent, name, entry, reader),
            Kind::Symlink => self.symlink(parent, name, entry),
            Kind::HardLink => self.hard_link(parent, name, entry),
            Kind::CharDevice => self.device(parent, name, entry, "char"),
            Kind::BlockDevice => self.device(parent, name, entry, "block"),
            Kind::Fifo => self.fifo(parent, name, entry),
            Kind::Other(byte) => {
                Err(Reason::Words(format!("type {:?} is not supported", char::from(byte))))
            }
        }
    }

    /// The entry `./`: attributes of the root; nothing else can take its place.
    fn root(&mut self, entry: &Entry) -> Done {
        if entry.kind != Kind::Directory {
            return Err("the root is not a directory".into());
        }
        let root = self.tree.directory(&Name::root())?;
        self.directory_attributes(&root, Name::root(), entry)?;
        self.index.entry(&Name::root(), entry);
        Ok(())
    }

    fn whiteout(&mut self, parent_name: &Name, hidden: &OsStr) -> Done {
        let parent = self.tree.directory(parent_name)?;
        let path = parent_name.path().join(hidden);
        let name = Name::clean(path.as_os_str().as_bytes())?;
        // A whiteout means the layers below, whatever its place in the archive: what this layer
        // itself has under the name stays.
        match self.tree.present(&parent, &name)? {
            Present::Nothing => tree::put_whiteout(&parent, hidden)?,
            Present::Directory => tree::set_opaque(&tree::open_directory(&parent, &name)?)?,
            _ => (),
        }
        self.index.whiteout(&name);
        Ok(())
    }

    fn opaque(&mut self, name: &Name) -> Done {
        let dir = self.tree.directory(name)?;
        tree::set_opaque(&dir)?;
        self.index.opaque(name);
        self.done.opaque_root |= name.is_root();
        Ok(())
    }

    fn make_directory(&mut self, parent: &OwnedFd, name: &Name, entry: &Entry) -> Done {
        let mut covered = false;
        if self.tree.present(parent, name)? != Present::Directory {
            covered = self.tree.clear(parent, name)? == Present::Whiteout;
            mkdirat(parent, name.leaf(), Mode::S_IRWXU)?;
        }
        // O_DIRECTORY | O_NOFOLLOW, and fchmod on that: never through a link (CVE-2026-33056).
        let dir = tree::open_directory(parent, name)?;
        if covered {
            tree::set_opaque(&dir)?;
        }
        self.directory_attributes(&dir, name.clone(), entry)?;
        self.tree.keep(name, dir);
        Ok(())
    }

    fn directory_attributes(&mut self, dir: &OwnedFd, name: Name, entry: &Entry) -> Done {
        set_user_xattrs(dir, entry)?;
        self.tree.shown().write_directory(dir, owner(entry), entry.mode)?;
        Ok(self.times.add(&name, entry.mtime)?)
    }

    /// Makes a new, empty file in the place of whatever was there, with the mode that it is to show:
    /// the unpacker's umask is empty.
    fn create(&mut self, parent: &OwnedFd, name: &Name, mode: u32) -> Result<OwnedFd, Reason> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(override_stat::shown_mode(mode));
        match openat(parent, name.leaf(), flags, mode) {
            Err(Errno::EEXIST) => {
                self.tree.clear(parent, name)?;
                Ok(openat(parent, name.leaf(), flags, mode)?)
            }
            opened => Ok(opened?),
        }
    }

    fn file(&mut self, parent: &OwnedFd, name: &Name, entry: &Entry, reader: &mut Tar<'_>) -> Done {
        let file = std::fs::File::from(self.create(parent, name, entry.mode)?);
        self.record_replaced(reader)?;
        let mut end = 0;
        let mut content = Crc::new();
        if self.listing.is_some() && entry.stored > 0 {
            reader.inner_mut().contents(name.path().as_os_str().as_bytes(), &entry.extents)?;
            for extent in entry.extents.iter().filter(|extent| extent.length > 0) {
                Self::extent(&file, extent, entry.size, reader, &mut content)?;
                end = extent.offset + extent.length;
            }
            reader.inner_mut().resume();
        }
        if end != entry.size {
            ftruncate(&file, i64::try_from(entry.size).map_err(|_| Errno::EFBIG)?)?;
        }
        self.file_attributes(&file.into(), entry)?;
        self.list(name, entry, content.sum())
    }

    /// Puts a file on the list of those that other layers may have as well. One with holes is left
    /// out: it may be of any size, and would have to be compared.
    fn list(&mut self, name: &Name, entry: &Entry, content: u32) -> Done {
        let Some(listing) = self.listing.as_mut().filter(|_| entry.stored == entry.size) else {
            return Ok(());
        };
        let path = name.path().as_os_str().as_bytes();
        let (seconds, nanoseconds) = (entry.mtime.0.to_le_bytes(), entry.mtime.1.to_le_bytes());
        let numbers = [entry.mode, entry.uid, entry.gid].map(u32::to_le_bytes);
        let fields =
            [path, &seconds, &nanoseconds].into_iter().chain(numbers.iter().map(|n| &n[..]));
        let attributes = entry.xattrs.iter().flat_map(|(name, value)| [&name[..], &value[..]]);
        let all = listing::checksum(fields.chain(attributes));
        let listed = listing::Listed { path: path.to_vec(), size: entry.size, content, all };
        Ok(listing.file(&listed)?)
    }

    fn extent(
        file: &std::fs::File,
        extent: &Extent,
        size: u64,
        reader: &mut Tar<'_>,
        content: &mut Crc,
    ) -> Done {
        let (mut position, mut left) = (extent.offset, extent.length);
        while left > 0 {
            let taken = reader.take_data(left, |data| -> Done {
                listing::sample(content, size, position, data);
                Ok(file.write_all_at(data, position)?)
            })?;
            if taken == 0 {
                return Err("the archive has less data than the entry says".into());
            }
            position += taken;
            left -= taken;
        }
        Ok(())
    }

    fn file_attributes(&self, file: &OwnedFd, entry: &Entry) -> Done {
        set_user_xattrs(file, entry)?;
        self.tree.shown().write_file(file, owner(entry), entry.mode)?;
        Ok(set_mtime_of(file, entry.mtime.0, entry.mtime.1.into())?)
    }

    /// A device is an empty file here, and what it is stands in the attribute: an ordinary user
    /// makes no devices, and a 0:0 one would be a whiteout.
    fn device(&mut self, parent: &OwnedFd, name: &Name, entry: &Entry, kind: &str) -> Done {
        let file = self.create(parent, name, entry.mode)?;
        let kind = format!("{kind}-{}-{}", entry.device.0, entry.device.1);
        self.tree.shown().write_device(&file, owner(entry), entry.mode, &kind)?;
        Ok(set_mtime_of(&file, entry.mtime.0, entry.mtime.1.into())?)
    }

    fn symlink(&mut self, parent: &OwnedFd, name: &Name, entry: &Entry) -> Done {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err("the link's target is empty or holds a NUL byte".into());
        }
        let target = OsStr::from_bytes(&entry.link);
        match symlinkat(target, parent, name.leaf()) {
            Err(Errno::EEXIST) => {
                self.tree.clear(parent, name)?;
                symlinkat(target, parent, name.leaf())?;
            }
            made => made?,
        }
        self.times(parent, name, entry)
    }

    fn fifo(&mut self, parent: &OwnedFd, name: &Name, entry: &Entry) -> Done {
        self.tree.clear(parent, name)?;
        // The unpacker's umask is empty, so that this is the mode; a FIFO is never opened here.
        mkfifoat(parent, name.leaf(), Mode::from_bits_truncate(entry.mode & 0o777 | 0o600))?;
        self.times(parent, name, entry)
    }

    fn times(&self, parent: &OwnedFd, name: &Name, entry: &Entry) -> Done {
        let leaf = c_path(name.leaf())?;
        Ok(set_mtime(parent, &leaf, entry.mtime.0, entry.mtime.1.into())?)
    }

    /// Another name for a file of this same tree. The target is looked up like an entry and linked
    /// itself, not what it leads to: a symbolic link gets a second name and is not followed.
    fn hard_link(&mut self, parent: &OwnedFd, name: &Name, entry: &Entry) -> Done {
        let bad = |why: &str| {
            let target = std::path::Path::new(OsStr::from_bytes(&entry.link)).display().to_string();
            Reason::Words(format!("hard link to {target}: {why}"))
        };
        let target = Name::clean(&entry.link).map_err(bad)?;
        if target.is_root() {
            return Err(bad("not a file"));
        }
        if target == *name {
            return match self.tree.present(parent, name)? {
                Present::Other | Present::Symlink => Ok(()),
                _ => Err(bad("is the entry itself")),
            };
        }
        let target_parent = match self.tree.existing(&target.parent()) {
            Ok(Some(dir)) => dir,
            Ok(None) => return Err(bad("not in this layer")),
            Err(blocked) => return Err(blocked.into()),
        };
        match self.tree.present(&target_parent, &target)? {
            Present::Other | Present::Symlink => (),
            Present::Nothing | Present::Whiteout => return Err(bad("not in this layer")),
            Present::Directory => return Err(bad("not a file")),
        }
        let link = || linkat(&target_parent, target.leaf(), parent, name.leaf(), AtFlags::empty());
        match link() {
            Err(Errno::EEXIST) => {
                if target.is_within(name) {
                    return Err(bad("lies inside what the link replaces"));
                }
                self.tree.clear(parent, name)?;
                link()?;
            }
            made => made?,
        }
        if let Some(listing) = &mut self.listing {
            // Its own name too: what was listed under it is replaced.
            for name in [&target, name] {
                listing.linked(name.path().as_os_str().as_bytes())?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Unpacked> {
        if let Some(listing) = self.listing.take() {
            listing.finish().during("write", "the layer's list of files")?;
        }
        self.index.finish()?;
        self.times.set_all(&mut self.tree).map_err(|error| {
            let errno = crate::error::Errno::from(error).0;
            super::with_space_hint(Error::os("set", "the times of directories", errno), errno)
        })?;
        Ok(self.done)
    }
}

fn owner(entry: &Entry) -> Owner {
    Owner { uid: entry.uid, gid: entry.gid }
}

/// Sets the attributes that are the image's own affair.
fn set_user_xattrs(file: &OwnedFd, entry: &Entry) -> Done {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_images_own(name)) {
        let name = CString::new(name.as_slice())
            .map_err(|_| "an extended attribute's name holds a NUL byte")?;
        set_xattr(file, &name, value)?;
    }
    Ok(())
}
