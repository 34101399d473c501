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

const BLOCK: u64 = 512;

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
    let mut archive =
        Archive { to, spool: store.spool(), blobs: BTreeSet::new(), packed: BTreeMap::new() };
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
    let size = archive.finish().map_err(|error| failed(&error))?;
    Ok(Saved { images, layers, size })
}

/// The archive. It has no end marker before it is finished, so that nobody takes what was cut short
/// for whole; the tar crate's builder writes one wherever it is dropped.
struct Archive<'a, W> {
    to: Counted<W>,
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
        self.member(&blob_name(&packed.digest), tar::EntryType::Regular, packed.size, content)
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
        header.set_path(name).map_err(|error| failed(&error))?;
        header.set_cksum();
        self.append(&header, size, content).map_err(|error| failed(&error))
    }

    fn append(
        &mut self,
        header: &tar::Header,
        size: u64,
        mut content: impl Read,
    ) -> io::Result<()> {
        self.to.write_all(header.as_bytes())?;
        let mut buffer = vec![0; 128 << 10];
        let mut written = 0;
        loop {
            let read = match content.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                break;
            }
            written += read as u64;
            // Whatever is too much would be taken for the next header.
            if written > size {
                break;
            }
            self.to.write_all(&buffer[..read])?;
        }
        if written != size {
            return Err(io::Error::other(
                Error::new("a layer has not the size that is recorded for it")
                    .hint("`casemate store check` says which"),
            ));
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or_default();
        self.to.write_all(&[0; BLOCK as usize][..padding])
    }

    /// Writes the end marker; the length of it all.
    fn finish(mut self) -> io::Result<u64> {
        self.to.write_all(&[0; 2 * BLOCK as usize])?;
        self.to.flush()?;
        Ok(self.to.count)
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
        names.insert(REF_NAME.to_owned(), reference.full().into());
        names.insert(CONTAINERD_NAME.to_owned(), in_full(reference).into());
    }
    names
}

fn tags(reference: &Reference) -> Vec<String> {
    reference.digest().is_none().then(|| in_full(reference)).into_iter().collect()
}

/// With the registry: podman would take a short name for one of its own making.
fn in_full(reference: &Reference) -> String {
    let (host, path) = reference.registry();
    format!("{host}/{path}:{}", reference.tag())
}

fn append_tags(entry: &mut Value, other: &Value) {
    let more = other["RepoTags"].as_array().cloned().unwrap_or_default();
    if let Some(tags) = entry["RepoTags"].as_array_mut() {
        tags.extend(more);
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
