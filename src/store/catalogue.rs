//! Documents: manifests and configs, the images that they make, and how an image gets its name.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::index::{Entry, Facts, Index, Origin};
use super::layer::Info;
use super::staging::Staging;
use super::{Image, Store, Summary, hold};
use crate::error::{During, Error, Result};
use crate::image::{Config, Digest, Manifest, Reference};
use crate::sys::fs::{c_path, cwd, set_mtime};

/// What says that a directory is an OCI image layout.
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Makes the layout's fixed files.
pub(super) fn prepare(store: &Store) -> Result<()> {
    let path = store.path.join("oci/oci-layout");
    if path.try_exists().at("look for", &path)? {
        return Ok(());
    }
    let staging = Staging::new(store)?;
    staging.publish_file(LAYOUT, &path)
}

pub(super) fn blob_path(store: &Store, digest: &Digest) -> PathBuf {
    store.path.join("oci/blobs/sha256").join(digest.hex())
}

/// Reads a document and verifies it: a store that was damaged says so.
pub(super) fn blob(store: &Store, digest: &Digest) -> Result<Vec<u8>> {
    let path = blob_path(store, digest);
    let content = std::fs::read(&path).at("read", &path)?;
    if Digest::of(&content) != *digest {
        return Err(Error::new(format!("read {}: the content was changed", path.display()))
            .hint("`casemate store check --repair` brings back what was pulled")
            .hint("import the image again otherwise"));
    }
    Ok(content)
}

/// The documents behind an entry.
pub(super) struct Loaded {
    pub(super) manifest: Manifest,
    pub(super) config: Config,
    pub(super) config_json: Vec<u8>,
}

pub(super) fn documents(store: &Store, entry: &Entry) -> Result<Loaded> {
    let json = blob(store, &entry.digest()?)?;
    let manifest = Manifest::parse(&json, &entry.media_type())?;
    let config_json = blob(store, &manifest.config)?;
    let config = Config::parse(&config_json)?;
    Ok(Loaded { manifest, config, config_json })
}

/// The image behind an entry, with every layer there.
pub(super) fn load(store: &Store, entry: &Entry) -> Result<Image> {
    let Loaded { config, .. } = documents(store, entry)?;
    for layer in &config.diff_ids {
        let path = store.layer_path(layer);
        if !path.try_exists().at("look for", &path)? {
            return Err(hold::missing(layer));
        }
    }
    let layers = config.diff_ids.get(entry.hidden_layers()..).unwrap_or_default().to_vec();
    let (name, digest, origin) = (entry.name(), entry.digest()?, entry.origin());
    Ok(Image { name, digest, config, layers, origin })
}

/// When an image was last used or written, in seconds since 1970; `None` where its manifest is
/// missing.
pub(super) fn last_used(store: &Store, digest: &Digest) -> Result<Option<i64>> {
    let path = blob_path(store, digest);
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        stat => Ok(Some(std::os::unix::fs::MetadataExt::mtime(&stat.at("stat", &path)?))),
    }
}

/// Notes that an image was used now. A store that cannot be written does not know, which is no
/// reason not to run.
pub(super) fn mark_used(store: &Store, digest: &Digest) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if let Ok(path) = c_path(blob_path(store, digest)) {
        let _no_matter = set_mtime(cwd(), &path, seconds, i64::from(now.subsec_nanos()));
    }
}

pub(super) fn images(store: &Store) -> Result<Vec<Summary>> {
    let mut summaries = Vec::new();
    for entry in Index::read(store)?.named() {
        let name = entry.name();
        let within = |error: Error| error.within(format_args!("image {name}"));
        let digest = entry.digest().map_err(within)?;
        let facts = match entry.facts() {
            Some(facts) => facts,
            None => documents(store, entry)
                .and_then(|loaded| facts(store, &loaded.config))
                .map_err(within)?,
        };
        let used = last_used(store, &digest)?;
        let Facts { created, size, layers } = facts;
        summaries.push(Summary { name, digest, created, used, size, layers });
    }
    summaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(summaries)
}

fn facts(store: &Store, config: &Config) -> Result<Facts> {
    let mut size = 0;
    for layer in &config.diff_ids {
        // A layer that is gone, or of an older format, has no size; one such image must not keep the
        // others from being listed. Running it will say what it lacks.
        size += Info::read(store, layer).ok().flatten().map_or(0, |info| info.size);
    }
    Ok(Facts { created: config.created.clone(), size, layers: config.diff_ids.len() })
}

/// The documents of an image that is ready to be named.
pub(super) struct Documents<'a> {
    pub(super) manifest: &'a [u8],
    pub(super) media_type: &'a str,
    pub(super) config: &'a [u8],
    pub(super) diff_ids: &'a [Digest],
    pub(super) hidden_layers: usize,
    /// Where it was pulled from.
    pub(super) origin: Origin,
}

/// Gives an image its name, in place of whatever had it. The caller holds its layers.
pub(super) fn publish(
    store: &Store,
    staging: &Staging,
    reference: &Reference,
    documents: &Documents<'_>,
) -> Result<Digest> {
    let digest = Digest::of(documents.manifest);
    let config = Config::parse(documents.config)?;
    let _lock = store.lock()?;
    for layer in documents.diff_ids {
        if Info::read(store, layer)?.is_none() {
            return Err(Error::new(format!("layer {layer} went away during the import"))
                .hint("import the image again"));
        }
    }
    let facts = facts(store, &config)?;
    publish_document(store, staging, &Digest::of(documents.config), documents.config)?;
    publish_document(store, staging, &digest, documents.manifest)?;
    let entry = Entry::new(
        reference,
        documents.media_type,
        documents.manifest,
        documents.hidden_layers,
        &facts,
        &documents.origin,
    )?;
    let mut index = Index::read(store)?;
    index.insert(entry);
    index.write(store, staging)?;
    Ok(digest)
}

/// One that is there is left in place: a box that runs its image holds it locked.
fn publish_document(store: &Store, staging: &Staging, digest: &Digest, json: &[u8]) -> Result<()> {
    if blob(store, digest).is_ok() {
        mark_used(store, digest);
        return Ok(());
    }
    staging.publish_file(json, &blob_path(store, digest))
}
