//! All that is known of one image.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::catalogue::{self, Loaded};
use super::index::{Entry, Index};
use super::layer::Info;
use super::lookup::{self, Wanted};
use super::{Store, hold};
use crate::error::{Error, Result};
use crate::image::{Config, Digest, timestamp};

/// An image in full. Sizes are bytes of file data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Details {
    /// The name that it was found by, or its first one.
    pub name: String,
    /// All its names, as the user would type them, sorted.
    pub names: Vec<String>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The media type of its manifest.
    pub media_type: String,
    /// The digest that the registry gave for the name when it was pulled.
    pub pulled_digest: Option<Digest>,
    /// The full name that it was pulled by.
    pub pulled_from: Option<String>,
    /// When it was last run, pulled or imported, as RFC 3339 text.
    pub used: Option<String>,
    /// Of all its layers.
    pub size: u64,
    /// Of the layers that other images have as well.
    pub shared_size: u64,
    /// Of the layers that no other image has.
    pub unique_size: u64,
    /// What it says about its program.
    pub config: Config,
    /// `LABEL`s.
    pub labels: Map<String, Value>,
    /// Ports that the program listens on, as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerDetails>,
    /// How it was made, as the image says.
    pub history: Vec<Value>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerDetails {
    /// The digest of the uncompressed tar stream: its name in the store.
    pub diff_id: Digest,
    /// The digest of the layer as it was packed.
    pub digest: Digest,
    /// The media type of that.
    pub media_type: String,
    /// The bytes of that.
    pub packed_size: u64,
    /// How it was packed: `none`, `gzip` or `zstd`.
    pub compression: String,
    /// Bytes of file data.
    pub size: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Whether a layer above leaves nothing of it to be seen.
    pub hidden: bool,
    /// Other images that have it, by their first names, sorted.
    pub shared_with: Vec<String>,
}

pub(super) fn inspect(store: &Store, wanted: &Wanted<'_>) -> Result<Details> {
    lookup::settled(store, wanted, |entry| details(store, entry))
}

fn details(store: &Store, entry: &Entry) -> Result<Details> {
    let digest = entry.digest()?;
    let Loaded { manifest, config, config_json } = catalogue::documents(store, entry)?;
    let index = Index::read(store)?;
    let mut names = index.names_by_digest();
    let users = other_users(store, &index, &digest, &names)?;
    let mut layers = Vec::new();
    for (number, (diff_id, packed)) in config.diff_ids.iter().zip(&manifest.layers).enumerate() {
        let info = Info::read(store, diff_id)?.ok_or_else(|| hold::missing(diff_id))?;
        layers.push(LayerDetails {
            diff_id: *diff_id,
            digest: packed.digest,
            media_type: packed.media_type.clone(),
            packed_size: packed.size,
            compression: info.compression.option().to_owned(),
            size: info.size,
            entries: info.entries,
            hidden: number < entry.hidden_layers(),
            shared_with: users.get(diff_id).cloned().unwrap_or_default(),
        });
    }
    let sum = |shared: bool| {
        let of_kind = layers.iter().filter(|layer| layer.shared_with.is_empty() != shared);
        of_kind.map(|layer| layer.size).sum::<u64>()
    };
    let (shared_size, unique_size) = (sum(true), sum(false));
    let raw: Value = serde_json::from_slice(&config_json)
        .map_err(|error| Error::new(format!("image config: {error}")))?;
    let object = |pointer: &str| raw.pointer(pointer).and_then(Value::as_object).cloned();
    let origin = entry.origin();
    Ok(Details {
        name: entry.name(),
        names: names.remove(&digest).unwrap_or_default(),
        digest,
        media_type: entry.media_type(),
        pulled_digest: origin.digest,
        pulled_from: origin.from,
        used: catalogue::last_used(store, &digest)?.map(timestamp),
        size: shared_size + unique_size,
        shared_size,
        unique_size,
        labels: object("/config/Labels").unwrap_or_default(),
        exposed_ports: object("/config/ExposedPorts")
            .map(|ports| ports.into_iter().map(|(port, _)| port).collect())
            .unwrap_or_default(),
        history: raw.get("history").and_then(Value::as_array).cloned().unwrap_or_default(),
        layers,
        config,
    })
}

/// Which other images have a layer.
fn other_users(
    store: &Store,
    index: &Index,
    digest: &Digest,
    names: &HashMap<Digest, Vec<String>>,
) -> Result<HashMap<Digest, Vec<String>>> {
    let mut users: HashMap<Digest, Vec<String>> = HashMap::new();
    let mut seen = vec![*digest];
    for entry in index.named() {
        let other = entry.digest()?;
        if seen.contains(&other) {
            continue;
        }
        seen.push(other);
        // One that cannot be read shares nothing that could be told.
        let Ok(loaded) = catalogue::documents(store, entry) else { continue };
        let Some(name) = names.get(&other).and_then(|names| names.first()) else { continue };
        for layer in loaded.config.diff_ids {
            let of_layer = users.entry(layer).or_default();
            if of_layer.last() != Some(name) {
                of_layer.push(name.clone());
            }
        }
    }
    users.values_mut().for_each(|names| names.sort());
    Ok(users)
}
