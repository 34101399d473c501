//! Names: upwards, absolute, longer and deeper than can be, and with bytes that mean something elsewhere.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Case, UP, refused, sparse, unpacked};
use crate::common::*;

const NUL: &[u8] = b"\0";

/// The content of a file of the tree.
fn has(name: &'static [u8], content: &'static str) -> impl Fn(&Path) {
    move |tree| {
        let path = tree.join(OsStr::from_bytes(name));
        assert_eq!(fs::read_to_string(path).unwrap(), content);
    }
}

pub(super) fn cases(outside: &Path) -> Vec<Case> {
    let mut cases = upwards();
    cases.extend(absolute(outside));
    cases.extend(odd());
    cases.extend(too_long());
    cases
}

fn upwards() -> Vec<Case> {
    let up = |name: &str| format!("{UP}/outside/{name}");
    let long = format!("{}{}", "./".repeat(100), up("long"));
    let prefixed =
        Entry::file("outside/prefix", "x").field(257, b"ustar\x0000").field(345, UP.as_bytes());
    vec![
        refused("file upwards", "the name goes up", archive([Entry::file(up("new"), "x")]))
            .harmful(),
        refused("file over a victim upwards", "goes up", archive([Entry::file(up("victim"), "x")]))
            .harmful(),
        refused("directory upwards", "goes up", archive([Entry::dir(up("new"))])).harmful(),
        refused(
            "mode of a directory upwards",
            "goes up",
            archive([Entry::dir(up("")).mode(0o777)]),
        )
        .harmful(),
        refused("symbolic link upwards", "goes up", archive([Entry::symlink(up("new"), "x")]))
            .harmful(),
        refused("FIFO upwards", "goes up", archive([Entry::new(up("new"), b'6')])).harmful(),
        refused("whiteout upwards", "goes up", archive([Entry::file(up(".wh.victim"), "")]))
            .harmful(),
        refused("opaque mark upwards", "goes up", archive([Entry::file(up(".wh..wh..opq"), "")]))
            .harmful(),
        refused(
            "down and up",
            "the name goes up",
            archive([Entry::dir("a"), Entry::file(format!("a/../{}", up("new")), "x")]),
        )
        .harmful(),
        refused(
            "up and inside again",
            "goes up",
            archive([Entry::dir("a"), Entry::file("a/../b", "")]),
        ),
        refused(
            "up as PAX path",
            "goes up",
            archive([Entry::file("short", "x").pax("path", up("pax"))]),
        )
        .harmful(),
        refused(
            "up as GNU long name",
            "goes up",
            archive([
                Entry::file("././@LongLink", [long.as_bytes(), NUL].concat()).kind(b'L'),
                Entry::file("short", "x"),
            ]),
        )
        .harmful(),
        refused("up as ustar prefix", "goes up", archive([prefixed])).harmful(),
        refused(
            "up as GNU sparse name",
            "goes up",
            archive([
                sparse::newest("short", "1\n0\n1\n", 1, b"x").pax("GNU.sparse.name", up("new"))
            ]),
        )
        .harmful(),
        refused("the parent itself", "goes up", archive([Entry::dir("..").mode(0o777)])),
        refused("absolute and up", "goes up", archive([Entry::file("/../x", "")])),
        refused(
            "control characters in a name that is refused",
            "goes up",
            archive([Entry::file("\x1b[2J\x07/../x", "")]),
        ),
    ]
}

fn absolute(outside: &Path) -> Vec<Case> {
    let inside = outside.join("new");
    let inside = inside.strip_prefix("/").unwrap().to_owned();
    let bytes = outside.join("new").into_os_string().into_encoded_bytes();
    let shown = move |tree: &Path| {
        assert_eq!(fs::read_to_string(tree.join(&inside)).unwrap(), "inside");
    };
    let slashes = [&b"///"[..], &bytes].concat();
    vec![
        // As tar has it, an absolute name is one inside.
        unpacked(
            "absolute",
            archive([Entry::file("x", "inside").pax("path", &bytes)]),
            shown.clone(),
        )
        .harmful(),
        unpacked(
            "absolute behind many slashes",
            archive([Entry::file("x", "inside").pax("path", slashes)]),
            shown,
        )
        .harmful(),
    ]
}

fn odd() -> Vec<Case> {
    let root = "the root is not a directory";
    vec![
        refused("empty name", "the name is empty", archive([Entry::file("", "")])),
        refused("empty name of a link", "the name is empty", archive([Entry::symlink("", "x")])),
        refused("the root as a file", root, archive([Entry::file(".", "")])),
        refused("the root as a file by slashes", root, archive([Entry::new("///", b'6')])),
        refused("NUL in a PAX path", "NUL", archive([Entry::file("x", "").pax("path", b"a\0b")])),
        unpacked("line break in a name", archive([Entry::file("a\nb", "x")]), has(b"a\nb", "x")),
        unpacked(
            "bytes that are no UTF-8",
            archive([Entry::file(b"\xff\xfe", "x")]),
            has(b"\xff\xfe", "x"),
        ),
        unpacked("backslashes", archive([Entry::file("..\\..\\x", "x")]), has(b"..\\..\\x", "x")),
        unpacked("three dots", archive([Entry::file(".../x", "x")]), has(b".../x", "x")),
        unpacked("a slash makes a directory", archive([Entry::file("x/", "")]), |tree| {
            assert!(tree.join("x").is_dir());
        }),
    ]
}

fn too_long() -> Vec<Case> {
    let file = |path: Vec<u8>| archive([Entry::file("x", "").pax("path", path)]);
    let components = |count| [&[b'x'; 255][..], b"/"].concat().repeat(count);
    vec![
        unpacked("a name of 255 bytes", file(vec![b'x'; 255]), |tree| {
            assert!(tree.join("x".repeat(255)).is_file());
        }),
        refused("a name of 256 bytes", "longer than 255", file(vec![b'x'; 256])),
        refused(
            "a path of 4096 bytes",
            "longer than 4095",
            file([components(15), vec![b'x'; 255], vec![b'/'], vec![b'y'; 1]].concat()),
        ),
        refused("a path of a mebibyte", "deeper than 512", file(components(4000))),
        unpacked("500 levels", archive([Entry::dir("x").pax("path", b"d/".repeat(500))]), |tree| {
            assert!(tree.join("d/".repeat(500)).is_dir());
        }),
        refused(
            "5,000 levels",
            "deeper than 512",
            archive([Entry::dir("x").pax("path", b"d/".repeat(5000))]),
        ),
        refused(
            "5,000 levels, one by one",
            "deeper than 512",
            archive(
                (1..5000).map(|depth| Entry::dir("x").pax("path", b"d/".repeat(depth))).take(600),
            ),
        ),
    ]
}
