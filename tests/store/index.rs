//! The index of a layer: what the unpacker writes, and what is made where there is none.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use casemate::image::Digest;
use casemate::index::{Kind, LayerIndex, Node, differences};
use casemate::store::{Place, Remedy, State, Store};

use crate::common::*;

/// Everything that an archive can have, and much of it replaced by later entries.
fn everything() -> Vec<u8> {
    archive([
        Entry::dir("./").owner(1, 2).mode(0o1777),
        Entry::file("d/implied/first", "first").owner(3, 4).mode(0o4755),
        Entry::dir("d").owner(5, 6).mode(0o2700).pax("mtime", "3.000000007"),
        Entry::symlink("link", "d/implied").owner(7, 8),
        Entry::new("null", b'3').device(1, 3).owner(0, 9).mode(0o666),
        Entry::new("disk", b'4').device(8, 1),
        Entry::new("fifo", b'6').owner(10, 11).mode(0o1640),
        Entry::hard_link("again", "d/implied/first"),
        Entry::hard_link("link2", "link"),
        Entry::hard_link("null2", "null"),
        Entry::file("gone", "x"),
        Entry::dir("gone/"),
        Entry::file("gone/inner", "y"),
        Entry::file("gone", "a file after all"),
        Entry::file("replaced", "one"),
        Entry::hard_link("kept", "replaced"),
        Entry::file("replaced", "two"),
        Entry::new(".wh.hidden", b'0'),
        Entry::new(".wh.kept", b'0'),
        Entry::new("d/.wh..wh..opq", b'0'),
        Entry::new(".wh.covered", b'0'),
        Entry::file("covered/inner", "z"),
        Entry::new(".wh.entered", b'0'),
        Entry::dir("entered"),
        Entry::new(".wh.d", b'0'),
        Entry::new(".wh..wh.aufs", b'0'),
        Entry::file("x", "attributes")
            .pax("SCHILY.xattr.user.b", b"\0\n=")
            .pax("SCHILY.xattr.user.a", b"1")
            .pax("SCHILY.xattr.user.overlay.opaque", b"y")
            .pax("SCHILY.xattr.user.containers.override_stat", b"0:0:0777")
            .pax("SCHILY.xattr.security.capability", b"c"),
        Entry::dir("both").pax("SCHILY.xattr.user.one", b"1"),
        Entry::dir("both").pax("SCHILY.xattr.user.two", b"2"),
        Entry::file("sparse", "twelve bytes")
            .pax("GNU.sparse.major", b"0")
            .pax("GNU.sparse.minor", b"1")
            .pax("GNU.sparse.size", b"1000000")
            .pax("GNU.sparse.map", b"4090,12,500000,0"),
        Entry::file(b"\xff\xfe name".as_slice(), ""),
    ])
}

fn opened(tree: &Path) -> LayerIndex {
    LayerIndex::open(&fs::File::open(tree.with_file_name("index")).unwrap()).unwrap()
}

fn at(index: &LayerIndex, path: &str) -> Node {
    let step = |dir, name: &str| index.child(dir, name.as_bytes());
    path.split('/').try_fold(Node::ROOT, step).unwrap_or_else(|| panic!("no {path}"))
}

fn one_layer(home: &Path, archive: &[u8]) -> (Store, Digest) {
    fs::write(home.join("source.tar"), archive).unwrap();
    let (store, image) = import(home, "test", &home.join("source.tar"));
    (store, image.layers[0])
}

user_tests! {
    fn it_says_what_the_image_says(home) {
        let tree = import_tree(home, &everything());
        let index = opened(&tree);
        let get = |path: &str| index.attributes(at(&index, path)).unwrap();
        let owned = |path: &str| (get(path).kind, get(path).uid, get(path).gid, get(path).mode);
        let root = index.attributes(Node::ROOT).unwrap();
        assert_eq!((root.uid, root.gid, root.mode), (1, 2, 0o1777));
        assert_eq!(owned("d"), (Kind::Directory, 5, 6, 0o2700));
        assert_eq!(get("d").mtime, (3, 7));
        assert_eq!(owned("d/implied"), (Kind::Directory, 0, 0, 0o755));
        assert_eq!(get("d/implied").mtime, (0, 0));
        assert_eq!(owned("d/implied/first"), (Kind::File, 3, 4, 0o4755));
        assert_eq!(owned("link"), (Kind::Symlink, 7, 8, 0o777));
        assert_eq!(index.target(at(&index, "link2")), Some(&b"d/implied"[..]));
        assert_eq!((owned("null"), get("null").device), ((Kind::CharDevice, 0, 9, 0o666), (1, 3)));
        assert_eq!((get("disk").kind, get("disk").device), (Kind::BlockDevice, (8, 1)));
        assert_eq!(owned("fifo"), (Kind::Fifo, 10, 11, 0o1640));
        for (path, same, links) in [("again", "d/implied/first", 2), ("link2", "link", 2), ("null2", "null", 2), ("kept", "kept", 1), ("replaced", "replaced", 1)] {
            assert_eq!(at(&index, path), at(&index, same), "{path}");
            assert_eq!(get(path).links, links, "{path}");
        }
        assert_eq!((get("gone").kind, get("gone").size), (Kind::File, 16));
        assert_eq!(get("hidden").kind, Kind::Whiteout);
        assert!(get("d").is_opaque && get("covered").is_opaque && get("entered").is_opaque);
        assert!(!get("d/implied").is_opaque && !root.is_opaque);
        let own: Vec<_> = index.xattrs(at(&index, "x")).collect();
        assert_eq!(own, [(&b"user.a"[..], &b"1"[..]), (b"user.b", b"\0\n=")]);
        assert_eq!(index.xattrs(at(&index, "both")).count(), 2);
        assert_eq!((get("sparse").size, get("sparse").blocks), (1_000_000, 16));
        assert_eq!(index.child(Node::ROOT, b"\xff\xfe name").map(|node| get_kind(&index, node)), Some(Kind::File));
        assert_whole(home);
    }

    fn a_directory_that_gets_the_users_own_id_later_has_it(home) {
        let tree = import_tree(home, &archive([
            Entry::file("implied/file", ""),
            Entry::dir("implied").owner(USER, USER),
            Entry::dir("twice").owner(1, 2).mode(0o700),
            Entry::dir("twice").owner(USER, USER),
            Entry::dir("./").owner(USER, USER),
        ]));
        let own = format!("{USER}:{USER}:0755:dir");
        for path in ["", "implied", "twice"] {
            let kept = xattr(&tree.join(path), c"user.containers.override_stat");
            assert_eq!(kept.as_ref(), Some(&own), "{path}");
        }
        assert_whole(home);
    }

    fn one_that_is_missing_or_of_no_use_is_made_from_the_tree(home) {
        let (store, layer) = one_layer(home, &everything());
        let tree = store.layer_path(&layer);
        let path = tree.with_file_name("index");
        let first = opened(&tree);
        for damage in [None, Some(&b""[..]), Some(b"casemate-index\0\x02"), Some(&[0; 4096])] {
            fs::remove_file(&path).unwrap();
            if let Some(content) = damage {
                fs::write(&path, content).unwrap();
            }
            let index = LayerIndex::open(&store.layer_index(&layer).unwrap()).unwrap();
            assert!(index.is_walked());
            assert_eq!(differences(&index, &first), [""; 0]);
            // It lies there now, and is taken the next time.
            let inode = fs::metadata(&path).unwrap().ino();
            assert_eq!(store.layer_index(&layer).unwrap().metadata().unwrap().ino(), inode);
            assert_whole(home);
        }
        assert_eq!(fs::read_dir(home.join("data/casemate/store/staging")).unwrap().count(), 0);
        // No link is followed, and nothing waits.
        for bad in ["link", "fifo", "directory"] {
            let _one_of_them = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            match bad {
                "link" => std::os::unix::fs::symlink("info", &path).unwrap(),
                "fifo" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            let index = LayerIndex::open(&store.layer_index(&layer).unwrap()).unwrap();
            assert_eq!(differences(&index, &first), [""; 0], "{bad}");
        }
    }

    fn a_store_that_cannot_be_written_gets_one_without_a_name(home) {
        let (store, layer) = one_layer(home, &everything());
        let path = store.layer_path(&layer).with_file_name("index");
        let first = opened(&store.layer_path(&layer));
        fs::remove_file(&path).unwrap();
        let staging = home.join("data/casemate/store/staging");
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o500)).unwrap();
        let index = LayerIndex::open(&store.layer_index(&layer).unwrap());
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(differences(&index.unwrap(), &first), [""; 0]);
        assert!(!path.exists());
    }

    fn a_wrong_one_is_found_and_made_anew(home) {
        let (store, layer) = one_layer(home, &everything());
        let path = store.layer_path(&layer).with_file_name("index");
        let right = fs::read(&path).unwrap();
        let link = 64 * at(&opened(&store.layer_path(&layer)), "link").0 as usize + 32;
        for (what, change) in [
            ("is too short", &(|_: &mut Vec<u8>| Vec::new()) as &dyn Fn(&mut Vec<u8>) -> Vec<u8>),
            ("is not as long", &|bytes| bytes[..bytes.len() - 1].to_vec()),
            ("is none", &|bytes| [&[1], &bytes[1..]].concat()),
            // The owner of a symbolic link, which no tree on disk has.
            ("another owner", &|bytes| { bytes[link + 32] ^= 1; bytes.clone() }),
            ("its index says of", &|bytes| { let end = bytes.len() - 1; bytes[end] ^= 1; bytes.clone() }),
        ] {
            fs::write(&path, change(&mut right.clone())).unwrap();
            let report = open(home).check(&[], &Silent).unwrap();
            let [fault] = &report.faults[..] else { panic!("{:#?}", report.faults) };
            assert_eq!((&fault.place, fault.remedy), (&Place::Layer(layer), Remedy::Write), "{what}");
            assert!(fault.what[0].contains(what), "{what}: {fault:?}");
            // Nor does a box that has the layer stand in the way.
            let wanted = casemate::store::Wanted::parse("test").unwrap();
            let held = open(home).hold(&wanted).unwrap();
            let store = Store::open(&home.join("data")).unwrap();
            let mut report = store.check(&[], &Silent).unwrap();
            store.repair(&mut report, &|_| ()).unwrap();
            assert_eq!(report.faults[0].state, State::Mended, "{what}");
            drop(held);
            assert!(fs::read(&path).unwrap() == right, "{what}");
            assert_whole(home);
        }
    }

    fn a_layer_with_too_many_names_has_none(home) {
        let many = |count: u32| archive((0..count).map(|n| Entry::file(format!("{}/{n}", n % 300), "")));
        // With the root and the 300 directories, one more than may be.
        for (count, is_there) in [(300_000 - 301, true), (300_000 - 300, false)] {
            let source = home.join("source.tar");
            fs::write(&source, many(count)).unwrap();
            try_import(home, "test", &source).unwrap();
            let store = open(home);
            let layer = store.image(&reference("test")).unwrap().layers[0];
            let tree = store.layer_path(&layer);
            assert_eq!(tree.with_file_name("index").exists(), is_there);
            let index = LayerIndex::open(&store.layer_index(&layer).unwrap()).unwrap();
            assert_eq!((index.len(), index.is_walked()), (count + 301, !is_there));
            assert!(index.child(at(&index, "7"), b"307").is_some());
        }
    }

    fn equal_layers_have_equal_indexes_whatever_the_order(home) {
        let names = ["a", "b/c", "b/a", "z", "b/d/e"];
        let mut seen = BTreeMap::new();
        for turn in 0..names.len() {
            let mut order = names.to_vec();
            order.rotate_left(turn);
            let tree = import_tree(home, &archive(order.iter().map(|name| Entry::file(name, "x"))));
            seen.insert(fs::read(tree.with_file_name("index")).unwrap(), turn);
        }
        assert_eq!(seen.len(), 1);
    }
}

fn get_kind(index: &LayerIndex, node: Node) -> Kind {
    index.attributes(node).unwrap().kind
}
