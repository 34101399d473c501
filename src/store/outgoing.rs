//! An image on its way out of the store: its documents as they are, and its layers held.

use super::index::{Entry, Origin};
use super::layer::Info;
use super::lookup::{self, Wanted};
use super::{Held, LayerStream, Store, catalogue, hold, spool};
use crate::error::{Error, Result};
use crate::image::{
    Config, Digest, LayerDescriptor, Manifest, Packed, Reference, compose_manifest,
};

/// An image that is going to be sent. Nobody removes its layers as long as this is kept.
pub struct Outgoing {
    /// The name that it was found by, or its first one.
    pub reference: Reference,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The media type of its manifest.
    pub media_type: String,
    /// Its manifest as it is.
    pub manifest_json: Vec<u8>,
    /// The digest of its config.
    pub config: Digest,
    /// Its config as it is.
    pub config_json: Vec<u8>,
    /// What its config says it is for.
    pub platform: crate::image::Platform,
    /// Where it was pulled from.
    pub origin: Origin,
    /// Its layers, lowest first.
    pub layers: Vec<OutgoingLayer>,
    _held: Vec<Held>,
}

/// A layer of an image that is going to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingLayer {
    /// The digest of its tar stream.
    pub diff_id: Digest,
    /// The length of its tar stream.
    pub stream_size: u64,
    /// What the manifest says of it.
    pub descriptor: LayerDescriptor,
    /// How else it was packed so far: as it came into the store, and when it was sent.
    pub known: Vec<Packed>,
}

impl OutgoingLayer {
    /// The layer without any packing.
    pub fn plain(&self) -> Packed {
        let compression = crate::image::Compression::None;
        Packed { digest: self.diff_id, size: self.stream_size, compression }
    }
}

impl Outgoing {
    /// Whether the manifest is one that casemate wrote for what came without. Then nobody else
    /// knows it, and nothing is lost with its digest.
    pub fn is_composed(&self) -> bool {
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.descriptor.clone()).collect();
        self.manifest_json == compose_manifest(&self.config_json, &layers)
    }
}

impl Store {
    /// An image that is going to be sent, with all its layers, also those that do not show through.
    pub fn outgoing(&self, wanted: &Wanted<'_>) -> Result<Outgoing> {
        lookup::settled(self, wanted, |entry| outgoing(self, entry))
    }

    /// The tar stream of a layer, verified while it is read.
    pub fn stream_layer(&self, layer: &Digest) -> Result<LayerStream> {
        LayerStream::open(self, layer)
    }
}

fn outgoing(store: &Store, entry: &Entry) -> Result<Outgoing> {
    let (digest, media_type) = (entry.digest()?, entry.media_type());
    let manifest_json = catalogue::blob(store, &digest)?;
    let manifest = Manifest::parse(&manifest_json, &media_type)?;
    let config_json = catalogue::blob(store, &manifest.config)?;
    let config = Config::parse(&config_json)?;
    manifest.check_config(&config)?;
    let held = Held::layers(store, &config.diff_ids)?;
    let layer = |(diff_id, descriptor): (&Digest, &LayerDescriptor)| {
        let info = Info::read(store, diff_id)?.ok_or_else(|| hold::missing(diff_id))?;
        let mut known = vec![info.packed()];
        known.extend(spool::remembered(store, diff_id));
        known.retain(|packed| packed.digest != descriptor.digest);
        let (diff_id, descriptor) = (*diff_id, descriptor.clone());
        Ok(OutgoingLayer { diff_id, stream_size: info.stream_size, descriptor, known })
    };
    let layers: Result<Vec<_>> = config.diff_ids.iter().zip(&manifest.layers).map(layer).collect();
    let reference = entry.reference();
    Ok(Outgoing {
        reference: reference.ok_or_else(|| Error::new("the name cannot be read"))?,
        digest,
        media_type,
        manifest_json,
        config: manifest.config,
        config_json,
        platform: config.platform(),
        origin: entry.origin(),
        layers: layers?,
        _held: held,
    })
}
