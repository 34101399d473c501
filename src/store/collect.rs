//! Removing images, and what no name leads to. The name goes first, then what it needed: whatever
//! moment ends this, every image that has a name is whole, and the rest is garbage for `prune`.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::hold::Claim;
use super::index::{Entry, Index};
use super::layer::directory_name;
use super::lookup::{self, Found, Wanted};
use super::measure::{self, Measured};
use super::staging::Staging;
use super::{Store, catalogue, open_directory};
use crate::error::{During, Error, Result};
use crate::image::Digest;

/// What [`Store::prune`] removes beside what no name leads to. An image in use by a box always stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Images that were not used for this many seconds.
    pub older_than: Option<u64>,
    /// The images used least recently, until the others take no more bytes of the disk than this.
    pub max_size: Option<u64>,
    /// Every image.
    pub all: bool,
}

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone, as the user would type them.
    pub names: Vec<String>,
    /// Images that no name is left of, by the digests of their manifests.
    pub images: Vec<Digest>,
    /// Layers that are gone.
    pub layers: Vec<Digest>,
    /// Manifests and configs that are gone and no name led to.
    pub documents: Vec<Digest>,
    /// Layers that would be gone, were they not in use by a box or an import.
    pub in_use: Vec<Digest>,
    /// Bytes of the disk that came free.
    pub freed: u64,
    /// Bytes of the disk that the layers of all images take now, where it was asked for a size.
    pub left: Option<u64>,
}

/// What images need.
#[derive(Debug, Default)]
struct Needs {
    documents: HashSet<Digest>,
    layers: HashSet<Digest>,
}

impl Needs {
    fn add(&mut self, store: &Store, entry: &Entry) -> Result<()> {
        let digest = entry.digest()?;
        if self.documents.insert(digest) {
            let loaded = catalogue::documents(store, entry)?;
            self.documents.insert(loaded.manifest.config);
            self.layers.extend(loaded.config.diff_ids);
        }
        Ok(())
    }

    /// What all names need. One image that cannot be read could need anything.
    fn of_all(store: &Store, index: &Index) -> Result<Self> {
        let mut needs = Needs::default();
        for entry in index.named() {
            needs.add(store, entry).map_err(|error| {
                error
                    .within(format_args!("image {}", entry.name()))
                    .hint("nothing is removed while it is not known what this image needs")
                    .hint(format!("import or pull it again, or `casemate rmi {}`", entry.name()))
            })?;
        }
        Ok(needs)
    }
}

pub(super) fn remove(
    store: &Store,
    wanted: &[Wanted<'_>],
    force: bool,
) -> Result<(Removed, Vec<Error>)> {
    let staging = Staging::new(store)?;
    let lock = store.lock()?;
    let mut index = Index::read(store)?;
    let mut gone = Vec::new();
    let mut errors = Vec::new();
    for wanted in wanted {
        match names_of(&index, wanted, force) {
            Ok(names) => gone
                .extend(index.remove(|entry| names.iter().any(|name| entry.full() == Some(name)))),
            Err(error) => errors.push(error),
        }
    }
    let mut removed = Removed::default();
    if gone.is_empty() {
        return Ok((removed, errors));
    }
    index.write(store, &staging)?;
    Index::sync(store)?;
    removed.names = gone.iter().map(Entry::name).collect();
    let remaining = index.names_by_digest();
    let mut candidates = Needs::default();
    for entry in &gone {
        let Ok(digest) = entry.digest() else { continue };
        if !remaining.contains_key(&digest) && !removed.images.contains(&digest) {
            removed.images.push(digest);
        }
        // A damaged one takes along its manifest; the rest is garbage then.
        let _unreadable = candidates.add(store, entry);
    }
    match Needs::of_all(store, &index) {
        Ok(needed) => {
            let layers = candidates.layers.difference(&needed.layers).copied().collect();
            let documents = candidates.documents.difference(&needed.documents).copied().collect();
            if let Err(error) = discard(store, &staging, layers, documents, &mut removed) {
                errors.push(error);
            }
            removed.documents.clear();
        }
        Err(error) => errors.push(error),
    }
    drop(lock);
    Ok((removed, errors))
}

/// The full names that go for one word of the user's.
fn names_of(index: &Index, wanted: &Wanted<'_>, force: bool) -> Result<Vec<String>> {
    let full = |entry: &Entry| entry.full().map(str::to_owned);
    match lookup::find(index, wanted)? {
        Found::Name(entry) => Ok(full(entry).into_iter().collect()),
        Found::Id(entry, entries) if entries.len() > 1 && !force => {
            let names: Vec<_> = entries.iter().map(|entry| entry.name()).collect();
            let id = &entry.digest()?.hex()[..12];
            Err(Error::new(format!("remove image {id}: it has several names"))
                .hint(format!("they are {}", names.join(", ")))
                .hint("name one, or remove all of them with --force"))
        }
        Found::Id(_, entries) => Ok(entries.into_iter().filter_map(full).collect()),
    }
}

/// Moves layers away and removes documents; what is in use stays. The layers go for good with the
/// staging directory.
fn discard(
    store: &Store,
    staging: &Staging,
    mut layers: Vec<Digest>,
    mut documents: Vec<Digest>,
    removed: &mut Removed,
) -> Result<()> {
    layers.sort();
    documents.sort();
    let path = store.layers_dir();
    let from = open_directory(&path)?;
    let to = open_directory(staging.path())?;
    for layer in layers {
        match Claim::layer(store, &layer)? {
            Claim::Gone => (),
            Claim::InUse => removed.in_use.push(layer),
            Claim::Granted(_alone) => {
                let name = directory_name(&layer);
                renameat(&from, name.as_str(), &to, name.as_str()).at("move", path.join(&name))?;
                removed.layers.push(layer);
            }
        }
    }
    let path = store.path.join("oci/blobs/sha256");
    let from = open_directory(&path)?;
    for document in documents {
        let name = document.hex();
        match unlinkat(&from, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => removed.documents.push(document),
            Err(Errno::ENOENT) => (),
            Err(errno) => return Err(Error::os("remove", path.join(name).display(), errno)),
        }
    }
    Ok(())
}

pub(super) fn prune(store: &Store, prune: &Prune, dry_run: bool) -> Result<Removed> {
    let staging = Staging::new(store)?;
    let lock = store.lock()?;
    let mut index = Index::read(store)?;
    let mut removed = Removed::default();
    let mut victims = Victims::find(store, &index)?;
    let goes = victims.choose(store, &index, prune, &mut removed)?;
    let gone = index.remove(|entry| {
        entry.full().is_none() || entry.digest().is_ok_and(|digest| goes.contains(&digest))
    });
    removed.names = gone.iter().filter(|entry| entry.full().is_some()).map(Entry::name).collect();
    removed.names.sort();
    removed.images = goes.iter().copied().collect();
    removed.images.sort();
    let mut own = Needs::default();
    for entry in &gone {
        let _unreadable = own.add(store, entry);
    }
    let needed = Needs::of_all(store, &index)?;
    let layers: Vec<_> =
        on_disk(store, "layers")?.into_iter().filter(|id| !needed.layers.contains(id)).collect();
    let documents: Vec<_> = on_disk(store, "oci/blobs/sha256")?
        .into_iter()
        .filter(|id| !needed.documents.contains(id))
        .collect();
    let mut measured = Measured::default();
    let blobs = open_directory(&store.path.join("oci/blobs/sha256"))?;
    for document in &documents {
        removed.freed +=
            measure::file(&blobs, &document.hex()).during("look at", "the store's documents")?;
    }
    if dry_run {
        for layer in layers {
            match Claim::layer(store, &layer)? {
                Claim::Gone => (),
                Claim::InUse => removed.in_use.push(layer),
                Claim::Granted(_alone) => {
                    measured.add(&store.layers_dir().join(directory_name(&layer)))?;
                    removed.layers.push(layer);
                }
            }
        }
        removed.documents = documents;
    } else {
        if !gone.is_empty() {
            index.write(store, &staging)?;
            Index::sync(store)?;
        }
        discard(store, &staging, layers, documents, &mut removed)?;
        drop(lock);
        for layer in &removed.layers {
            measured.add(&staging.path().join(directory_name(layer)))?;
        }
    }
    removed.freed += measured.freed(|_| true);
    // Those of an image that was removed go without saying.
    removed.documents.retain(|document| !own.documents.contains(document));
    Ok(removed)
}

/// What is named by a digest in a directory of the store. Anything else there is none of ours.
pub(super) fn on_disk(store: &Store, directory: &str) -> Result<Vec<Digest>> {
    let path = store.path.join(directory);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&path).at("read", &path)? {
        let name = entry.at("read", &path)?.file_name();
        let hex = name.to_str().map(|name| name.strip_prefix("sha256-").unwrap_or(name));
        found.extend(hex.and_then(Digest::from_hex));
    }
    found.sort();
    Ok(found)
}

/// The images that may go, those used least recently first.
struct Victims {
    images: Vec<(i64, Digest)>,
}

impl Victims {
    fn find(store: &Store, index: &Index) -> Result<Self> {
        let mut images = Vec::new();
        for digest in index.names_by_digest().into_keys() {
            // One without a manifest cannot be run, and was used never.
            let used = catalogue::last_used(store, &digest)?.unwrap_or(0);
            if !matches!(Claim::document(store, &digest)?, Claim::InUse) {
                images.push((used, digest));
            }
        }
        images.sort();
        Ok(Victims { images })
    }

    fn choose(
        &mut self,
        store: &Store,
        index: &Index,
        prune: &Prune,
        removed: &mut Removed,
    ) -> Result<HashSet<Digest>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut goes = HashSet::new();
        if prune.all {
            goes.extend(self.images.iter().map(|(_, digest)| *digest));
        }
        if let Some(age) = prune.older_than {
            let limit = i64::try_from(now.saturating_sub(age)).unwrap_or(i64::MAX);
            goes.extend(
                self.images.iter().filter(|(used, _)| *used < limit).map(|(_, digest)| *digest),
            );
        }
        if let Some(limit) = prune.max_size {
            let sizes = Sizes::of_images(store, index)?;
            let oldest = self.images.iter().map(|(_, digest)| *digest);
            let mut next = oldest.filter(|digest| !goes.contains(digest)).collect::<Vec<_>>();
            next.reverse();
            let mut left = sizes.without(&goes);
            while left > limit
                && let Some(digest) = next.pop()
            {
                goes.insert(digest);
                left = sizes.without(&goes);
            }
            removed.left = Some(left);
        }
        Ok(goes)
    }
}

/// What images take on disk, and which layers they share.
struct Sizes {
    measured: Measured,
    /// By image, the numbers of its measured layers.
    images: HashMap<Digest, Vec<usize>>,
}

impl Sizes {
    fn of_images(store: &Store, index: &Index) -> Result<Self> {
        let mut sizes = Sizes { measured: Measured::default(), images: HashMap::new() };
        let mut trees: HashMap<Digest, usize> = HashMap::new();
        for entry in index.named() {
            let within = |error: Error| error.within(format_args!("image {}", entry.name()));
            let digest = entry.digest()?;
            if sizes.images.contains_key(&digest) {
                continue;
            }
            let mut own = Vec::new();
            for layer in catalogue::documents(store, entry).map_err(within)?.config.diff_ids {
                let path = store.layers_dir().join(directory_name(&layer));
                let tree = match trees.get(&layer) {
                    Some(tree) => *tree,
                    None if !path.try_exists().at("look for", &path)? => continue,
                    None => sizes.measured.add(&path)?,
                };
                trees.insert(layer, tree);
                own.push(tree);
            }
            sizes.images.insert(digest, own);
        }
        Ok(sizes)
    }

    /// What is taken by the layers of all other images.
    fn without(&self, gone: &HashSet<Digest>) -> u64 {
        let kept = self.images.iter().filter(|(digest, _)| !gone.contains(digest));
        let kept: HashSet<usize> = kept.flat_map(|(_, trees)| trees.iter().copied()).collect();
        self.measured.taken(|tree| kept.contains(&tree))
    }
}
