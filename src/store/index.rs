//! The store's index: the names, and what each leads to, as the `index.json` of an OCI image layout.

use std::collections::HashMap;

use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use super::staging::Staging;
use super::{Store, open_directory};
use crate::error::{During, Error, Result};
use crate::image::{Digest, Reference};

/// Where a name stands, as every tool that reads layouts has it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How many of the lowest layers an opaque root hides. overlayfs does not look for that mark on a
/// layer's root, so that such layers are left out when the image is run.
const HIDDEN_LAYERS: &str = "casemate.hidden-layers";
/// What listings show. It follows from the manifest, whose digest is in the same entry, so that it
/// is never out of date.
const SIZE: &str = "casemate.size";
const CREATED: &str = "casemate.created";
const LAYERS: &str = "casemate.layers";
/// Where an image came from.
const PULLED_DIGEST: &str = "casemate.pulled-digest";
const PULLED_FROM: &str = "casemate.pulled-from";
const PLATFORM: &str = "casemate.platform";

/// Where a pulled image came from; empty for one that was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The digest that the registry gave for the name: that of the manifest, or of the index that
    /// it was chosen from.
    pub digest: Option<Digest>,
    /// The name in full, with the registry that answered.
    pub from: Option<String>,
    /// The platform that was chosen (`linux/amd64`).
    pub platform: Option<String>,
}

/// What a listing says of an image beside its name and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) created: Option<String>,
    pub(super) size: u64,
    pub(super) layers: usize,
}

/// One name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    descriptor: Descriptor,
}

impl Entry {
    /// An entry for a manifest.
    pub(super) fn new(
        reference: &Reference,
        media_type: &str,
        manifest: &[u8],
        hidden_layers: usize,
        facts: &Facts,
        origin: &Origin,
    ) -> Result<Self> {
        let digest = Digest::of(manifest);
        let digest: oci_spec::image::Digest = digest
            .to_string()
            .parse()
            .map_err(|error| Error::new(format!("digest {digest}: {error}")))?;
        let size = manifest.len() as u64;
        let mut descriptor = Descriptor::new(MediaType::from(media_type), size, digest);
        let hidden = (hidden_layers > 0).then(|| hidden_layers.to_string());
        let annotations = [
            (REF_NAME, Some(reference.full())),
            (HIDDEN_LAYERS, hidden),
            (SIZE, Some(facts.size.to_string())),
            (LAYERS, Some(facts.layers.to_string())),
            (CREATED, facts.created.clone()),
            (PULLED_DIGEST, origin.digest.map(|digest| digest.to_string())),
            (PULLED_FROM, origin.from.clone()),
            (PLATFORM, origin.platform.clone()),
        ];
        let annotations =
            annotations.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        descriptor.set_annotations(Some(annotations.collect()));
        Ok(Entry { descriptor })
    }

    /// The same image under another name.
    pub(super) fn renamed(&self, reference: &Reference) -> Self {
        let mut renamed = self.clone();
        let mut annotations = renamed.descriptor.annotations().clone().unwrap_or_default();
        annotations.insert(REF_NAME.to_owned(), reference.full());
        renamed.descriptor.set_annotations(Some(annotations));
        renamed
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.descriptor.annotations().as_ref()?.get(key).map(String::as_str)
    }

    /// The name with its tag or digest; `None` for what some other program put into the layout.
    pub(super) fn full(&self) -> Option<&str> {
        self.annotation(REF_NAME)
    }

    /// The name, read.
    pub(super) fn reference(&self) -> Option<Reference> {
        Reference::parse(self.full()?).ok()
    }

    /// The name as the user would type it.
    pub(super) fn name(&self) -> String {
        let full = self.full().unwrap_or("<none>");
        self.reference().map_or_else(|| full.to_owned(), |reference| reference.to_string())
    }

    /// The digest of the manifest.
    pub(super) fn digest(&self) -> Result<Digest> {
        Digest::parse(self.descriptor.digest().as_ref())
    }

    pub(super) fn media_type(&self) -> String {
        self.descriptor.media_type().to_string()
    }

    pub(super) fn hidden_layers(&self) -> usize {
        self.annotation(HIDDEN_LAYERS).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub(super) fn origin(&self) -> Origin {
        Origin {
            digest: self.annotation(PULLED_DIGEST).and_then(|text| Digest::parse(text).ok()),
            from: self.annotation(PULLED_FROM).map(str::to_owned),
            platform: self.annotation(PLATFORM).map(str::to_owned),
        }
    }

    /// What a listing says; `None` in an entry of an older version.
    pub(super) fn facts(&self) -> Option<Facts> {
        Some(Facts {
            created: self.annotation(CREATED).map(str::to_owned),
            size: self.annotation(SIZE)?.parse().ok()?,
            layers: self.annotation(LAYERS)?.parse().ok()?,
        })
    }
}

/// The whole index. What others wrote into it, entries and annotations, is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Index {
    document: ImageIndex,
    entries: Vec<Entry>,
}

impl Index {
    pub(super) fn read(store: &Store) -> Result<Self> {
        let path = store.path.join("oci/index.json");
        let mut document = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => ImageIndex::default(),
            json => serde_json::from_slice(&json.at("read", &path)?)
                .map_err(|error| Error::new(format!("read {}: {error}", path.display())))?,
        };
        let entry = |descriptor: &Descriptor| Entry { descriptor: descriptor.clone() };
        let entries = document.manifests().iter().map(entry).collect();
        document.set_manifests(Vec::new());
        Ok(Index { document, entries })
    }

    /// Replaces the file. The caller holds the store's lock.
    pub(super) fn write(&self, store: &Store, staging: &Staging) -> Result<()> {
        let mut document = self.document.clone();
        document.set_schema_version(2);
        document.set_media_type(Some(MediaType::ImageIndex));
        document.set_manifests(self.entries.iter().map(|entry| entry.descriptor.clone()).collect());
        let json = serde_json::to_vec(&document)
            .map_err(|error| Error::new(format!("write the store's index: {error}")))?;
        staging.publish_file(&json, &store.path.join("oci/index.json"))
    }

    /// Waits until a new index is on disk, so that nothing that the old one needs goes before it.
    pub(super) fn sync(store: &Store) -> Result<()> {
        let path = store.path.join("oci");
        let dir = open_directory(&path)?;
        nix::unistd::fsync(&dir).at("sync", &path)
    }

    /// The entries that have a name.
    pub(super) fn named(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.full().is_some())
    }

    /// Adds an entry, in place of the one that has its name.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.entries.retain(|other| other.full() != entry.full());
        self.entries.push(entry);
    }

    /// Takes out all entries for which this holds.
    pub(super) fn remove(&mut self, is_meant: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let (out, kept) = std::mem::take(&mut self.entries).into_iter().partition(is_meant);
        self.entries = kept;
        out
    }

    /// The names of each manifest, sorted. A digest that another program wrote, and that cannot be
    /// read, is no image's.
    pub(super) fn names_by_digest(&self) -> HashMap<Digest, Vec<String>> {
        let mut names: HashMap<Digest, Vec<String>> = HashMap::new();
        for entry in self.named() {
            let Ok(digest) = entry.digest() else { continue };
            names.entry(digest).or_default().push(entry.name());
        }
        names.values_mut().for_each(|names| names.sort());
        names
    }
}
