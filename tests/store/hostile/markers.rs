//! Whiteouts and opaque marks that say nothing or too much, and types that a layer may not have.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Case, refused, unpacked};
use crate::common::*;

const OVERRIDE: &std::ffi::CStr = c"user.containers.override_stat";
const OPAQUE: &std::ffi::CStr = c"user.overlay.opaque";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = whiteouts();
    cases.extend(devices());
    cases.extend(types());
    cases
}

fn is_whiteout(path: &Path) -> bool {
    let stat = fs::symlink_metadata(path).unwrap();
    stat.file_type().is_char_device() && stat.rdev() == 0
}

/// The whiteout `w` is one, and nothing else is there but `f`.
fn whiteout_and_file(tree: &Path) {
    assert!(is_whiteout(&tree.join("w")));
    assert_eq!(fs::read_to_string(tree.join("f")).unwrap(), "after");
    assert_eq!(fs::read_dir(tree).unwrap().count(), 2);
}

fn whiteouts() -> Vec<Case> {
    let nothing = "a whiteout of nothing";
    let file = |path: &str| archive([Entry::file(path, "")]);
    let after = || Entry::file("f", "after");
    vec![
        refused("whiteout of an empty name", nothing, file(".wh.")),
        refused("whiteout of the directory", nothing, file(".wh..")),
        refused("whiteout of the parent", nothing, file(".wh...")),
        refused("whiteout of the parent further down", nothing, file("a/b/.wh...")),
        refused(
            "whiteout of the parent as PAX path",
            nothing,
            archive([Entry::file("x", "").pax("path", "a/.wh...")]),
        ),
        refused("whiteout with a slash", "inside a whiteout", file(".wh.a/b")),
        refused("whiteout upwards by a slash", "goes up", file(".wh.../../x")),
        refused(
            "file in a directory that is a whiteout",
            "inside a whiteout",
            archive([Entry::dir(".wh.a"), Entry::file(".wh.a/etc/passwd", "")]),
        ),
        refused("file below an opaque mark", "inside a whiteout", file(".wh..wh..opq/x")),
        refused(
            "hard link to a whiteout's own name",
            "not in this layer",
            archive([Entry::file(".wh.w", ""), Entry::hard_link("x", ".wh.w")]),
        ),
        unpacked(
            "whiteout with data",
            archive([Entry::file(".wh.w", "data"), after()]),
            whiteout_and_file,
        ),
        unpacked(
            "whiteout as a symbolic link",
            archive([Entry::symlink(".wh.w", "/etc/passwd"), after()]),
            whiteout_and_file,
        ),
        unpacked(
            "whiteout as a device",
            archive([Entry::new(".wh.w", b'3').device(8, 0), after()]),
            whiteout_and_file,
        ),
        unpacked(
            "opaque mark as a link",
            archive([Entry::dir("d"), Entry::symlink("d/.wh..wh..opq", "/etc/passwd")]),
            |tree| {
                assert_eq!(xattr(&tree.join("d"), OPAQUE).as_deref(), Some("y"));
                assert_eq!(fs::read_dir(tree.join("d")).unwrap().count(), 0);
            },
        ),
        unpacked(
            "records of AUFS",
            archive([
                Entry::file(".wh.w", ""),
                Entry::dir(".wh..wh.plnk"),
                Entry::file(".wh..wh.aufs", "x"),
                after(),
            ]),
            whiteout_and_file,
        ),
        unpacked(
            "a whiteout, a directory of that name, a whiteout again",
            archive([
                Entry::file(".wh.w", ""),
                Entry::dir("w"),
                Entry::file("w/f", "x"),
                Entry::file(".wh.w", ""),
            ]),
            |tree| {
                assert_eq!(xattr(&tree.join("w"), OPAQUE).as_deref(), Some("y"));
                assert!(tree.join("w/f").exists());
            },
        ),
    ]
}

/// What an ordinary user cannot make, or what would mean something else, is an empty file.
fn stands_in(kind: &'static str) -> impl Fn(&Path) {
    move |tree| {
        let stat = fs::symlink_metadata(tree.join("x")).unwrap();
        assert!(stat.is_file() && stat.size() == 0);
        assert!(xattr(&tree.join("x"), OVERRIDE).unwrap().ends_with(kind));
    }
}

fn devices() -> Vec<Case> {
    let device = |kind, major, minor| archive([Entry::new("x", kind).device(major, minor)]);
    vec![
        // As a device it would be a whiteout for the kernel.
        unpacked("character device 0:0", device(b'3', 0, 0), stands_in("char-0-0")),
        unpacked("block device 0:0", device(b'4', 0, 0), stands_in("block-0-0")),
        unpacked("the disk", device(b'4', 8, 0), stands_in("block-8-0")),
        unpacked("the memory", device(b'3', 1, 1), stands_in("char-1-1")),
        unpacked("FIFO", archive([Entry::new("x", b'6')]), |tree| {
            assert!(fs::symlink_metadata(tree.join("x")).unwrap().file_type().is_fifo());
        }),
        unpacked(
            "setuid program of root",
            archive([Entry::file("x", "#!/bin/sh").mode(0o6755)]),
            |tree| {
                assert_eq!(fs::symlink_metadata(tree.join("x")).unwrap().mode() & 0o7777, 0o755);
            },
        ),
    ]
}

fn types() -> Vec<Case> {
    let of = |kind: u8| archive([Entry::file("x", "data").kind(kind)]);
    vec![
        refused("type of a socket", "type 's' is not supported", of(b's')),
        refused("GNU dump directory", "type 'D' is not supported", of(b'D')),
        refused("GNU second volume", "type 'M' is not supported", of(b'M')),
        refused("GNU old long name", "type 'N' is not supported", of(b'N')),
        refused("GNU volume label", "type 'V' is not supported", of(b'V')),
        refused("Solaris attributes", "type 'A' is not supported", of(b'A')),
        refused("Solaris extended header", "type 'X' is not supported", of(b'X')),
        refused("type of a control character", "is not supported", of(0x1b)),
        refused("type beyond ASCII", "is not supported", of(0xff)),
    ]
}
