//! Import: a source becomes layers, documents and a name.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::stat::fstat;

use super::index::Origin;
use super::intake::{Brought, Expected, Intake};
use super::layer::Info;
use super::{Store, directory};
use crate::error::{During, Error, Result};
use crate::image::{
    Bundle, Config, Digest, LayerDescriptor, MANIFEST_MEDIA_TYPE, Reference, Section, Source,
    compose_config, compose_manifest, timestamp,
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

/// Imports a source under a name. An image that has the name already loses it.
pub fn import(store: &Store, reference: &Reference, source: &Path) -> Result<Imported> {
    let intake = Intake::open(store, 1)?;
    let opened = Source::open(source, intake.workshop(), || intake.staging().scratch())?;
    let within = |error: Error| error.within(format_args!("import {}", source.display()));
    match opened {
        Source::Image(opened) => bundle(intake, reference, &opened),
        Source::Tree(file) => tree(intake, reference, file),
        Source::Directory(dir) => files(intake, reference, dir),
    }
    .map_err(within)
}

fn bundle(intake: Intake<'_>, reference: &Reference, bundle: &Bundle) -> Result<Imported> {
    let total = bundle.layers.len();
    let mut infos = Vec::new();
    for (number, (layer, diff_id)) in bundle.layers.iter().zip(&bundle.config.diff_ids).enumerate()
    {
        let within = |error: Error| error.within(format_args!("layer {} of {total}", number + 1));
        let info = match intake.known(diff_id)? {
            Some(info) => info,
            None => {
                let section = bundle.open(layer).map_err(within)?;
                let packed = layer.packed.map(|(digest, _)| digest);
                let expected = Expected { packed, diff_id: Some(*diff_id), ..Expected::default() };
                intake.section(section, expected).map_err(within)?.1
            }
        };
        infos.push(info);
    }
    let composed;
    let (manifest, media_type) = match &bundle.manifest {
        Some((manifest, media_type)) => (manifest, media_type.as_str()),
        None => {
            composed = compose_manifest(&bundle.config_json, &descriptors(&infos));
            (&composed, MANIFEST_MEDIA_TYPE)
        }
    };
    let image = Brought {
        manifest,
        media_type,
        config_json: &bundle.config_json,
        config: &bundle.config,
        origin: Origin::default(),
    };
    intake.name(reference, &image)
}

fn descriptors(infos: &[Info]) -> Vec<LayerDescriptor> {
    infos.iter().map(|i| LayerDescriptor::of(i.blob, i.blob_size, i.compression)).collect()
}

fn tree(intake: Intake<'_>, reference: &Reference, file: File) -> Result<Imported> {
    let created = fstat(&file).during("stat", "the archive")?.st_mtime;
    let section = Section::whole(file).during("stat", "the archive")?;
    let expected = Expected { end_marker: true, ..Expected::default() };
    let layer = intake.section(section, expected)?;
    single(intake, reference, created, layer)
}

fn files(intake: Intake<'_>, reference: &Reference, dir: OwnedFd) -> Result<Imported> {
    let created = fstat(&dir).during("stat", "the directory")?.st_mtime;
    let layer = intake.made(|pipe| {
        let mut pipe = BufWriter::with_capacity(256 << 10, File::from(pipe));
        directory::send(dir, &mut pipe)?;
        pipe.flush().during("write to", "the unpacking process")
    })?;
    single(intake, reference, created, layer)
}

/// A root file system that is one layer.
fn single(
    intake: Intake<'_>,
    reference: &Reference,
    created: i64,
    (diff_id, info): (Digest, Info),
) -> Result<Imported> {
    let config_json = compose_config(diff_id, &timestamp(created));
    let image = Brought {
        manifest: &compose_manifest(&config_json, &descriptors(&[info])),
        media_type: MANIFEST_MEDIA_TYPE,
        config_json: &config_json,
        config: &Config::parse(&config_json)?,
        origin: Origin::default(),
    };
    intake.name(reference, &image)
}
