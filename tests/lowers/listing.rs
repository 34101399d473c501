//! A tree as a list: what stat(2), readlink(2), reading and listxattr(2) tell.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use casemate::index::Kind;
use casemate::index::override_stat::Override;
use casemate::sys::fs::{get_xattr, list_xattrs};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    mode: u32,
    size: u64,
    mtime: (i64, i64),
    links: u64,
    target: Option<PathBuf>,
    content: Option<Vec<u8>>,
    /// The first path that leads to the same inode.
    same_as: PathBuf,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

/// Lists a tree. Where it is one of files that cannot have their true modes, `overridden` says to
/// take them from the attribute that has them.
pub(crate) fn list(root: &Path, overridden: bool) -> BTreeMap<PathBuf, Listed> {
    let (mut found, mut inodes) = (BTreeMap::new(), HashMap::new());
    let mut waiting = vec![PathBuf::new()];
    while let Some(at) = waiting.pop() {
        found.insert(at.clone(), one(root, &at, overridden, &mut inodes));
        if found[&at].mode & libc::S_IFMT != libc::S_IFDIR {
            continue;
        }
        let mut names: Vec<_> = fs::read_dir(root.join(&at))
            .unwrap_or_else(|error| panic!("{}: {error}", at.display()))
            .map(|entry| {
                let entry = entry.unwrap();
                let (kind, metadata) = (entry.file_type().unwrap(), entry.metadata().unwrap());
                assert_eq!(kind, metadata.file_type(), "{:?}", entry.path());
                if !kind.is_dir() {
                    use std::os::unix::fs::DirEntryExt;
                    assert_eq!(entry.ino(), metadata.ino(), "{:?}", entry.path());
                }
                entry.file_name()
            })
            .collect();
        names.sort_by(|a: &OsString, b| b.cmp(a));
        waiting.extend(names.into_iter().map(|name: OsString| at.join(name)));
    }
    found
}

fn one(root: &Path, at: &Path, overridden: bool, inodes: &mut HashMap<u64, PathBuf>) -> Listed {
    let path = match at.as_os_str().is_empty() {
        true => root.to_owned(),
        false => root.join(at),
    };
    let path = &path;
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = metadata.file_type();
    let is_dir = kind.is_dir();
    let mut mode = metadata.mode();
    let mut xattrs = Vec::new();
    let opened = (kind.is_file() || is_dir).then(|| fs::File::open(path).ok()).flatten();
    if let Some(file) = opened {
        for name in list_xattrs(&file).unwrap_or_default() {
            let value = get_xattr(&file, &name).unwrap().unwrap();
            if name.as_bytes() == b"user.containers.override_stat" {
                let truth = Override::parse(&value).unwrap();
                if overridden {
                    let kind = match truth.kind {
                        Some(Kind::CharDevice) => libc::S_IFCHR,
                        Some(Kind::BlockDevice) => libc::S_IFBLK,
                        _ => mode & libc::S_IFMT,
                    };
                    mode = kind | truth.mode;
                }
            } else if name.as_bytes().starts_with(b"user.") {
                use std::os::unix::ffi::OsStrExt;
                xattrs.push((OsStr::from_bytes(name.as_bytes()).to_owned(), value));
            }
        }
    }
    let content = (mode & libc::S_IFMT == libc::S_IFREG && metadata.len() < 1 << 30)
        .then(|| Sha256::digest(fs::read(path).unwrap()).to_vec());
    assert!(!kind.is_socket() || metadata.len() == 0);
    Listed {
        mode,
        size: if is_dir { 0 } else { metadata.len() },
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        links: if is_dir { 0 } else { metadata.nlink() },
        target: kind.is_symlink().then(|| fs::read_link(path).unwrap()),
        content,
        same_as: match is_dir {
            true => PathBuf::new(),
            false => inodes.entry(metadata.ino()).or_insert_with(|| at.to_owned()).clone(),
        },
        xattrs,
    }
}

/// What is different, in words.
pub(crate) fn differences(
    ours: &BTreeMap<PathBuf, Listed>,
    theirs: &BTreeMap<PathBuf, Listed>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, listed) in ours {
        match theirs.get(path) {
            None => found.push(format!("{}: only ours", path.display())),
            Some(other) if other != listed => {
                found.push(format!("{}: {listed:?}, not {other:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    found.extend(
        theirs
            .keys()
            .filter(|path| !ours.contains_key(*path))
            .map(|path| format!("{}: only theirs", path.display())),
    );
    found
}
