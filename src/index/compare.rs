//! Two indexes side by side: whether one is still what the layer says.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Attributes, Kind, LayerIndex, Node};

/// The most differences that are told.
const ENOUGH: usize = 10;

/// How an index differs from what it should be; a line each, no more than ten. Blocks are left out,
/// since file systems have their own; and where either was made from the tree on disk, so is what
/// that cannot say: owners of symbolic links and FIFOs.
pub fn differences(found: &LayerIndex, wanted: &LayerIndex) -> Vec<String> {
    let is_walked = found.is_walked() || wanted.is_walked();
    let mut compare =
        Compare { found, wanted, is_walked, lines: Vec::new(), pairs: HashMap::new() };
    // Directories have one name each, so that this ends.
    let mut left = vec![(Node::ROOT, Node::ROOT)];
    while let Some((here, there)) = left.pop() {
        if compare.lines.len() >= ENOUGH {
            break;
        }
        if here == Node::ROOT {
            compare.node(here, there);
        }
        compare.children(here, there, &mut left);
    }
    compare.lines
}

struct Compare<'a> {
    found: &'a LayerIndex,
    wanted: &'a LayerIndex,
    is_walked: bool,
    lines: Vec<String>,
    /// Files with several names: which is which.
    pairs: HashMap<Node, Node>,
}

impl Compare<'_> {
    fn say(&mut self, there: Node, name: &[u8], what: &str) {
        if self.lines.len() < ENOUGH {
            let path = self.wanted.path(there).unwrap_or_default();
            let path = Path::new(OsStr::from_bytes(&path)).join(OsStr::from_bytes(name));
            self.lines.push(format!("its index says of /{}: {what}", path.display()));
        }
    }

    fn children(&mut self, here: Node, there: Node, left: &mut Vec<(Node, Node)>) {
        let (found, wanted) = (self.found, self.wanted);
        if found.children_len(here) != wanted.children_len(there) {
            self.say(there, b"", "another number of names");
        }
        for position in 0..wanted.children_len(there) {
            if self.lines.len() >= ENOUGH {
                return;
            }
            let Some((name, inner)) = wanted.child_at(there, position) else {
                self.say(there, b"", "a name that is none");
                continue;
            };
            // Found where it is listed, and where it is looked for.
            let listed = found.child_at(here, position).filter(|(other, _)| *other == name);
            match listed.filter(|(_, node)| found.child(here, name) == Some(*node)) {
                None => self.say(there, name, "nothing, or not in its place"),
                Some((_, node)) => {
                    if *self.pairs.entry(inner).or_insert(node) != node {
                        self.say(there, name, "not the file that it is a hard link to");
                    }
                    self.node(node, inner);
                    let is_directory = |index: &LayerIndex, node| {
                        index.attributes(node).is_some_and(|a| a.kind == Kind::Directory)
                    };
                    if is_directory(found, node) && is_directory(wanted, inner) {
                        left.push((node, inner));
                    }
                }
            }
        }
    }

    fn node(&mut self, here: Node, there: Node) {
        let (found, wanted) = (self.found, self.wanted);
        let (Some(own), Some(other)) = (found.attributes(here), wanted.attributes(there)) else {
            return self.say(there, b"", "nothing that could be read");
        };
        let is_time = |a: (i64, u32), b: (i64, u32)| {
            // A file system may keep whole seconds only.
            a == b || self.is_walked && a.0 == b.0 && (a.1 == 0 || b.1 == 0)
        };
        let (owner, mode) = (self.owner(&own), self.mode(&own));
        for (differs, what) in [
            (own.kind != other.kind, "another type"),
            (mode != self.mode(&other), "another mode"),
            (owner != self.owner(&other), "another owner"),
            (own.size != other.size, "another size"),
            (!is_time(own.mtime, other.mtime), "another modification time"),
            (own.device != other.device, "another device number"),
            (own.links != other.links, "another number of links"),
            (own.is_opaque != other.is_opaque, "otherwise whether lower layers show in it"),
            (found.target(here) != wanted.target(there), "another target"),
            (!found.xattrs(here).eq(wanted.xattrs(there)), "other extended attributes"),
            (found.path(here) != wanted.path(there), "another place"),
        ] {
            if differs {
                return self.say(there, b"", what);
            }
        }
    }

    fn owner(&self, attributes: &Attributes) -> (u32, u32) {
        match attributes.kind {
            Kind::Symlink | Kind::Fifo | Kind::Socket if self.is_walked => (0, 0),
            _ => (attributes.uid, attributes.gid),
        }
    }

    fn mode(&self, attributes: &Attributes) -> u32 {
        match attributes.kind {
            // It is on disk as the user may have it.
            Kind::Fifo if self.is_walked => attributes.mode & 0o777 | 0o600,
            _ => attributes.mode,
        }
    }
}
