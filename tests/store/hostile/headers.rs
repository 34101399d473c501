//! Headers that lie: sizes that disagree, numbers beyond their fields, records that smuggle others,
//! and archives that end where they should not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Case, refused, unpacked};
use crate::common::*;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = sizes();
    cases.extend(numbers());
    cases.extend(global());
    cases.extend(records());
    cases.extend(long_names());
    cases.extend(cut());
    cases
}

/// The tree has these names and no others.
fn only(names: &'static [&'static str]) -> impl Fn(&Path) {
    move |tree| {
        let found: Vec<_> = describe(tree).into_keys().collect();
        assert_eq!(found, names.iter().map(Path::new).collect::<Vec<_>>());
    }
}

/// CVE-2025-62518: readers that take the other size see other entries.
fn sizes() -> Vec<Case> {
    let inner = archive([Entry::file("smuggled", "x")]);
    let length = inner.len().to_string();
    vec![
        unpacked(
            "PAX says more than the header",
            archive([Entry::file("honest", &inner).size(0).pax("size", &length)]),
            only(&["honest"]),
        ),
        unpacked(
            "PAX says less than the header",
            archive([
                Entry::file("a", "").size(1024).pax("size", "0"),
                Entry::file("b", ""),
                Entry::file("c", ""),
            ]),
            only(&["a", "b", "c"]),
        ),
        refused(
            "the header says more than there is",
            "cut short",
            archive([Entry::file("x", "").size(1 << 30)]),
        ),
        refused(
            "PAX says more than there is",
            "cut short",
            archive([Entry::file("x", "").pax("size", "1073741824")]),
        ),
        refused(
            "PAX size is negative",
            "number in a PAX record",
            archive([Entry::file("x", "").pax("size", "-1")]),
        ),
        refused(
            "PAX size beyond 64 bits",
            "number in a PAX record",
            archive([Entry::file("x", "").pax("size", "99999999999999999999999")]),
        ),
        refused(
            "PAX size of the last of 64 bits",
            "more than 256 GiB",
            archive([Entry::file("x", "").pax("size", u64::MAX.to_string())]),
        ),
        refused(
            "a size of a tebibyte",
            "more than 256 GiB",
            archive([Entry::file("x", "").size(1 << 40)]),
        ),
        refused(
            "two sizes that sum beyond 64 bits",
            "cut short",
            archive([
                Entry::file("a", "").size(1 << 37),
                Entry::file("b", "").pax("size", u64::MAX.to_string()),
            ]),
        ),
    ]
}

/// Numeric fields: octal text or base 256.
fn numbers() -> Vec<Case> {
    let field = |at, bytes: &[u8]| archive([Entry::file("x", "").field(at, bytes)]);
    let (mode, uid, size, mtime) = (100, 108, 124, 136);
    let largest = [&[0x80][..], &[0xff; 11]].concat();
    let mut high = [0; 12];
    (high[0], high[4]) = (0x80, 0x40);
    vec![
        refused("size in base 256 is negative", "size", field(size, &[0xff; 12])),
        refused("size in base 256 beyond 64 bits", "number out of range", field(size, &largest)),
        refused("size in base 256 of 4 EiB", "more than 256 GiB", field(size, &high)),
        refused("size that is not octal", "not octal", field(size, b"00000000008\0")),
        refused("size with a sign", "not octal", field(size, b"-0000000001\0")),
        refused("size of twelve sevens", "cut short", field(size, b"777777777777")),
        refused("owner is negative", "owner", field(uid, &[0xff; 8])),
        refused("owner beyond 32 bits", "owner", field(uid, &[0x80, 0, 0, 1, 0, 0, 0, 0])),
        refused("mode is negative", "mode", field(mode, &[0xff; 8])),
        refused("mode that is not octal", "not octal", field(mode, b"rwxr-xr\0")),
        refused(
            "PAX owner beyond 32 bits",
            "owner in a PAX record",
            archive([Entry::file("x", "").pax("uid", "4294967296")]),
        ),
        refused(
            "device number is negative",
            "device number",
            archive([Entry::new("x", b'3').field(329, &[0xff; 8])]),
        ),
        refused("time in base 256 beyond 64 bits", "number out of range", field(mtime, &largest)),
        refused(
            "PAX time beyond 64 bits",
            "time in a PAX record",
            archive([Entry::file("x", "").pax("mtime", "99999999999999999999")]),
        ),
        refused(
            "PAX time that is none",
            "time in a PAX record",
            archive([Entry::file("x", "").pax("mtime", "1e99")]),
        ),
        // The kernel takes the nearest time that the file system has.
        unpacked(
            "time at the end of 64 bits",
            archive([Entry::file("x", "").pax("mtime", i64::MAX.to_string())]),
            |tree| {
                assert!(fs::symlink_metadata(tree.join("x")).unwrap().mtime() > 1 << 31);
            },
        ),
        unpacked(
            "time at the beginning of 64 bits",
            archive([Entry::dir("x").pax("mtime", "-9223372036854775807.5")]),
            |tree| {
                assert!(fs::symlink_metadata(tree.join("x")).unwrap().mtime() < 0);
            },
        ),
        unpacked(
            "attributes of nobody in particular",
            archive([Entry::file("x", "").owner(u32::MAX, u32::MAX).mode(0o7777)]),
            |tree| {
                let stat = xattr(&tree.join("x"), c"user.containers.override_stat");
                assert_eq!(stat.as_deref(), Some("4294967295:4294967295:7777:file"));
            },
        ),
    ]
}

/// Readers disagree on what global records change.
fn global() -> Vec<Case> {
    let with = |key: &str, value: &str| {
        archive([
            Entry::file("g", record(key, value.as_bytes())).kind(b'g'),
            Entry::file("x", "data"),
        ])
    };
    vec![
        refused("global path", "global PAX", with("path", "../../x")),
        refused("global link path", "global PAX", with("linkpath", "/etc/passwd")),
        refused("global size", "global PAX", with("size", "0")),
        refused("global sparse name", "global PAX", with("GNU.sparse.name", "../x")),
        unpacked("global comment", with("comment", "0123456789abcdef"), only(&["x"])),
    ]
}

fn records() -> Vec<Case> {
    let raw = |records: &[u8]| {
        archive([Entry::file("pax", records).kind(b'x'), Entry::file("honest", "")])
    };
    let smuggling = b"\x01\n27 path=../../../smuggled\n";
    let bad = "PAX record";
    let large = Entry::file("pax", record("comment", &vec![b'x'; 1 << 20])).kind(b'x');
    let twice = [record("path", b"../x"), record("path", b"honest")].concat();
    let taken_back = [record("path", b"../x"), record("path", b"")].concat();
    vec![
        unpacked(
            "a record behind a line break in a value",
            archive([Entry::file("honest", "").pax("SCHILY.xattr.user.x", smuggling)]),
            only(&["honest"]),
        ),
        unpacked(
            "a record behind a line break in a comment",
            archive([Entry::file("honest", "").pax("comment", "\n12 path=../x\n")]),
            only(&["honest"]),
        ),
        unpacked("a path twice", raw(&twice), only(&["honest"])),
        unpacked("a path taken back", raw(&taken_back), only(&["honest"])),
        refused("record of length zero", bad, raw(b"0 a=b\n")),
        refused("record shorter than its length", bad, raw(b"99 a=b\n")),
        refused("record longer than its length", bad, raw(b"6 path=x\n")),
        refused("record length beyond 64 bits", bad, raw(b"99999999999999999999 a=b\n")),
        refused("record length with a sign", bad, raw(b"+6 a=b\n")),
        refused("record without a length", bad, raw(b"path=x\n")),
        refused("record without an equals sign", bad, raw(b"5 ab\n")),
        refused("record without a line break", bad, raw(b"6 a=bc")),
        refused(
            "records of more than a mebibyte",
            "larger than 1 MiB",
            archive([large, Entry::file("x", "")]),
        ),
        refused(
            "records and no entry",
            "cut short",
            archive([Entry::file("pax", record("path", b"x")).kind(b'x')]),
        ),
    ]
}

fn long_names() -> Vec<Case> {
    let long = |name: &[u8]| {
        archive([Entry::file("././@LongLink", name).kind(b'L'), Entry::file("short", "")])
    };
    vec![
        unpacked("long name without an end", long(b"honest"), only(&["honest"])),
        unpacked(
            "long name with more behind its end",
            long(b"honest\0/../../x"),
            only(&["honest"]),
        ),
        refused("long name that is empty", "the name is empty", long(b"\0x")),
        refused("long name of two mebibytes", "larger than 1 MiB", long(&vec![b'x'; 2 << 20])),
        refused(
            "long name beyond 64 bits",
            "larger than 1 MiB",
            archive([Entry::file("././@LongLink", "").kind(b'L').size(1 << 40)]),
        ),
        refused(
            "long name and no entry",
            "cut short",
            archive([Entry::file("././@LongLink", "x").kind(b'L')]),
        ),
        unpacked(
            "PAX wins over a long name",
            archive([
                Entry::file("././@LongLink", "../../x").kind(b'L'),
                Entry::file("short", "").pax("path", "honest"),
            ]),
            only(&["honest"]),
        ),
        unpacked(
            "times where POSIX has a prefix",
            archive([Entry::file("honest", "").field(345, b"../../..")]),
            only(&["honest"]),
        ),
    ]
}

/// Cut in every region, or with a wrong byte in a header.
fn cut() -> Vec<Case> {
    let whole = archive([
        Entry::file("x", "d".repeat(700)).pax("path", "y"),
        Entry::file("././@LongLink", "name/".repeat(120)).kind(b'L'),
        Entry::file("short", ""),
    ]);
    // The first header, the records, their padding, the entry's header, its data, their padding,
    // the next header, the long name, its padding, the last header, the end marker.
    let mut spoiled = whole.clone();
    spoiled[0] ^= 1;
    let mut blank = whole.clone();
    blank[148..156].fill(b' ');
    let mut later = whole.clone();
    later[1024 + 300] ^= 0x80;
    let at = |end: usize| whole[..end].to_vec();
    let short = "cut short";
    vec![
        refused("cut in the first header", short, at(100)),
        refused("cut behind the first header", short, at(512)),
        refused("cut in the records", short, at(515)),
        refused("cut in the padding of the records", short, at(700)),
        refused("cut in an entry's header", short, at(1024 + 156)),
        refused("cut behind an entry's header", short, at(1536)),
        refused("cut in the data", short, at(1536 + 600)),
        refused("cut in the padding of the data", short, at(1536 + 800)),
        refused("cut in a long name", short, at(2560 + 512 + 100)),
        refused("cut in the padding of a long name", short, at(2560 + 512 + 700)),
        refused("cut between two entries", "no end marker", at(2560)),
        refused("cut before the end marker", "no end marker", at(2560 + 512 + 1024 + 512)),
        refused("wrong checksum", "header checksum", spoiled),
        refused("no checksum", "header checksum", blank),
        refused("wrong checksum later", "header checksum", later),
        refused(
            "nothing but noise",
            "header checksum",
            (0..5120_u32).map(|n| ((n * n) >> 3) as u8 | 1).collect(),
        ),
        refused("nothing at all", "empty", Vec::new()),
        unpacked(
            "entries behind the end",
            [archive([Entry::file("honest", "")]), archive([Entry::file("behind", "")])].concat(),
            only(&["honest"]),
        ),
    ]
}
