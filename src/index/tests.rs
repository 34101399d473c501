use std::io::Write;

use super::*;

const LIMITS: Limits = Limits { entries: 300_000, bytes: 24 << 20 };

fn file(size: u64) -> Attributes {
    Attributes { kind: Kind::File, mode: 0o4755, uid: 7, gid: 8, size, ..Attributes::implied() }
}

fn of(kind: Kind) -> Attributes {
    Attributes { kind, ..file(0) }
}

fn bytes(builder: Builder) -> Vec<u8> {
    let mut bytes = Vec::new();
    builder.write(&mut bytes).unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Result<LayerIndex> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    LayerIndex::open(&file)
}

/// A tree with everything, made in an order that no archive has.
fn everything() -> Vec<u8> {
    let mut tree = Builder::new(LIMITS);
    let usr = tree.make(Node::ROOT, b"usr", &Attributes::implied(), b"").unwrap();
    let bin = tree.make(usr, b"bin", &Attributes::implied(), b"").unwrap();
    let sparse = Attributes { blocks: 16, ..file(1 << 33) };
    let big = tree.make(bin, b"big", &sparse, b"").unwrap();
    tree.make(bin, b"a", &of(Kind::Directory), b"").unwrap();
    let full = Attributes { blocks: full(5000), ..file(5000) };
    tree.make(bin, b"a", &full, b"").unwrap();
    tree.link(usr, b"\xff\xfe", big).unwrap();
    tree.make(Node::ROOT, b"lib", &of(Kind::Symlink), b"usr/lib").unwrap();
    tree.make(Node::ROOT, b"gone", &of(Kind::Whiteout), b"").unwrap();
    let null = Attributes { device: (1, 3), ..of(Kind::CharDevice) };
    tree.make(usr, b"null", &null, b"").unwrap();
    tree.set_opaque(usr);
    tree.set(usr, &Attributes { uid: 3, mtime: (-5, 999), ..of(Kind::Directory) });
    tree.set_xattr(big, b"user.b", b"2").unwrap();
    tree.set_xattr(big, b"user.a", b"").unwrap();
    tree.set_xattr(big, b"user.b", b"two").unwrap();
    bytes(tree)
}

fn full(size: u64) -> u64 {
    builder::full_blocks(size)
}

fn at(index: &LayerIndex, path: &str) -> Option<Node> {
    path.split('/').try_fold(Node::ROOT, |dir, name| index.child(dir, name.as_bytes()))
}

#[test]
fn what_was_put_in_is_read() {
    let index = open(&everything()).unwrap();
    assert_eq!((index.len(), index.names()), (8, 8));
    let root = index.attributes(Node::ROOT).unwrap();
    assert_eq!(root, Attributes { links: 3, ..Attributes::implied() });
    let names: Vec<_> = (0..).map_while(|n| index.child_at(Node::ROOT, n)).collect();
    assert_eq!(
        names.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        [&b"gone"[..], b"lib", b"usr"]
    );
    assert_eq!(index.children_len(Node::ROOT), 3);

    let usr = index.attributes(at(&index, "usr").unwrap()).unwrap();
    assert_eq!((usr.uid, usr.gid, usr.mode, usr.mtime), (3, 8, 0o4755, (-5, 999)));
    assert!(usr.is_opaque && usr.links == 3);

    let big = at(&index, "usr/bin/big").unwrap();
    assert_eq!(index.child(at(&index, "usr").unwrap(), b"\xff\xfe"), Some(big));
    let attributes = index.attributes(big).unwrap();
    assert_eq!((attributes.size, attributes.blocks, attributes.links), (1 << 33, 16, 2));
    assert!(attributes.has_xattrs && index.any_xattrs());
    let xattrs: Vec<_> = index.xattrs(big).collect();
    assert_eq!(xattrs, [(&b"user.a"[..], &b""[..]), (b"user.b", b"two")]);
    assert_eq!(index.path(big).unwrap(), b"usr/\xff\xfe");

    let a = at(&index, "usr/bin/a").unwrap();
    assert_eq!(index.attributes(a), Some(Attributes { links: 1, blocks: 16, ..file(5000) }));
    assert_eq!(index.place(a), Some((at(&index, "usr/bin").unwrap(), &b"a"[..])));
    assert_eq!(index.xattrs(a).count(), 0);

    let lib = at(&index, "lib").unwrap();
    assert_eq!(index.target(lib), Some(&b"usr/lib"[..]));
    assert_eq!(index.target(a), None);
    let null = index.attributes(at(&index, "usr/null").unwrap()).unwrap();
    assert_eq!((null.kind, null.device, null.size), (Kind::CharDevice, (1, 3), 0));
    let gone = index.attributes(at(&index, "gone").unwrap()).unwrap();
    assert_eq!(gone.kind, Kind::Whiteout);

    for absent in ["usr/lib", "nothing", "usr/bin/a/b", "gone/x"] {
        assert_eq!(at(&index, absent), None, "{absent}");
    }
    assert_eq!(index.attributes(Node(8)), None);
    assert_eq!((index.place(Node::ROOT), index.path(Node::ROOT)), (None, Some(Vec::new())));
}
