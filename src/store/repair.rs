//! Mending what a check found, so far as the store has what it takes. What is lost must be brought
//! again by somebody else, and the names that lead to it stay until then.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::sys::stat::fstat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::check;
use super::fault::{Fault, Place, Remedy, Report, State};
use super::hold::{Claim, Held};
use super::index::{Index, Origin};
use super::intake::Intake;
use super::layer::{Info, directory_name};
use super::{DIRECTORY, Store, catalogue, layer_index, open_directory, rebuild, remove, staging};
use crate::error::{During, Error, Result};
use crate::image::Digest;
use crate::sys::fs::{Resolve, c_path, exchange, openat2};

const IN_USE: &str = "is in use by a running box or an import";
const CHANGED: &str = "was changed by another command meanwhile";

/// Mends the faults one by one; each says what came of it.
pub(super) fn repair(store: &Store, report: &mut Report, told: &dyn Fn(&Fault)) -> Result<()> {
    let _more = check::more_files()?;
    let intake = Intake::open(store, 1)?;
    for fault in report.faults.iter_mut().filter(|fault| fault.remedy != Remedy::Nothing) {
        told(fault);
        fault.state = mend(store, &intake, fault)
            .unwrap_or_else(|error| State::Stays(format!("cannot be mended: {error}")));
    }
    Ok(())
}

fn mend(store: &Store, intake: &Intake<'_>, fault: &Fault) -> Result<State> {
    let gone = || if fault.images.is_empty() { State::Mended } else { State::Missing };
    match (&fault.place, fault.remedy) {
        (Place::Layer(layer), Remedy::Unpack) => unpack(store, intake, layer, fault),
        (Place::Layer(layer), Remedy::Write) => index(store, intake, layer),
        (Place::Layer(layer), _) => match take_away(store, intake, layer, fault)? {
            State::Mended => Ok(gone()),
            stays => Ok(stays),
        },
        (Place::Document(digest), _) => {
            let _lock = store.lock()?;
            // It may have been written again.
            if catalogue::blob(store, digest).is_ok() {
                return Ok(State::Mended);
            }
            remove_at(store, &Path::new("oci/blobs/sha256").join(digest.hex()))?;
            Ok(gone())
        }
        (Place::Layout, _) => {
            let path = store.path.join("oci/oci-layout");
            intake.staging().publish_file(catalogue::LAYOUT, &path)?;
            Ok(State::Mended)
        }
        (Place::Stray(path), _) => remove_at(store, path).map(|()| State::Mended),
        (Place::Staging(path), _) => {
            let parent = open_directory(&store.path.join("staging"))?;
            let name = path.file_name().unwrap_or_default();
            staging::remove_if_abandoned(&parent, name).at("remove", path)?;
            Ok(State::Mended)
        }
        (Place::Index, _) => Ok(State::Found),
    }
}

/// Removes a file or a tree where it is.
fn remove_at(store: &Store, path: &Path) -> Result<()> {
    let full = store.path.join(path);
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    // Never over a link: what it leads to is somebody else's.
    let how = Resolve::BeneathNoSymlinks;
    let above = above.unwrap_or(Path::new("."));
    let parent = match openat2(store.dir.as_fd(), above, DIRECTORY, 0, how) {
        // It went with the layer that it was in.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        opened => opened.at("open", store.path.join(above))?,
    };
    let name = path.file_name().unwrap_or_default();
    let removed = match remove::tree(&parent, name) {
        Err(Errno::ENOTDIR | Errno::ELOOP) => unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::os("remove", full.display(), errno)),
    }
}

/// Asks for a layer alone; the reason where it cannot be had. It must be the one that was looked at.
fn claim(store: &Store, layer: &Digest, fault: &Fault) -> Result<Result<Option<Claim>, State>> {
    match Claim::layer(store, layer)? {
        Claim::Gone => Ok(Ok(None)),
        Claim::InUse => Ok(Err(State::Stays(IN_USE.to_owned()))),
        granted => {
            let path = store.layers_dir().join(directory_name(layer));
            let stat = fstat(&open_directory(&path)?).at("stat", &path)?;
            if fault.directory != Some((stat.st_dev, stat.st_ino)) {
                return Ok(Err(State::Stays(CHANGED.to_owned())));
            }
            Ok(Ok(Some(granted)))
        }
    }
}

/// Moves a layer away that is of no use; it goes for good with the staging directory.
fn take_away(store: &Store, intake: &Intake<'_>, layer: &Digest, fault: &Fault) -> Result<State> {
    match claim(store, layer, fault)? {
        Err(stays) => Ok(stays),
        Ok(None) => Ok(State::Mended),
        Ok(Some(_alone)) => move_away(store, intake, layer).map(|()| State::Mended),
    }
}

/// Moves a layer that the caller has alone into staging.
pub(super) fn move_away(store: &Store, intake: &Intake<'_>, layer: &Digest) -> Result<()> {
    let (path, name) = (store.layers_dir(), directory_name(layer));
    let from = open_directory(&path)?;
    let to = open_directory(intake.staging().path())?;
    renameat(&from, name.as_str(), &to, name.as_str()).at("move", path.join(&name))
}

/// Makes a layer's tree anew from its own stream, and puts it in the place of the old one in one
/// step: whoever looks finds one of the two.
fn unpack(store: &Store, intake: &Intake<'_>, layer: &Digest, fault: &Fault) -> Result<State> {
    // Before the work: a box may keep it for hours.
    if let Err(stays) = claim(store, layer, fault)? {
        return Ok(stays);
    }
    let Some(held) = Held::layer(store, layer)? else {
        return Ok(State::Stays(CHANGED.to_owned()));
    };
    let name = directory_name(layer);
    let info = Info::read(store, layer)?
        .ok_or_else(|| Error::new(format!("layer {layer}: its record is missing")))?;
    let made = intake.again(layer, &info, |pipe| {
        let mut pipe = std::io::BufWriter::with_capacity(256 << 10, std::fs::File::from(pipe));
        rebuild::write(store, layer, &mut pipe)?;
        std::io::Write::flush(&mut pipe).during("write", "the layer's stream")
    })?;
    drop(held);
    let _alone = match claim(store, layer, fault)? {
        Err(stays) => return Ok(stays),
        Ok(None) => return Ok(State::Stays(CHANGED.to_owned())),
        Ok(Some(alone)) => alone,
    };
    let (path, fresh) = (store.layers_dir(), open_directory(intake.staging().path())?);
    let layers = open_directory(&path)?;
    let (c_made, c_name) = (c_path(&made).at("name", &made)?, c_path(&name).at("name", &name)?);
    match exchange(&fresh, &c_made, &layers, &c_name) {
        Ok(()) => (),
        // A file system without it (RENAME_EXCHANGE). What a crash leaves between the two is a layer
        // that is missing, which the next check says.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            renameat(&layers, name.as_str(), &fresh, "old").at("move", path.join(&name))?;
            renameat(&fresh, made.as_str(), &layers, name.as_str())
                .at("rename to", path.join(&name))?;
        }
        Err(error) => return Err(Error::os("exchange", path.join(&name).display(), error)),
    }
    Ok(State::Mended)
}

/// Makes a layer's index anew from its own stream. A box that uses the old one keeps it.
fn index(store: &Store, intake: &Intake<'_>, layer: &Digest) -> Result<State> {
    let Some(_held) = Held::layer(store, layer)? else {
        return Ok(State::Stays(CHANGED.to_owned()));
    };
    let (outline, digest) = intake.outline(|pipe| {
        let mut pipe = std::io::BufWriter::with_capacity(256 << 10, std::fs::File::from(pipe));
        rebuild::write(store, layer, &mut pipe)?;
        std::io::Write::flush(&mut pipe).during("write", "the layer's stream")
    })?;
    let replaced = match digest == *layer {
        true => layer_index::replace(store, layer, &outline).map(|()| State::Mended),
        false => Ok(State::Stays(CHANGED.to_owned())),
    };
    intake.forget(&outline);
    replaced
}

/// The images that are to be brought again, by name, and where they came from.
pub(super) fn to_bring(store: &Store, report: &Report) -> Result<BTreeMap<String, Origin>> {
    // One that cannot be read is a fault of its own.
    let Ok(index) = Index::read(store) else { return Ok(BTreeMap::new()) };
    let is_lost = |name: &String| {
        let mut faults = report.faults.iter().filter(|fault| !fault.is_mended());
        faults.any(|fault| fault.remedy == Remedy::Bring && fault.images.contains(name))
    };
    let entries = index.named().map(|entry| (entry.name(), entry.origin()));
    Ok(entries.filter(|(name, _)| is_lost(name)).collect())
}

/// Looks at what was missing again, after images were brought.
pub(super) fn confirm(store: &Store, report: &mut Report) -> Result<()> {
    let Ok(index) = Index::read(store) else { return Ok(()) };
    let mut broken = BTreeSet::new();
    for entry in index.named() {
        if catalogue::load(store, entry).is_err() {
            broken.insert(entry.name());
        }
    }
    for fault in report.faults.iter_mut().filter(|fault| fault.state == State::Missing) {
        fault.images.retain(|name| broken.contains(name));
        if fault.images.is_empty() {
            fault.state = State::Mended;
        }
    }
    Ok(())
}
