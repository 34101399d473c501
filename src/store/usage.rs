//! What takes how much room in the store.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::index::Index;
use super::measure::Measured;
use super::{Store, catalogue, open_directory};
use crate::error::{During, Error, Result};
use crate::image::Digest;

/// The store's room on disk, in bytes of blocks taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Every image, those that would give back most first.
    pub images: Vec<ImageUsage>,
    /// Layers, however many images have them.
    pub layers: u64,
    /// Manifests, configs and the index.
    pub documents: u64,
    /// The part of the layers that no name leads to.
    pub dangling: u64,
    /// Imports under way, writable layers of running boxes, and what a crash left.
    pub staging: u64,
    /// All of it.
    pub total: u64,
    /// What is not taken, because files that several layers have are there once. Files that share
    /// blocks count in full everywhere else.
    pub saved: u64,
}

/// The room of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// Its names, as the user would type them, sorted.
    pub names: Vec<String>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// What its layers take.
    pub total: u64,
    /// The part that would stay without it.
    pub shared: u64,
    /// The part that would come free.
    pub unique: u64,
}

pub(super) fn usage(store: &Store) -> Result<Usage> {
    let index = Index::read(store)?;
    let path = store.layers_dir();
    let mut measured = Measured::with_blocks(&open_directory(&path)?);
    let mut trees: HashMap<Digest, usize> = HashMap::new();
    for entry in std::fs::read_dir(&path).at("read", &path)? {
        let name = entry.at("read", &path)?.file_name();
        let hex = name.to_str().and_then(|name| name.strip_prefix("sha256-"));
        let tree = measured.add(&path.join(&name))?;
        if let Some(digest) = hex.and_then(Digest::from_hex) {
            trees.insert(digest, tree);
        }
    }
    let names = index.names_by_digest();
    let mut users: HashMap<usize, HashSet<Digest>> = HashMap::new();
    let mut images: HashMap<Digest, HashSet<usize>> = HashMap::new();
    for entry in index.named() {
        let within = |error: Error| error.within(format_args!("image {}", entry.name()));
        let digest = entry.digest()?;
        let layers = catalogue::documents(store, entry).map_err(within)?.config.diff_ids;
        let own: HashSet<usize> =
            layers.iter().filter_map(|layer| trees.get(layer)).copied().collect();
        for tree in &own {
            users.entry(*tree).or_default().insert(digest);
        }
        images.insert(digest, own);
    }
    let image = |(digest, own): (&Digest, &HashSet<usize>)| {
        let total = measured.taken(|tree| own.contains(&tree));
        let only = |tree| own.contains(&tree) && users.get(&tree).is_some_and(|of| of.len() == 1);
        let unique = measured.freed(only);
        let names = names.get(digest).cloned().unwrap_or_default();
        ImageUsage { names, digest: *digest, total, shared: total - unique, unique }
    };
    let mut images: Vec<ImageUsage> = images.iter().map(image).collect();
    images.sort_by(|a, b| b.unique.cmp(&a.unique).then_with(|| a.names.cmp(&b.names)));
    let layers = measured.taken(|_| true);
    let dangling = measured.freed(|tree| !users.contains_key(&tree));
    let mut others = Measured::default();
    let documents = others.add(&store.path.join("oci"))?;
    let staging = others.add(&store.path.join("staging"))?;
    let (documents, staging) =
        (others.taken(|tree| tree == documents), others.taken(|tree| tree == staging));
    Ok(Usage {
        images,
        layers,
        documents,
        dangling,
        staging,
        total: layers + documents + staging,
        saved: measured.saved(),
    })
}
