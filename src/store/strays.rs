//! What lies in the store's directories and is none of casemate's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;

use super::fault::{Fault, Place, Remedy};
use super::{Store, durable, open_directory};
use crate::error::{During, Result};
use crate::image::Digest;

/// The most that are told of one directory.
const ENOUGH: usize = 100;

/// Files that nothing of casemate's has made.
pub(super) fn strays(store: &Store) -> Result<Vec<Fault>> {
    let digest = |name: &str| Digest::from_hex(name).is_some();
    let layer = |name: &str| name.strip_prefix("sha256-").is_some_and(digest);
    let mut found = Vec::new();
    let mut look = |place: &Path, belongs: &dyn Fn(&str) -> bool| -> Result<Vec<PathBuf>> {
        let mut own = Vec::new();
        let path = store.path.join(place);
        let entries = match std::fs::read_dir(&path) {
            // What a removal takes away meanwhile, and what is damaged, has its own word.
            Err(error) if is_gone(&error) => return Ok(own),
            entries => entries.at("read", &path)?,
        };
        let mut told = 0;
        for entry in entries {
            let name = match entry {
                Err(error) if is_gone(&error) => continue,
                entry => entry.at("read", &path)?.file_name(),
            };
            let relative = place.join(&name);
            if name.to_str().is_some_and(belongs) {
                own.push(relative);
            } else if told < ENOUGH {
                told += 1;
                let what = vec!["is not casemate's".to_owned()];
                found.push(Fault::new(Place::Stray(relative), what, Remedy::Remove));
            }
        }
        Ok(own)
    };
    look(Path::new(""), &|name| matches!(name, "layers" | "staging" | "oci" | "lock"))?;
    look(Path::new("oci"), &|name| matches!(name, "blobs" | "index.json" | "oci-layout"))?;
    look(Path::new("oci/blobs"), &|name| name == "sha256")?;
    look(Path::new("oci/blobs/sha256"), &digest)?;
    let parts = |name: &str| {
        const PARTS: [&str; 7] =
            ["fs", "index", "info", "skeleton", "files", "replaced", "packed.json"];
        PARTS.contains(&name) || durable::MARKS.contains(&name)
    };
    let mut no_layers = Vec::new();
    for layer in look(Path::new("layers"), &layer)? {
        // Never into what a link leads to.
        match std::fs::symlink_metadata(store.path.join(&layer)) {
            Ok(stat) if !stat.is_dir() => no_layers.push(layer),
            _ => drop(look(&layer, &parts)?),
        }
    }
    found.extend(no_layers.into_iter().map(|path| {
        Fault::new(Place::Stray(path), vec!["is no directory".to_owned()], Remedy::Remove)
    }));
    found.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(found)
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// What is in staging and belongs to no process.
pub(super) fn abandoned(store: &Store) -> Result<Vec<PathBuf>> {
    let path = store.path.join("staging");
    let dir = open_directory(&path)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&path).at("read", &path)? {
        let name = entry.at("read", &path)?.file_name();
        if is_abandoned(&dir, &name).at("look at", path.join(&name))? {
            found.push(Path::new("staging").join(&name));
        }
    }
    found.sort();
    Ok(found)
}

fn is_abandoned(dir: &std::os::fd::OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let entry = match openat(dir, name, flags, Mode::empty()) {
        Ok(entry) => entry,
        Err(Errno::ENOENT) => return Ok(false),
        // Only directories are made here.
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(true),
        Err(errno) => return Err(errno),
    };
    match Flock::lock(entry, FlockArg::LockSharedNonblock) {
        Ok(_free) => Ok(true),
        Err((_, Errno::EWOULDBLOCK)) => Ok(false),
        Err((_, errno)) => Err(errno),
    }
}
