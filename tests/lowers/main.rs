//! The merged layers through FUSE, in namespaces that an ordinary user makes: the same tree as the
//! kernel's overlayfs shows over the same layers, alone and as the lower layer of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../common/mod.rs"]
mod common;
mod full;
mod listing;
mod many;
mod pjdfstest;
mod requests;
mod scene;
mod writable;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use common::Image;
use listing::{differences, list};
use scene::*;

/// Three layers with everything that hides and merges.
fn hostile(home: &Path) -> Vec<PathBuf> {
    let [low, middle, high] = ["low", "middle", "high"].map(|name| {
        let path = home.join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    for (layer, text) in [(&low, "low"), (&middle, "middle"), (&high, "high")] {
        file(&layer.join("everywhere"), text);
        file(&layer.join("merged").join(text), text);
        file(&layer.join("merged/deep/er").join(text), text);
        fs::set_permissions(layer.join("merged"), fs::Permissions::from_mode(0o750)).unwrap();
    }
    // Hidden by a whiteout, shown again by a file, a directory over a whiteout.
    for name in ["gone", "back", "whited/inner", "dir/a", "dir/b", "opaque/below", "file-now/x"] {
        file(&low.join(name), name);
    }
    whiteout(&middle.join("gone"));
    whiteout(&middle.join("back"));
    file(&high.join("back"), "again");
    whiteout(&middle.join("whited"));
    file(&high.join("whited/new"), "new");
    whiteout(&high.join("dir/a"));
    whiteout(&high.join("never-was"));
    file(&high.join("opaque/above"), "above");
    opaque(&high.join("opaque"));
    file(&middle.join("opaque/between"), "between");
    file(&middle.join("file-now"), "a file");
    file(&high.join("file-now-not/x"), "x");
    file(&low.join("dir-over-file"), "file");
    file(&middle.join("dir-over-file/in"), "in");
    file(&high.join("dir-over-file/top"), "top");
    // A file between two directories ends the merging.
    file(&low.join("cut/low"), "low");
    file(&middle.join("cut"), "cut");
    file(&high.join("cut/high"), "high");
    // A directory of whiteouts only.
    for number in 0..50 {
        file(&low.join(format!("emptied/{number}")), "x");
        whiteout(&middle.join(format!("emptied/{number}")));
    }
    // Names.
    for name in [&b"\xff\xfe\x01"[..], &[b'n'; 255], b"new\nline", b"with space", b"\\"] {
        file(&middle.join("names").join(OsStr::from_bytes(name)), "name");
    }
    // Kinds of files.
    std::os::unix::fs::symlink("merged/low", low.join("link")).unwrap();
    std::os::unix::fs::symlink("x".repeat(4000), low.join("long-link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", high.join("absolute")).unwrap();
    nix::unistd::mkfifo(&low.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640))
        .unwrap();
    std::os::unix::net::UnixListener::bind(low.join("socket")).unwrap();
    file(&low.join("linked/one"), "links");
    for name in ["two", "three"] {
        fs::hard_link(low.join("linked/one"), low.join("linked").join(name)).unwrap();
    }
    whiteout(&high.join("linked/one"));
    // Times, modes, attributes, holes.
    for (name, mode) in [("sticky", 0o1777), ("setgid", 0o2755), ("read-only", 0o555)] {
        file(&low.join(name).join("in"), name);
        fs::set_permissions(low.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    file(&low.join("program"), "#!/bin/sh\nexit 7\n");
    fs::set_permissions(low.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, seconds, nanoseconds) in [("old", -1_000_000_001, 1), ("exact", 5, 999_999_999)] {
        file(&low.join(name), name);
        let name = std::ffi::CString::new(name).unwrap();
        let dir = fs::File::open(&low).unwrap();
        casemate::sys::fs::set_mtime(&dir, &name, seconds, nanoseconds).unwrap();
    }
    let sparse = fs::File::create(low.join("sparse")).unwrap();
    sparse.set_len(5 << 30).unwrap();
    nix::sys::uio::pwrite(&sparse, b"in the middle", 3 << 30).unwrap();
    let mut deep = low.join("deep");
    for _ in 0..200 {
        deep.push("0123456789abcdef");
    }
    file(&deep.join("bottom"), "bottom");
    vec![high, middle, low]
}

#[test]
fn the_tree_is_the_one_that_overlayfs_shows() {
    as_user("the_tree_is_the_one_that_overlayfs_shows", |home| {
        let layers = hostile(home);
        in_box(home, &layers, |fuse| {
            let kernel = overlayfs(home, "kernel", &layers, None);
            let (ours, theirs) = (list(fuse, false), list(&kernel, true));
            assert!(ours.len() > 250, "{}", ours.len());
            assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
            // Again, from the kernel's memory.
            assert_eq!(differences(&list(fuse, false), &theirs), Vec::<String>::new());
        });
    });
}

#[test]
fn nothing_can_be_written_and_marks_do_not_show() {
    as_user("nothing_can_be_written_and_marks_do_not_show", |home| {
        let layers = hostile(home);
        in_box(home, &layers, |fuse| {
            let raw = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap());
            let refused = [
                fs::write(fuse.join("new"), "x").unwrap_err(),
                fs::write(fuse.join("back"), "x").unwrap_err(),
                fs::remove_file(fuse.join("back")).unwrap_err(),
                fs::create_dir(fuse.join("new")).unwrap_err(),
                fs::rename(fuse.join("back"), fuse.join("new")).unwrap_err(),
                fs::set_permissions(fuse.join("back"), fs::Permissions::from_mode(0o600))
                    .unwrap_err(),
            ];
            for error in refused {
                assert_eq!(raw(error), Errno::EROFS);
            }
            let absent = [
                fs::read(fuse.join("gone")).unwrap_err(),
                fs::read(fuse.join("never-was")).unwrap_err(),
                fs::read(fuse.join("opaque/below")).unwrap_err(),
            ];
            for error in absent {
                assert_eq!(raw(error), Errno::ENOENT);
            }
            let long = fs::metadata(fuse.join("n".repeat(256))).unwrap_err();
            assert_eq!(raw(long), Errno::ENAMETOOLONG);
            assert_eq!(fs::metadata(fuse).unwrap().ino(), 1);
            let status = std::process::Command::new(fuse.join("program")).status().unwrap();
            assert_eq!(status.code(), Some(7));
            // Holes are found without reading them.
            let sparse = fs::File::open(fuse.join("sparse")).unwrap();
            let data = nix::unistd::lseek(&sparse, 0, nix::unistd::Whence::SeekData).unwrap();
            assert_eq!(data, 3 << 30);
            assert!(fs::metadata(fuse.join("sparse")).unwrap().blocks() < 64);
            for name in ["", "opaque", "merged"] {
                let dir = fs::File::open(fuse.join(name)).unwrap();
                let mark = casemate::sys::fs::get_xattr(&dir, c"user.overlay.opaque");
                let errno = mark.map_err(raw);
                assert!(matches!(errno, Ok(None) | Err(Errno::EOPNOTSUPP)), "{errno:?}");
            }
        });
    });
}

#[test]
fn directories_are_read_from_any_place_on() {
    as_user("directories_are_read_from_any_place_on", |home| {
        let layers: Vec<_> = (0..3).map(|layer| home.join(format!("layer-{layer}"))).collect();
        // Every third name is in two layers, every seventh is whited out by the topmost.
        for (which, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer.join("large")).unwrap();
            for number in (0..100_000).filter(|number| number % 3 == which || number % 9 == 0) {
                let path = layer.join(format!("large/{number:05}"));
                match which == 0 && number % 7 == 0 {
                    true => whiteout(&path),
                    false => drop(fs::File::create(path).unwrap()),
                }
            }
        }
        in_box(home, &layers, |fuse| {
            let all = offsets(&fuse.join("large"));
            // In the topmost layer are those of 3 and of 9, and its whiteouts hide all there is.
            let hidden = (0..100_000).filter(|number| number % 21 == 0).count();
            assert_eq!(all.len(), 100_000 - hidden + 2);
            let mut names: Vec<_> = all.iter().map(|(name, _)| name.clone()).collect();
            names.dedup();
            assert_eq!(names.len(), all.len());
            for start in [0, 1, 2, 3, 4, 50_000, all.len() - 2, all.len() - 1] {
                let rest = offsets_from(&fuse.join("large"), all[start].1);
                assert_eq!(rest.len(), all.len() - start - 1, "from {start}");
                assert_eq!(rest.first(), all.get(start + 1));
            }
            assert_eq!(offsets_from(&fuse.join("large"), 1 << 60), []);
        });
    });
}

#[test]
fn overlayfs_writes_on_top_of_it() {
    as_user("overlayfs_writes_on_top_of_it", |home| {
        let layers = hostile(home);
        in_box(home, &layers, |fuse| {
            let hybrid = overlayfs(home, "hybrid", &[fuse.to_owned()], Some(&home.join("h")));
            let kernel = overlayfs(home, "kernel", &layers, Some(&home.join("k")));
            let before = differences(&list_below(&hybrid, false), &list_below(&kernel, true));
            assert_eq!(before, Vec::<String>::new());
            for root in [&hybrid, &kernel] {
                write_all_over(root);
            }
            let after = differences(&list(&hybrid, false), &list(&kernel, true));
            assert_eq!(after, Vec::<String>::new());
        });
    });
}

type Tree = std::collections::BTreeMap<PathBuf, listing::Listed>;

/// Without the root, which is the writable layer's own where there is one.
fn below(mut tree: Tree) -> Tree {
    assert!(tree.remove(Path::new("")).is_some());
    tree
}

fn list_below(root: &Path, overridden: bool) -> Tree {
    below(list(root, overridden))
}

/// What programs do: change, add, rename, replace, remove.
fn write_all_over(root: &Path) {
    fs::write(root.join("everywhere"), "changed").unwrap();
    let mut options = fs::OpenOptions::new();
    std::io::Write::write_all(&mut options.append(true).open(root.join("back")).unwrap(), b"!")
        .unwrap();
    fs::write(root.join("merged/deep/er/new"), "new").unwrap();
    fs::rename(root.join("merged/low"), root.join("merged/renamed")).unwrap();
    fs::rename(root.join("merged/high"), root.join("merged/middle")).unwrap();
    fs::remove_file(root.join("link")).unwrap();
    fs::remove_dir_all(root.join("names")).unwrap();
    fs::create_dir(root.join("names")).unwrap();
    fs::write(root.join("names/after"), "x").unwrap();
    fs::remove_dir_all(root.join("dir")).unwrap();
    fs::hard_link(root.join("exact"), root.join("exact-too")).unwrap();
    fs::set_permissions(root.join("program"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(root.join("made")).unwrap();
    fs::rename(root.join("made"), root.join("moved")).unwrap();
    fs::write(root.join("opaque/below"), "now").unwrap();
    fs::OpenOptions::new().write(true).open(root.join("sparse")).unwrap().set_len(1 << 20).unwrap();
    for touched in ["everywhere", "back", "merged/deep/er/new", "names/after", "opaque/below"] {
        let file = fs::File::open(root.join(touched)).unwrap();
        casemate::sys::fs::set_mtime_of(&file, 7, 7).unwrap();
    }
    let directories =
        ["", "merged", "merged/deep/er", "names", "moved", "opaque", "merged/deep", "linked"];
    for touched in directories {
        let directory = fs::File::open(root.join(touched)).unwrap();
        casemate::sys::fs::set_mtime_of(&directory, 8, 8).unwrap();
    }
    let sparse = fs::File::open(root.join("sparse")).unwrap();
    casemate::sys::fs::set_mtime_of(&sparse, 9, 9).unwrap();
}

#[test]
fn boxes_of_one_user_share_a_server() {
    as_user("boxes_of_one_user_share_a_server", |home| {
        let layers = hostile(home);
        let found = share(home, &layers);
        eprintln!("{found:#?}");
        let of = |name| found.iter().find(|(found, _)| *found == name).unwrap().1;
        // A mount that is attached somewhere else, or a clone that is attached meanwhile, is theirs.
        assert_eq!(of("the mount itself"), Err(Errno::EINVAL));
        assert_eq!(of("a clone again"), Err(Errno::EINVAL));
        // Since Linux 6.16 a detached one is a lower layer only for its namespace's owner
        // (CVE-2025-38499); attached, it is ours. Before, the kernel may have it or not.
        let _either = of("a clone as lower layer");
        for name in ["a clone", "a clone as lower layer once attached", "another one"] {
            assert_eq!(of(name), Ok(()), "{name}");
        }
    });
}

#[test]
fn real_images_are_the_same_tree() {
    let archive = match common::user::is_root() {
        true => Image::Debian.archive(),
        false => std::env::var_os("CASEMATE_TEST_ARCHIVE")
            .map(PathBuf::from)
            .unwrap_or_else(|| Image::Debian.archive()),
    };
    let env = [("CASEMATE_TEST_ARCHIVE", archive.as_path())];
    as_user_with("real_images_are_the_same_tree", &env, |home| {
        let layers = imported(home, &archive);
        in_box(home, &layers, |fuse| {
            let kernel = overlayfs(home, "kernel", &layers, None);
            let hybrid = overlayfs(home, "hybrid", &[fuse.to_owned()], Some(&home.join("h")));
            let (ours, theirs) = (list(fuse, false), list(&kernel, true));
            assert!(ours.len() > 5000, "{}", ours.len());
            assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
            assert_eq!(
                differences(&list_below(&hybrid, false), &below(theirs)),
                Vec::<String>::new()
            );
        });
    });
}

#[test]
fn without_its_server_the_mount_fails_and_nothing_hangs() {
    as_user("without_its_server_the_mount_fails_and_nothing_hangs", |home| {
        let layers = hostile(home);
        in_box_without_server(home, &layers, |fuse| {
            let error = fs::read(fuse.join("merged/deep/er/low")).unwrap_err();
            // The first where the request was under way, the other for all that come later.
            let errno = Errno::from_raw(error.raw_os_error().unwrap());
            assert!(matches!(errno, Errno::ECONNABORTED | Errno::ENOTCONN), "{errno}");
        });
    });
}
