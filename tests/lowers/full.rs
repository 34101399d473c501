//! A file system that is full, met by every kind of operation and at every step of it: what is told to
//! have failed has changed nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use casemate::sys::fs::{exchange, set_xattr};

use crate::scene::{as_user, file};
use crate::writable::{Place, in_writable_box};

type Act = fn(&Path) -> io::Result<()>;

/// What is tried, each in a directory of its own that `layer` fills.
const ACTS: [(&str, Act); 19] = [
    ("chmod", |at| fs::set_permissions(at.join("file"), fs::Permissions::from_mode(0o400))),
    ("chmod-of-a-directory", |at| {
        fs::set_permissions(at.join("dir"), fs::Permissions::from_mode(0o500))
    }),
    ("append", |at| {
        use std::io::Write;
        fs::OpenOptions::new().append(true).open(at.join("file"))?.write_all(b"more")
    }),
    ("create", |at| File::create_new(at.join("new")).map(drop)),
    ("mkdir", |at| fs::create_dir(at.join("new"))),
    ("symlink", |at| symlink("target", at.join("new"))),
    ("mkfifo", |at| {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o200);
        Ok(nix::unistd::mkfifo(&at.join("new"), mode)?)
    }),
    ("link", |at| fs::hard_link(at.join("file"), at.join("new"))),
    ("link-of-a-linked-file", |at| fs::hard_link(at.join("linked"), at.join("new"))),
    ("attribute", |at| set_xattr(File::open(at.join("file"))?, c"user.name", b"value")),
    ("unlink", |at| fs::remove_file(at.join("file"))),
    ("rmdir", |at| fs::remove_dir(at.join("empty"))),
    ("rename", |at| fs::rename(at.join("file"), at.join("new"))),
    ("rename-over-a-file", |at| fs::rename(at.join("file"), at.join("linked"))),
    ("rename-of-a-directory", |at| fs::rename(at.join("dir"), at.join("new"))),
    ("rename-over-a-directory", |at| fs::rename(at.join("dir"), at.join("empty"))),
    ("rename-over-a-new-directory", |at| fs::rename(at.join("dir"), at.join("made"))),
    ("rename-over-a-whiteout", |at| fs::rename(at.join("dir"), at.join("other"))),
    ("exchange", |at| {
        let dir = File::open(at)?;
        exchange(&dir, c"file", &dir, c"dir")
    }),
];

/// What an act finds.
fn prepare(name: &str, at: &Path) -> io::Result<()> {
    match name {
        "rename-over-a-new-directory" => fs::create_dir(at.join("made")),
        "rename-over-a-whiteout" => fs::remove_file(at.join("other")),
        _ => Ok(()),
    }
}

fn layer(home: &Path) -> PathBuf {
    let layer = home.join("layer");
    for (name, _) in ACTS {
        let at = layer.join(name);
        for inner in ["file", "dir/one", "dir/two", "linked"] {
            file(&at.join(inner), inner);
        }
        fs::hard_link(at.join("linked"), at.join("other")).unwrap();
        fs::create_dir(at.join("empty")).unwrap();
    }
    layer
}

/// What is below a directory.
fn state(at: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![at.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let mut attribute = None;
        if kind.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if kind.is_file() {
            let file = File::open(&path).unwrap();
            attribute = casemate::sys::fs::get_xattr(file, c"user.name").unwrap();
        }
        let content =
            if kind.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        let links = if kind.is_dir() { 0 } else { metadata.nlink() };
        let name = path.strip_prefix(at).unwrap().display();
        found.push(format!("{name} {:o} {links} {content:?} {attribute:?}", metadata.mode()));
    }
    found.sort();
    found
}

#[test]
fn what_fails_on_a_full_disk_has_changed_nothing() {
    as_user("full::what_fails_on_a_full_disk_has_changed_nothing", |home| {
        let layer = layer(home);
        let done = home.join("done");
        for (name, act) in ACTS {
            // One more each time, until there is room for every step.
            let mut refused = 0;
            for inodes in 3.. {
                assert!(inodes < 50, "{name} needs that much?");
                let layers = std::slice::from_ref(&layer);
                in_writable_box(home, layers, &Place::Inodes(inodes), |root| {
                    let at = root.join(name);
                    if prepare(name, &at).is_err() {
                        return;
                    }
                    let before = state(&at);
                    let acted = act(&at);
                    let after = state(&at);
                    match acted {
                        Ok(()) => {
                            assert_ne!(before, after, "{name} with {inodes} inodes");
                            File::create(&done).unwrap();
                        }
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{name}");
                            assert_eq!(before, after, "{name} with {inodes} inodes");
                        }
                    }
                });
                if fs::remove_file(&done).is_ok() {
                    break;
                }
                refused += 1;
            }
            assert!(refused > 0, "{name} was never refused");
        }
    });
}
