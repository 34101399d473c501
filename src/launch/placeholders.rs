//! What stands on the host, as long as boxes run, where there is nothing: a mount needs something to
//! lie on. Each has a record with a lock that every box holds which counts on it; the last one takes
//! it away. What a killed supervisor has left is taken away before the next run.
//!
//! Nobody may take one away while a box runs: the kernel would end the mount on it, in every
//! namespace (Linux 3.18).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{During, Error, Result};
use crate::image::Digest;
use crate::sandbox::Placeholder;

/// How often a record may vanish between being opened and locked, before that is no accident.
const ATTEMPTS: usize = 100;

/// The longest content of one.
const LONGEST: u64 = 16;

/// Placeholders that stand until this is dropped, or longer where another box counts on them.
#[derive(Default)]
pub struct Placeholders {
    /// Parents first.
    held: Vec<(PathBuf, Flock<File>)>,
    records: PathBuf,
}

impl Placeholders {
    /// Makes those that are not there yet. `data` is the directory for the user's data.
    pub fn make(wanted: &[Placeholder], data: &Path) -> Result<Placeholders> {
        let mut made = Placeholders { held: Vec::new(), records: records(data) };
        if wanted.is_empty() {
            return Ok(made);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&made.records)
            .at("make", &made.records)?;
        for placeholder in wanted {
            let lock = lock(&made.records.join(name(&placeholder.path)), &placeholder.path)?;
            // Held from here on, so that whatever fails now is taken away again.
            made.held.push((placeholder.path.clone(), lock));
            stand(placeholder)?;
        }
        Ok(made)
    }

    /// Those that boxes count on, after taking away those that none does.
    pub fn standing(data: &Path) -> Result<BTreeSet<PathBuf>> {
        let directory = records(data);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeSet::new());
            }
            Err(error) => return Err(Error::os("read", directory.display(), &error)),
        };
        let mut standing = BTreeSet::new();
        let mut left = Vec::new();
        for entry in entries {
            let record = entry.at("read", &directory)?.path();
            let Ok(file) = OpenOptions::new().read(true).write(true).open(&record) else {
                continue;
            };
            let path = content(&file).at("read", &record)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => left.push((path, record, lock)),
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => drop(standing.insert(path)),
                Err((_, error)) => return Err(Error::os("lock", record.display(), error)),
            }
        }
        // What is in a directory goes before it.
        left.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        for (path, record, lock) in left {
            take_away(&path, &record);
            drop(lock);
        }
        Ok(standing)
    }
}

impl Drop for Placeholders {
    fn drop(&mut self) {
        while let Some((path, lock)) = self.held.pop() {
            // Refused where another box holds it, which then is the one to take it away.
            if lock.relock(FlockArg::LockExclusiveNonblock).is_ok() {
                take_away(&path, &self.records.join(name(&path)));
            }
        }
    }
}

fn records(data: &Path) -> PathBuf {
    data.join("casemate/placeholders")
}

fn name(path: &Path) -> String {
    Digest::of(path.as_os_str().as_bytes()).hex()
}

/// A record, locked as by everyone who counts on it.
fn lock(record: &Path, path: &Path) -> Result<Flock<File>> {
    for _ in 0..ATTEMPTS {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(record)
            .at("make", record)?;
        let lock = Flock::lock(file, FlockArg::LockShared)
            .map_err(|(_, error)| Error::os("lock", record.display(), error))?;
        // Another one may have taken it away between the two.
        if lock.metadata().at("stat", record)?.nlink() > 0 {
            lock.write_all_at(path.as_os_str().as_bytes(), 0).at("write", record)?;
            return Ok(lock);
        }
    }
    Err(Error::new(format!("lock {}: it vanishes again and again", record.display())))
}

fn content(file: &File) -> std::io::Result<PathBuf> {
    let mut path = Vec::new();
    file.take(libc::PATH_MAX as u64).read_to_end(&mut path)?;
    Ok(PathBuf::from(OsString::from_vec(path)))
}

fn stand(placeholder: &Placeholder) -> Result<()> {
    let Placeholder { path, content } = placeholder;
    let made = match content {
        None => DirBuilder::new().mode(0o755).create(path),
        Some(content) => OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .and_then(|mut file| file.write_all(content.as_bytes())),
    };
    match made {
        // Another box's, or what somebody has made since the plan was.
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::os("make a placeholder at", path.display(), &error)
                .hint("files.unprotect in a profile, or --unprotect, gives a protected path back"))
        }
        _ => Ok(()),
    }
}

/// Takes one away if nothing was put into it. The record goes first: whoever comes now makes both
/// anew, and what is not empty is somebody's.
fn take_away(path: &Path, record: &Path) {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        let _gone_is_gone = std::fs::remove_file(record);
        return;
    };
    if found.is_dir() {
        let _stays_if_used = std::fs::remove_dir(path);
    } else if found.is_file() && found.len() <= LONGEST {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if matches!(text.as_str(), "" | ".\n") {
            let _stays_if_not_ours = std::fs::remove_file(path);
        }
    }
    let _left_to_the_next = std::fs::remove_file(record);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(top: &Path) -> Vec<Placeholder> {
        let place = |name: &str, content| Placeholder { path: top.join(name), content };
        vec![
            place(".config", None),
            place(".config/autostart", None),
            place("commondir", Some(".\n")),
        ]
    }

    #[test]
    fn they_stand_as_long_as_one_counts_on_them() {
        let place = tempfile::tempdir().unwrap();
        let (top, data) = (place.path().join("home"), place.path().join("data"));
        std::fs::create_dir(&top).unwrap();
        let first = Placeholders::make(&wanted(&top), &data).unwrap();
        assert!(top.join(".config/autostart").is_dir() && top.join("commondir").is_file());
        let standing = Placeholders::standing(&data).unwrap();
        assert_eq!(standing.len(), 3);
        let second = Placeholders::make(&wanted(&top), &data).unwrap();
        drop(first);
        assert!(top.join(".config/autostart").is_dir() && top.join("commondir").is_file());
        drop(second);
        assert_eq!(std::fs::read_dir(&top).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(data.join("casemate/placeholders")).unwrap().count(), 0);
        assert!(Placeholders::standing(&data).unwrap().is_empty());
    }

    #[test]
    fn what_somebody_uses_stays() {
        let place = tempfile::tempdir().unwrap();
        let (top, data) = (place.path().join("home"), place.path().join("data"));
        std::fs::create_dir(&top).unwrap();
        let made = Placeholders::make(&wanted(&top), &data).unwrap();
        std::fs::write(top.join(".config/mine"), "x").unwrap();
        std::fs::write(top.join("commondir"), "../other\n").unwrap();
        drop(made);
        assert!(top.join(".config/mine").exists() && top.join("commondir").exists());
        assert!(!top.join(".config/autostart").exists());
    }

    #[test]
    fn what_a_killed_one_left_is_taken_away() {
        let place = tempfile::tempdir().unwrap();
        let (top, data) = (place.path().join("home"), place.path().join("data"));
        std::fs::create_dir(&top).unwrap();
        let mut made = Placeholders::make(&wanted(&top), &data).unwrap();
        // The kernel drops the locks of a process that ends; nothing else is done.
        made.held.clear();
        drop(made);
        assert!(top.join(".config/autostart").is_dir());
        assert!(Placeholders::standing(&data).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(&top).unwrap().count(), 0);
    }
}
