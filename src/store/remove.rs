//! Removing a tree without following anything, whatever its modes and however deep it is.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::fs::c_path;

/// Removes the directory `name` in `parent` with all that is in it. A directory inside that is not
/// empty is moved up to the top, so that any depth needs three descriptors and no recursion.
pub(super) fn tree(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let name = c_path(name).map_err(|_| Errno::EINVAL)?;
    let top = open(parent, &name)?;
    let mut moved = 0u64;
    loop {
        let mut again = false;
        for (entry, is_dir) in entries(&top)? {
            if !is_dir {
                unlink(&top, &entry)?;
            } else if !remove_empty(&top, &entry)? {
                empty(&top, &entry, &mut moved)?;
                if !remove_empty(&top, &entry)? {
                    return Err(Errno::ENOTEMPTY);
                }
                again = true;
            }
        }
        // Reading a directory while moving names into it may miss some of them.
        if !again && remove_empty(parent, &name)? {
            return Ok(());
        }
        if !again && entries(&top)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
    }
}

/// Empties a directory in `top`, moving what has contents of its own up.
fn empty(top: &OwnedFd, name: &CStr, moved: &mut u64) -> Result<(), Errno> {
    let dir = open(top, name)?;
    for (entry, is_dir) in entries(&dir)? {
        if !is_dir {
            unlink(&dir, &entry)?;
            continue;
        }
        if remove_empty(&dir, &entry)? {
            continue;
        }
        // Moving a directory to another parent rewrites its `..`, for which it must be writable.
        make_accessible(&dir, &entry)?;
        loop {
            *moved += 1;
            let to = c_path(format!(".removed-{moved}")).map_err(|_| Errno::EINVAL)?;
            match renameat(&dir, entry.as_c_str(), top, to.as_c_str()) {
                Ok(()) => break,
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => (),
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Names in a directory, and whether each is a directory itself.
fn entries(dir: &OwnedFd) -> Result<Vec<(CString, bool)>, Errno> {
    // A descriptor of its own: the position in the directory belongs to the open file.
    let mut names = Vec::new();
    for entry in Dir::openat(dir, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_dir = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            // Some file systems do not say.
            None => {
                let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                stat.st_mode & libc::S_IFMT == libc::S_IFDIR
            }
        };
        names.push((name.to_owned(), is_dir));
    }
    Ok(names)
}

/// Opens a directory, giving its owner the right to if need be.
fn open(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    make_accessible(parent, name)?;
    openat(parent, name, flags, Mode::empty())
}

fn make_accessible(parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    if stat.st_mode & 0o700 == 0o700 {
        return Ok(());
    }
    fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)
}

/// Removes a directory if it is empty; one that is gone already is as good.
fn remove_empty(parent: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn unlink(parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn deep_trees_and_closed_directories_go_and_nothing_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let tree_path = home.path().join("tree");
        let mut deep = tree_path.clone();
        for _ in 0..200 {
            deep.push("d");
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("file"), "").unwrap();
        }
        symlink(&outside, tree_path.join("link")).unwrap();
        symlink(&outside, tree_path.join("d/link")).unwrap();
        fs::write(tree_path.join(".removed-1"), "in the way").unwrap();
        fs::create_dir_all(tree_path.join("closed/inner/x")).unwrap();
        for closed in ["closed/inner", "closed"] {
            fs::set_permissions(tree_path.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
        }
        let parent: OwnedFd = fs::File::open(home.path()).unwrap().into();
        tree(&parent, OsStr::new("tree")).unwrap();
        assert!(!tree_path.exists());
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    }

    #[test]
    fn a_link_is_no_tree() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("real")).unwrap();
        symlink("real", home.path().join("link")).unwrap();
        let parent: OwnedFd = fs::File::open(home.path()).unwrap().into();
        assert_eq!(tree(&parent, OsStr::new("link")), Err(Errno::ENOTDIR));
        assert!(home.path().join("real").exists());
    }
}
