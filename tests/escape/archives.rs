//! Archives that write outside of the directory they are unpacked in.

use std::fs;
use std::path::Path;

use crate::common::{Leftovers, Run, Workspace, casemate};

/// One member of an archive, with a name that the library's checks would not let through.
struct Member<'a> {
    kind: tar::EntryType,
    name: &'a str,
    link: &'a str,
    contents: &'a str,
}

fn file<'a>(name: &'a str) -> Member<'a> {
    Member { kind: tar::EntryType::Regular, name, link: "", contents: "hostile" }
}

fn link<'a>(kind: tar::EntryType, name: &'a str, link: &'a str) -> Member<'a> {
    Member { kind, name, link, contents: "" }
}

/// The archive, as bytes.
fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(member.kind);
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..member.name.len()].copy_from_slice(member.name.as_bytes());
        fields.linkname[..member.link.len()].copy_from_slice(member.link.as_bytes());
        header.set_mode(0o644);
        if member.kind.is_dir() {
            header.set_mode(0o777);
        }
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(member.contents.len() as u64);
        header.set_cksum();
        builder.append(&header, member.contents.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What is in a tree: names, kinds, modes, sizes and contents.
fn picture(path: &Path) -> String {
    let listing = "find . -printf '%P %y %m %s %l\\n' | sort; find . -type f -exec sha256sum {} +";
    Run::bash(listing).directory(path).text()
}

/// Unpacks the archive as a naive program would, which must change the outside, and then imports it,
/// which must not.
fn refused(name: &str, members: impl Fn(&str) -> Vec<Vec<String>>) {
    let space = Workspace::new();
    let outside = space.directory("outside");
    space.file("outside/kept", "of the host");
    Run::new("chmod").args(["700", &outside]).output().succeeds();
    let before = picture(Path::new(&outside));
    // Absolute names have little room in a header: a short link leads there.
    let short = format!("/var/tmp/casemate-o{}", std::process::id());
    let _ = fs::remove_file(&short);
    std::os::unix::fs::symlink(&outside, &short).unwrap();

    let described = members(&short);
    let parsed: Vec<Member<'_>> = described
        .iter()
        .map(|words| match words[0].as_str() {
            "file" => file(&words[1]),
            "dir" => Member { kind: tar::EntryType::Directory, contents: "", ..file(&words[1]) },
            "symlink" => link(tar::EntryType::Symlink, &words[1], &words[2]),
            "hardlink" => link(tar::EntryType::Link, &words[1], &words[2]),
            other => panic!("no member of kind {other}"),
        })
        .collect();
    let hostile = space.file("hostile.tar", archive(&parsed));

    // The naive place is as deep below the outside as the store's would be above it.
    let naive = space.directory("naive");
    Run::new("tar")
        .args(["-P", "--overwrite", "--keep-directory-symlink", "-xf", &hostile, "-C", &naive])
        .output();
    assert_ne!(picture(Path::new(&outside)), before, "{name}: the control changes nothing outside");
    Run::bash("rm -rf outside naive && mkdir -m 700 outside && printf 'of the host' >outside/kept")
        .directory(space.path())
        .output()
        .succeeds();
    assert_eq!(picture(Path::new(&outside)), before);

    let watch = Leftovers::watch();
    let output = casemate(["import", &format!("hostile-{name}"), &hostile]).output();
    assert!([Some(0), Some(125)].contains(&output.code()), "{name}: {output:?}");
    if output.code() == Some(125) {
        output.refuses(125, &[]);
    }
    assert_eq!(picture(Path::new(&outside)), before, "{name}: the outside was changed");
    watch.none();
    fs::remove_file(&short).unwrap();
}

fn words(lines: &[&[&str]]) -> Vec<Vec<String>> {
    lines.iter().map(|line| line.iter().map(ToString::to_string).collect()).collect()
}

/// Upwards from the naive place to the outside: they are neighbours.
const UP: &str = "../outside";

#[test]
fn escape_27_hostile_archives_write_nothing_outside() {
    refused("dotdot", |_| words(&[&["file", "../outside/made"]]));
    refused("dotdot-inside", |_| words(&[&["dir", "a"], &["file", "a/../../outside/made"]]));
    refused("absolute", |out| words(&[&["file", &format!("{out}/made")]]));
    refused("overwrite", |out| words(&[&["file", &format!("{out}/kept")]]));
    refused("symlink-then-file", |_| words(&[&["symlink", "link", UP], &["file", "link/made"]]));
    refused("absolute-symlink-then-file", |out| {
        words(&[&["symlink", "link", out], &["file", "link/made"]])
    });
    refused("symlink-chain", |_| {
        words(&[&["symlink", "a", ".."], &["symlink", "b", "a/outside"], &["file", "b/made"]])
    });
    refused("symlink-then-directory", |_| {
        words(&[&["symlink", "link", UP], &["dir", "link/made"]])
    });
    refused("symlink-as-last-part", |_| {
        words(&[
            &["symlink", "link", "../outside/kept"],
            &["hardlink", "hard", "../outside/kept"],
            &["file", "hard"],
        ])
    });
    refused("hardlink-outside", |out| {
        words(&[&["hardlink", "hard", &format!("{out}/kept")], &["file", "hard"]])
    });
    refused("hardlink-through-symlink", |_| {
        words(&[&["symlink", "link", UP], &["hardlink", "hard", "link/kept"], &["file", "hard"]])
    });
    refused("directory-over-symlink", |_| {
        words(&[&["symlink", "link", UP], &["dir", "link"], &["file", "link/made"]])
    });
    refused("symlink-outside-by-hardlink", |_| {
        words(&[&["symlink", "link", UP], &["symlink", "link/made", "anything"]])
    });
}

#[test]
fn escape_27_whiteouts_do_not_reach_upwards() {
    // A whiteout removes a name beside it: that name must not be a way up.
    let space = Workspace::new();
    let harmless = space.file("harmless.tar", archive(&[file("a/b"), file("c/.wh.d")]));
    casemate(["import", "whiteout-harmless", &harmless]).output().succeeds();
    for (number, name) in
        [".wh..", ".wh...", "a/.wh..", "../.wh.kept", "a/.wh.b/c", ".wh."].iter().enumerate()
    {
        let hostile = space.file("hostile.tar", archive(&[file("a/b"), file(name)]));
        let watch = Leftovers::watch();
        let output = casemate(["import", &format!("whiteout-{number}"), &hostile]).output();
        assert!([Some(0), Some(125)].contains(&output.code()), "{name}: {output:?}");
        watch.none();
    }
}
