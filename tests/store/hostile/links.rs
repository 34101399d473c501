//! Links: to what lies outside, to what they may not name, and other entries that go through them.

use std::fs;
use std::path::Path;

use super::{Case, UP, refused, unpacked};
use crate::common::*;

pub(super) fn cases(outside: &Path) -> Vec<Case> {
    let mut cases = hard_links_out(outside);
    cases.extend(through_a_link(outside));
    cases.extend(chains(outside));
    cases.extend(swapped(outside));
    cases.extend(bad_targets());
    cases.extend(the_root_as_a_link(outside));
    cases.extend(legal(outside));
    cases
}

/// GHSA-9rww and its kin: a hard link shares the file itself, so that the next entry writes to it.
fn hard_links_out(outside: &Path) -> Vec<Case> {
    let out = outside.to_str().unwrap();
    let victim = format!("{out}/victim");
    let up = format!("{UP}/outside/victim");
    let missing = "not in this layer";
    let long = [b"./".repeat(60).as_slice(), up.as_bytes(), b"\0"].concat();
    vec![
        refused(
            "hard link to an absolute name",
            missing,
            archive([Entry::hard_link("x", &victim)]),
        )
        .harmful(),
        refused("hard link upwards", "goes up", archive([Entry::hard_link("x", &up)])).harmful(),
        refused(
            "hard link out, then its content",
            missing,
            archive([Entry::hard_link("x", &victim), Entry::file("x", "overwritten")]),
        )
        .harmful(),
        refused(
            "hard link upwards as PAX link path",
            "goes up",
            archive([Entry::hard_link("x", "y").pax("linkpath", &up)]),
        )
        .harmful(),
        refused(
            "hard link upwards as GNU long link",
            "goes up",
            archive([Entry::file("././@LongLink", long).kind(b'K'), Entry::hard_link("x", "y")]),
        )
        .harmful(),
        refused(
            "hard link through a symbolic one",
            missing,
            archive([Entry::symlink("l", out), Entry::hard_link("x", "l/victim")]),
        )
        .harmful(),
        refused(
            "hard link through two symbolic ones",
            missing,
            archive([
                Entry::symlink("k", "l"),
                Entry::symlink("l", out),
                Entry::hard_link("x", "k/victim"),
            ]),
        )
        .harmful(),
        refused(
            "hard link to a file of the process",
            missing,
            archive([Entry::hard_link("x", "/proc/self/environ")]),
        ),
    ]
}

/// CVE-2018-20990: a symbolic link, then any kind of entry through it.
fn through_a_link(outside: &Path) -> Vec<Case> {
    let out = outside.to_str().unwrap();
    let link = || Entry::symlink("l", out);
    let parent = "its parent l is a symbolic link";
    vec![
        refused("file through a link", parent, archive([link(), Entry::file("l/new", "x")]))
            .harmful(),
        refused(
            "file through a link upwards",
            parent,
            archive([Entry::symlink("l", format!("{UP}/outside")), Entry::file("l/new", "x")]),
        )
        .harmful(),
        refused(
            "file through a link of a PAX path",
            "is a symbolic link",
            archive([
                Entry::symlink("x", "y").pax("path", "long").pax("linkpath", out),
                Entry::file("long/new", "x"),
            ]),
        )
        .harmful(),
        refused("directory through a link", parent, archive([link(), Entry::dir("l/new")]))
            .harmful(),
        refused(
            "symbolic link through a link",
            parent,
            archive([link(), Entry::symlink("l/new", "x")]),
        )
        .harmful(),
        refused(
            "hard link through a link",
            parent,
            archive([Entry::file("f", "x"), link(), Entry::hard_link("l/new", "f")]),
        )
        .harmful(),
        refused("FIFO through a link", parent, archive([link(), Entry::new("l/new", b'6')]))
            .harmful(),
        refused(
            "device through a link",
            parent,
            archive([link(), Entry::new("l/new", b'3').device(1, 3)]),
        ),
        refused(
            "whiteout through a link",
            parent,
            archive([link(), Entry::file("l/.wh.victim", "")]),
        )
        .harmful(),
        refused(
            "opaque mark through a link",
            "l is a symbolic link",
            archive([link(), Entry::file("l/.wh..wh..opq", "")]),
        )
        .harmful(),
        refused(
            "missing directories through a link",
            "is a symbolic link",
            archive([link(), Entry::file("l/a/b/c", "x")]),
        )
        .harmful(),
        refused(
            "file through a link with dots and slashes",
            parent,
            archive([link(), Entry::file(".//l/.//new", "x")]),
        )
        .harmful(),
        refused(
            "file through a link that is not a directory",
            "its parent f is not a directory",
            archive([Entry::file("f", ""), Entry::file("f/x", "")]),
        ),
        refused(
            "file through a FIFO",
            "its parent f is not a directory",
            archive([Entry::new("f", b'6'), Entry::file("f/x", "")]),
        ),
    ]
}

fn chains(outside: &Path) -> Vec<Case> {
    let out = outside.to_str().unwrap();
    // Each link climbs one level, and the next stands behind it: the way up is in no single name.
    let mut climb = vec![Entry::dir("a"), Entry::symlink("a/l0", "..")];
    climb.extend((1..8).map(|n| Entry::symlink(format!("a/l{n}"), format!("l{}/..", n - 1))));
    climb.push(Entry::file("a/l7/outside/new", "x"));
    let mut long = vec![Entry::symlink("l0", out)];
    long.extend((1..30).map(|n| Entry::symlink(format!("l{n}"), format!("l{}", n - 1))));
    long.push(Entry::file("l29/new", "x"));
    vec![
        refused(
            "chain of two links",
            "its parent a is a symbolic link",
            archive([
                Entry::symlink("a", "b"),
                Entry::symlink("b", out),
                Entry::file("a/new", "x"),
            ]),
        )
        .harmful(),
        refused("chain of thirty links", "its parent l29 is a symbolic link", archive(long))
            .harmful(),
        refused(
            "links that climb one by one",
            "its parent a/l7 is a symbolic link",
            archive(climb),
        )
        .harmful(),
        refused(
            "link to the root of the machine",
            "its parent l is a symbolic link",
            archive([Entry::symlink("l", "/"), Entry::file(format!("l{out}/new"), "x")]),
        )
        .harmful(),
        refused(
            "link to the process's root",
            "its parent l is a symbolic link",
            archive([
                Entry::symlink("l", "/proc/self/root"),
                Entry::file(format!("l{out}/new"), "x"),
            ]),
        )
        .harmful(),
        refused(
            "link to the process's directory",
            "its parent l is a symbolic link",
            archive([Entry::symlink("l", "/proc/self/cwd"), Entry::file("l/outside/new", "x")]),
        ),
        refused(
            "link to itself",
            "its parent l is a symbolic link",
            archive([Entry::symlink("l", "l"), Entry::file("l/x", "x")]),
        ),
        refused(
            "two links to each other",
            "its parent a is a symbolic link",
            archive([Entry::symlink("a", "b"), Entry::symlink("b", "a"), Entry::file("a/x", "x")]),
        ),
        refused(
            "link into its own tree",
            "its parent d/l is a symbolic link",
            archive([Entry::dir("d"), Entry::symlink("d/l", "."), Entry::file("d/l/x", "x")]),
        ),
    ]
}

/// A directory that entries were put into, and that the unpacker may hold open, becomes a link.
fn swapped(outside: &Path) -> Vec<Case> {
    let out = outside.to_str().unwrap();
    vec![
        refused(
            "empty directory becomes a link",
            "its parent d is a symbolic link",
            archive([Entry::dir("d"), Entry::symlink("d", out), Entry::file("d/new", "x")]),
        )
        .harmful(),
        refused(
            "open directory becomes a link",
            "its parent d is a symbolic link",
            archive([
                Entry::dir("d"),
                Entry::file("d/a", ""),
                Entry::symlink("d", out),
                Entry::file("d/new", "x"),
            ]),
        ),
        refused(
            "open directory's parent becomes a link",
            "its parent a is a symbolic link",
            archive([
                Entry::dir("a"),
                Entry::dir("a/directory"),
                Entry::file("a/directory/x", ""),
                Entry::symlink("a", out),
                Entry::file("a/directory/new", "x"),
            ]),
        ),
        refused(
            "directory becomes a hard link to a link",
            "its parent d is a symbolic link",
            archive([
                Entry::symlink("s", out),
                Entry::dir("d"),
                Entry::hard_link("d", "s"),
                Entry::file("d/new", "x"),
            ]),
        )
        .harmful(),
        refused(
            "link, directory, link",
            "its parent d is a symbolic link",
            archive([
                Entry::symlink("d", "e"),
                Entry::dir("d"),
                Entry::file("d/a", ""),
                Entry::symlink("d", out),
                Entry::file("d/new", "x"),
            ]),
        ),
        refused(
            "directory becomes a file",
            "its parent d is not a directory",
            archive([
                Entry::dir("d"),
                Entry::file("d/a", ""),
                Entry::file("d", ""),
                Entry::file("d/b", ""),
            ]),
        ),
    ]
}

fn bad_targets() -> Vec<Case> {
    let missing = "not in this layer";
    let link = |target: &str| Entry::hard_link("x", target);
    vec![
        refused("hard link to a directory", "not a file", archive([Entry::dir("d"), link("d")])),
        refused("hard link to the root", "not a file", archive([link("/")])),
        refused("hard link to the root by a dot", "not a file", archive([link("./.")])),
        refused("hard link to nothing", "the name is empty", archive([link("")])),
        refused("hard link to itself", "is the entry itself", archive([link("x")])),
        refused(
            "hard link to what comes later",
            missing,
            archive([link("y"), Entry::file("y", "")]),
        ),
        refused("hard link to a whiteout", missing, archive([Entry::file(".wh.w", ""), link("w")])),
        refused(
            "hard link to what it replaces",
            "lies inside",
            archive([Entry::file("d/f", ""), Entry::hard_link("d", "d/f")]),
        ),
        refused("hard link with a NUL", "NUL", archive([link("y").pax("linkpath", b"a\0b")])),
        refused(
            "hard link with data",
            "hard link with data",
            archive([Entry::file("y", "y"), link("y").pax("size", "512")]),
        ),
        refused(
            "symbolic link to nothing",
            "the link's target is empty",
            archive([Entry::symlink("x", "")]),
        ),
        refused(
            "symbolic link with a NUL",
            "NUL",
            archive([Entry::symlink("x", "y").pax("linkpath", b"a\0b")]),
        ),
        refused(
            "symbolic link longer than a path",
            "File name too long",
            archive([Entry::symlink("x", "y").pax("linkpath", vec![b'y'; 5000])]),
        ),
    ]
}

/// CVE-2021-29136: the root itself as a link.
fn the_root_as_a_link(outside: &Path) -> Vec<Case> {
    let out = outside.to_str().unwrap();
    let root = "the root is not a directory";
    vec![
        refused("the root as a symbolic link", root, archive([Entry::symlink(".", out)])),
        refused(
            "the root as a symbolic link, then a file",
            root,
            archive([Entry::symlink("./", out), Entry::file("victim", "x")]),
        ),
        refused(
            "the root as a symbolic link by dots",
            root,
            archive([Entry::symlink("./.", out), Entry::file("./victim", "x")]),
        ),
        refused(
            "the root as a hard link",
            root,
            archive([Entry::file("x", ""), Entry::hard_link("/", "x")]),
        ),
        refused(
            "no name as a symbolic link",
            "the name is empty",
            archive([Entry::symlink("", out), Entry::file("victim", "x")]),
        ),
    ]
}

/// What replaces a link, or shares it, is right and leaves the target alone.
fn legal(outside: &Path) -> Vec<Case> {
    let out = outside.to_str().unwrap();
    let victim = format!("{out}/victim");
    let inside = |name: &'static str| {
        move |tree: &Path| {
            assert!(tree.join("f").symlink_metadata().is_ok());
            assert_eq!(fs::read_to_string(tree.join(name)).unwrap(), "inside");
        }
    };
    vec![
        // CVE-2026-33056: mode and time of the target were changed through the link.
        unpacked(
            "directory over a link",
            archive([
                Entry::symlink("f", out),
                Entry::dir("f").mode(0o777),
                Entry::file("f/victim", "inside"),
            ]),
            inside("f/victim"),
        )
        .harmful(),
        unpacked(
            "file over a link",
            archive([Entry::symlink("f", &victim), Entry::file("f", "inside")]),
            inside("f"),
        )
        .harmful(),
        unpacked(
            "file over a hard link to a link",
            archive([
                Entry::symlink("f", &victim),
                Entry::hard_link("h", "f"),
                Entry::file("h", "inside"),
            ]),
            inside("h"),
        )
        .harmful(),
        unpacked(
            "FIFO over a link, then a file",
            archive([
                Entry::symlink("f", &victim),
                Entry::new("f", b'6'),
                Entry::file("f", "inside"),
            ]),
            inside("f"),
        ),
        unpacked(
            "hard link to a link",
            archive([Entry::symlink("s", &victim), Entry::hard_link("h", "s")]),
            |tree| assert!(tree.join("h").is_symlink()),
        ),
        unpacked(
            "hard link to an absolute name that is inside",
            archive([Entry::file("f", "inside"), Entry::hard_link("h", "/f")]),
            inside("h"),
        ),
    ]
}
