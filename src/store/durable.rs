//! Layers that are in their places before the disk has them.
//!
//! Nobody waits for the disk at the end of an import: a process that stays behind writes the file
//! system out and then marks the layers. Until then a layer is what the kernel's memory and the disk
//! hold together, which is whole as long as the machine runs. One without a mark that was made
//! before the machine was last started may be anything, and is verified before it is used.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat};

use super::check;
use super::hold::{Claim, Held};
use super::intake::Intake;
use super::layer::{Info, directory_name};
use super::{Image, Store, open_directory};
use crate::error::{During, Error, Result};
use crate::image::Digest;
use crate::sys::clone::{self, Forked};
use crate::sys::fs::syncfs;
use crate::sys::process;

/// In a layer's directory: the disk has all of it.
const ON_DISK: &str = "on-disk";
/// In a layer's directory: the disk refused a part of it, so that it may be gone at any time.
const REFUSED: &str = "refused";
/// Both.
pub(super) const MARKS: [&str; 2] = [ON_DISK, REFUSED];

/// Tells this start of the machine from every other; `None` where /proc does not say.
pub(super) fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = id.trim_end();
    (!id.is_empty()).then(|| id.to_owned())
}

/// The layers of which nobody knows whether the disk has them.
pub(super) fn uncertain(store: &Store, layers: &[Digest]) -> Result<Vec<Digest>> {
    let dir = open_directory(&store.layers_dir())?;
    let mut boot_id = None;
    let mut found = Vec::new();
    for layer in layers {
        if has(&dir, layer, ON_DISK) {
            continue;
        }
        let boot_id = boot_id.get_or_insert_with(boot);
        let is_certain = match Info::read(store, layer) {
            // One that waited for the disk.
            Ok(Some(Info { boot: None, .. })) => true,
            Ok(Some(info)) => info.boot == *boot_id && !has(&dir, layer, REFUSED),
            // The record itself is lost.
            Ok(None) | Err(_) => false,
        };
        if !is_certain {
            found.push(*layer);
        }
    }
    Ok(found)
}

fn has(layers: &OwnedFd, layer: &Digest, mark: &str) -> bool {
    let path = format!("{}/{mark}", directory_name(layer));
    faccessat(layers, path.as_str(), AccessFlags::F_OK, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
}

/// Whether a layer is whole, which takes reading all of it; it is on disk afterwards. The caller
/// holds it.
fn is_whole(store: &Store, intake: &Intake<'_>, layer: &Digest) -> Result<bool> {
    // The program that is run afterwards gets the limit as it was.
    let _until_then = check::more_files()?;
    if check::layer(store, intake, layer, &Silent)?.is_some() {
        return Ok(false);
    }
    // What was read may have come from memory.
    intake.staging().sync()?;
    let path = store.layers_dir().join(directory_name(layer));
    mark(&open_directory(&path)?, ON_DISK).at("mark", path)?;
    Ok(true)
}

struct Silent;

impl check::Progress for Silent {
    fn begin(&self, _layers: usize, _bytes: u64) {}
    fn layer(&self, _number: usize, _layer: &Digest) {}
    fn read(&self, _bytes: u64) {}
}

/// Verifies the uncertain layers of an image.
pub(super) fn verify(store: &Store, image: &Image, layers: &[Digest]) -> Result<()> {
    let intake = Intake::open(store, 1)?;
    for layer in layers {
        let Some(_held) = Held::layer(store, layer)? else {
            return Err(super::hold::missing(layer));
        };
        if !is_whole(store, &intake, layer)? {
            return Err(Error::new(format!(
                "image {}: layer {layer} had not reached the disk when the machine stopped",
                image.name
            ))
            .hint(format!("pull or import {} again; the layer is replaced then", image.name)));
        }
    }
    Ok(())
}

/// Keeps a layer that is whole, and moves one that is not away, so that it can be brought again:
/// whether it was kept.
pub(super) fn keep_or_take_away(
    store: &Store,
    intake: &Intake<'_>,
    layer: &Digest,
    held: Held,
) -> Result<Option<Held>> {
    if uncertain(store, &[*layer])?.is_empty() || is_whole(store, intake, layer)? {
        return Ok(Some(held));
    }
    drop(held);
    match Claim::layer(store, layer)? {
        Claim::Gone => Ok(None),
        Claim::InUse => Err(Error::new(format!("layer {layer}: is damaged, and in use"))
            .hint("try again when the boxes that use it have ended")),
        Claim::Granted(_alone) => {
            super::repair::move_away(store, intake, layer)?;
            Ok(None)
        }
    }
}

/// Leaves a process behind that writes the file system out and marks these layers. It holds
/// nothing but the directory of the layers, and no harm is done where it is killed.
///
/// The caller has one thread.
pub(super) fn write_out_behind(store: &Store, layers: &[Digest]) {
    if layers.is_empty() {
        return;
    }
    let Ok(dir) = open_directory(&store.layers_dir()) else { return };
    let names: Vec<String> = layers.iter().map(directory_name).collect();
    match clone::fork() {
        Ok(Forked::Parent(child)) => {
            // It closes what it has inherited first: locks among it that end with this command.
            let _closed = clone::wait_for_end(&child.pidfd);
        }
        Ok(Forked::Child) => {
            if detach(&dir).is_ok() {
                // As long as the caller waits it holds the layers: these are the ones that are
                // meant, whatever has their names later.
                let layers: Vec<OwnedFd> =
                    names.iter().filter_map(|name| open(&dir, name).ok()).collect();
                // Whoever waits for the children of this command does not wait for this one.
                if let Ok(Forked::Child) = clone::fork() {
                    write_out(&dir, &layers);
                }
            }
            clone::exit_now(0)
        }
        // The layers stay without a mark, and are verified once.
        Err(_) => (),
    }
}

fn detach(dir: &OwnedFd) -> std::io::Result<()> {
    clone::close_all_but(&[dir.as_raw_fd()])?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    (0..3).try_for_each(|number| clone::place_at(null.as_fd(), number))?;
    // Neither the terminal's signals nor its end concern it, and no directory is kept in use.
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    process::set_name(c"casemate-sync")
}

fn write_out(dir: &OwnedFd, layers: &[OwnedFd]) {
    let with = if syncfs(dir).is_ok() { ON_DISK } else { REFUSED };
    for layer in layers {
        // A layer that was removed meanwhile needs none.
        let _unmarked = mark(layer, with);
    }
}

fn open(layers: &OwnedFd, layer: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(layers, layer, flags, Mode::empty())
}

fn mark(layer: &OwnedFd, mark: &str) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(layer, mark, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(drop)
}
