//! Whole trees: copied before, compared after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use casemate::sys::fs::{get_xattr, list_xattrs, set_xattr};

/// The attributes that programs set.
pub(super) fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = fs::File::open(path).unwrap();
    let mut all: Vec<_> = list_xattrs(&file)
        .unwrap()
        .into_iter()
        .filter(|name| name.to_bytes().starts_with(b"user.random"))
        .map(|name| {
            (
                name.to_str().unwrap().to_string(),
                get_xattr(&file, &name).unwrap().unwrap_or_default(),
            )
        })
        .collect();
    all.sort();
    all
}

/// Copies a tree of directories, files and symbolic links.
pub(super) fn copy(from: &Path, to: &Path) {
    let metadata = fs::symlink_metadata(from).unwrap();
    if metadata.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else if metadata.is_symlink() {
        return symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else {
        fs::write(to, fs::read(from).unwrap()).unwrap();
        let file = fs::File::open(to).unwrap();
        for (name, value) in attributes(from) {
            set_xattr(&file, &std::ffi::CString::new(name).unwrap(), &value).unwrap();
        }
    }
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777)).unwrap();
}

/// What is in a tree: type, mode, links and contents by path.
pub(super) fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, String>) {
        let metadata = fs::symlink_metadata(at).unwrap();
        let mode = format!("{:o}", metadata.mode());
        let what = if metadata.is_dir() {
            for entry in fs::read_dir(at).unwrap() {
                walk(root, &entry.unwrap().path(), found);
            }
            format!("{mode} {:?}", attributes(at))
        } else if metadata.is_symlink() {
            format!("-> {}", fs::read_link(at).unwrap().display())
        } else {
            let digest = casemate::image::Digest::of(&fs::read(at).unwrap());
            let (links, size) = (metadata.nlink(), metadata.size());
            format!("{mode} links {links} size {size} {digest} {:?}", attributes(at))
        };
        found.insert(at.strip_prefix(root).unwrap().to_path_buf(), what);
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}
