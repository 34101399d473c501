//! Import: a source becomes layers, documents and a name.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::fstat;

use super::index::Origin;
use super::input::{self, Input};
use super::intake::{Brought, Expected, Intake};
use super::layer::Info;
use super::{Store, directory};
use crate::crew;
use crate::error::{During, Error, Result};
use crate::image::{
    Bundle, Choice, Config, Digest, LayerDescriptor, Location, MANIFEST_MEDIA_TYPE, Platform,
    Reference, Section, Source, compose_config, compose_manifest, timestamp,
};

/// How many layers are unpacked at the same time. Most of it is the kernel's work for each file, in
/// one thread for each layer, so that two cores are busy with two.
const PARALLEL: usize = 2;

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

/// What is imported.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The name that it gets; without it, the one that it brings along.
    pub name: Option<&'a Reference>,
    /// Where it is: a file, a directory or standard input.
    pub location: &'a Location,
    /// For which platform; without it, for this machine.
    pub platform: Option<&'a Platform>,
}

/// Imports a file or directory under a name. An image that has the name already loses it.
pub fn import(store: &Store, reference: &Reference, source: &Path) -> Result<Imported> {
    let location = Location::from(source.to_owned());
    import_from(store, &Import { name: Some(reference), location: &location, platform: None })
}

/// Imports an image or a root file system. An image that has the name already loses it.
pub fn import_from(store: &Store, import: &Import<'_>) -> Result<Imported> {
    let intake = Intake::open(store, PARALLEL)?;
    let choice = |form, tag| Choice { form, tag, platform: import.platform };
    let opened = match import.location {
        Location::File { form, path, tag } => {
            let choice = choice(*form, tag.as_deref());
            Source::open(path, &choice, intake.workshop(), || intake.staging().scratch())?
        }
        Location::Stdin { form, tag } => {
            match input::open(&intake, &choice(*form, tag.as_deref()))? {
                Input::Source(source) => source,
                Input::Tree(stream) => {
                    let within = |error: Error| error.within("import standard input");
                    let name = named(import.name, None).map_err(within)?;
                    return streamed(intake, &name, stream).map_err(within);
                }
            }
        }
        storage @ Location::Storage { .. } => {
            return Err(Error::new(format!("import {storage}: is in no file")));
        }
    };
    let within = |error: Error| error.within(format_args!("import {}", import.location));
    match opened {
        Source::Image(opened) => named(import.name, opened.name())
            .and_then(|reference| bundle(intake, &reference, &opened)),
        Source::Tree(file) => {
            named(import.name, None).and_then(|reference| tree(intake, &reference, file))
        }
        Source::Directory(dir) => {
            named(import.name, None).and_then(|reference| files(intake, &reference, dir))
        }
    }
    .map_err(within)
}

fn named(given: Option<&Reference>, own: Option<Reference>) -> Result<Reference> {
    given.cloned().or(own).ok_or_else(|| {
        Error::new("it has no name of its own")
            .hint("name it: `casemate import NAME SOURCE`, NAME[:TAG] first")
    })
}

fn bundle(intake: Intake<'_>, reference: &Reference, bundle: &Bundle) -> Result<Imported> {
    let total = bundle.layers.len();
    // One that comes twice is unpacked once.
    let mut missing: Vec<usize> = Vec::new();
    for (number, diff_id) in bundle.config.diff_ids.iter().enumerate() {
        let comes =
            missing.iter().any(|coming| bundle.config.diff_ids.get(*coming) == Some(diff_id));
        if !comes && !intake.has(diff_id)? {
            missing.push(number);
        }
    }
    let layers: Vec<_> = bundle.layers.iter().zip(&bundle.config.diff_ids).collect();
    let stop = AtomicBool::new(false);
    crew::each(PARALLEL, missing.len(), &stop, |index| {
        let number = missing[index];
        let (layer, diff_id) = layers[number];
        let packed = layer.packed.map(|(digest, _)| digest);
        let expected = Expected { packed, diff_id: Some(*diff_id), ..Expected::default() };
        bundle
            .open(layer)
            .and_then(|section| intake.section(section, expected))
            .map_err(|error| error.within(format_args!("layer {} of {total}", number + 1)))
    })?;
    let mut infos = Vec::new();
    for diff_id in &bundle.config.diff_ids {
        infos.extend(intake.known(diff_id)?);
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

/// A root file system that comes through a pipe.
fn streamed(
    intake: Intake<'_>,
    reference: &Reference,
    mut stream: Box<dyn Read + Send>,
) -> Result<Imported> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expected = Expected { end_marker: true, ..Expected::default() };
    let layer = intake.streamed(&mut stream, expected)?;
    single(intake, reference, i64::try_from(now).unwrap_or(i64::MAX), layer)
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
