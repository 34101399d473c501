//! The indexes of layers: those that archives at random come to, and broken ones.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use casemate::image::Reference;
use casemate::index::{self, LayerIndex, Node};
use casemate::store::{Store, Wanted, import};

use crate::{Random, Silent, rounds};

/// The index beside a layer's tree, where it has one, is the one that a walk gives.
pub(super) fn assert_indexed(tree: &Path) -> bool {
    let Ok(file) = std::fs::File::open(tree.with_file_name("index")) else { return false };
    let made = LayerIndex::open(&file).unwrap();
    let walked = index_of(index::walk(&std::fs::File::open(tree).unwrap().into()).unwrap());
    assert_eq!(index::differences(&made, &walked), [""; 0]);
    assert_eq!((made.len(), made.names()), (walked.len(), walked.names()));
    true
}

fn index_of(builder: index::Builder) -> LayerIndex {
    let mut file = BufWriter::new(tempfile::tempfile().unwrap());
    builder.write(&mut file).unwrap();
    LayerIndex::open(&file.into_inner().unwrap()).unwrap()
}

/// Legal archives at random, of few names, so that entries replace each other all the time: what the
/// unpacker thinks that it has made is what it has made.
#[test]
fn indexes_of_archives() {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    const NAMES: [&str; 5] = ["a", "b", "c", ".wh.a", ".wh..wh..opq"];
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("archive.tar");
    let store = Store::open(&place.path().join("data")).unwrap();
    let name = Reference::parse("fuzz").unwrap();
    let mut random = Random::new();
    let (mut accepted, mut links) = (0, 0);
    for _ in 0..rounds(400) {
        let mut tar = tar::Builder::new(Vec::new());
        // A link must lead to what is there, or the archive is refused.
        let mut files: Vec<String> = Vec::new();
        for _ in 0..1 + random.below(12) {
            let depth = 1 + random.below(3);
            let mut path = (1..depth).map(|_| NAMES[random.below(3)]).collect::<Vec<_>>();
            path.push(NAMES[[0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4][random.below(11)]]);
            let path = path.join("/");
            let kind = match random.below(12) {
                0..4 => Directory,
                4..7 => Regular,
                7 => Symlink,
                8 => Fifo,
                9 => Char,
                10 => Block,
                _ if files.is_empty() => Regular,
                _ => Link,
            };
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(random.below(0o10000) as u32);
            header.set_uid(random.below(3) as u64);
            header.set_gid(random.below(3) as u64);
            header.set_mtime(random.below(1 << 31) as u64);
            header.set_device_major(random.below(9) as u32).unwrap();
            header.set_device_minor(random.below(9) as u32).unwrap();
            let content = vec![1; if kind == Regular { random.below(9000) } else { 0 }];
            header.set_size(content.len() as u64);
            if random.below(4) == 0 {
                let key = format!("SCHILY.xattr.user.{}", NAMES[random.below(3)]);
                let value = [random.below(256) as u8];
                tar.append_pax_extensions([(key.as_str(), &value[..])]).unwrap();
            }
            match kind {
                Symlink => tar.append_link(&mut header, &path, "../to").unwrap(),
                Link => {
                    let target = &files[random.below(files.len())];
                    tar.append_link(&mut header, &path, target).unwrap();
                    links += 1;
                }
                _ => tar.append_data(&mut header, &path, &content[..]).unwrap(),
            }
            if !path.contains(".wh.") && kind != Directory {
                files.push(path);
            }
        }
        std::fs::write(&archive, tar.into_inner().unwrap()).unwrap();
        if import(&store, &name, &archive).is_ok() {
            accepted += 1;
            let layers = store.image(&name).unwrap().layers;
            assert!(assert_indexed(&store.layer_path(&layers[0])));
            assert_eq!(store.check(&[Wanted::of(&name)], &Silent).unwrap().faults, []);
        }
    }
    assert!(accepted > 50 && links > 50, "{accepted} {links}");
}

/// Reads all that there is to read of an index. Whoever goes down from the root, or up to it, comes
/// to an end.
fn read_all(index: &LayerIndex) -> usize {
    let mut seen = 0;
    let mut left = vec![Node::ROOT];
    while let Some(dir) = left.pop() {
        for position in 0..index.children_len(dir).min(1 << 16) {
            let Some((name, node)) = index.child_at(dir, position) else { continue };
            assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/'));
            let _may_be_out_of_order = index.child(dir, name);
            if index.attributes(node).unwrap().kind == index::Kind::Directory {
                left.push(node);
            }
            seen += 1;
            assert!(seen <= index.names() as usize, "a loop");
        }
    }
    for node in (0..index.len().saturating_add(2).min(1 << 16)).map(Node) {
        let _whatever_it_is = (index.attributes(node), index.target(node));
        assert!(index.path(node).is_none_or(|path| path.len() <= 4095));
        assert!(index.place(node).is_none_or(|(dir, _)| dir < node));
        assert!(index.xattrs(node).all(|(name, _)| name.starts_with(b"user.")));
        for name in [&b"bin"[..], b"", b"..", b"\xff", b"zzz"] {
            let _may_be_there = index.child(node, name);
        }
    }
    seen
}

#[test]
fn indexes_that_are_broken() {
    let mut seed = index::Builder::new(index::Limits { entries: 1000, bytes: 1 << 20 });
    let mut dirs = vec![Node::ROOT];
    let of = |kind| index::Attributes { kind, size: 99, ..index::Attributes::implied() };
    let mut random = Random::new();
    for number in 0..40 {
        let dir = dirs[random.below(dirs.len())];
        let name = format!("name{number}");
        let kind =
            [index::Kind::Directory, index::Kind::File, index::Kind::Symlink][random.below(3)];
        let node = seed.make(dir, name.as_bytes(), &of(kind), b"target").unwrap();
        match kind {
            index::Kind::Directory => dirs.push(node),
            index::Kind::File => seed.set_xattr(node, b"user.x", b"value").unwrap(),
            _ => seed.link(Node::ROOT, format!("link{number}").as_bytes(), node).unwrap(),
        }
    }
    let mut bytes = Vec::new();
    seed.write(&mut bytes).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut open = |bytes: &[u8]| {
        file.set_len(0).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(bytes).unwrap();
        LayerIndex::open(&file)
    };
    let whole = read_all(&open(&bytes).unwrap());
    let begin = Instant::now();
    let (mut opened, mut other) = (0, 0);
    for round in 0..rounds(20_000) {
        let mut broken = bytes.clone();
        match round % 4 {
            0 => broken = random.mutate(&bytes),
            // A number that is another's, or nobody's.
            1 | 2 => {
                for _ in 0..=random.below(4) {
                    let at = 16 + random.below(broken.len() / 4 - 4) * 4;
                    let number = [random.below(50) as u32, u32::MAX, random.next() as u32];
                    broken[at..at + 4].copy_from_slice(&number[random.below(3)].to_le_bytes());
                }
            }
            _ => {
                let start = 32 + random.below(broken.len() - 32);
                broken[start..].iter_mut().for_each(|byte| *byte = random.next() as u8);
            }
        }
        if let Ok(index) = open(&broken) {
            opened += 1;
            other += usize::from(read_all(&index) != whole);
            drop(index::differences(&index, &index));
        }
    }
    assert!(opened > 1000 && other > 100, "{opened} {other}");
    assert!(begin.elapsed() < Duration::from_secs(300) * rounds(1) as u32);
    // Nothing but chance, behind a header that fits.
    for _ in 0..rounds(2000) {
        let (nodes, entries, rest) = (random.below(60), random.below(60), random.below(500));
        let mut all = bytes[..16].to_vec();
        for number in [nodes, entries, rest, 3] {
            all.extend_from_slice(&(number as u32).to_le_bytes());
        }
        for _ in 0..nodes * 64 + entries * 16 + rest {
            all.push(random.next() as u8 & [0xff, 3, 1][random.below(3)]);
        }
        if all.len() > 96 {
            all[32 + 30] = 2;
        }
        if let Ok(index) = open(&all) {
            read_all(&index);
        }
    }
}
