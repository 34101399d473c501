//! Layers in use. Who reads a layer holds a shared flock(2) on its directory, who removes one needs
//! the exclusive lock: a box keeps its files whatever is removed meanwhile, and the kernel lets go
//! of what a crashed process held.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::layer::directory_name;
use super::{Store, open_directory};
use crate::error::{During, Error, Result};
use crate::image::Digest;

/// A layer, or the manifest of an image, that nobody removes as long as this is kept. A process
/// that was cloned and closes its copy of the descriptor takes nothing away.
#[derive(Debug)]
pub struct Held {
    _lock: Flock<OwnedFd>,
}

/// What came of asking for something alone.
pub(super) enum Claim {
    /// Nobody uses it, and nobody will as long as this is kept.
    Granted(Held),
    /// Somebody uses it.
    InUse,
    /// It is not there.
    Gone,
}

const PATIENCE: Duration = Duration::from_secs(3);
const NO_FOLLOW: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const DIRECTORY: OFlag = NO_FOLLOW.union(OFlag::O_DIRECTORY);

impl Held {
    /// Holds a layer that is in the store; `None` where it is not.
    pub(super) fn layer(store: &Store, layer: &Digest) -> Result<Option<Held>> {
        let layers = open_directory(&store.layers_dir())?;
        share(&layers, &directory_name(layer), DIRECTORY, &store.layers_dir())
    }

    /// Holds a layer that nobody is removing at this moment; `None` where that, or anything else, is
    /// in the way.
    pub(super) fn layer_at_once(store: &Store, layer: &Digest) -> Option<Held> {
        let layers = open_directory(&store.layers_dir()).ok()?;
        let name = directory_name(layer);
        let file = openat(&layers, name.as_str(), DIRECTORY, Mode::empty()).ok()?;
        let lock = Flock::lock(file, FlockArg::LockSharedNonblock).ok()?;
        is_still_at(&layers, &name, &*lock).ok()?.then_some(Held { _lock: lock })
    }

    /// Holds all of these, or says which one is missing.
    pub(super) fn layers(store: &Store, layers: &[Digest]) -> Result<Vec<Held>> {
        let path = store.layers_dir();
        let dir = open_directory(&path)?;
        let hold = |layer: &Digest| {
            let held = share(&dir, &directory_name(layer), DIRECTORY, &path)?;
            held.ok_or_else(|| missing(layer))
        };
        layers.iter().map(hold).collect()
    }

    /// Holds a layer that is still being staged, through its open directory: it is held without a
    /// gap when it is renamed into its place.
    pub(super) fn staged(dir: OwnedFd) -> Result<Held> {
        match Flock::lock(dir, FlockArg::LockShared) {
            Ok(lock) => Ok(Held { _lock: lock }),
            Err((_, errno)) => Err(Error::os("lock", "the new layer", errno)),
        }
    }

    /// Holds a manifest, which says that its image is in use; `None` where it is not there.
    pub(super) fn document(store: &Store, digest: &Digest) -> Result<Option<Held>> {
        let path = store.path.join("oci/blobs/sha256");
        share(&open_directory(&path)?, &digest.hex(), NO_FOLLOW, &path)
    }
}

impl Claim {
    /// Asks for a layer, to remove it.
    pub(super) fn layer(store: &Store, layer: &Digest) -> Result<Claim> {
        let path = store.layers_dir();
        claim(&open_directory(&path)?, &directory_name(layer), DIRECTORY, &path)
    }

    /// Asks for a manifest: whether a box runs its image.
    pub(super) fn document(store: &Store, digest: &Digest) -> Result<Claim> {
        let path = store.path.join("oci/blobs/sha256");
        claim(&open_directory(&path)?, &digest.hex(), NO_FOLLOW, &path)
    }
}

/// The error for a layer that an image needs and the store does not have.
pub(super) fn missing(layer: &Digest) -> Error {
    Error::new(format!("layer {layer}: is missing in the store"))
        .hint("`casemate store check --repair` brings it back if the image was pulled")
        .hint("import the image again otherwise")
}

fn share(dir: &OwnedFd, name: &str, flags: OFlag, path: &Path) -> Result<Option<Held>> {
    loop {
        let file = match openat(dir, name, flags, Mode::empty()) {
            Err(errno) if is_none(errno, flags) => return Ok(None),
            opened => opened.at("open", path.join(name))?,
        };
        let lock = lock_shared(file, &path.join(name))?;
        // It may have been removed, or made anew, between open and lock.
        if is_still_at(dir, name, &*lock).at("stat", path.join(name))? {
            return Ok(Some(Held { _lock: lock }));
        }
    }
}

/// Who removes something has it alone for some microseconds. Anything longer is no casemate: a
/// program in a box may lock what it can read, and must not stop others from running for good.
fn lock_shared(mut file: OwnedFd, path: &Path) -> Result<Flock<OwnedFd>> {
    let start = Instant::now();
    loop {
        file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) if start.elapsed() < PATIENCE => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                let path = path.display();
                return Err(Error::new(format!("lock {path}: another program has it locked"))
                    .hint(format!("`fuser -v {path}` names the program")));
            }
            Err((_, errno)) => return Err(Error::os("lock", path.display(), errno)),
        };
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn claim(dir: &OwnedFd, name: &str, flags: OFlag, path: &Path) -> Result<Claim> {
    let file = match openat(dir, name, flags, Mode::empty()) {
        Err(errno) if is_none(errno, flags) => return Ok(Claim::Gone),
        opened => opened.at("open", path.join(name))?,
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => Ok(Claim::InUse),
        Err((_, errno)) => Err(Error::os("lock", path.join(name).display(), errno)),
        Ok(lock) => match is_still_at(dir, name, &*lock).at("stat", path.join(name))? {
            true => Ok(Claim::Granted(Held { _lock: lock })),
            false => Ok(Claim::Gone),
        },
    }
}

/// Whether an error of open means that there is no such thing. What has the name of a layer and is
/// no directory is none: a check tells it as a stray.
fn is_none(errno: Errno, flags: OFlag) -> bool {
    errno == Errno::ENOENT || (errno == Errno::ENOTDIR && flags.contains(OFlag::O_DIRECTORY))
}

fn is_still_at(dir: &OwnedFd, name: &str, file: impl AsFd) -> Result<bool, Errno> {
    let own = fstat(file.as_fd())?;
    if own.st_nlink == 0 {
        return Ok(false);
    }
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
