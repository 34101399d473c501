//! A layer's stream made again, and what verifying finds.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::common::*;
use casemate::image::Digest;
use casemate::store::{Store, Wanted};

fn rebuilt(store: &Store, layer: &Digest) -> Vec<u8> {
    let mut stream = Vec::new();
    store.write_layer(layer, &mut stream).unwrap();
    stream
}

fn faults(home: &Path) -> Vec<String> {
    let store = open(home);
    let faults = store.check(&[Wanted::of(&reference("test"))], &Silent).unwrap().faults;
    faults.into_iter().flat_map(|fault| fault.what).collect()
}

/// Every kind of entry, and names that come twice.
fn odd() -> Vec<u8> {
    let sparse = Entry::file("sparse", "0123456789")
        .pax("GNU.sparse.major", b"0")
        .pax("GNU.sparse.minor", b"1")
        .pax("GNU.sparse.size", b"1000000")
        .pax("GNU.sparse.map", b"4096,4,500000,6");
    let mut archive = archive([
        Entry::dir("./").mode(0o755),
        Entry::file("a", "first a").mode(0o600).owner(3, 4),
        Entry::dir("d"),
        Entry::dir("d/e"),
        Entry::file("d/e/f", "inside"),
        Entry::hard_link("d/g", "a"),
        Entry::file("a", "second a").mode(0o4755),
        // A directory gives way to a file, and that to a directory.
        Entry::file("d", "a file now"),
        Entry::dir("d"),
        Entry::file("d/f", "third").pax("SCHILY.xattr.user.color", b"blue"),
        Entry::file("a", ""),
        Entry::symlink("l", "/nowhere"),
        Entry::hard_link("l2", "l"),
        Entry::new("fifo", b'6'),
        Entry::new("null", b'3').device(1, 3),
        Entry::file("gone/.wh.x", ""),
        Entry::file("opaque/.wh..wh..opq", ""),
        sparse,
        Entry::file(b"\xff\xfe", "odd name").pax("mtime", b"1.25"),
    ]);
    // What comes after the end is part of the digest.
    archive.extend_from_slice(b"padding that no tar asked for");
    archive
}

user_tests! {
    fn a_stream_is_made_again_to_the_byte(home) {
        let stream = odd();
        fs::write(home.join("odd.tar"), &stream).unwrap();
        let (store, image) = import(home, "test", &home.join("odd.tar"));
        assert_eq!(image.layers, [Digest::of(&stream)]);
        assert!(rebuilt(&store, &image.layers[0]) == stream);
        assert_eq!(faults(home), [""; 0]);
        assert_eq!(fs::read_dir(home.join("data/casemate/store/staging")).unwrap().count(), 0);
    }

    fn a_stream_of_real_files_is_made_again(home) {
        let source = home.join("source");
        fs::create_dir(&source).unwrap();
        for name in ["bin", "lib"] {
            fs::create_dir(source.join(name)).unwrap();
        }
        fs::copy("/bin/sh", source.join("bin/sh")).unwrap();
        fs::hard_link(source.join("bin/sh"), source.join("lib/sh")).unwrap();
        for format in ["gnu", "pax", "ustar"] {
            let tar = home.join("source.tar");
            let options = format!("--format={format}");
            let words = ["-C", source.to_str().unwrap(), &options, "-cf", tar.to_str().unwrap(), "."];
            tool("tar", &words, home);
            let stream = fs::read(&tar).unwrap();
            let (store, image) = import(home, "test", &tar);
            assert!(rebuilt(&store, &image.layers[0]) == stream, "{format}");
        }
        assert_eq!(faults(home), [""; 0]);
    }

    fn every_change_is_found(home) {
        fs::write(home.join("odd.tar"), odd()).unwrap();
        let (store, image) = import(home, "test", &home.join("odd.tar"));
        let root = store.layer_path(&image.layers[0]);
        let keep_time = |path: &Path, change: &dyn Fn()| {
            let stat = fs::symlink_metadata(path).unwrap();
            change();
            let file = fs::File::open(path).unwrap();
            casemate::sys::fs::set_mtime_of(&file, stat.mtime(), stat.mtime_nsec()).unwrap();
        };
        let cases: [(&str, &dyn Fn()); 8] = [
            ("have the digest", &|| {
                keep_time(&root.join("d/f"), &|| fs::write(root.join("d/f"), "THIRD").unwrap());
            }),
            ("shorter", &|| {
                keep_time(&root.join("d/f"), &|| fs::write(root.join("d/f"), "th").unwrap());
            }),
            ("No such file", &|| fs::remove_file(root.join("d/f")).unwrap()),
            ("/d/f: has another mode", &|| {
                fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o777)).unwrap();
            }),
            ("/d/f: has another modification time", &|| {
                casemate::sys::fs::set_mtime_of(fs::File::open(root.join("d/f")).unwrap(), 1, 2).unwrap();
            }),
            ("/l: leads elsewhere", &|| {
                let stat = fs::symlink_metadata(root.join("l")).unwrap();
                fs::remove_file(root.join("l")).unwrap();
                fs::remove_file(root.join("l2")).unwrap();
                symlink("/nowherE", root.join("l")).unwrap();
                fs::hard_link(root.join("l"), root.join("l2")).unwrap();
                let dir = fs::File::open(&root).unwrap();
                casemate::sys::fs::set_mtime(&dir, c"l", stat.mtime(), stat.mtime_nsec()).unwrap();
            }),
            ("/d/f: has other extended attributes", &|| {
                let file = fs::File::open(root.join("d/f")).unwrap();
                casemate::sys::fs::set_xattr(&file, c"user.color", b"red").unwrap();
            }),
            ("/d/new: is not in the layer", &|| {
                keep_time(&root.join("d"), &|| fs::write(root.join("d/new"), "").unwrap());
            }),
        ];
        let layer = root.parent().unwrap();
        let saved = home.join("saved");
        tool("cp", &["-a", layer.to_str().unwrap(), saved.to_str().unwrap()], home);
        assert_eq!(faults(home), [""; 0]);
        for (words, change) in cases {
            change();
            let found = faults(home);
            assert!(found.iter().any(|line| line.contains(words)), "{words}: {found:?}");
            fs::remove_dir_all(layer).unwrap();
            tool("cp", &["-a", saved.to_str().unwrap(), layer.to_str().unwrap()], home);
        }
        assert_eq!(faults(home), [""; 0]);
        assert_eq!(fs::read_dir(home.join("data/casemate/store/staging")).unwrap().count(), 0);
    }
}
