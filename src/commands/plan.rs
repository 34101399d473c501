//! From arguments to a plan: the part that `run` and `explain` share, so that they cannot differ.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::pull::Obtain;
use super::{registries, trust};
use crate::cgroup;
use crate::cli::RunArgs;
use crate::confine::rlimits;
use crate::error::{During, Error, Result};
use crate::host::doctor::Outcome;
use crate::host::overlay::{self, Note};
use crate::host::{Directories, Host, Live, Settings, World};
use crate::identity::range::{Range, Search};
use crate::identity::{self, Names};
use crate::image::{Digest, Reference};
use crate::index::LayerIndex;
use crate::launch::{Layers, Placeholders};
use crate::profile::{Library, Overlay, Profile, Pull};
use crate::running;
use crate::sandbox::{self, ImageInput, Inputs, Own, Sandbox};
use crate::store::{self, Held, Image, Scratch, Store, Wanted};
use crate::sys::fs;
use crate::ui;

/// More than any /etc/passwd has.
const NAMES_LIMIT: u64 = 4 << 20;

/// A plan with what must stay open until the box has found its files again.
pub(super) struct Planned {
    pub(super) sandbox: Sandbox,
    pub(super) world: Live,
    /// The image, where the root is one.
    pub(super) in_use: Option<InUse>,
    /// The namespace that the box's range of ids is in, unless it is casemate's own.
    pub(super) namespace: Option<OwnedFd>,
    /// The box's cgroup, or the way to it.
    pub(super) cgroup: cgroup::Begun,
    /// The name that the box goes by.
    pub(super) name: String,
}

/// An image that nobody removes meanwhile.
pub(super) struct InUse {
    store: Store,
    digest: Digest,
    /// Lowest first.
    layers: Vec<Digest>,
    _held: Vec<Held>,
}

impl InUse {
    /// Notes that it was used now.
    pub(super) fn mark(&self) {
        self.store.mark_used(&self.digest);
    }

    /// What boxes over the same layers have in common, whatever their image: a name for it. Another
    /// version of casemate may speak another language to its server.
    pub(super) fn key(&self) -> Result<String> {
        let path = self.store.layers_dir();
        let store = fs::open_path(&path).and_then(fs::identity).at("open", &path)?;
        let mut text = format!("{} {store:?}\n", env!("CARGO_PKG_VERSION")).into_bytes();
        text.extend_from_slice(path.as_os_str().as_bytes());
        for layer in &self.layers {
            text.extend_from_slice(format!("\n{layer}").as_bytes());
        }
        // Half of it is enough to be told from others, and short enough for a socket's name.
        Ok(Digest::of(&text).hex().chars().take(32).collect())
    }

    /// Its layers for a server of casemate's own. An index that is missing is made.
    pub(super) fn layers(&self) -> Result<Layers> {
        let open = |layer: &Digest| {
            let path = self.store.layer_path(layer);
            let tree = fs::open_path(&path).at("open layer", &path)?;
            Ok((tree, self.index(layer)?))
        };
        self.layers.iter().rev().map(open).collect()
    }

    /// Whether any layer has extended attributes: what their indexes begin with.
    fn any_xattrs(&self) -> Result<bool> {
        for layer in &self.layers {
            if self.index(layer)?.any_xattrs() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn index(&self, layer: &Digest) -> Result<LayerIndex> {
        LayerIndex::open(&self.store.layer_index(layer)?)
    }
}

/// Makes the plan. An image that is missing is obtained, if it may be.
pub(super) fn plan(
    args: &RunArgs,
    directories: &Directories,
    obtain: Option<&Obtain<'_>>,
) -> Result<Planned> {
    let library = Library::new(directories.config.as_deref());
    let mut layers = library.load(args.profile.as_deref().unwrap_or("default"))?;
    if !args.no_project {
        layers = trust::with_project(&library, layers, args.profile.as_deref(), directories)?;
    }
    let profiles = layers.names;
    let merged = layers.profile.overlaid(args.overlay()?);
    // The manager answers while the rest is looked at.
    let inquiry = cgroup::inquire(&merged, args.name.is_some());
    let overlays = merged.root.image.is_some() || !merged.files.overlay.is_empty();
    let mut host = Host::probe(directories, overlays);
    let mut world = Live::default();
    let (mut image, names, in_use) = match &merged.root.image {
        Some(_) => {
            let (input, names, in_use) = image(&merged, directories, obtain, &mut world)?;
            (Some(input), names, Some(in_use))
        }
        None => (None, host_names(&merged), None),
    };
    let namespace = match identity::needs_many(&merged.identity, &names) {
        Some(_) => find_range(directories, obtain.is_some(), &mut host)?,
        None => None,
    };
    if let (Some(image), Some(in_use)) = (&mut image, &in_use) {
        try_overlays(merged.root.overlay.unwrap_or(Overlay::Auto), directories, &mut host)?;
        // A server of casemate's own may be all of the root.
        if merged.root.xattrs.is_none() && host.fuse == Outcome::Works {
            image.has_xattrs = Some(in_use.any_xattrs()?);
        }
    }
    let own = own_directories(&merged, directories, &mut world)?;
    let (facts, found) = cgroup::look(&merged, inquiry)?;
    host.cgroup = facts;
    let label = label(args).to_owned();
    let persistent = persistent(&merged, directories)?;
    let standing = || match &directories.data {
        Some(data) if !merged.files.write.is_empty() => Placeholders::standing(data),
        _ => Ok(BTreeSet::new()),
    };
    let mut inputs = Inputs {
        profiles,
        profile: &merged,
        command: args.command.clone(),
        entrypoint: args.entrypoint.clone(),
        host: &host,
        image,
        names,
        own,
        persistent,
        placeholders: standing()?,
    };
    let mut sandbox = loop {
        let sandbox = sandbox::resolve(&inputs, &mut world)?;
        // Another box may have put some up meanwhile, which would be taken for the user's own.
        let now = standing()?;
        if now == inputs.placeholders {
            break sandbox;
        }
        inputs.placeholders = now;
    };
    for limit in &mut sandbox.rlimits {
        let said = merged.limits.rlimits.get(&limit.name);
        // What stands in place of a limit of the box is no reason against the run.
        match said.is_some_and(|said| said.hard == limit.limit.hard) {
            true => rlimits::fit(limit)?,
            false => rlimits::lower(limit)?,
        }
    }
    let cgroup = match (&sandbox.cgroup, obtain) {
        (Some(plan), Some(_)) => found.begin(&label, &plan.limits)?,
        _ => cgroup::Begun::Nowhere,
    };
    let name = match &args.name {
        Some(name) => name.0.clone(),
        None => format!("{label}-{:08x}", cgroup::random()?),
    };
    Ok(Planned { sandbox, world, in_use, namespace, cgroup, name })
}

/// What the box is called after: its name, or its profile.
fn label(args: &RunArgs) -> &str {
    if let Some(name) = &args.name {
        return &name.0;
    }
    // A profile's file may be called anything.
    let profile = Path::new(args.profile.as_deref().unwrap_or("default")).file_stem();
    let profile = profile.and_then(|stem| stem.to_str()).filter(|stem| stem.len() <= 40);
    profile.filter(|stem| running::is_name(stem)).unwrap_or("box")
}

/// Looks for a range of ids. One that had to be asked for is kept for the next box, where this one
/// is to run.
fn find_range(directories: &Directories, keep: bool, host: &mut Host) -> Result<Option<OwnedFd>> {
    match search(directories, keep)?.find() {
        Ok(Range { facts, namespace }) => {
            host.range = Some(Ok(facts));
            Ok(namespace)
        }
        Err(unavailable) => {
            host.range = Some(Err(unavailable));
            Ok(None)
        }
    }
}

/// The search for a range, as the user's settings allow it.
pub(super) fn search(directories: &Directories, keep: bool) -> Result<Search<'_>> {
    let settings = Settings::read(directories.config.as_deref())?;
    Ok(Search {
        caller: &directories.caller,
        runtime: directories.runtime.as_deref(),
        setuid_helper: (
            settings.allow_setuid_helper,
            directories.config.as_deref().map(Settings::path),
        ),
        keep,
    })
}

/// Finds out what the choice of an overlay depends on, and no more: it is on the way of every run.
fn try_overlays(asked: Overlay, directories: &Directories, host: &mut Host) -> Result<()> {
    let has_many = matches!(host.range, Some(Ok(_)));
    if asked == Overlay::Auto && !has_many {
        let data_home = directories.store()?;
        let in_memory = host.tmpfs_xattrs;
        let note = Note::of(data_home, in_memory).at("look at", data_home)?;
        host.kernel_overlay = if note.is_there() {
            Outcome::Works
        } else {
            // In a store that cannot be written the run itself is the trial.
            let outcome = match Scratch::create(data_home) {
                Ok(place) => overlay::try_overlayfs(place.path(), in_memory)
                    .during("try", "an overlay in a directory of the store")?,
                Err(_) => Outcome::NotTried,
            };
            if outcome == Outcome::Works {
                note.leave();
            }
            outcome
        };
    }
    let by_need = matches!(host.kernel_overlay, Outcome::Fails(_));
    if by_need || has_many || matches!(asked, Overlay::Hybrid | Overlay::Fuse) {
        host.fuse = overlay::fuse_device();
    }
    Ok(())
}

fn image(
    profile: &Profile,
    directories: &Directories,
    obtain: Option<&Obtain<'_>>,
    world: &mut Live,
) -> Result<(ImageInput, Names, InUse)> {
    let reference =
        profile.root.image.as_ref().ok_or_else(|| Error::new("image: none was named"))?;
    let policy = profile.root.pull.unwrap_or(Pull::Missing);
    if let Some(obtain) = obtain {
        obtain.before(reference, policy)?;
    }
    let (store, image, held) = match find(reference, directories)? {
        Ok(found) => found,
        Err(missing) => {
            let Some(obtain) = obtain else { return Err(missing) };
            obtain.after(reference, policy, missing)?;
            find(reference, directories)??
        }
    };
    if obtain.is_some() {
        make_certain(&store, &image)?;
    }
    let names = names(&store, &image)?;
    let layers_dir = store.layers_dir();
    let source = world.open(&layers_dir).at("open", &layers_dir)?;
    let layers = image.layers.iter().map(Store::layer_tree).collect();
    let input = ImageInput {
        name: image.name.clone(),
        digest: image.digest.to_string(),
        config: image.config,
        store: source,
        layers,
        has_xattrs: None,
        scratch_dir: store.scratch_dir(),
    };
    let in_use = InUse { store, digest: image.digest, layers: image.layers, _held: held };
    Ok((input, names, in_use))
}

/// Verifies what the machine's last stop may have damaged.
fn make_certain(store: &Store, image: &Image) -> Result<()> {
    let layers = store.uncertain(image)?;
    if layers.is_empty() {
        return Ok(());
    }
    let name = &image.name;
    ui::note(&format!("verifying {name}, which may not have reached the disk before a restart"));
    store.verify(image, &layers)
}

/// The image with its layers held. The inner error is that there is none of the name.
fn find(
    reference: &Reference,
    directories: &Directories,
) -> Result<Result<(Store, Image, Vec<Held>)>> {
    let Some(store) = Store::find(directories.store()?)? else {
        return Ok(Err(store::missing(reference, std::iter::empty())));
    };
    let found = match store.hold(&Wanted::of(reference)) {
        // A short name may be in the store by a full one; that is asked only when need be.
        Err(_) if !store.has(&Wanted::of(reference)) => {
            let candidates = registries::candidates(reference, directories);
            let wanted = Wanted::of(reference).with_candidates(&candidates);
            match store.hold(&wanted) {
                Err(error) if !store.has(&wanted) => Err(error),
                found => Ok(found?),
            }
        }
        found => Ok(found?),
    };
    Ok(found.map(|(image, held)| (store, image, held)))
}

fn names(store: &Store, image: &Image) -> Result<Names> {
    let read = |path: &str| -> Result<Vec<u8>> {
        Ok(store.read_file(image, Path::new(path), NAMES_LIMIT)?.unwrap_or_default())
    };
    Ok(Names { passwd: read("etc/passwd")?, group: read("etc/group")? })
}

/// casemate's own directories, which must exist to be protected: a program could make them first.
/// The one that the environment names, and the one that the next shell will, by the user's true
/// home. Without a writable grant there is nothing to protect them from.
fn own_directories(
    profile: &Profile,
    directories: &Directories,
    world: &mut Live,
) -> Result<Vec<Own>> {
    if profile.files.write.is_empty() {
        return Ok(Vec::new());
    }
    let usual = true_home(directories).map(|home| home.join(".local/share"));
    let mut own = Vec::new();
    let settings = true_home(directories).map(|home| home.join(".config"));
    // What has a name there is trusted as the user's own: the holder of a range, the way to a shared
    // server of layers.
    let runtime = Some(PathBuf::from(format!("/run/user/{}", directories.caller.uid)));
    let runtime = runtime.filter(|path| path.is_dir());
    // Most users have three of them by two names each.
    let places: BTreeSet<PathBuf> = [
        directories.data.clone(),
        usual,
        directories.config.clone(),
        settings,
        directories.runtime.clone(),
        runtime,
    ]
    .into_iter()
    .flatten()
    .collect();
    for data in places {
        let path = data.join("casemate");
        match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path) {
            Ok(()) => own.push(Own::find(&path, world)?),
            // In a home that cannot be written, no program can make it either.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::PermissionDenied
                        | std::io::ErrorKind::ReadOnlyFilesystem
                        | std::io::ErrorKind::NotFound
                ) => {}
            Err(error) => return Err(Error::os("make", path.display(), &error)),
        }
    }
    // The limits of a box are files of the user's, and so is the list of the boxes that run.
    let boxes = cgroup::runtime_directory().map(|runtime| runtime.join("casemate"));
    for path in [cgroup::mount(), boxes].into_iter().flatten().filter(|path| path.is_dir()) {
        own.push(Own::find(&path, world)?);
    }
    Ok(own)
}

/// The directory of what stays for the next box, with those in it that the profile names: made where
/// they are missing, also for `explain`, which could not show a mount of what is not there.
fn persistent(profile: &Profile, directories: &Directories) -> Result<Option<PathBuf>> {
    if profile.files.persist.is_empty() {
        return Ok(None);
    }
    let Some(data) = &directories.data else { return Ok(None) };
    let all = data.join("casemate/persistent");
    for said in &profile.files.persist {
        let path = all.join(said.file_name());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).at("make", &path)?;
    }
    Ok(Some(all))
}

fn true_home(directories: &Directories) -> Option<PathBuf> {
    let passwd = std::fs::read("/etc/passwd").ok()?;
    let entry = identity::find_user(&passwd, |entry| entry.uid == directories.caller.uid)?;
    // A home that is not there (such as /nonexistent) is not made.
    entry.home.is_dir().then_some(entry.home)
}

/// The host's own names matter only where the profile asks for somebody by name.
fn host_names(profile: &Profile) -> Names {
    if profile.identity.user.is_none() {
        return Names::default();
    }
    // Unreadable is as good as empty: the lookup of the name then says that there is none.
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    Names { passwd: read("/etc/passwd"), group: read("/etc/group") }
}
