//! Import: a source becomes layers, documents and a name.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::stat::fstat;

use super::catalogue::{self, Documents};
use super::hold::Held;
use super::index::Origin;
use super::layer::{Info, directory_name};
use super::pipeline::{Packed, Ran, Sink, run, send_packed};
use super::staging::{Staging, make_and_open};
use super::unpack::unpack;
use super::{Store, directory};
use crate::error::{During, Error, Result};
use crate::image::{
    Bundle, Compression, Config, Digest, LayerDescriptor, MANIFEST_MEDIA_TYPE, Reference, Section,
    Source, compose_config, compose_manifest, timestamp,
};

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image's name, as the user would type it.
    pub name: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Layers that were unpacked.
    pub layers_new: usize,
    /// Layers that were in the store already.
    pub layers_shared: usize,
    /// Bytes of file data that were unpacked.
    pub bytes: u64,
}

/// Layers on their way into the store. All are renamed into place together, once every one is
/// verified: a source that fails leaves nothing.
struct Work<'a> {
    store: &'a Store,
    staging: Staging,
    ready: Vec<(String, Digest, Info)>,
    /// All layers of the image, until it has its name: nobody else would know that they are needed.
    held: Vec<Held>,
}

/// Imports a source under a name. An image that has the name already loses it.
pub fn import(store: &Store, reference: &Reference, source: &Path) -> Result<Imported> {
    let work = Work { store, staging: Staging::new(store)?, ready: Vec::new(), held: Vec::new() };
    let opened = Source::open(source, || work.staging.scratch())?;
    let within = |error: Error| error.within(format_args!("import {}", source.display()));
    match opened {
        Source::Image(bundle) => work.bundle(reference, &bundle),
        Source::Tree(file) => work.tree(reference, file),
        Source::Directory(dir) => work.directory(reference, dir),
    }
    .map_err(within)
}

impl Work<'_> {
    fn bundle(mut self, reference: &Reference, bundle: &Bundle) -> Result<Imported> {
        let total = bundle.layers.len();
        let mut infos = Vec::new();
        for (number, (layer, diff_id)) in
            bundle.layers.iter().zip(&bundle.config.diff_ids).enumerate()
        {
            let within =
                |error: Error| error.within(format_args!("layer {} of {total}", number + 1));
            let known = match self.ready.iter().find(|(_, ready, _)| ready == diff_id) {
                Some((_, _, info)) => Some(info.clone()),
                None => match Held::layer(self.store, diff_id)? {
                    Some(held) => {
                        self.held.push(held);
                        Info::read(self.store, diff_id)?
                    }
                    None => None,
                },
            };
            let info = match known {
                Some(info) => info,
                None => {
                    let section = bundle.open(layer).map_err(within)?;
                    let packed = layer.packed;
                    let produce =
                        move |sink: &mut Sink| send_packed(section, packed, sink).map(Some);
                    self.layer(produce, Some(*diff_id), false).map_err(within)?.1
                }
            };
            infos.push(info);
        }
        let composed;
        let (manifest, media_type) = match &bundle.manifest {
            Some((manifest, media_type)) => (manifest, media_type.as_str()),
            None => {
                let layers: Vec<_> = infos
                    .iter()
                    .map(|i| LayerDescriptor::of(i.blob, i.blob_size, i.packed_with()))
                    .collect();
                composed = compose_manifest(&bundle.config_json, &layers);
                (&composed, MANIFEST_MEDIA_TYPE)
            }
        };
        let hidden_layers = infos.iter().rposition(|info| info.opaque_root).unwrap_or(0);
        let documents = Documents {
            manifest,
            media_type,
            config: &bundle.config_json,
            diff_ids: &bundle.config.diff_ids,
            hidden_layers,
            origin: Origin::default(),
        };
        self.finish(reference, &documents)
    }

    fn tree(self, reference: &Reference, file: File) -> Result<Imported> {
        let created = fstat(&file).during("stat", "the archive")?.st_mtime;
        let section = Section::whole(file).during("stat", "the archive")?;
        self.single(reference, created, true, move |sink| {
            send_packed(section, None, sink).map(Some)
        })
    }

    fn directory(self, reference: &Reference, dir: OwnedFd) -> Result<Imported> {
        let created = fstat(&dir).during("stat", "the directory")?.st_mtime;
        self.single(reference, created, false, move |sink| match directory::send(dir, sink) {
            Err(_) if sink.is_closed() => Ok(None),
            sent => sent.map(|()| None),
        })
    }

    /// A root file system that is one layer.
    fn single(
        mut self,
        reference: &Reference,
        created: i64,
        whole_archive: bool,
        produce: impl FnOnce(&mut Sink) -> Result<Option<Packed>> + Send,
    ) -> Result<Imported> {
        let (diff_id, info) = self.layer(produce, None, whole_archive)?;
        let config = compose_config(diff_id, &timestamp(created));
        let layer = LayerDescriptor::of(info.blob, info.blob_size, info.packed_with());
        let manifest = compose_manifest(&config, &[layer]);
        let diff_ids = Config::parse(&config)?.diff_ids;
        let documents = Documents {
            manifest: &manifest,
            media_type: MANIFEST_MEDIA_TYPE,
            config: &config,
            diff_ids: &diff_ids,
            hidden_layers: 0,
            origin: Origin::default(),
        };
        self.finish(reference, &documents)
    }

    /// Unpacks one layer into the staging directory.
    fn layer(
        &mut self,
        produce: impl FnOnce(&mut Sink) -> Result<Option<Packed>> + Send,
        expected: Option<Digest>,
        needs_end: bool,
    ) -> Result<(Digest, Info)> {
        let name = format!("layer-{}", self.ready.len());
        let dir = self.staging.directory(&name)?;
        let root = make_and_open(&dir, "fs", Path::new(&name))?;
        let consume = |stream: &mut dyn std::io::Read| unpack(stream, root);
        let Ran { produced, consumed: unpacked, digest: diff_id, size } = run(produce, consume)?;
        if let Some(expected) = expected
            && expected != diff_id
        {
            return Err(Error::new(format!(
                "unpacked content has the digest {diff_id}, the config says {expected}"
            )));
        }
        // Nothing else would tell that an archive was cut between two entries.
        if needs_end && !unpacked.end_marker {
            return Err(Error::new("the archive is cut short: it has no end marker"));
        }
        // A directory has no packed form: the stream itself stands for it.
        let stream = Packed { digest: diff_id, size, compression: Compression::None };
        let info = Info::of(produced.unwrap_or(stream), unpacked);
        info.write(&dir)?;
        self.held.push(Held::staged(dir)?);
        self.ready.push((name, diff_id, info.clone()));
        Ok((diff_id, info))
    }

    fn finish(mut self, reference: &Reference, documents: &Documents<'_>) -> Result<Imported> {
        let (mut layers_new, mut bytes) = (0, 0);
        if !self.ready.is_empty() {
            self.staging.sync()?;
        }
        for (name, diff_id, info) in &self.ready {
            let to = self.store.layers_dir().join(directory_name(diff_id));
            loop {
                if self.staging.publish_directory(name, &to)? {
                    layers_new += 1;
                    bytes += info.size;
                    break;
                }
                // Another import was faster; ours goes with the staging directory then. Unless what
                // is there was garbage, and is gone by now.
                if let Some(held) = Held::layer(self.store, diff_id)? {
                    self.held.push(held);
                    break;
                }
            }
        }
        let digest = catalogue::publish(self.store, &self.staging, reference, documents)?;
        Ok(Imported {
            name: reference.to_string(),
            digest,
            layers_new,
            layers_shared: documents.diff_ids.len() - layers_new,
            bytes,
        })
    }
}
