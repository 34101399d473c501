//! Archives made to write outside, and a tree outside that must not change.

use std::fs;
use std::path::Path;

use crate::common::*;

/// A directory beside the store with a file in it; its description is the proof.
fn outside(home: &Path) -> std::path::PathBuf {
    let outside = home.join("outside");
    if !outside.exists() {
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), "untouched").unwrap();
    }
    outside
}

/// Each archive is refused with an error that has these words, and changes nothing outside.
fn refused(home: &Path, cases: Vec<(&str, Vec<Entry>)>) {
    let outside = outside(home);
    let before = describe(&outside);
    let modes = true_mode(&outside);
    for (words, entries) in cases {
        let source = home.join("source.tar");
        fs::write(&source, archive(entries)).unwrap();
        let error = try_import(home, "test", &source).expect_err(words);
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert_nothing_left(home);
        assert_eq!((describe(&outside), true_mode(&outside)), (before.clone(), modes), "{words}");
    }
}

user_tests! {
    fn names_that_lead_out(home) {
        let absolute = outside(home).join("new");
        refused(home, vec![
            ("entry ../x: the name goes up", vec![Entry::file("../x", "")]),
            ("entry a/../../x: the name goes up", vec![Entry::dir("a"), Entry::file("a/../../x", "")]),
            ("goes up", vec![Entry::dir("..")]),
            ("goes up", vec![Entry::file("/../x", "")]),
            ("goes up", vec![Entry::file("short", "").pax("path", b"../../x")]),
            ("NUL", vec![Entry::file("short", "").pax("path", b"a\0b")]),
            ("longer than 255", vec![Entry::file("x", "").pax("path", &[b'x'; 256])]),
            ("deeper than 512", vec![Entry::file("x", "").pax("path", &b"d/".repeat(600))]),
            ("longer than 4095", vec![Entry::file("x", "").pax("path", &[&[b'x'; 255][..], b"/"].concat().repeat(17))]),
            ("the name is empty", vec![Entry::file("", "")]),
        ]);
        // An absolute name is one inside, as tar has it.
        let name = absolute.as_os_str().as_encoded_bytes().to_vec();
        let tree = import_tree(home, &archive([Entry::file("x", "inside").pax("path", &name)]));
        assert!(!absolute.exists());
        let inside = tree.join(absolute.strip_prefix("/").unwrap());
        assert_eq!(fs::read_to_string(inside).unwrap(), "inside");
    }

    fn links_that_lead_out(home) {
        let outside = outside(home);
        let out = outside.to_str().unwrap();
        let victim = format!("{out}/victim");
        refused(home, vec![
            // GHSA-9rww: a hard link to a file of the host.
            ("hard link to", vec![Entry::hard_link("x", &victim)]),
            ("goes up", vec![Entry::hard_link("x", "../../../outside/victim")]),
            ("not in this layer", vec![Entry::symlink("l", out), Entry::hard_link("x", "l/victim")]),
            // CVE-2018-20990: a link, then a file through it.
            ("its parent l is a symbolic link", vec![Entry::symlink("l", out), Entry::file("l/new", "x")]),
            ("its parent l is a symbolic link", vec![Entry::symlink("l", out), Entry::dir("l/new")]),
            ("its parent l is a symbolic link", vec![Entry::symlink("l", out), Entry::file("l/.wh.victim", "")]),
            ("l is a symbolic link", vec![Entry::symlink("l", out), Entry::file("l/.wh..wh..opq", "")]),
            ("its parent a/l is a symbolic link", vec![Entry::dir("a"), Entry::symlink("a/l", ".."), Entry::file("a/l/x", "")]),
            // A directory that was open becomes a link.
            ("its parent d is a symbolic link", vec![
                Entry::dir("d"), Entry::file("d/a", ""), Entry::symlink("d", out), Entry::file("d/new", "x")]),
            ("its parent f is not a directory", vec![Entry::file("f", ""), Entry::file("f/x", "")]),
            ("not a file", vec![Entry::dir("d"), Entry::hard_link("x", "d")]),
            ("not a file", vec![Entry::hard_link("x", "/")]),
            ("not in this layer", vec![Entry::file(".wh.w", ""), Entry::hard_link("x", "w")]),
            ("lies inside", vec![Entry::file("d/f", ""), Entry::hard_link("d", "d/f")]),
            // CVE-2021-29136: the root as a link.
            ("the root is not a directory", vec![Entry::symlink(".", out)]),
            ("the root is not a directory", vec![Entry::symlink("./", out), Entry::file("victim", "")]),
            ("the root is not a directory", vec![Entry::hard_link("/", "x")]),
        ]);
    }

    fn a_directory_over_a_link_leaves_the_target_alone(home) {
        // CVE-2026-33056: mode and time of the target were changed through the link.
        let outside = outside(home);
        let before = (describe(home.join("outside").as_path()), true_mode(&outside));
        let tree = import_tree(home, &archive([
            Entry::symlink("l", outside.to_str().unwrap()),
            Entry::dir("l").mode(0o777),
            Entry::file("l/victim", "inside"),
            Entry::symlink("f", outside.join("victim").to_str().unwrap()),
            Entry::file("f", "inside"),
            Entry::symlink("s", outside.join("victim").to_str().unwrap()),
            Entry::hard_link("h", "s"),
            Entry::file("h", "inside"),
        ]));
        assert_eq!((describe(&outside), true_mode(&outside)), before);
        assert_eq!(fs::read_to_string(tree.join("l/victim")).unwrap(), "inside");
        assert_eq!(fs::read_to_string(tree.join("f")).unwrap(), "inside");
        assert!(fs::symlink_metadata(tree.join("s")).unwrap().is_symlink());
    }

    fn the_same_archive_does_harm_where_links_are_followed(home) {
        // The control: what links_that_lead_out refuses works on a reader that follows.
        let outside = outside(home);
        let source = home.join("source.tar");
        let entries = [Entry::symlink("l", outside.to_str().unwrap()), Entry::file("l/new", "x")];
        fs::write(&source, archive(entries)).unwrap();
        fs::create_dir(home.join("plain")).unwrap();
        tool("python3", &["-c", "import tarfile; t = tarfile.open('../source.tar'); \
            t.extractall(**({'filter': 'fully_trusted'} if hasattr(tarfile, 'data_filter') else {}))"],
            &home.join("plain"));
        assert!(outside.join("new").exists());
    }

    fn whiteouts_of_nothing(home) {
        refused(home, vec![
            ("a whiteout of nothing", vec![Entry::file(".wh.", "")]),
            ("a whiteout of nothing", vec![Entry::file(".wh..", "")]),
            ("a whiteout of nothing", vec![Entry::file("a/.wh...", "")]),
            ("inside a whiteout", vec![Entry::file(".wh.a/b", "")]),
            ("inside a whiteout", vec![Entry::dir(".wh.a"), Entry::file(".wh.a/etc/passwd", "")]),
        ]);
    }

    fn sizes_that_disagree_and_odd_types(home) {
        // CVE-2025-62518: what the header calls an entry is data where PAX says how long the file is.
        let inner = archive([Entry::file("smuggled", "x")]);
        let inner = String::from_utf8(inner).unwrap();
        let outer = archive([Entry::file("honest", &inner).size(0)
            .pax("size", inner.len().to_string().as_bytes())]);
        let tree = import_tree(home, &outer);
        let names: Vec<_> = describe(&tree).into_keys().collect();
        assert_eq!(names, [Path::new("honest")]);
        let listed = tool("tar", &["-tf", "source.tar"], home);
        assert_eq!(listed, "honest\n");
        fs::remove_dir_all(home.join("data")).unwrap();
        refused(home, vec![
            ("type 'M' is not supported", vec![Entry::new("x", b'M')]),
            ("type 'V' is not supported", vec![Entry::new("x", b'V')]),
            ("global PAX", vec![Entry::file("g", "16 path=../../x\n"), Entry::file("x", "")]
                .into_iter().enumerate().map(|(i, e)| if i == 0 { e.kind(b'g') } else { e }).collect()),
            ("cut short", vec![Entry::file("x", "").size(1 << 37)]),
            ("more than 256 GiB", vec![Entry::file("x", "").size(1 << 40)]),
            ("sparse map", vec![Entry::file("x", "").pax("GNU.sparse.size", b"10").pax("GNU.sparse.map", b"0,99")]),
            ("the link's target is empty", vec![Entry::symlink("x", "")]),
        ]);
    }
}
