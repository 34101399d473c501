//! What a box is made with: the new root and the box's own memory, held by descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::stat::{Mode, mkdirat};

use super::handover::{Inherited, Way};
use super::message::Channel;
use crate::error::{During, Error, Result};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Context};

/// A directory in the box's memory: its name there, and itself.
pub(super) struct Place {
    name: String,
    /// The directory, whatever is mounted on it later.
    pub(super) fd: OwnedFd,
}

/// What has been made so far.
pub(super) struct Maker<'a> {
    /// The host's files that are to be mounted, found before anything covers them; last first.
    pub(super) sources: Vec<OwnedFd>,
    /// The directory of the layers, likewise.
    pub(super) layers: Option<OwnedFd>,
    /// The directory for a writable layer on disk, likewise.
    pub(super) writable: Option<OwnedFd>,
    /// The box's own memory.
    pub(super) memory: Option<OwnedFd>,
    /// The files that are in the writable layer already, since before it was mounted.
    pub(super) early: Vec<&'a Path>,
    /// What the overlay's server shows, attached nowhere yet.
    pub(super) served: Option<OwnedFd>,
    /// The new root.
    pub(super) root: Option<OwnedFd>,
    /// How many private directories there are in the memory, which are named by number.
    count: u32,
    /// Where a writable layer on disk is.
    pub(super) scratch: Option<&'a Path>,
    /// Where the network namespace comes from.
    pub(super) network: Option<&'a Channel>,
    /// Where the word comes from that many ids are mapped.
    pub(super) mapped: Option<&'a Channel>,
    /// The device of an overlay, where it had to be opened before.
    pub(super) device: Option<OwnedFd>,
    /// The way to the overlay's server.
    pub(super) overlay: Option<&'a Way>,
    /// The way to the supervisor.
    pub(super) supervisor: Option<&'a Channel>,
}

impl<'a> Maker<'a> {
    /// Nothing made yet.
    pub(super) fn new(inherited: Option<&'a Inherited>) -> Maker<'a> {
        Maker {
            sources: Vec::new(),
            layers: None,
            writable: None,
            memory: None,
            early: Vec::new(),
            served: None,
            root: None,
            count: 0,
            scratch: inherited.and_then(|inherited| inherited.scratch.as_deref()),
            network: inherited.and_then(|inherited| inherited.network.as_ref()),
            overlay: inherited.and_then(|inherited| inherited.overlay.as_ref()),
            mapped: inherited.and_then(|inherited| inherited.mapped.as_ref()),
            device: None,
            supervisor: inherited.map(|inherited| &inherited.channel),
        }
    }

    pub(super) fn root(&self) -> Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| out_of_order("the root"))
    }

    pub(super) fn memory(&self) -> Result<BorrowedFd<'_>> {
        self.memory.as_ref().map(AsFd::as_fd).ok_or_else(|| out_of_order("the memory"))
    }

    pub(super) fn make_memory(&mut self, size: &str) -> Result<()> {
        let memory = tmpfs(size, 0o755, Attributes::SAFE)?;
        // An upper layer, and a tree to be cloned, must be in a mount that is attached in this
        // namespace. Where does not matter: all that is needed of the host is open by now, save
        // what is in /dev and /proc. Not on /, or the old root would take two umounts to leave,
        // each of which waits for an RCU grace period.
        mount::attach(&memory, any_directory()?).at("attach the box's memory on", "/tmp")?;
        self.memory = Some(memory);
        Ok(())
    }

    /// A new directory in the box's memory.
    pub(super) fn new_directory(&mut self, mode: u32) -> Result<Place> {
        self.count += 1;
        let name = format!("d{}", self.count);
        mkdirat(self.memory()?, name.as_str(), Mode::from_bits_truncate(mode))
            .during("make a directory in", "the box's memory")?;
        let fd = self.open_in_memory(&name)?;
        Ok(Place { name, fd })
    }

    /// A new empty file in the box's memory, which nobody can write.
    pub(super) fn new_file(&mut self) -> Result<OwnedFd> {
        self.count += 1;
        let name = format!("f{}", self.count);
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        fs::openat2(self.memory()?, &name, flags, 0o444, Resolve::BeneathNoSymlinks)
            .during("make a file in", "the box's memory")?;
        fs::openat2(self.memory()?, &name, libc::O_PATH, 0, Resolve::BeneathNoSymlinks)
            .during("open a file in", "the box's memory")
    }

    /// What is mounted on such a directory by now.
    pub(super) fn reopen(&self, place: &Place) -> Result<OwnedFd> {
        self.open_in_memory(&place.name)
    }

    fn open_in_memory(&self, name: &str) -> Result<OwnedFd> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        fs::openat2(self.memory()?, name, flags, 0, Resolve::BeneathNoSymlinks)
            .during("open a directory in", "the box's memory")
    }
}

/// A directory that something can be attached to, in a mount namespace of one's own.
pub(super) fn any_directory() -> Result<OwnedFd> {
    let place = ["/tmp", "/var", "/usr"].iter().find_map(|path| {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        fs::openat2(fs::cwd(), path, flags, 0, Resolve::Ordinary).ok()
    });
    place
        .ok_or_else(|| Error::new("attach a mount: this system has neither /tmp nor /var nor /usr"))
}

pub(super) fn out_of_order(what: &str) -> Error {
    Error::new(format!("set up the box: {what} is needed before it is there"))
}

/// Clones a tree and mounts it; the attributes are on it, and on all that is mounted below, before
/// it can be seen.
pub(super) fn attach_clone(
    source: BorrowedFd<'_>,
    place: BorrowedFd<'_>,
    attributes: Attributes,
    target: &Path,
) -> Result<()> {
    let tree = mount::clone_tree(source, c"", true).at("clone the mount for", target)?;
    mount::set_attributes(tree.as_fd(), attributes, false, true)
        .at("set the attributes of the mount for", target)?;
    mount::attach(tree, place).at("mount at", target)
}

/// A tmpfs, attached nowhere yet.
pub(super) fn tmpfs(size: &str, mode: u32, attributes: Attributes) -> Result<OwnedFd> {
    let context = Context::open(c"tmpfs").during("open", "tmpfs")?;
    for (key, value) in [(c"size", size.to_owned()), (c"mode", format!("{mode:o}"))] {
        let value = fs::c_path(&value).during("set", "tmpfs options")?;
        context.set(key, &value).during("set tmpfs option", key.to_str().unwrap_or("?"))?;
    }
    context.mount(attributes).during("make", "a tmpfs")
}
