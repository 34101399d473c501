//! Names and documents: the OCI image layout in the store.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use super::layer::{Info, directory_name};
use super::staging::Staging;
use super::{Image, Store, Summary};
use crate::error::{During, Error, Result};
use crate::image::{Config, Digest, Manifest, Reference};

/// Where a name stands, as every tool that reads layouts has it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How many of the lowest layers an opaque root hides. overlayfs does not look for that mark on a
/// layer's root, so that such layers are left out when the image is run.
const HIDDEN_LAYERS: &str = "casemate.hidden-layers";

/// Makes the layout's fixed files.
pub(super) fn prepare(store: &Store) -> Result<()> {
    let path = store.path.join("oci/oci-layout");
    if path.try_exists().at("look for", &path)? {
        return Ok(());
    }
    let staging = Staging::new(store)?;
    staging.publish_file(br#"{"imageLayoutVersion":"1.0.0"}"#, &path)
}

fn blob_path(store: &Store, digest: &Digest) -> PathBuf {
    store.path.join("oci/blobs/sha256").join(digest.hex())
}

fn read_index(store: &Store) -> Result<Vec<Descriptor>> {
    let path = store.path.join("oci/index.json");
    let json = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        json => json.at("read", &path)?,
    };
    let index: ImageIndex = serde_json::from_slice(&json)
        .map_err(|error| Error::new(format!("read {}: {error}", path.display())))?;
    Ok(index.manifests().clone())
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

/// Reads a document and verifies it: a store that was damaged says so.
fn blob(store: &Store, digest: &Digest) -> Result<Vec<u8>> {
    let path = blob_path(store, digest);
    let content = std::fs::read(&path).at("read", &path)?;
    if Digest::of(&content) != *digest {
        return Err(Error::new(format!("read {}: the content was changed", path.display()))
            .hint("import the image again"));
    }
    Ok(content)
}

fn load(store: &Store, descriptor: &Descriptor, name: String) -> Result<Image> {
    let digest = Digest::parse(descriptor.digest().as_ref())?;
    let json = blob(store, &digest)?;
    let manifest = Manifest::parse(&json, descriptor.media_type().as_ref())?;
    let config = Config::parse(&blob(store, &manifest.config)?)?;
    let hidden = annotation(descriptor, HIDDEN_LAYERS).and_then(|text| text.parse().ok());
    let layers = config.diff_ids.get(hidden.unwrap_or(0)..).unwrap_or_default().to_vec();
    Ok(Image { name, digest, config, layers })
}

pub(super) fn image(store: &Store, reference: &Reference) -> Result<Image> {
    let index = read_index(store)?;
    let wanted = reference.full();
    let found = index.iter().find(|entry| annotation(entry, REF_NAME) == Some(&wanted));
    if let Some(descriptor) = found {
        let within = |error: Error| error.within(format_args!("image {reference}"));
        return load(store, descriptor, reference.to_string()).map_err(within);
    }
    Err(missing(reference, index.iter().filter_map(|entry| annotation(entry, REF_NAME))))
}

/// The error for a name that is not there, with the nearest one that is.
pub fn missing<'a>(reference: &Reference, names: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::new(format!("image {reference}: not in the store"));
    let known = names.filter_map(|name| Reference::parse(name).ok());
    let near = known
        .map(|known| {
            let other_tag = known.repository() == reference.repository();
            (if other_tag { 1 } else { distance(&known.full(), &reference.full()) }, known)
        })
        .filter(|(distance, known)| *distance <= 1 + known.repository().len() / 4)
        .min();
    let error = match near {
        Some((_, near)) => error.hint(format!("did you mean {near}?")),
        None => error,
    };
    error.hint("`casemate images` lists what is there").hint(format!(
        "`casemate import {reference} SOURCE` adds it from an OCI layout, a docker archive or a \
         root file system"
    ))
}

/// How many letters must be added, removed or replaced to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

pub(super) fn images(store: &Store) -> Result<Vec<Summary>> {
    let mut summaries = Vec::new();
    for descriptor in read_index(store)? {
        let Some(full) = annotation(&descriptor, REF_NAME) else { continue };
        let name = Reference::parse(full)?.to_string();
        let within = |error: Error| error.within(format_args!("image {name}"));
        let image = load(store, &descriptor, name.clone()).map_err(within)?;
        let mut size = 0;
        for layer in &image.config.diff_ids {
            // A layer that is gone has no size; running the image will say that it is gone.
            size += Info::read(store, layer)?.map_or(0, |info| info.size);
        }
        summaries.push(Summary {
            name: image.name,
            digest: image.digest,
            created: image.config.created,
            size,
            layers: image.config.diff_ids.len(),
        });
    }
    summaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(summaries)
}

/// The documents of an image that is ready to be named.
pub(super) struct Documents<'a> {
    pub(super) manifest: &'a [u8],
    pub(super) media_type: &'a str,
    pub(super) config: &'a [u8],
    pub(super) diff_ids: &'a [Digest],
    pub(super) hidden_layers: usize,
}

/// Gives an image its name, in place of whatever had it.
pub(super) fn publish(
    store: &Store,
    staging: &Staging,
    reference: &Reference,
    documents: &Documents<'_>,
) -> Result<Digest> {
    let digest = Digest::of(documents.manifest);
    let _lock = store.lock()?;
    for layer in documents.diff_ids {
        let path = store.layers_dir().join(directory_name(layer)).join("info");
        if !path.try_exists().at("look for", &path)? {
            return Err(Error::new(format!("layer {layer} went away during the import"))
                .hint("import the image again"));
        }
    }
    staging.publish_file(documents.config, &blob_path(store, &Digest::of(documents.config)))?;
    staging.publish_file(documents.manifest, &blob_path(store, &digest))?;
    let name = reference.full();
    let mut manifests = read_index(store)?;
    manifests.retain(|entry| annotation(entry, REF_NAME) != Some(&name));
    let spec_digest: oci_spec::image::Digest = digest
        .to_string()
        .parse()
        .map_err(|error| Error::new(format!("digest {digest}: {error}")))?;
    let size = documents.manifest.len() as u64;
    let mut descriptor = Descriptor::new(MediaType::from(documents.media_type), size, spec_digest);
    let mut annotations = HashMap::from([(REF_NAME.to_owned(), name)]);
    if documents.hidden_layers > 0 {
        annotations.insert(HIDDEN_LAYERS.to_owned(), documents.hidden_layers.to_string());
    }
    descriptor.set_annotations(Some(annotations));
    manifests.push(descriptor);
    let mut index = ImageIndex::default();
    index.set_schema_version(2);
    index.set_media_type(Some(MediaType::ImageIndex));
    index.set_manifests(manifests);
    let json = serde_json::to_vec(&index)
        .map_err(|error| Error::new(format!("write the store's index: {error}")))?;
    staging.publish_file(&json, &store.path.join("oci/index.json"))?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(wanted: &str, names: &[&str]) -> Vec<String> {
        missing(&Reference::parse(wanted).unwrap(), names.iter().copied()).hints().to_vec()
    }

    #[test]
    fn a_near_name_is_offered() {
        assert_eq!(hints("debain", &["alpine:latest", "debian:latest"])[0], "did you mean debian?");
        assert_eq!(hints("debian:13", &["debian:12"])[0], "did you mean debian:12?");
        assert_eq!(hints("fedora", &["debian:latest"]).len(), 2);
    }
}
