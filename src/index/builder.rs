//! Makes an index: a tree in memory, as compact as it can be, written when it is whole.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};

use super::format::{ANY_XATTRS, Entry, Header, Piece, Record, WALKED, XATTR};
use super::{Attributes, Kind, Node};

/// How much a builder may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Nodes and names, each; what was replaced counts as well.
    pub entries: u32,
    /// Bytes of memory, with what writing takes.
    pub bytes: usize,
}

/// The index would be larger than its limits, or than a file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A tree that becomes an index. Numbers of nodes here are the builder's own.
#[derive(Debug)]
pub struct Builder {
    limits: Limits,
    nodes: Chunks<Kept>,
    names: Chunks<Name>,
    pool: Pool,
    /// Numbers of names plus one, by directory and name; a power of two, at most 3/4 full.
    table: Vec<u32>,
    hasher: RandomState,
    /// Blocks of the files that have holes.
    sparse: HashMap<u32, u64>,
    xattrs: HashMap<u32, Xattrs>,
    /// Bytes that the maps take.
    mapped: usize,
    /// Flags of the header.
    flags: u32,
}

type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// A node, without what few have.
#[derive(Debug, Clone, Copy)]
struct Kept {
    seconds: i64,
    /// Size of a file; numbers of a device; where the target of a symbolic link is, and its length.
    own: (u32, u32),
    nanoseconds: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    kind: Kind,
    is_opaque: bool,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
struct Name {
    parent: u32,
    node: u32,
    /// Where it is in the pool.
    start: u32,
    length: u8,
}

/// What a node takes, with the four numbers that it takes in writing.
const NODE_COST: usize = size_of::<Kept>() + 12;
const NAME_COST: usize = size_of::<Name>() + 4;
/// What an entry of a map takes beside its bytes, roughly.
const MAP_COST: usize = 128;
const NONE: u32 = u32::MAX;

impl Builder {
    /// A tree that has a root alone, as an archive without an entry for it means.
    pub fn new(limits: Limits) -> Self {
        let mut builder = Builder {
            limits,
            nodes: Chunks::default(),
            names: Chunks::default(),
            pool: Pool::default(),
            table: vec![0; 1024],
            hasher: RandomState::new(),
            sparse: HashMap::new(),
            xattrs: HashMap::new(),
            mapped: 0,
            flags: 0,
        };
        builder.nodes.push(Kept::of(&Attributes::implied()));
        builder
    }

    /// What a directory has under a name.
    pub fn find(&self, dir: Node, name: &[u8]) -> Option<Node> {
        self.slot(dir, name).ok().map(|number| Node(self.names.get(number).node))
    }

    /// What a node is.
    pub fn kind(&self, node: Node) -> Kind {
        self.nodes.get(node.0).kind
    }

    /// Makes something new, in the place of whatever has the name. The number of links and whether
    /// there are attributes is not asked; a symbolic link has its target, which others have not.
    pub fn make(
        &mut self,
        dir: Node,
        name: &[u8],
        attributes: &Attributes,
        target: &[u8],
    ) -> Result<Node, Full> {
        let mut kept = Kept::of(attributes);
        if attributes.kind == Kind::Symlink {
            kept.own = (self.pool.push(target)?, u32::try_from(target.len()).map_err(|_| Full)?);
        }
        let node = Node(self.nodes.len());
        self.nodes.push(kept);
        self.note_blocks(node, attributes);
        self.link(dir, name, node)?;
        Ok(node)
    }

    /// Gives a name, in the place of whatever has it, to what is there.
    pub fn link(&mut self, dir: Node, name: &[u8], node: Node) -> Result<(), Full> {
        match self.slot(dir, name) {
            Ok(number) => self.names.get_mut(number).node = node.0,
            Err(slot) => {
                let start = self.pool.push(name)?;
                let length = u8::try_from(name.len()).map_err(|_| Full)?;
                self.names.push(Name { parent: dir.0, node: node.0, start, length });
                self.table[slot] = self.names.len();
                if self.names.len() as usize > self.table.len() / 4 * 3 {
                    self.grow();
                }
            }
        }
        self.keep_within_limits()
    }

    /// Gives a directory the attributes that its entry has. That it is opaque stays, and so do its
    /// extended attributes.
    pub fn set(&mut self, dir: Node, attributes: &Attributes) {
        let kept = self.nodes.get_mut(dir.0);
        let is_opaque = kept.is_opaque || attributes.is_opaque;
        *kept = Kept { is_opaque, ..Kept::of(attributes) };
    }

    /// Marks a directory: nothing of the layers below shows in it.
    pub fn set_opaque(&mut self, dir: Node) {
        self.nodes.get_mut(dir.0).is_opaque = true;
    }

    /// Gives a node an extended attribute, in the place of one of the same name.
    pub fn set_xattr(&mut self, node: Node, name: &[u8], value: &[u8]) -> Result<(), Full> {
        self.mapped += name.len() + value.len() + MAP_COST;
        self.xattrs.entry(node.0).or_default().insert(name.into(), value.into());
        self.keep_within_limits()
    }

    /// Notes that the tree was read from disk, which does not say all.
    pub(super) fn mark_walked(&mut self) {
        self.flags |= WALKED;
    }

    fn note_blocks(&mut self, node: Node, attributes: &Attributes) {
        if attributes.kind == Kind::File && attributes.blocks != full_blocks(attributes.size) {
            self.mapped += MAP_COST;
            self.sparse.insert(node.0, attributes.blocks);
        }
    }

    fn keep_within_limits(&self) -> Result<(), Full> {
        let entries = self.nodes.len().max(self.names.len());
        let table = size_of_val(self.table.as_slice());
        // The table grows to twice its size, and is there no more when the index is written.
        let bytes = (self.nodes.len() as usize * size_of::<Kept>())
            .saturating_add(self.names.len() as usize * size_of::<Name>())
            .saturating_add(self.pool.taken())
            .saturating_add(self.mapped)
            .saturating_add(table.max(
                self.nodes.len() as usize * (NODE_COST - size_of::<Kept>())
                    + self.names.len() as usize * (NAME_COST - size_of::<Name>()),
            ));
        (entries <= self.limits.entries && bytes <= self.limits.bytes).then_some(()).ok_or(Full)
    }

    /// The number of a name, or the place in the table where it would be.
    fn slot(&self, dir: Node, name: &[u8]) -> Result<u32, usize> {
        let mask = self.table.len() - 1;
        let mut slot = self.hasher.hash_one((dir.0, name)) as usize & mask;
        loop {
            let Some(number) = self.table[slot].checked_sub(1) else { return Err(slot) };
            let found = self.names.get(number);
            if found.parent == dir.0 && self.text(found) == name {
                return Ok(number);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let mask = self.table.len() * 2 - 1;
        self.table = Vec::new();
        let mut table = vec![0; mask + 1];
        for number in 0..self.names.len() {
            let name = self.names.get(number);
            let mut slot = self.hasher.hash_one((name.parent, self.text(name))) as usize & mask;
            while table[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            table[slot] = number + 1;
        }
        self.table = table;
    }

    fn text(&self, name: &Name) -> &[u8] {
        self.pool.get(name.start, name.length.into())
    }

    /// Writes the index; only what the root leads to is in it.
    pub fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        self.table = Vec::new();
        let mut order: Vec<u32> = (0..self.names.len()).collect();
        let key = |number: &u32| {
            let name = self.names.get(*number);
            (name.parent, self.text(name))
        };
        order.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        Plan::of(&self, order)?.write(out)
    }
}

/// An index about to be written: its numbers, and those of the builder.
struct Plan<'a> {
    builder: &'a Builder,
    /// Names, by directory and then bytewise.
    order: Vec<u32>,
    /// The builder's numbers of the nodes, in the order of the file.
    nodes: Vec<u32>,
    /// The nodes' numbers in the file.
    numbers: Vec<u32>,
    /// The entry that led to a node first.
    places: Vec<u32>,
    /// Of nodes that have more links than one.
    links: HashMap<u32, u32>,
    header: Header,
    /// Bytes of all names together.
    names: u32,
}

impl<'a> Plan<'a> {
    fn of(builder: &'a Builder, order: Vec<u32>) -> io::Result<Self> {
        let count = builder.nodes.len() as usize;
        let mut plan = Plan {
            builder,
            order,
            nodes: Vec::with_capacity(count),
            numbers: vec![NONE; count],
            places: Vec::with_capacity(count),
            links: HashMap::new(),
            header: Header { nodes: 0, entries: 0, bytes: 0, flags: builder.flags },
            names: 0,
        };
        plan.add(0, 0);
        let (mut at, mut names, mut others) = (0, 0_u64, 0_u64);
        while let Some(&node) = plan.nodes.get(at) {
            at += 1;
            if builder.xattrs.contains_key(&node) {
                plan.header.flags |= ANY_XATTRS;
            }
            others += builder.xattrs.get(&node).map_or(0, xattrs_length) as u64;
            let kept = builder.nodes.get(node);
            match kept.kind {
                Kind::Symlink => others += u64::from(kept.own.1),
                Kind::Directory => names += plan.number_children(node),
                _ => (),
            }
        }
        plan.header.nodes = plan.nodes.len() as u32;
        let size = |size: u64| u32::try_from(size).map_err(|_| io::Error::other("too many bytes"));
        plan.header.bytes = size(names + others)?;
        plan.names = size(names)?;
        Ok(plan)
    }

    fn add(&mut self, node: u32, place: u32) {
        self.numbers[node as usize] = self.nodes.len() as u32;
        self.nodes.push(node);
        self.places.push(place);
    }

    /// Gives what a directory has its numbers, and returns how long its names are.
    fn number_children(&mut self, dir: u32) -> u64 {
        let (mut length, mut directories) = (0, 0);
        for at in self.range(dir) {
            let name = self.builder.names.get(self.order[at]);
            length += u64::from(name.length);
            if self.numbers[name.node as usize] == NONE {
                self.add(name.node, self.header.entries);
            } else {
                *self.links.entry(name.node).or_insert(1) += 1;
            }
            if self.builder.kind(Node(name.node)) == Kind::Directory {
                directories += 1;
            }
            self.header.entries += 1;
        }
        self.links.insert(dir, 2 + directories);
        length
    }

    /// Where the names of a directory are.
    fn range(&self, dir: u32) -> std::ops::Range<usize> {
        let parent = |number: &u32| self.builder.names.get(*number).parent;
        let start = self.order.partition_point(|number| parent(number) < dir);
        let rest = &self.order[start..];
        start..start + rest.partition_point(|number| parent(number) == dir)
    }

    fn children(&self, dir: u32) -> impl Iterator<Item = &'a Name> {
        self.range(dir).map(|at| self.builder.names.get(self.order[at]))
    }

    fn directories(&self) -> impl Iterator<Item = u32> {
        let is_directory = |node: &u32| self.builder.kind(Node(*node)) == Kind::Directory;
        self.nodes.iter().copied().filter(is_directory)
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.header.encode())?;
        let (mut entry, mut byte) = (0, self.names);
        for (&node, &place) in self.nodes.iter().zip(&self.places) {
            out.write_all(&self.record(node, place, &mut entry, &mut byte).encode())?;
        }
        let mut start = 0;
        for dir in self.directories() {
            let parent = self.numbers[dir as usize];
            for name in self.children(dir) {
                let piece = Piece { start, length: name.length.into() };
                let node = self.numbers[name.node as usize];
                out.write_all(&Entry { name: piece, parent, node }.encode())?;
                start += piece.length;
            }
        }
        self.write_bytes(out)
    }

    fn record(&self, node: u32, place: u32, entry: &mut u32, byte: &mut u32) -> Record {
        let kept = self.builder.nodes.get(node);
        let xattrs = self.builder.xattrs.get(&node);
        let piece = |next: &mut u32, length: u32| {
            let start = *next;
            *next += length;
            Piece { start: if length == 0 { 0 } else { start }, length }
        };
        let (size, own) = match kept.kind {
            Kind::Directory => (4096, piece(entry, self.range(node).len() as u32)),
            Kind::Symlink => (kept.own.1.into(), piece(byte, kept.own.1)),
            Kind::File => (kept.size(), Piece::default()),
            _ => (0, Piece::default()),
        };
        let is_device = matches!(kept.kind, Kind::CharDevice | Kind::BlockDevice);
        let full = if kept.kind == Kind::Symlink { 0 } else { full_blocks(size) };
        Record {
            attributes: Attributes {
                kind: kept.kind,
                mode: kept.mode.into(),
                uid: kept.uid,
                gid: kept.gid,
                size,
                blocks: self.builder.sparse.get(&node).copied().unwrap_or(full),
                mtime: (kept.seconds, kept.nanoseconds),
                device: if is_device { kept.own } else { (0, 0) },
                links: self.links.get(&node).copied().unwrap_or(1),
                is_opaque: kept.is_opaque,
                has_xattrs: xattrs.is_some(),
            },
            place,
            own,
            xattrs: piece(byte, xattrs.map_or(0, xattrs_length)),
        }
    }

    /// Names in the order of the entries, then targets and attributes in that of the nodes.
    fn write_bytes(&self, out: &mut impl Write) -> io::Result<()> {
        for dir in self.directories() {
            for name in self.children(dir) {
                out.write_all(self.builder.text(name))?;
            }
        }
        for &node in &self.nodes {
            let kept = self.builder.nodes.get(node);
            if kept.kind == Kind::Symlink {
                out.write_all(self.builder.pool.get(kept.own.0, kept.own.1 as usize))?;
            }
            for (name, value) in self.builder.xattrs.get(&node).into_iter().flatten() {
                out.write_all(&(name.len() as u32).to_le_bytes())?;
                out.write_all(&(value.len() as u32).to_le_bytes())?;
                out.write_all(name)?;
                out.write_all(value)?;
            }
        }
        Ok(())
    }
}

fn xattrs_length(xattrs: &Xattrs) -> u32 {
    xattrs.iter().map(|(name, value)| XATTR + name.len() + value.len()).sum::<usize>() as u32
}

/// The blocks of a file without holes.
pub(super) fn full_blocks(size: u64) -> u64 {
    size.div_ceil(4096) * 8
}

impl Kept {
    fn of(attributes: &Attributes) -> Self {
        Kept {
            seconds: attributes.mtime.0,
            own: match attributes.kind {
                Kind::CharDevice | Kind::BlockDevice => attributes.device,
                _ => ((attributes.size >> 32) as u32, attributes.size as u32),
            },
            nanoseconds: attributes.mtime.1,
            uid: attributes.uid,
            gid: attributes.gid,
            mode: (attributes.mode & 0o7777) as u16,
            kind: attributes.kind,
            is_opaque: attributes.is_opaque,
        }
    }

    fn size(&self) -> u64 {
        u64::from(self.own.0) << 32 | u64::from(self.own.1)
    }
}

impl Attributes {
    /// A directory that an entry implies without having one itself.
    pub fn implied() -> Self {
        Attributes {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 4096,
            blocks: 8,
            mtime: (0, 0),
            device: (0, 0),
            links: 2,
            is_opaque: false,
            has_xattrs: false,
        }
    }
}

/// A list that grows without ever being copied, so that it takes what is in it and no more.
#[derive(Debug)]
struct Chunks<T>(Vec<Vec<T>>);

/// Elements of a chunk.
const CHUNK: usize = 4096;

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks(Vec::new())
    }
}

impl<T> Chunks<T> {
    fn len(&self) -> u32 {
        let last = self.0.last().map_or(0, Vec::len);
        (self.0.len().saturating_sub(1) * CHUNK + last) as u32
    }

    fn push(&mut self, element: T) {
        match self.0.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push(element),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(element);
                self.0.push(chunk);
            }
        }
    }

    /// An element that is there.
    fn get(&self, number: u32) -> &T {
        &self.0[number as usize / CHUNK][number as usize % CHUNK]
    }

    fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.0[number as usize / CHUNK][number as usize % CHUNK]
    }
}

/// Bytes that lie where they were put.
#[derive(Debug, Default)]
struct Pool(Vec<Vec<u8>>);

/// Bytes of a chunk. What is put in is shorter: a name, or the target of a link.
const POOL: usize = 64 << 10;

impl Pool {
    fn taken(&self) -> usize {
        self.0.len() * POOL
    }

    fn push(&mut self, bytes: &[u8]) -> Result<u32, Full> {
        let fits = |chunk: &&mut Vec<u8>| chunk.len() + bytes.len() <= POOL;
        if self.0.last_mut().filter(fits).is_none() {
            if bytes.len() > POOL || self.0.len() >= u32::MAX as usize / POOL {
                return Err(Full);
            }
            self.0.push(Vec::with_capacity(POOL));
        }
        let number = self.0.len() - 1;
        let chunk = &mut self.0[number];
        // An empty target at the very end would start in the next chunk; it is read as none.
        let start = chunk.len().min(POOL - 1);
        chunk.extend_from_slice(bytes);
        Ok((number * POOL + start) as u32)
    }

    fn get(&self, start: u32, length: usize) -> &[u8] {
        let (number, start) = (start as usize / POOL, start as usize % POOL);
        &self.0[number][start..start + length]
    }
}
