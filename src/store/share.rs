//! Content that several layers hold is stored once: a layer that was just unpacked, and is still in
//! staging, gets the files of other layers that equal its own.
//!
//! Where the file system shares blocks between files, equal contents share them, and nothing can be
//! seen of it. Elsewhere a file becomes a hard link to one that equals it in all: contents, mode,
//! owner, time, attributes, and the path in its layer. The last is for the boxes: of two files with
//! one path, a box sees one at the most, so that no program in it finds two names for one file that
//! are none in the image. Only the count of links tells. Files that have several names in their own
//! layer are left alone for the same reason.
//!
//! A layer that is in its place is never changed. Whatever fails leaves the file as it is.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::hold::Held;
use super::layer::directory_name;
use super::listing::{Listed, Reader, Record, SMALLEST};
use super::staging::Staging;
use super::{DIRECTORY, Store};
use crate::error::{During, Result};
use crate::image::Digest;
use crate::sys::extents::{clone_blocks, share_blocks};
use crate::sys::fs::{Resolve, cwd, get_xattr, list_xattrs, openat2, set_mtime_of, set_xattr};

/// How many files of the new layer are looked for at once, and the bytes that their paths may take.
const AT_ONCE: usize = 1 << 16;
const PATHS_AT_ONCE: usize = 4 << 20;
/// The most records that are read of a list: the process that wrote it had read a foreign archive.
const MOST_RECORDS: usize = 8 << 20;
const BUFFER: usize = 128 << 10;
/// The name of a new link in the layer's own directory, until it takes the file's place.
const LINK: &str = "link";

/// What the file system can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Files share blocks.
    Blocks,
    /// Files have several names.
    Names,
}

impl Way {
    /// The smallest file that is worth it. Cloning one takes the file system some hundred
    /// microseconds; twice the files would save a twentieth more.
    fn smallest(self) -> u64 {
        match self {
            Way::Blocks => 4 * SMALLEST,
            Way::Names => SMALLEST,
        }
    }

    /// Tries it.
    pub(super) fn of(staging: &Staging) -> Self {
        let file = || -> io::Result<File> {
            let file = staging.scratch().map_err(io::Error::other)?;
            file.write_all_at(&[1; SMALLEST as usize], 0)?;
            Ok(file)
        };
        let shared = file().and_then(|from| share_blocks(&from, file()?, SMALLEST));
        if shared.is_ok_and(|bytes| bytes == SMALLEST) { Way::Blocks } else { Way::Names }
    }
}

/// Shares what can be shared of a layer in staging with those in the store, and with others in
/// staging. Fails only where the layer would not be what its stream says any more.
pub(super) fn share(
    store: &Store,
    way: Way,
    digest: &Digest,
    dir: &OwnedFd,
    staged: &[PathBuf],
) -> Result<()> {
    let Ok(Some(mut list)) = reader(dir) else { return Ok(()) };
    let Ok(root) = openat(dir, "fs", DIRECTORY_FLAGS, Mode::empty()) else { return Ok(()) };
    let mut layer = Layer { dir, root, parent: None, buffers: Default::default() };
    loop {
        let mut wanted = Wanted::of(way, &mut list);
        if wanted.files.is_empty() {
            return Ok(());
        }
        for path in staged {
            if let Some(other) = Other::open(path) {
                layer.share_with(&mut wanted, &other, || true)?;
            }
        }
        for other in stored(store, digest) {
            if wanted.by_key.is_empty() {
                break;
            }
            let path = store.layers_dir().join(directory_name(&other));
            let mut held = None;
            if let Some(open) = Other::open(&path) {
                layer.share_with(&mut wanted, &open, || {
                    held = Held::layer_at_once(store, &other);
                    held.is_some()
                })?;
            }
        }
        if way == Way::Blocks {
            layer.share_with_itself(wanted)?;
        }
    }
}

const DIRECTORY_FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
// O_NONBLOCK: whatever somebody put there, opening it must not wait.
const FILE: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// The list of a layer's files; older layers have none.
fn reader(dir: &OwnedFd) -> io::Result<Option<Reader>> {
    Reader::new(File::from(openat(dir, "files", FILE, Mode::empty())?))
}

/// The other layers of the store.
fn stored(store: &Store, but: &Digest) -> Vec<Digest> {
    let Ok(entries) = std::fs::read_dir(store.layers_dir()) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let digests = names.filter_map(|name| Digest::from_hex(name.strip_prefix("sha256-")?));
    digests.filter(|digest| digest != but).collect()
}

/// Size and checksums. Where blocks are shared, contents alone count.
type Key = (u64, u32, u32);

/// Files of the new layer that are looked for elsewhere.
struct Wanted {
    way: Way,
    files: Vec<Listed>,
    by_key: HashMap<Key, Vec<usize>>,
}

impl Wanted {
    fn of(way: Way, list: &mut Reader) -> Self {
        let mut wanted = Wanted { way, files: Vec::new(), by_key: HashMap::new() };
        let mut paths = 0;
        while wanted.files.len() < AT_ONCE && paths < PATHS_AT_ONCE {
            match list.next() {
                Ok(Some(Record::File(file))) if file.size < way.smallest() => (),
                Ok(Some(Record::File(file))) => {
                    let number = wanted.files.len();
                    wanted.by_key.entry(wanted.key(&file)).or_default().push(number);
                    paths += file.path.len();
                    wanted.files.push(file);
                }
                Ok(Some(Record::Linked(_))) => (),
                Ok(None) | Err(_) => break,
            }
        }
        wanted
    }

    fn key(&self, file: &Listed) -> Key {
        match self.way {
            Way::Blocks => (file.size, file.content, 0),
            Way::Names => (file.size, file.content, file.all),
        }
    }

    /// Takes out those that a layer may have: which they are, and where it has them.
    fn found_in(&mut self, other: &Other) -> Vec<(Vec<usize>, Vec<u8>)> {
        let mut found: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        let Ok(Some(mut list)) = reader(&other.dir) else { return Vec::new() };
        for _ in 0..MOST_RECORDS {
            match list.next() {
                Ok(Some(Record::File(file))) => {
                    if let Some(numbers) = self.take(&file) {
                        found.insert(file.path, numbers);
                    }
                }
                Ok(Some(Record::Linked(path))) if self.way == Way::Names => {
                    found.remove(&path);
                }
                Ok(Some(Record::Linked(_))) => (),
                Ok(None) | Err(_) => break,
            }
        }
        let mut found: Vec<_> = found.into_iter().map(|(path, numbers)| (numbers, path)).collect();
        // In the order of the archive, which stays in a directory.
        found.sort();
        found
    }

    /// The files that may be equal to this one of another layer.
    fn take(&mut self, file: &Listed) -> Option<Vec<usize>> {
        let key = self.key(file);
        let numbers = self.by_key.get(&key)?;
        let may_be = |number: &usize| {
            self.way == Way::Blocks
                || self.files.get(*number).is_some_and(|own| own.path == file.path)
        };
        if numbers.iter().any(may_be) { self.by_key.remove(&key) } else { None }
    }
}

/// A layer that has been unpacked before.
struct Other {
    dir: OwnedFd,
    root: OwnedFd,
}

impl Other {
    fn open(path: &Path) -> Option<Self> {
        let dir = openat2(cwd(), path, DIRECTORY | libc::O_NOFOLLOW, 0, Resolve::Ordinary).ok()?;
        let root = openat(&dir, "fs", DIRECTORY_FLAGS, Mode::empty()).ok()?;
        Some(Other { dir, root })
    }
}

/// A directory of the new layer, whose time is to stay.
struct Parent {
    path: PathBuf,
    dir: OwnedFd,
    stat: FileStat,
    changed: bool,
}

/// The new layer.
struct Layer<'a> {
    dir: &'a OwnedFd,
    root: OwnedFd,
    parent: Option<Parent>,
    buffers: [Vec<u8>; 2],
}

impl Layer<'_> {
    /// Shares what is wanted with another layer; `hold` is asked once before the first file.
    fn share_with(
        &mut self,
        wanted: &mut Wanted,
        other: &Other,
        hold: impl FnOnce() -> bool,
    ) -> Result<()> {
        let found = wanted.found_in(other);
        if found.is_empty() || !hold() {
            return Ok(());
        }
        for (numbers, path) in found {
            for file in numbers.iter().filter_map(|number| wanted.files.get(*number)) {
                match wanted.way {
                    Way::Blocks => self.share_contents(&file.path, &other.root, &path)?,
                    Way::Names if file.path == path => self.link(&path, &other.root)?,
                    Way::Names => (),
                }
            }
        }
        self.leave_parent()
    }

    /// Files with equal contents in this very layer, where nobody sees that they share them.
    fn share_with_itself(&mut self, wanted: Wanted) -> Result<()> {
        for numbers in wanted.by_key.values() {
            let mut files = numbers.iter().filter_map(|number| wanted.files.get(*number));
            let Some(first) = files.next() else { continue };
            for file in files.filter(|file| file.path != first.path) {
                let root = self.root.try_clone().during("duplicate", "a descriptor")?;
                self.share_contents(&file.path, &root, &first.path)?;
            }
        }
        self.leave_parent()
    }

    /// Lets the file at a path have the blocks of one of the same contents.
    fn share_contents(&mut self, path: &[u8], from: &OwnedFd, from_path: &[u8]) -> Result<()> {
        let (path, from_path) = (OsStr::from_bytes(path), Path::new(OsStr::from_bytes(from_path)));
        let Some(leaf) = self.go_to(Path::new(path))? else { return Ok(()) };
        let Some(parent) = &mut self.parent else { return Ok(()) };
        let pair = Pair::open(&parent.dir, leaf, from, from_path, &mut self.buffers);
        let Ok(Some(pair)) = pair else { return Ok(()) };
        if pair.own.st_nlink == 1 {
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let Ok(copy) = openat(self.dir, LINK, flags, Mode::S_IRUSR | Mode::S_IWUSR) else {
                return Ok(());
            };
            let is_same = pair.clone_into(&copy).unwrap_or(false);
            if is_same && renameat(self.dir, LINK, &parent.dir, leaf).is_ok() {
                parent.changed = true;
                return Ok(());
            }
            unlinkat(self.dir, LINK, UnlinkatFlags::NoRemoveDir).during("remove", "a copy")?;
        }
        // The file itself, whatever names it has. The kernel writes it out before it looks, which
        // takes milliseconds for each.
        let size = pair.own.st_size.unsigned_abs();
        let _stays_as_it_is = share_blocks(&pair.there, &pair.here, size);
        Ok(())
    }

    /// Goes to the directory of a path; its last component.
    fn go_to<'p>(&mut self, path: &'p Path) -> Result<Option<&'p OsStr>> {
        let (Some(parent), Some(leaf)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        if self.parent.as_ref().is_none_or(|open| open.path != parent) {
            self.leave_parent()?;
            self.parent = self.enter(parent);
        }
        Ok(Some(leaf))
    }

    /// Makes the file at a path a link to the one at the same path of another layer, if they are
    /// equal.
    fn link(&mut self, path: &[u8], other: &OwnedFd) -> Result<()> {
        let path = Path::new(OsStr::from_bytes(path));
        let Some(leaf) = self.go_to(path)? else { return Ok(()) };
        let Some(open) = &mut self.parent else { return Ok(()) };
        let from = below(other, path.parent().unwrap_or(Path::new("")));
        let Ok(from) = from else { return Ok(()) };
        let pair = Pair::open(&open.dir, leaf, other, path, &mut self.buffers);
        let Ok(Some(pair)) = pair else { return Ok(()) };
        if !pair.are_equal().unwrap_or(false) {
            return Ok(());
        }
        let identity = (pair.other.st_dev, pair.other.st_ino);
        // EMLINK (65,000 on ext4), EXDEV, or a file system without links.
        if linkat(&from, leaf, self.dir, LINK, AtFlags::empty()).is_err() {
            return Ok(());
        }
        let linked = fstatat(self.dir, LINK, AtFlags::AT_SYMLINK_NOFOLLOW);
        // What was compared is what was linked.
        let is_it = linked.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == identity);
        if is_it && renameat(self.dir, LINK, &open.dir, leaf).is_ok() {
            open.changed = true;
            return Ok(());
        }
        unlinkat(self.dir, LINK, UnlinkatFlags::NoRemoveDir).during("remove", "a link")
    }

    fn enter(&self, path: &Path) -> Option<Parent> {
        let dir = below(&self.root, path).ok()?;
        let stat = fstat(&dir).ok()?;
        Some(Parent { path: path.to_owned(), dir, stat, changed: false })
    }

    /// Gives the directory that was last changed its time back.
    fn leave_parent(&mut self) -> Result<()> {
        match self.parent.take() {
            Some(Parent { path, dir, stat, changed: true }) => {
                set_mtime_of(&dir, stat.st_mtime, stat.st_mtime_nsec).at("set the time of", path)
            }
            _ => Ok(()),
        }
    }
}

fn below(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    openat2(root.as_fd(), path, DIRECTORY, 0, Resolve::BeneathNoSymlinks)
}

fn is_file(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// A file of the new layer and another one, with the same contents.
struct Pair {
    here: OwnedFd,
    own: FileStat,
    there: OwnedFd,
    other: FileStat,
}

impl Pair {
    /// Opens and compares them; `None` where they differ, or are one.
    fn open(
        dir: &OwnedFd,
        leaf: &OsStr,
        root: &OwnedFd,
        path: &Path,
        buffers: &mut [Vec<u8>; 2],
    ) -> io::Result<Option<Self>> {
        let here = openat(dir, leaf, FILE, Mode::empty())?;
        let there = openat2(root.as_fd(), path, FILE.bits(), 0, Resolve::BeneathNoSymlinks)?;
        let (own, other) = (fstat(&here)?, fstat(&there)?);
        if !is_file(&own)
            || !is_file(&other)
            || own.st_dev != other.st_dev
            || own.st_ino == other.st_ino
            || own.st_size != other.st_size
        {
            return Ok(None);
        }
        let (here, there) = (File::from(here), File::from(there));
        let size = own.st_size.unsigned_abs();
        let equal = have_equal_contents(&here, &there, size, buffers)?;
        Ok(equal.then(|| Pair { here: here.into(), own, there: there.into(), other }))
    }

    /// Whether all else is equal as well, and the new one has a single name.
    fn are_equal(&self) -> io::Result<bool> {
        Ok(self.own.st_nlink == 1
            && of(&self.own) == of(&self.other)
            && attributes(&self.here)? == attributes(&self.there)?)
    }

    /// Makes an empty file what the new one is, with the blocks of the other; false where it does
    /// not become that: a label of the system may depend on the directory.
    fn clone_into(&self, copy: &OwnedFd) -> io::Result<bool> {
        clone_blocks(&self.there, copy)?;
        for name in list_xattrs(&self.here)?.iter().filter(|n| n.to_bytes().starts_with(b"user.")) {
            if let Some(value) = get_xattr(&self.here, name)? {
                set_xattr(copy, name, &value)?;
            }
        }
        fchmod(copy, Mode::from_bits_truncate(self.own.st_mode))?;
        set_mtime_of(copy, self.own.st_mtime, self.own.st_mtime_nsec)?;
        Ok(of(&fstat(copy)?) == of(&self.own) && attributes(copy)? == attributes(&self.here)?)
    }
}

/// What files must have in common beside contents and attributes.
fn of(stat: &FileStat) -> (u32, u32, u32, i64, i64, i64) {
    let time = (stat.st_mtime, stat.st_mtime_nsec);
    (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size, time.0, time.1)
}

/// All of them: a label or an ACL of the system is part of the file as well.
fn attributes(file: &OwnedFd) -> io::Result<Vec<Option<Vec<u8>>>> {
    let mut all = Vec::new();
    for name in list_xattrs(file)? {
        all.push(get_xattr(file, &name)?);
        all.push(Some(name.into_bytes()));
    }
    Ok(all)
}

fn have_equal_contents(
    here: &File,
    there: &File,
    size: u64,
    [own, other]: &mut [Vec<u8>; 2],
) -> io::Result<bool> {
    own.resize(BUFFER, 0);
    other.resize(BUFFER, 0);
    let mut position = 0;
    while position < size {
        let most = usize::try_from(size - position).unwrap_or(usize::MAX).min(BUFFER);
        here.read_exact_at(&mut own[..most], position)?;
        there.read_exact_at(&mut other[..most], position)?;
        if own[..most] != other[..most] {
            return Ok(false);
        }
        position += most as u64;
    }
    Ok(true)
}
