//! The trials in the user's own directories: the place of the store, and the runtime directory.
//! What they make there they remove.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::doctor::Outcome;
use super::overlay::try_overlayfs;
use super::step::Step;
use crate::sys::fs;

/// The directory nearest to where the store's files are, or would be: the store's own for what is
/// not finished, whose leftovers the next command removes, where there is one.
pub(super) fn nearest(data_home: &Path) -> PathBuf {
    let wanted = data_home.join("casemate/store/staging");
    let found = wanted.ancestors().find(|path| path.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

/// Tries what the store needs of its file system.
pub(super) fn try_store(data_home: Option<&Path>) -> Vec<(Step, Outcome)> {
    let Some(data_home) = data_home else {
        return vec![(Step::StoreWrite, Outcome::Fails(libc::ENOENT))];
    };
    let place = match Place::make(&nearest(data_home)) {
        Ok(place) => place,
        Err(error) => return vec![(Step::StoreWrite, failed(&error))],
    };
    vec![
        (Step::StoreWrite, Outcome::Works),
        (Step::StoreAttributes, outcome(attributes(&place.0))),
        (Step::StoreOverlay, try_overlayfs(&place.0, false).unwrap_or_else(|error| failed(&error))),
        (Step::StoreExecute, execute(&place.0)),
    ]
}

/// Tries the directory of what lasts as long as the session.
pub(super) fn try_runtime(directory: Option<&Path>) -> Outcome {
    let Some(directory) = directory else { return Outcome::Fails(libc::ENOENT) };
    let tried = || {
        let found = std::fs::metadata(directory)?;
        if !found.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        // What the XDG base directory specification demands.
        if found.uid() != nix::unistd::getuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Place::make(directory).map(drop)
    };
    outcome(tried())
}

fn outcome(result: io::Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Works,
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> Outcome {
    Outcome::Fails(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A directory of this trial's own, which goes with the value.
struct Place(PathBuf);

impl Place {
    fn make(parent: &Path) -> io::Result<Place> {
        let made = nix::unistd::mkdtemp(&parent.join(".casemate-doctor.XXXXXX"))?;
        Ok(Place(made))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // overlayfs leaves a directory that nobody may read.
        let closed = self.0.join("work/work");
        if closed.is_dir() {
            let mode = std::fs::Permissions::from_mode(0o700);
            let _still_there = std::fs::set_permissions(closed, mode);
        }
        let _nobody_to_tell = std::fs::remove_dir_all(&self.0);
    }
}

fn attributes(place: &Path) -> io::Result<()> {
    let directory = std::fs::File::open(place)?;
    fs::set_xattr(&directory, c"user.casemate", b"1")?;
    match fs::get_xattr(&directory, c"user.casemate")? {
        Some(value) if value == b"1" => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    }
}

/// Executes a script there.
fn execute(place: &Path) -> Outcome {
    let name = place.join("script");
    let tried = || {
        std::fs::write(&name, "#!/bin/sh\nexit 0\n")?;
        std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o700))?;
        let mut script = Command::new(&name);
        script.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        script.status()
    };
    match tried() {
        Ok(status) if status.success() => Outcome::Works,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => failed(&error),
        // Without a shell there is nothing to be learned.
        _ => Outcome::NotTried,
    }
}
