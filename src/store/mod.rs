//! The store on disk: unpacked layers in the kernel overlay's own format, manifests and configs as
//! an OCI image layout, and what is still being unpacked.
//!
//! ```text
//! DATA/casemate/                    0700, the user's own
//!   store/layers/sha256-<hex>/fs/   an unpacked layer, by the digest of its uncompressed tar
//!   store/layers/sha256-<hex>/skeleton  what its tar stream has beside the files' contents
//!   store/layers/sha256-<hex>/files    which of its files other layers may have as well
//!   store/layers/sha256-<hex>/index    what the overlay must know of the tree, without a walk
//!   store/layers/sha256-<hex>/info  its size and where it came from
//!   store/layers/sha256-<hex>/packed.json  what it was packed to when it was sent
//!   store/oci/                      an OCI image layout without the layers' blobs
//!   store/staging/<random>/         an import under way, locked by its process
//!   store/lock                      held while oci/index.json is rewritten
//! ```

mod catalogue;
mod check;
mod collect;
mod compare;
mod directory;
mod durable;
mod fault;
mod hold;
mod import;
mod index;
mod input;
mod inspect;
mod intake;
mod layer;
mod layer_index;
mod listing;
mod lookup;
mod measure;
mod outgoing;
mod pipeline;
mod rebuild;
mod remove;
mod repair;
mod scratch;
mod share;
mod skeleton;
mod spool;
mod staging;
mod strays;
mod stream;
mod tag;
mod unpack;
mod usage;
mod view;
mod workshop;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{AccessFlags, faccessat, geteuid};

use crate::error::{During, Error, Result};
use crate::image::{Config, Digest, Reference};
use crate::sys::fs::{Resolve, cwd, openat2};

pub use check::Progress;
pub use collect::{Prune, Removed};
pub use fault::{Fault, Place, Remedy, Report, State};
pub use hold::Held;
pub use import::{Import, Imported, import, import_from};
pub use index::Origin;
pub use inspect::{Details, LayerDetails};
pub use intake::{Brought, Expected, Intake};
pub use lookup::{Wanted, missing};
pub use outgoing::{Outgoing, OutgoingLayer};
pub use scratch::Scratch;
pub use spool::Spool;
pub use stream::LayerStream;
pub use usage::{ImageUsage, Usage};

/// An open store.
pub struct Store {
    /// `DATA/casemate/store`.
    path: PathBuf,
    dir: OwnedFd,
}

/// An image in the store, as much as is needed to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name, as the user would type it.
    pub name: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// What it says about its program.
    pub config: Config,
    /// Its layers, lowest first: those that can show through.
    pub layers: Vec<Digest>,
    /// Where it was pulled from.
    pub origin: Origin,
}

/// An image in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its name, as the user would type it.
    pub name: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// When it was made, as RFC 3339 text.
    pub created: Option<String>,
    /// When it was last run, pulled or imported, in seconds since 1970; `None` where its manifest is
    /// missing.
    pub used: Option<i64>,
    /// Bytes of file data in its layers.
    pub size: u64,
    /// How many layers it has.
    pub layers: usize,
}

impl Store {
    /// Opens the store below `data_home` for writing: makes it where it is missing and removes what
    /// crashed imports left.
    pub fn open(data_home: &Path) -> Result<Self> {
        std::fs::create_dir_all(data_home).map_err(|error| {
            Error::os("make", data_home.display(), error)
                .hint("the store goes below it; XDG_DATA_HOME names another place")
        })?;
        let home = data_home.join("casemate");
        if let Err(error) =
            std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
                .create(&home)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(Error::os("make", home.display(), error));
        }
        let home_fd =
            open_private(&home)?.ok_or_else(|| Error::os("open", home.display(), Errno::ENOENT))?;
        make_directory(&home_fd, &home, "store")?;
        let path = home.join("store");
        let dir = open_directory(&path)?;
        for name in ["layers", "staging", "oci", "oci/blobs", "oci/blobs/sha256"] {
            make_directory(&dir, &path, name)?;
            refuse_link(&dir, &path, name)?;
        }
        let store = Store { path, dir };
        store.refuse_read_only()?;
        staging::clean(&store)?;
        catalogue::prepare(&store)?;
        Ok(store)
    }

    /// Opens the store for reading; `None` where there is none yet. Changes nothing.
    pub fn find(data_home: &Path) -> Result<Option<Self>> {
        let home = data_home.join("casemate");
        if open_private(&home)?.is_none() {
            return Ok(None);
        }
        let path = home.join("store");
        match openat2(cwd(), &path, DIRECTORY, 0, Resolve::Ordinary) {
            Ok(dir) => Ok(Some(Store { path, dir })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(Error::os("open", path.display(), error)),
        }
    }

    /// An image by name. One of which a layer is missing is an error that names it.
    pub fn image(&self, reference: &Reference) -> Result<Image> {
        self.lookup(&Wanted::of(reference))
    }

    /// An image by name, name with digest, or id; [`Wanted`] says in which order.
    pub fn lookup(&self, wanted: &Wanted<'_>) -> Result<Image> {
        lookup::image(self, wanted)
    }

    /// Whether there is such an image, whole or not.
    pub fn has(&self, wanted: &Wanted<'_>) -> bool {
        lookup::is_named(self, wanted)
    }

    /// As [`Store::lookup`], with its layers held: they stay where they are as long as the returned
    /// values are kept, whoever removes the image meanwhile.
    pub fn hold(&self, wanted: &Wanted<'_>) -> Result<(Image, Vec<Held>)> {
        lookup::hold(self, wanted)
    }

    /// The layers of an image that may not have reached the disk before the machine stopped; see
    /// [`Store::verify`].
    pub fn uncertain(&self, image: &Image) -> Result<Vec<Digest>> {
        durable::uncertain(self, &image.layers)
    }

    /// Reads these layers of an image wholly and goes on only with what is as it was imported. The
    /// store must be writable.
    pub fn verify(&self, image: &Image, layers: &[Digest]) -> Result<()> {
        durable::verify(self, image, layers)
    }

    /// Notes that the image with this manifest was used now, for [`Store::prune`]. A store that cannot be written is no
    /// error.
    pub fn mark_used(&self, image: &Digest) {
        catalogue::mark_used(self, image);
    }

    /// Gives an image more names, in place of the images that had them.
    pub fn tag(&self, wanted: &Wanted<'_>, names: &[Reference]) -> Result<()> {
        tag::tag(self, wanted, names)
    }

    /// Removes names, and what no other name needs. Each is tried; the errors are those of the ones
    /// that failed. An image by its id loses all its names, which must be wanted with `force` where
    /// there are several.
    pub fn remove(&self, wanted: &[Wanted<'_>], force: bool) -> Result<(Removed, Vec<Error>)> {
        collect::remove(self, wanted, force)
    }

    /// Removes what no name leads to, and the images that `prune` says. With `dry_run` nothing is
    /// changed, and the result is what would be.
    pub fn prune(&self, prune: &Prune, dry_run: bool) -> Result<Removed> {
        collect::prune(self, prune, dry_run)
    }

    /// All that is known of an image.
    pub fn inspect(&self, wanted: &Wanted<'_>) -> Result<Details> {
        inspect::inspect(self, wanted)
    }

    /// What takes how much room. Looks at every file of the store.
    pub fn usage(&self) -> Result<Usage> {
        usage::usage(self)
    }

    /// Verifies the store, or these images alone: all that belongs to them, each layer wholly. The
    /// store must be writable, and is not changed.
    pub fn check(&self, wanted: &[Wanted<'_>], progress: &dyn Progress) -> Result<Report> {
        check::check(self, wanted, progress)
    }

    /// Mends what a check has found, and says of each fault what came of it; `told` comes before.
    /// What is lost is removed, and the names that lead to it stay.
    pub fn repair(&self, report: &mut Report, told: &dyn Fn(&Fault)) -> Result<()> {
        repair::repair(self, report, told)
    }

    /// The images of which something is lost, by name, and where they can be had again.
    pub fn to_bring(&self, report: &Report) -> Result<BTreeMap<String, Origin>> {
        repair::to_bring(self, report)
    }

    /// Looks again at what was missing after images were brought.
    pub fn confirm(&self, report: &mut Report) -> Result<()> {
        repair::confirm(self, report)
    }

    /// Writes the tar stream of a layer, without verifying it.
    pub fn write_layer(&self, layer: &Digest, to: &mut dyn Write) -> Result<()> {
        rebuild::write(self, layer, to)
    }

    /// All images, sorted by name.
    pub fn images(&self) -> Result<Vec<Summary>> {
        catalogue::images(self)
    }

    /// Where the layers are.
    pub fn layers_dir(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// Where boxes have their writable layers, when those are on disk.
    pub fn scratch_dir(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// The tree of a layer, below [`Store::layers_dir`].
    pub fn layer_tree(layer: &Digest) -> PathBuf {
        Path::new(&layer::directory_name(layer)).join("fs")
    }

    /// The tree of a layer.
    pub fn layer_path(&self, layer: &Digest) -> PathBuf {
        self.layers_dir().join(Store::layer_tree(layer))
    }

    /// The index of a layer, opened for reading. One that is missing or of no use is made from the
    /// tree, and put in its place where the store can be written.
    pub fn layer_index(&self, layer: &Digest) -> Result<File> {
        layer_index::open(self, layer)
    }

    /// A regular file as the merged layers show it; `None` where it is absent, no regular file, or
    /// reached over a symbolic link. One larger than `limit` is an error.
    pub fn read_file(&self, image: &Image, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        view::read_file(self, image, path, limit)
    }

    /// The first thing to be written would fail as well, with an error that says less.
    fn refuse_read_only(&self) -> Result<()> {
        for name in [".", "layers", "staging", "oci", "oci/blobs/sha256"] {
            let access = AccessFlags::W_OK | AccessFlags::X_OK;
            let writable = faccessat(&self.dir, name, access, AtFlags::AT_EACCESS);
            if let Err(errno) = writable {
                let path = self.path.join(name);
                let path = path.components().collect::<PathBuf>();
                let error = Error::os("write to", path.display(), errno);
                return Err(with_space_hint(error, errno));
            }
        }
        Ok(())
    }

    /// Takes the lock that writers of the index hold; waits for it.
    fn lock(&self) -> Result<Flock<OwnedFd>> {
        let path = self.path.join("lock");
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file =
            openat(&self.dir, "lock", flags, Mode::S_IRUSR | Mode::S_IWUSR).at("open", &path)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).at("lock", &path)
    }
}

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY;

fn open_directory(path: &Path) -> Result<OwnedFd> {
    openat2(cwd(), path, DIRECTORY, 0, Resolve::Ordinary).at("open", path)
}

fn make_directory(dir: &OwnedFd, path: &Path, name: &str) -> Result<()> {
    match mkdirat(dir, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => {
            let path = path.join(name);
            Err(with_space_hint(Error::os("make", path.display(), errno), errno))
        }
    }
}

/// What is in staging is removed, and layers are renamed into their places: a link would have that
/// done to what it leads to.
fn refuse_link(dir: &OwnedFd, path: &Path, name: &str) -> Result<()> {
    match openat2(dir.as_fd(), Path::new(name), DIRECTORY, 0, Resolve::BeneathNoSymlinks) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            Err(Error::new(format!("open {}: is a symbolic link", path.join(name).display()))
                .hint("remove the link; XDG_DATA_HOME is what moves the store"))
        }
        opened => opened.map(drop).at("open", path.join(name)),
    }
}

/// Opens casemate's own directory, if it is there, and checks that nobody else comes in: what is in
/// the layers may be setuid by name or readable by all (CVE-2021-41091).
fn open_private(home: &Path) -> Result<Option<OwnedFd>> {
    let dir = match openat2(cwd(), home, DIRECTORY, 0, Resolve::Ordinary) {
        Ok(dir) => dir,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(Error::os("open", home.display(), error)),
    };
    let stat = fstat(&dir).at("stat", home)?;
    let (own, owner) = (geteuid().as_raw(), stat.st_uid);
    if owner != own {
        return Err(Error::new(format!(
            "open {}: belongs to user {owner}, casemate runs as user {own}",
            home.display()
        ))
        .hint("set XDG_DATA_HOME to a directory of your own"));
    }
    if stat.st_mode & 0o077 != 0 {
        let mode = stat.st_mode & 0o777;
        return Err(Error::new(format!(
            "open {}: open to other users (mode {mode:04o})",
            home.display()
        ))
        .hint(format!("chmod 700 {}", home.display())));
    }
    Ok(Some(dir))
}

/// Adds what to do where the disk or the quota is full, or nothing can be written at all.
fn with_space_hint(error: Error, errno: Errno) -> Error {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => error.hint(
            "make room (`casemate prune` removes what no image needs), or set XDG_DATA_HOME to a \
             directory on another file system for the store",
        ),
        Errno::EROFS | Errno::EACCES | Errno::EPERM => error.hint(
            "the store cannot be changed; what is in it can be run and listed, and XDG_DATA_HOME \
             names another place",
        ),
        _ => error,
    }
}
