//! Bombs: small archives that would fill time, memory or disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Case, refused, unpacked};
use crate::common::*;

/// A limit that counts from a gibibyte on: 250 times what is packed.
const RATIO: &str = "more than 250 times";
const GIBIBYTE: u64 = 1 << 30;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = ratio();
    cases.extend(gzip_streams());
    cases.extend(zstd_streams());
    cases.extend(entries());
    cases.extend(members());
    cases
}

/// One gzip member.
pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(data).unwrap();
    packer.finish().unwrap()
}

/// Zeros in mebibytes, in one gzip member for each 64.
fn gzip_zeros(mebibytes: usize) -> Vec<u8> {
    gzip(&vec![0; 64 << 20]).repeat(mebibytes / 64)
}

/// The window of a zstd frame: 2 to this power.
fn zstd_frame(window: u8, blocks: &[(Run<'_>, u32)]) -> Vec<u8> {
    // RFC 8878: magic, a descriptor without sizes and checksum, the window's exponent above 10.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window - 10) << 3];
    for (index, (run, size)) in blocks.iter().enumerate() {
        let last = u32::from(index + 1 == blocks.len());
        let (kind, content) = match run {
            Run::Raw(bytes) => (0, *bytes),
            Run::Of(byte) => (1, std::slice::from_ref(byte)),
        };
        frame.extend_from_slice(&(last | kind << 1 | size << 3).to_le_bytes()[..3]);
        frame.extend_from_slice(content);
    }
    frame
}

/// A block as it is, or one byte many times.
#[derive(Clone, Copy)]
enum Run<'a> {
    Raw(&'a [u8]),
    Of(u8),
}

/// A frame of these bytes as they are.
fn zstd_raw(window: u8, bytes: &[u8]) -> Vec<u8> {
    let blocks: Vec<_> =
        bytes.chunks(128 << 10).map(|chunk| (Run::Raw(chunk), chunk.len() as u32)).collect();
    zstd_frame(window, &blocks)
}

/// A frame of zeros, four bytes for each 128 KiB.
fn zstd_zeros(mebibytes: usize) -> Vec<u8> {
    zstd_frame(17, &vec![(Run::Of(0), 128 << 10); mebibytes * 8])
}

/// The header of a file of this size, without its data and the end of the archive.
fn head(size: u64) -> Vec<u8> {
    let mut head = archive([Entry::file("x", "").size(size)]);
    head.truncate(512);
    head
}

const END: [u8; 1024] = [0; 1024];

/// Little that unpacks to much.
fn ratio() -> Vec<Case> {
    let larger = 2 * GIBIBYTE + (64 << 20);
    let mebibytes = (larger >> 20) as usize;
    let end = || archive([]);
    let zstd = [zstd_raw(17, &head(larger)), zstd_zeros(mebibytes), zstd_raw(17, &END)].concat();
    let gzipped = [gzip(&head(larger)), gzip_zeros(mebibytes), gzip(&END)].concat();
    assert!(zstd.len() < 3 << 20 && gzipped.len() < 3 << 20);
    let below = [gzip(&head(64 << 20)), gzip_zeros(64), gzip(&END)].concat();
    vec![
        refused("gzip of more than 2 GiB of zeros", RATIO, gzipped),
        refused("zstd of more than 2 GiB of zeros", RATIO, zstd),
        refused("zstd of a tebibyte of zeros", "more than 250 times|more than 256 GiB", {
            // As far as it comes: the end is never read.
            [zstd_raw(17, &head(GIBIBYTE << 10)), zstd_zeros(8 << 10)].concat()
        }),
        // What comes after the end is part of the digest, and is read.
        refused(
            "gzip of zeros behind the end",
            RATIO,
            [gzip(&end()), gzip_zeros(mebibytes)].concat(),
        ),
        refused(
            "zstd of zeros behind the end",
            RATIO,
            [zstd_raw(17, &end()), zstd_zeros(mebibytes)].concat(),
        ),
        refused("zstd of a gibibyte in place of a long name", "larger than 1 MiB", {
            let mut long = archive([Entry::file("././@LongLink", "").kind(b'L').size(GIBIBYTE)]);
            long.truncate(512);
            [zstd_raw(17, &long), zstd_zeros(1024)].concat()
        }),
        unpacked("gzip of a few zeros", below, |tree| {
            assert_eq!(fs::metadata(tree.join("x")).unwrap().size(), 64 << 20);
        }),
    ]
}

fn gzip_streams() -> Vec<Case> {
    let small = archive([Entry::file("x", "content")]);
    let empty = gzip(b"");
    let split = small.chunks(7).flat_map(gzip).collect();
    // RFC 1952: FNAME, a name that goes on until a zero byte.
    let mut named = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255];
    named.extend(vec![b'n'; 8 << 20]);
    // FEXTRA, 65,535 bytes that are not there.
    let extra = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 0xff, 0xff, b'x'];
    let mut wrong = gzip(&small);
    let sum = wrong.len() - 8;
    wrong[sum] ^= 1;
    let mut short = gzip(&small);
    short.truncate(short.len() - 9);
    vec![
        unpacked("gzip in members of seven bytes", split, has_content),
        unpacked(
            "gzip with 100,000 empty members",
            [empty.repeat(100_000), gzip(&small)].concat(),
            has_content,
        ),
        refused("gzip with nothing in it", "no end marker", empty.repeat(1000)),
        refused("gzip with a name without an end", "gzip", named),
        refused("gzip with an extra field that is not there", "end of file|cut short", extra),
        refused("gzip with a wrong sum", "gzip", wrong),
        refused("gzip that is cut", "cut short", short),
        refused("gzip in gzip", "header checksum|cut short", gzip(&gzip(&small))),
    ]
}

fn has_content(tree: &Path) {
    assert_eq!(fs::read_to_string(tree.join("x")).unwrap(), "content");
}

fn zstd_streams() -> Vec<Case> {
    let small = archive([Entry::file("x", "content")]);
    let frames: Vec<u8> = small.chunks(7).flat_map(|chunk| zstd_raw(17, chunk)).collect();
    // RFC 8878, 3.1.2: a skippable frame of no bytes.
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0].repeat(100_000);
    let endless = [0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0];
    let mut dictionary = zstd_raw(17, &small);
    // The descriptor says that an id of a dictionary follows, before the blocks.
    dictionary[4] = 1;
    dictionary.insert(6, 7);
    vec![
        unpacked("zstd in frames of seven bytes", frames, has_content),
        unpacked(
            "zstd behind 100,000 skippable frames",
            [skippable, zstd_raw(17, &small)].concat(),
            has_content,
        ),
        unpacked("zstd with a window of 8 MiB", zstd_raw(23, &small), has_content),
        refused("zstd with a window of 16 MiB", "too much memory|window", zstd_raw(24, &small)),
        refused("zstd with a window of 128 MiB", "too much memory|window", zstd_raw(27, &small)),
        refused("zstd with a window of 2 GiB", "too much memory|window", zstd_raw(31, &small)),
        refused(
            "zstd with a skippable frame of 4 GiB",
            "incomplete frame|cut short",
            endless.to_vec(),
        ),
        refused("zstd with a dictionary", "Dictionary|dictionary", dictionary),
    ]
}

/// More entries than a layer may have. Without optimization it takes minutes to read them, so that it
/// is a test of its own, which runs beside the others.
pub(super) fn too_many() -> Vec<Case> {
    // Records of AUFS make no file, so that only the count is at stake; with times that differ they
    // do not pack well enough for the ratio.
    let nothing = (0..1_u64 << 16).map(|n| {
        let time = format!("{:011o}\0", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
        Entry::file(".wh..wh.aufs", "").field(136, time.as_bytes())
    });
    let mut nothing = archive(nothing);
    nothing.truncate(nothing.len() - END.len());
    let many = gzip(&nothing).repeat(77);
    vec![refused("five million entries", "4 million entries", [many, gzip(&END)].concat())]
}

/// Many entries, and entries that cost much memory.
fn entries() -> Vec<Case> {
    let files = (0..20_000).map(|n| Entry::file(format!("d{}/{n}", n / 1000), ""));
    // Directories have their times set last: what is kept until then must not grow without bound.
    let deep = format!("{}/", "long".repeat(60)).repeat(16);
    let directories = (0..16_000).map(|n| Entry::dir("d").pax("path", format!("{deep}{n}")));
    let swaps = (0..5_000).map(|n| match n % 2 {
        0 => Entry::dir("x"),
        _ => Entry::file("x", ""),
    });
    let extensions = Entry::file("pax", record("comment", &vec![b'x'; 1 << 19])).kind(b'x');
    let mut extension = archive([extensions]);
    extension.truncate(extension.len() - 1024);
    let many_records: Vec<u8> = (0..100_000).flat_map(|_| record("a", b"b")).collect();
    vec![
        unpacked("20,000 empty files", gzip(&archive(files)), |tree| {
            assert_eq!(fs::read_dir(tree).unwrap().count(), 20);
            assert_eq!(fs::read_dir(tree.join("d19")).unwrap().count(), 1000);
        }),
        unpacked("16,000 directories with long names", gzip(&archive(directories)), move |tree| {
            assert_eq!(fs::read_dir(tree.join(&deep)).unwrap().count(), 16_000);
        }),
        unpacked("a name that changes 5,000 times", gzip(&archive(swaps)), |tree| {
            assert!(tree.join("x").is_file());
        }),
        refused("extended headers without an entry", "cut short", gzip(&extension.repeat(200))),
        unpacked(
            "100,000 records for one entry",
            archive([Entry::file("pax", many_records).kind(b'x'), Entry::file("x", "content")]),
            has_content,
        ),
    ]
}

/// Archives that look like images.
fn members() -> Vec<Case> {
    let with = |more: Vec<Entry>| {
        let layout = Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = Entry::file("index.json", r#"{"schemaVersion":2,"manifests":[]}"#);
        archive([layout, index].into_iter().chain(more))
    };
    // The members of an image are kept by name until the last is known.
    let long = "long".repeat(1000);
    let blob = |n| Entry::file("blobs/short", "").pax("path", format!("blobs/{long}{n}"));
    let circle = vec![Entry::symlink("blobs/a", "b"), Entry::symlink("blobs/b", "a")];
    let nested = "[".repeat(1 << 20);
    vec![
        refused(
            "an image of 20,000 blobs with long names",
            "no image manifest",
            gzip(&with((0..20_000).map(blob).collect())),
        ),
        refused(
            "an image whose index is 5 MiB",
            "larger than",
            archive([
                Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
                Entry::file("index.json", vec![b' '; 5 << 20]),
            ]),
        ),
        refused(
            "an image whose index is nested a million times",
            "index",
            archive([
                Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
                Entry::file("index.json", nested),
            ]),
        ),
        refused("an image whose links go in a circle", "no image manifest", with(circle)),
        refused(
            "an image whose manifest lies outside",
            "is missing",
            archive([Entry::file(
                "manifest.json",
                r#"[{"Config":"../../../etc/passwd","Layers":[]}]"#,
            )]),
        ),
        unpacked(
            "a tree whose manifest.json is a link out",
            archive([Entry::symlink("manifest.json", "/etc/passwd")]),
            |tree| {
                assert!(tree.join("manifest.json").is_symlink());
            },
        ),
    ]
}
