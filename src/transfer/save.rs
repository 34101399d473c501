//! Save: images become one archive, which is an OCI image layout and a docker archive at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Read, Write};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::image::{Compression, Digest, Family, Packed, Reference, repack};
use crate::store::{Outgoing, OutgoingLayer, Spool, Store};

/// Where the name stands that tools of OCI layouts look for, and the one that containerd does.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// How many images there are in the archive.
    pub images: usize,
    /// How many blobs of layers; one that several images have counts once.
    pub layers: usize,
    /// The length of the archive in bytes.
    pub size: u64,
}

/// Writes images into an archive, their layers packed as `compression` says. An image of which every
/// layer is packed so that it has the digest in its manifest keeps that manifest.
pub fn save(
    store: &Store,
    images: &[Outgoing],
    compression: Compression,
    to: &mut dyn Write,
) -> Result<Saved> {
    let to = Counted { inner: BufWriter::with_capacity(256 << 10, to), count: 0 };
    let mut archive = Archive {
        tar: tar::Builder::new(to),
        spool: store.spool(),
        blobs: BTreeSet::new(),
        packed: BTreeMap::new(),
    };
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.directory("blobs/")?;
    archive.directory("blobs/sha256/")?;
    let mut entries: Vec<Value> = Vec::new();
    let mut saved: Vec<(Digest, Value)> = Vec::new();
    for image in images {
        let within = |error: Error| error.within(format_args!("save {}", image.reference));
        let (entry, docker) = archive.image(store, image, compression).map_err(within)?;
        if entries.contains(&entry) {
            continue;
        }
        entries.push(entry);
        // docker has one entry for an image with all its names.
        match saved.iter_mut().find(|(digest, _)| *digest == image.digest) {
            Some((_, before)) => append_tags(before, &docker),
            None => saved.push((image.digest, docker)),
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
    });
    archive.file("index.json", index.to_string().as_bytes())?;
    let images = saved.len();
    let docker: Vec<_> = saved.into_iter().map(|(_, entry)| entry).collect();
    archive.file("manifest.json", Value::from(docker).to_string().as_bytes())?;
    let layers = archive.packed.len();
    let mut to = archive.tar.into_inner().map_err(|error| failed(&error))?;
    to.flush().map_err(|error| failed(&error))?;
    Ok(Saved { images, layers, size: to.count })
}

struct Archive<'a, W: Write> {
    tar: tar::Builder<W>,
    spool: Spool<'a>,
    /// What the archive has already.
    blobs: BTreeSet<Digest>,
    /// How each layer is packed in it, by the digest of its stream.
    packed: BTreeMap<Digest, Packed>,
}

impl<W: Write> Archive<'_, W> {
    /// Writes all of an image; its entries in the index and in docker's manifest.
    fn image(
        &mut self,
        store: &Store,
        image: &Outgoing,
        compression: Compression,
    ) -> Result<(Value, Value)> {
        let mut layers = Vec::new();
        let mut changed = Vec::new();
        for (number, layer) in image.layers.iter().enumerate() {
            let within = |error: Error| {
                error.within(format_args!("layer {} of {}", number + 1, image.layers.len()))
            };
            let packed = self.layer(store, layer, compression).map_err(within)?;
            layers.push(blob_name(&packed.digest));
            changed.push((packed.digest != layer.descriptor.digest).then_some(packed));
        }
        let (manifest, media_type) =
            repack(&image.manifest_json, &image.media_type, &changed, Family::Oci)?;
        let digest = Digest::of(&manifest);
        self.document(image.config, &image.config_json)?;
        self.document(digest, &manifest)?;
        let mut platform = Map::new();
        platform.insert("os".to_owned(), image.platform.os.as_str().into());
        platform.insert("architecture".to_owned(), image.platform.architecture.as_str().into());
        if let Some(variant) = &image.platform.variant {
            platform.insert("variant".to_owned(), variant.as_str().into());
        }
        let mut entry = json!({
            "mediaType": media_type,
            "digest": digest,
            "size": manifest.len(),
            "platform": platform,
        });
        let names = annotations(&image.reference);
        if !names.is_empty() {
            entry["annotations"] = names.into();
        }
        let docker = json!({
            "Config": blob_name(&image.config),
            "RepoTags": tags(&image.reference),
            "Layers": layers,
        });
        Ok((entry, docker))
    }

    fn layer(
        &mut self,
        store: &Store,
        layer: &OutgoingLayer,
        compression: Compression,
    ) -> Result<Packed> {
        if let Some(packed) = self.packed.get(&layer.diff_id) {
            return Ok(*packed);
        }
        let packed = if compression == Compression::None {
            let packed = layer.plain();
            self.blob(&packed, store.stream_layer(&layer.diff_id)?)?;
            packed
        } else {
            let (packed, file) = self.spool.pack(&layer.diff_id, compression)?;
            self.blob(&packed, file)?;
            packed
        };
        self.packed.insert(layer.diff_id, packed);
        Ok(packed)
    }

    fn blob(&mut self, packed: &Packed, content: impl Read) -> Result<()> {
        if !self.blobs.insert(packed.digest) {
            return Ok(());
        }
        let mut content = Sized { inner: content, left: packed.size };
        self.member(&blob_name(&packed.digest), tar::EntryType::Regular, packed.size, &mut content)
    }

    fn document(&mut self, digest: Digest, content: &[u8]) -> Result<()> {
        if !self.blobs.insert(digest) {
            return Ok(());
        }
        self.file(&blob_name(&digest), content)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.member(name, tar::EntryType::Regular, content.len() as u64, content)
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        self.member(name, tar::EntryType::Directory, 0, io::empty())
    }

    /// The same header for the same content: no time, no user.
    fn member(
        &mut self,
        name: &str,
        kind: tar::EntryType,
        size: u64,
        content: impl Read,
    ) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        self.tar.append_data(&mut header, name, content).map_err(|error| failed(&error))
    }
}

fn failed(error: &io::Error) -> Error {
    Error::carried(error).unwrap_or_else(|| Error::os("write", "the archive", error))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The names of an entry in the index. One by digest leads to what another registry has, and names
/// nothing elsewhere.
fn annotations(reference: &Reference) -> Map<String, Value> {
    let mut names = Map::new();
    if reference.digest().is_none() {
        let (host, path) = reference.registry();
        let full = format!("{host}/{path}:{}", reference.tag());
        names.insert(REF_NAME.to_owned(), reference.full().into());
        names.insert(CONTAINERD_NAME.to_owned(), full.into());
    }
    names
}

fn tags(reference: &Reference) -> Vec<String> {
    reference.digest().is_none().then(|| reference.full()).into_iter().collect()
}

fn append_tags(entry: &mut Value, other: &Value) {
    let more = other["RepoTags"].as_array().cloned().unwrap_or_default();
    if let Some(tags) = entry["RepoTags"].as_array_mut() {
        tags.extend(more);
    }
}

/// Content that has just as many bytes as its header says, or fails: tar has no other way to tell
/// where the next member is.
struct Sized<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Sized<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) if read > 0 || left == 0 || buffer.is_empty() => {
                self.left = left;
                Ok(read)
            }
            _ => Err(io::Error::other(
                Error::new("a layer has not the size that is recorded for it")
                    .hint("`casemate store check` says which"),
            )),
        }
    }
}

struct Counted<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
