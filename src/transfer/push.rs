//! Push: an image goes to a registry.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use super::watch::Watch;
use crate::crew;
use crate::error::{Error, Result};
use crate::image::{Compression, Digest, Family, Packed, Reference, repack};
use crate::registry::{Access, Registries, Remote};
use crate::store::{Outgoing, OutgoingLayer, Spool, Store};

/// How many layers go at the same time.
const PARALLEL: usize = 3;

/// What is pushed, and how.
pub struct Push<'a> {
    /// The image.
    pub image: &'a Outgoing,
    /// The name that it gets, in full.
    pub destination: &'a Reference,
    /// How to pack what the registry does not have; without it, as each layer is packed in the
    /// image, and with gzip what is not packed in an image that casemate made the manifest of.
    pub compression: Option<Compression>,
}

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the manifest in the registry.
    pub digest: Digest,
    /// Layers that were uploaded, and their bytes.
    pub uploaded: usize,
    /// Bytes of these as packed.
    pub bytes: u64,
    /// Layers that the registry had, there or in another repository.
    pub present: usize,
    /// Whether the manifest is the image's own. It is another one where a layer is packed otherwise.
    pub unchanged: bool,
}

/// Pushes an image. What the registry has already, by any digest that is known for it, is not sent.
/// The sizes that `watch` is told at the beginning are those of the image's own packing, where the
/// layer is still to be packed.
pub fn push(
    store: &Store,
    registries: &Registries,
    push: &Push<'_>,
    watch: &dyn Watch,
) -> Result<Pushed> {
    let remote = registries.open(push.destination, Access::Push)?;
    let stop = AtomicBool::new(false);
    let run = Run { store, push, remote, spool: store.spool(), watch, stop };
    run.push().map_err(|error| error.within(format_args!("push {}", push.destination)))
}

struct Run<'a> {
    store: &'a Store,
    push: &'a Push<'a>,
    remote: Remote,
    spool: Spool<'a>,
    watch: &'a dyn Watch,
    /// A layer has failed.
    stop: AtomicBool,
}

/// How the registry has a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    /// As the manifest says; a foreign layer need not be there.
    AsItWas,
    /// With other bytes.
    Otherwise(Packed),
}

impl Run<'_> {
    fn push(&self) -> Result<Pushed> {
        let (image, destination) = (self.push.image, self.push.destination);
        let total = image.layers.len();
        if self.remote.has_manifest(destination, &image.digest)? {
            self.watch.begin(&[], total);
            let digest = image.digest;
            return Ok(Pushed { digest, uploaded: 0, bytes: 0, present: total, unchanged: true });
        }
        // One layer may be in an image several times.
        let mut layers: Vec<&OutgoingLayer> = Vec::new();
        for layer in &image.layers {
            if !layers.iter().any(|other| other.descriptor.digest == layer.descriptor.digest) {
                layers.push(layer);
            }
        }
        let looked = self.each(&layers, |_, layer| self.look(layer))?;
        let missing: Vec<&OutgoingLayer> = layers
            .iter()
            .zip(&looked)
            .filter(|(_, there)| there.is_none())
            .map(|(layer, _)| *layer)
            .collect();
        let sizes: Vec<_> = missing
            .iter()
            .map(|layer| (layer.descriptor.digest, self.expected_size(layer)))
            .collect();
        self.watch.begin(&sizes, layers.len() - missing.len());
        let sent = self.each(&missing, |index, layer| self.send(index, layer))?;
        let bytes = sent.iter().map(|(_, bytes)| bytes).sum();
        let mut sent = sent.into_iter().map(|(there, _)| there);
        let there: Vec<(Digest, Option<There>)> = layers
            .iter()
            .zip(looked)
            .map(|(layer, looked)| (layer.descriptor.digest, looked.or_else(|| sent.next())))
            .collect();
        let changed = image.layers.iter().map(|layer| {
            let found = there.iter().find(|(digest, _)| *digest == layer.descriptor.digest);
            match found.and_then(|(_, there)| *there) {
                Some(There::Otherwise(packed)) => Some(packed),
                _ => None,
            }
        });
        let changed: Vec<_> = changed.collect();
        let (manifest, media_type) =
            repack(&image.manifest_json, &image.media_type, &changed, Family::Own)?;
        self.config()?;
        let digest = Digest::of(&manifest);
        if digest == image.digest || !self.remote.has_manifest(destination, &digest)? {
            self.remote.put_manifest(destination, &media_type, &manifest)?;
        }
        Ok(Pushed {
            digest,
            uploaded: missing.len(),
            bytes,
            present: layers.len() - missing.len(),
            unchanged: digest == image.digest,
        })
    }

    /// Looks for a layer in the registry: as the image has it, as it was packed before, and in the
    /// repository that it was pulled from.
    fn look(&self, layer: &OutgoingLayer) -> Result<Option<There>> {
        let descriptor = &layer.descriptor;
        // A foreign layer is not the registry's to give away.
        if !descriptor.urls.is_empty() || self.remote.has_blob(&descriptor.digest)? {
            return Ok(Some(There::AsItWas));
        }
        for packed in &layer.known {
            let wanted = self.push.compression.is_none_or(|wanted| wanted == packed.compression);
            if wanted && self.remote.has_blob(&packed.digest)? {
                return Ok(Some(There::Otherwise(*packed)));
            }
        }
        // A registry that lets us write here, and not read there, says so with an error.
        let mount = |from: String| self.remote.mount_blob(&descriptor.digest, &from);
        let mounted = self.sibling().is_some_and(|from| mount(from).unwrap_or(false));
        Ok(mounted.then_some(There::AsItWas))
    }

    /// The repository of the same registry that the image was pulled from.
    fn sibling(&self) -> Option<String> {
        let origin = Reference::parse(self.push.image.origin.from.as_deref()?).ok()?;
        let ((host, from), (to_host, to)) = (origin.registry(), self.push.destination.registry());
        (host == to_host && from != to).then_some(from)
    }

    /// How a layer is going to be packed.
    fn packing(&self, layer: &OutgoingLayer) -> Compression {
        if let Some(compression) = self.push.compression {
            return compression;
        }
        let kind = layer.descriptor.media_type.as_str();
        if layer.descriptor.digest == layer.diff_id {
            // Its bytes can be given as they are, so that the image keeps its digest. Nobody minds
            // that where the manifest is our own, and the registry's disk and everybody's time count.
            if self.push.image.is_composed() { Compression::Gzip } else { Compression::None }
        } else if kind.ends_with("zstd") {
            Compression::Zstd
        } else {
            Compression::Gzip
        }
    }

    fn expected_size(&self, layer: &OutgoingLayer) -> u64 {
        let packing = self.packing(layer);
        if packing == Compression::None {
            return layer.stream_size;
        }
        let same = layer.known.iter().rfind(|packed| packed.compression == packing);
        same.map_or(layer.descriptor.size, |packed| packed.size)
    }

    /// Packs a layer and uploads it; how it is there then, and how many bytes went.
    fn send(&self, index: usize, layer: &OutgoingLayer) -> Result<(There, u64)> {
        let count = |bytes| self.watch.moved(index, bytes);
        let packing = self.packing(layer);
        let packed = if packing == Compression::None {
            let packed = layer.plain();
            // Packed otherwise in the image, it may be there without any packing.
            if packed.digest == layer.descriptor.digest || !self.remote.has_blob(&packed.digest)? {
                self.remote.upload_from(packed.size, &packed.digest, || {
                    let inner = self.store.stream_layer(&layer.diff_id)?;
                    Ok(Watched { inner, count: &count, stop: &self.stop })
                })?;
            }
            packed
        } else {
            let (packed, file) = self.spool.pack(&layer.diff_id, packing)?;
            let asked = |known: &Packed| known.digest == packed.digest;
            let is_new = packed.digest != layer.descriptor.digest && !layer.known.iter().any(asked);
            if !is_new || !self.remote.has_blob(&packed.digest)? {
                self.remote.upload_from(packed.size, &packed.digest, || {
                    let inner = section(&file, packed.size)?;
                    Ok(Watched { inner, count: &count, stop: &self.stop })
                })?;
            }
            packed
        };
        self.watch.done(index);
        let there = match packed.digest == layer.descriptor.digest {
            true => There::AsItWas,
            false => There::Otherwise(packed),
        };
        Ok((there, packed.size))
    }

    fn config(&self) -> Result<()> {
        let (digest, json) = (&self.push.image.config, &self.push.image.config_json);
        if self.remote.has_blob(digest)? {
            return Ok(());
        }
        self.remote.upload_from(json.len() as u64, digest, || Ok(json.as_slice()))
    }

    /// Does something with each layer, with several at the same time; the results in the same order.
    fn each<T: Send>(
        &self,
        layers: &[&OutgoingLayer],
        work: impl Fn(usize, &OutgoingLayer) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        crew::each(PARALLEL, layers.len(), &self.stop, |index| work(index, layers[index]))
    }
}

/// A packed layer from its beginning.
fn section(file: &std::fs::File, size: u64) -> Result<crate::image::Section> {
    use crate::error::During;
    let file = file.try_clone().during("duplicate", "a descriptor")?;
    Ok(crate::image::Section::of(std::sync::Arc::new(file), 0, size))
}

/// Tells how many bytes have gone, and ends when another layer has failed.
struct Watched<'a, R> {
    inner: R,
    count: &'a dyn Fn(u64),
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(Error::new("another layer failed")));
        }
        let read = self.inner.read(buffer)?;
        (self.count)(read as u64);
        Ok(read)
    }
}
