//! The nodes that the kernel knows, and what is in the way of each: names, its place in the layers
//! and in the upper directory. Nothing here makes a system call, so that the lock is never held for
//! long.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;

use super::super::lowers::Id;
use super::place::Form;
use crate::index::Kind;
use crate::index::override_stat::Override;

/// The node of the root.
pub(super) const ROOT: u64 = super::super::wire::ROOT;

/// The work directory, as what a name may be in. The kernel knows no such node.
pub(super) const WORK: u64 = 0;

/// The most nodes. With names of 16 bytes each takes 220 to 400 bytes, by how full the maps are
/// (measured with 200,000 to a million); with one more than seven eighths of 2 Mi they would double
/// again. So all of them are some 500 MB.
const MOST_NODES: usize = (2 << 20) / 8 * 7 - 64;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) dir: u64,
    pub(super) name: Box<[u8]>,
}

/// What a node is, apart from its names.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) kind: Kind,
    /// The inode number that programs see.
    pub(super) number: u64,
    /// What it is in the layers: of a file that is not copied up, and of a directory that is merged.
    pub(super) lower: Option<Id>,
    /// What it was in the layers at first.
    pub(super) origin: Option<Id>,
    /// Its inode number in the upper directory.
    pub(super) upper: Option<u64>,
    /// What `user.containers.override_stat` says there.
    pub(super) kept: Option<Override>,
    /// It is an open file that never had a name; the one in the work directory does not count.
    pub(super) is_temporary: bool,
}

impl View {
    /// What it is in the upper directory.
    pub(super) fn form(&self) -> Form {
        Form::with(self.kind, self.kept)
    }
}

struct Node {
    view: View,
    /// Those that are known. Of one that is in the upper directory they are names there.
    names: Vec<Name>,
    /// Keeps a file that has no name any more.
    pin: Option<Arc<OwnedFd>>,
    lookups: u64,
    /// How many names of others are in it.
    children: u32,
}

/// A file of the layers with several names, of which something was changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shared {
    /// How many names it has.
    pub(super) links: u32,
    /// Its inode number in the upper directory, after it was copied up.
    pub(super) upper: Option<u64>,
}

/// What is left to do for a node that is gone: outside of the lock.
#[derive(Default)]
pub(super) struct Gone {
    pub(super) nodes: Vec<u64>,
    pub(super) pins: Vec<Arc<OwnedFd>>,
    /// Names in the work directory that are no longer needed.
    pub(super) work: Vec<Box<[u8]>>,
}

pub(super) struct Table {
    nodes: HashMap<u64, Node>,
    by_upper: HashMap<u64, u64>,
    by_lower: HashMap<Id, u64>,
    /// What files and renamed directories in the upper directory were in the layers.
    origins: HashMap<u64, Id>,
    shared: HashMap<Id, Shared>,
    next: u64,
    pins: usize,
    /// The most descriptors that are kept for files without a name.
    most_pins: usize,
}

impl Table {
    pub(super) fn new(root: View, most_pins: usize) -> Self {
        let mut table = Table {
            nodes: HashMap::new(),
            by_upper: HashMap::new(),
            by_lower: HashMap::new(),
            origins: HashMap::new(),
            shared: HashMap::new(),
            next: ROOT + 1,
            pins: 0,
            most_pins,
        };
        table.insert(ROOT, root);
        table
    }

    fn insert(&mut self, id: u64, view: View) {
        if let Some(ino) = view.upper {
            self.by_upper.insert(ino, id);
        }
        if let Some(origin) = view.origin.or(view.lower) {
            self.by_lower.insert(origin, id);
        }
        let node = Node { view, names: Vec::new(), pin: None, lookups: 1, children: 0 };
        self.nodes.insert(id, node);
    }

    pub(super) fn view(&self, id: u64) -> Result<View, Errno> {
        self.nodes.get(&id).map(|node| node.view).ok_or(Errno::ESTALE)
    }

    pub(super) fn change(&mut self, id: u64, change: impl FnOnce(&mut View)) {
        if let Some(node) = self.nodes.get_mut(&id) {
            change(&mut node.view);
        }
    }

    pub(super) fn of_upper(&self, ino: u64) -> Option<u64> {
        self.by_upper.get(&ino).copied()
    }

    pub(super) fn of_lower(&self, lower: Id) -> Option<u64> {
        self.by_lower.get(&lower).copied()
    }

    pub(super) fn origin(&self, ino: u64) -> Option<Id> {
        self.origins.get(&ino).copied()
    }

    pub(super) fn set_origin(&mut self, ino: u64, origin: Id) {
        self.origins.insert(ino, origin);
    }

    pub(super) fn shared(&self, lower: Id) -> Option<Shared> {
        self.shared.get(&lower).copied()
    }

    pub(super) fn set_shared(&mut self, lower: Id, shared: Shared) {
        self.shared.insert(lower, shared);
    }

    pub(super) fn name(&self, id: u64) -> Option<Name> {
        self.nodes.get(&id).and_then(|node| node.names.first()).cloned()
    }

    pub(super) fn all_names(&self, id: u64) -> Vec<Name> {
        self.nodes.get(&id).map(|node| node.names.clone()).unwrap_or_default()
    }

    /// How many names are known.
    pub(super) fn names(&self, id: u64) -> usize {
        self.nodes.get(&id).map_or(0, |node| node.names.len())
    }

    pub(super) fn has_name(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| !node.names.is_empty())
    }

    /// Whether no other name is known.
    pub(super) fn only_name_is(&self, id: u64, dir: u64, name: &[u8]) -> bool {
        let is_it = |known: &Name| known.dir == dir && *known.name == *name;
        self.nodes.get(&id).is_some_and(|node| node.names.iter().all(is_it))
    }

    pub(super) fn pin(&self, id: u64) -> Option<Arc<OwnedFd>> {
        self.nodes.get(&id)?.pin.clone()
    }

    /// Counts a lookup of a node, which is made where nothing knows it yet, and notes the name.
    pub(super) fn enter(&mut self, view: View, dir: u64, name: &[u8]) -> Result<u64, Errno> {
        let known = match view.upper {
            Some(ino) => self.of_upper(ino),
            None => view.lower.and_then(|lower| self.of_lower(lower)),
        };
        let id = match known {
            Some(id) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.lookups += 1;
                }
                id
            }
            None if self.nodes.len() >= MOST_NODES => return Err(Errno::ENFILE),
            None => {
                let id = self.next;
                self.next += 1;
                self.insert(id, view);
                id
            }
        };
        self.add_name(id, dir, name);
        Ok(id)
    }

    /// `ENFILE` where there is no room for another node.
    pub(super) fn check_room(&self) -> Result<(), Errno> {
        if self.nodes.len() >= MOST_NODES { Err(Errno::ENFILE) } else { Ok(()) }
    }

    /// The node of something that was just made, for which there was room.
    pub(super) fn enter_made(&mut self, view: View, dir: u64, name: &[u8]) -> u64 {
        if let Some(ino) = view.upper {
            self.origins.remove(&ino);
        }
        let id = self.next;
        self.next += 1;
        self.insert(id, view);
        self.add_name(id, dir, name);
        id
    }

    /// One more lookup of a node that is known.
    pub(super) fn again(&mut self, id: u64) -> bool {
        match self.nodes.get_mut(&id) {
            Some(node) => {
                node.lookups += 1;
                true
            }
            None => false,
        }
    }

    pub(super) fn add_name(&mut self, id: u64, dir: u64, name: &[u8]) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.names.iter().any(|known| known.dir == dir && *known.name == *name) {
            return;
        }
        node.names.push(Name { dir, name: name.into() });
        if let Some(parent) = self.nodes.get_mut(&dir) {
            parent.children += 1;
        }
    }

    /// Whether it had that name.
    pub(super) fn remove_name(&mut self, id: u64, dir: u64, name: &[u8]) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let found = node.names.iter().position(|known| known.dir == dir && *known.name == *name);
        let Some(found) = found else { return false };
        node.names.remove(found);
        if let Some(parent) = self.nodes.get_mut(&dir) {
            parent.children = parent.children.saturating_sub(1);
        }
        true
    }

    /// Forgets all names but these.
    pub(super) fn set_names(&mut self, id: u64, names: &[Name]) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        for name in std::mem::take(&mut node.names) {
            if let Some(parent) = self.nodes.get_mut(&name.dir) {
                parent.children = parent.children.saturating_sub(1);
            }
        }
        for name in names {
            self.add_name(id, name.dir, &name.name);
        }
    }

    /// Keeps a descriptor for a node without names; `EMFILE` where there are too many.
    pub(super) fn set_pin(&mut self, id: u64, pin: &Arc<OwnedFd>) -> Result<(), Errno> {
        if self.pins >= self.most_pins {
            return Err(Errno::EMFILE);
        }
        if let Some(node) = self.nodes.get_mut(&id)
            && node.pin.replace(Arc::clone(pin)).is_none()
        {
            self.pins += 1;
        }
        Ok(())
    }

    pub(super) fn remove_pin(&mut self, id: u64) -> Option<Arc<OwnedFd>> {
        let pin = self.nodes.get_mut(&id)?.pin.take();
        self.pins -= usize::from(pin.is_some());
        pin
    }

    /// Notes that a node is in the upper directory now.
    pub(super) fn raise(&mut self, id: u64, ino: u64, kept: Option<Override>) {
        self.by_upper.insert(ino, id);
        self.change(id, |view| {
            (view.upper, view.kept) = (Some(ino), kept);
            if view.kind != Kind::Directory {
                view.lower = None;
            }
        });
    }

    /// Notes that another file is in the upper directory for a node, under all of its names.
    pub(super) fn replace_upper(&mut self, id: u64, ino: u64, number: u64, kept: Override) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if let Some(before) = node.view.upper.replace(ino) {
            // Its number may be another file's soon.
            if self.by_upper.get(&before) == Some(&id) {
                self.by_upper.remove(&before);
            }
            if let Some(origin) = self.origins.remove(&before) {
                self.origins.insert(ino, origin);
            }
        }
        (node.view.number, node.view.kept) = (number, Some(kept));
        if let Some(shared) = node.view.origin.and_then(|origin| self.shared.get_mut(&origin)) {
            shared.upper = Some(ino);
        }
        self.by_upper.insert(ino, id);
    }

    /// The kernel gives up so many lookups.
    pub(super) fn forget(&mut self, id: u64, lookups: u64, gone: &mut Gone) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        // A directory that was kept for the names in it goes with the last of them.
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            let is_needed = |node: &Node| node.lookups > 0 || node.children > 0;
            if id == ROOT || self.nodes.get(&id).is_none_or(is_needed) {
                continue;
            }
            let Some(node) = self.nodes.remove(&id) else { continue };
            gone.nodes.push(id);
            for lower in [node.view.origin, node.view.lower].into_iter().flatten() {
                if self.by_lower.get(&lower) == Some(&id) {
                    self.by_lower.remove(&lower);
                }
            }
            let is_dead = node.view.is_temporary || node.names.is_empty();
            if let Some(ino) = node.view.upper {
                if self.by_upper.get(&ino) == Some(&id) {
                    self.by_upper.remove(&ino);
                }
                // Its number may be another file's soon.
                if is_dead {
                    self.origins.remove(&ino);
                }
            }
            if let Some(pin) = node.pin {
                self.pins -= 1;
                gone.pins.push(pin);
            }
            for name in node.names {
                if name.dir == WORK && node.view.is_temporary {
                    gone.work.push(name.name);
                } else if let Some(parent) = self.nodes.get_mut(&name.dir) {
                    parent.children = parent.children.saturating_sub(1);
                    left.push(name.dir);
                }
            }
        }
    }
}
