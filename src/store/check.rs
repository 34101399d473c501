//! Verifying what is in the store: every document by its digest, every layer by making its tar
//! stream again and hashing it, and by comparing the tree with the one that the stream stands for.

use std::fs::File;
use std::io::{BufWriter, Write};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::intake::Intake;
use super::layer::{Info, directory_name};
use super::{Store, compare, open_directory, rebuild};
use crate::error::{During, Result};
use crate::image::Digest;

/// What is wrong with a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which layer.
    pub layer: Digest,
    /// A line each.
    pub what: Vec<String>,
    /// Its stream can still be made, so that the tree can be made anew from it.
    pub content_is_whole: bool,
}

/// Verifies one layer.
pub(super) fn layer(store: &Store, intake: &Intake<'_>, layer: &Digest) -> Result<Option<Fault>> {
    let broken =
        |what: Vec<String>| Ok(Some(Fault { layer: *layer, what, content_is_whole: false }));
    match Info::read(store, layer) {
        Ok(Some(_)) => (),
        Ok(None) => return broken(vec!["is missing".to_owned()]),
        Err(error) => return broken(vec![error.to_string()]),
    }
    let outline = intake.outline(|pipe| {
        let mut pipe = BufWriter::with_capacity(256 << 10, File::from(pipe));
        rebuild::write(store, layer, &mut pipe)?;
        pipe.flush().during("write", "the layer's stream")
    });
    let (outline, digest) = match outline {
        Ok(outline) => outline,
        Err(error) => return broken(vec![error.to_string()]),
    };
    if digest != *layer {
        return broken(vec![format!("its contents have the digest {digest}")]);
    }
    let path = store.layers_dir().join(directory_name(layer)).join("fs");
    let differences =
        compare::differences(&open_directory(&path)?, &open_directory(&outline.join("fs"))?)?;
    intake.forget(&outline);
    if differences.is_empty() {
        return Ok(None);
    }
    Ok(Some(Fault { layer: *layer, what: differences, content_is_whole: true }))
}

impl Store {
    /// Verifies the layers, each wholly; reads all that is in them. `next` is told which one comes.
    pub fn check(&self, layers: &[Digest], mut next: impl FnMut(&Digest)) -> Result<Vec<Fault>> {
        // Two trees are walked at once, and names may be 512 deep.
        let (_, hard) =
            getrlimit(Resource::RLIMIT_NOFILE).during("read", "the open files limit")?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).during("set", "the open files limit")?;
        let intake = Intake::open(self, 1)?;
        let mut faults = Vec::new();
        for digest in layers {
            next(digest);
            faults.extend(layer(self, &intake, digest)?);
        }
        Ok(faults)
    }

    /// Writes the tar stream of a layer, without verifying it.
    pub fn write_layer(&self, layer: &Digest, to: &mut dyn Write) -> Result<()> {
        rebuild::write(self, layer, to)
    }
}
