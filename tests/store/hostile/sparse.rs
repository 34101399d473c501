//! Sparse maps that lie, in each of the four forms.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Case, refused, unpacked};
use crate::common::*;

const WORDS: &str = "sparse map";
/// Where a number of 64 bits ends.
const FAR: u64 = 1 << 63;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = lies();
    cases.extend(old_gnu());
    cases.extend(newest_form());
    cases.extend(legal());
    cases
}

/// PAX form 1.0: the map is text before the data.
pub(super) fn newest(path: &str, map: &str, size: u64, data: &[u8]) -> Entry {
    let mut content = map.as_bytes().to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content.extend_from_slice(data);
    Entry::file(path, content)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", path)
        .pax("GNU.sparse.realsize", size.to_string())
}

/// The map in the form 1.0.
fn lines(map: &[(u64, u64)]) -> String {
    let numbers = map.iter().map(|(offset, length)| format!("{offset}\n{length}\n"));
    format!("{}\n{}", map.len(), numbers.collect::<String>())
}

/// PAX form 0.1: one record with the map.
fn one_record(map: &[(u64, u64)], size: u64, data: &[u8]) -> Entry {
    let numbers: Vec<_> = map.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
    Entry::file("x", data)
        .pax("GNU.sparse.size", size.to_string())
        .pax("GNU.sparse.numblocks", map.len().to_string())
        .pax("GNU.sparse.map", numbers.join(","))
}

/// PAX form 0.0: two records for each extent.
fn two_records(map: &[(u64, u64)], size: u64, data: &[u8]) -> Entry {
    let entry = Entry::file("x", data).pax("GNU.sparse.size", size.to_string());
    map.iter().fold(entry, |entry, (offset, length)| {
        entry
            .pax("GNU.sparse.offset", offset.to_string())
            .pax("GNU.sparse.numbytes", length.to_string())
    })
}

/// A number of twelve bytes, in base 256.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&value.to_be_bytes());
    field
}

/// GNU's type `S`: up to four extents in the header.
fn in_header(map: &[(u64, u64)], size: u64, data: &[u8]) -> Entry {
    let entry = Entry::file("x", data).kind(b'S').field(483, &number(size));
    map.iter().enumerate().fold(entry, |entry, (index, (offset, length))| {
        entry.field(386 + 24 * index, &number(*offset)).field(398 + 24 * index, &number(*length))
    })
}

/// The same lie in every form.
fn lies() -> Vec<Case> {
    type Lie = ([&'static str; 4], &'static [(u64, u64)], u64);
    let lies: [Lie; 5] = [
        (["0.0: overlap", "0.1: overlap", "1.0: overlap", "GNU: overlap"], &[(0, 4), (2, 4)], 8),
        (
            ["0.0: backwards", "0.1: backwards", "1.0: backwards", "GNU: backwards"],
            &[(4, 4), (0, 4)],
            8,
        ),
        (
            [
                "0.0: beyond the size",
                "0.1: beyond the size",
                "1.0: beyond the size",
                "GNU: beyond the size",
            ],
            &[(0, 4), (96, 4)],
            99,
        ),
        (
            [
                "0.0: less than the data",
                "0.1: less than the data",
                "1.0: less than the data",
                "GNU: less than the data",
            ],
            &[(0, 4)],
            8,
        ),
        (
            [
                "0.0: beyond 64 bits",
                "0.1: beyond 64 bits",
                "1.0: beyond 64 bits",
                "GNU: beyond 64 bits",
            ],
            &[(0, 4), (u64::MAX, 4)],
            u64::MAX,
        ),
    ];
    let data = b"sparsely";
    lies.iter()
        .flat_map(|(names, map, size)| {
            [
                refused(names[0], WORDS, archive([two_records(map, *size, data)])),
                refused(names[1], WORDS, archive([one_record(map, *size, data)])),
                refused(names[2], WORDS, archive([newest("x", &lines(map), *size, data)])),
                refused(
                    names[3],
                    "not a valid tar archive",
                    archive([in_header(map, *size, data)]),
                ),
            ]
        })
        .collect()
}

fn old_gnu() -> Vec<Case> {
    let first = || in_header(&[(0, 1)], 1, b"x");
    vec![
        refused("GNU: negative offset", WORDS, archive([first().field(386, &[0xff; 12])])),
        refused(
            "GNU: offset that is not octal",
            "not octal",
            archive([first().field(386, b"99999999999\0")]),
        ),
        refused("GNU: a map that goes on and does not", "cut short", {
            let mut cut = archive([first().field(482, &[1])]);
            cut.truncate(512);
            cut
        }),
        refused("GNU: a map that goes on for ever", WORDS, {
            // Each block holds 21 extents and says that one more follows.
            let mut map = vec![b'0'; 504];
            map.extend([1; 8]);
            let mut whole = archive([first().field(482, &[1])]);
            whole.truncate(512);
            whole.extend(map.repeat(51_000));
            super::bombs::gzip(&whole)
        }),
    ]
}

fn newest_form() -> Vec<Case> {
    let with = |map: &str, size: u64| archive([newest("x", map, size, b"x")]);
    let record = |key: &str, value: &str| archive([Entry::file("x", "x").pax(key, value)]);
    vec![
        refused("1.0: more extents than can be", WORDS, with("99999999999\n0\n1\n", 1)),
        refused("1.0: count beyond 64 bits", WORDS, with("99999999999999999999\n0\n1\n", 1)),
        refused("1.0: a number without an end", WORDS, with(&"1".repeat(600), 1)),
        refused("1.0: a number that is none", WORDS, with("1\n0x0\n1\n", 1)),
        refused("1.0: a negative number", WORDS, with("1\n-1\n1\n", 1)),
        refused(
            "1.0: more map than data",
            WORDS,
            archive([newest("x", &lines(&[(0, 1); 200]), 1, b"").size(512)]),
        ),
        refused(
            "1.0: no size",
            WORDS,
            archive([Entry::file("x", "1\n0\n1\nx")
                .pax("GNU.sparse.major", "1")
                .pax("GNU.sparse.minor", "0")]),
        ),
        refused(
            "0.1: half an extent",
            WORDS,
            archive([Entry::file("x", "x")
                .pax("GNU.sparse.size", "1")
                .pax("GNU.sparse.map", "0,1,2")]),
        ),
        refused("0.1: no size", WORDS, record("GNU.sparse.map", "0,1")),
        refused(
            "0.1: an empty number",
            WORDS,
            archive([Entry::file("x", "x")
                .pax("GNU.sparse.size", "1")
                .pax("GNU.sparse.map", "0,,1,")]),
        ),
        refused(
            "0.0: half an extent",
            WORDS,
            archive([Entry::file("x", "x")
                .pax("GNU.sparse.size", "1")
                .pax("GNU.sparse.offset", "0")]),
        ),
    ]
}

/// Large only in name: what is stored is small, and so is what lies on disk.
fn legal() -> Vec<Case> {
    let tebibyte = 1 << 40;
    let sized = |size: u64| {
        move |tree: &Path| {
            let stat = fs::symlink_metadata(tree.join("x")).unwrap();
            assert_eq!(stat.size(), size);
            assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
        }
    };
    let many: Vec<_> = (0..100_000_u64).map(|n| (n * 4096, 1)).collect();
    vec![
        unpacked(
            "1.0: a tebibyte with one byte",
            archive([newest("x", &lines(&[(tebibyte - 1, 1)]), tebibyte, b"x")]),
            sized(tebibyte),
        ),
        unpacked(
            "0.1: a tebibyte with one byte",
            archive([one_record(&[(0, 1)], tebibyte, b"x")]),
            sized(tebibyte),
        ),
        unpacked(
            "GNU: a tebibyte with one byte",
            archive([in_header(&[(0, 1)], tebibyte, b"x")]),
            sized(tebibyte),
        ),
        refused(
            "1.0: 8 EiB with one byte",
            "File too large",
            archive([newest("x", &lines(&[(0, 1)]), FAR - 1, b"x")]),
        ),
        refused(
            "GNU: 8 EiB and one byte",
            "File too large",
            archive([in_header(&[(0, 1)], FAR - 1, b"x")]),
        ),
        refused(
            "1.0: one byte at 8 EiB",
            "x: ",
            archive([newest("x", &lines(&[(FAR - 2, 1)]), FAR - 1, b"x")]),
        ),
        unpacked(
            "1.0: 100,000 extents",
            archive([newest("x", &lines(&many), 100_000 * 4096, &[b'x'; 100_000])]),
            |tree| {
                assert_eq!(fs::symlink_metadata(tree.join("x")).unwrap().size(), 100_000 * 4096);
            },
        ),
    ]
}
