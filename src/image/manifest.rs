//! Manifests and indexes: reading them, and writing one for what came without.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde_json::{Value, json};

use super::platform::host_architecture;
use super::{Compression, Config, Digest};
use crate::error::{Error, Result};

/// The media type of an OCI image manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// What a descriptor in an index points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// An image manifest.
    Manifest,
    /// Another index.
    Index,
}

/// Tells by media type; `None` for what is no image.
pub(super) fn target(media_type: &str) -> Option<Target> {
    match media_type {
        MANIFEST_MEDIA_TYPE | "application/vnd.docker.distribution.manifest.v2+json" => {
            Some(Target::Manifest)
        }
        INDEX_MEDIA_TYPE | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            Some(Target::Index)
        }
        _ => None,
    }
}

/// Whether this is the media type of an index, OCI or docker.
pub fn is_index(media_type: &str) -> bool {
    target(media_type) == Some(Target::Index)
}

/// Whether this is the media type of an image manifest, OCI or docker.
pub fn is_manifest(media_type: &str) -> bool {
    target(media_type) == Some(Target::Manifest)
}

/// A layer as a manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDescriptor {
    /// Its media type.
    pub media_type: String,
    /// The digest of the bytes as packed.
    pub digest: Digest,
    /// How many these are.
    pub size: u64,
    /// Where a foreign layer is to be had, if not in the registry.
    pub urls: Vec<String>,
}

/// An image manifest that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The digest of the config.
    pub config: Digest,
    /// The size of the config.
    pub config_size: u64,
    /// The layers, lowest first.
    pub layers: Vec<LayerDescriptor>,
}

impl Manifest {
    /// Checks that a config is this manifest's: it has as many layers.
    pub fn check_config(&self, config: &Config) -> Result<()> {
        check_counts(config, self.layers.len())
    }

    /// Reads a manifest, OCI or docker. `media_type` is what the descriptor said.
    pub fn parse(json: &[u8], media_type: &str) -> Result<Self> {
        let wrong = |why: &dyn std::fmt::Display| Error::new(format!("image manifest: {why}"));
        unambiguous(json, media_type).map_err(|error| wrong(&error))?;
        let manifest: ImageManifest =
            serde_json::from_slice(json).map_err(|error| wrong(&error))?;
        let config_type = manifest.config().media_type().to_string();
        if !matches!(
            config_type.as_str(),
            CONFIG_MEDIA_TYPE | "application/vnd.docker.container.image.v1+json"
        ) {
            return Err(wrong(&format_args!("config of type {config_type} is no image's")));
        }
        let layer = |descriptor: &Descriptor| {
            let media_type = descriptor.media_type().to_string();
            check_layer(&media_type)?;
            let digest = digest(descriptor)?;
            let urls = descriptor.urls().clone().unwrap_or_default();
            Ok(LayerDescriptor { media_type, digest, size: descriptor.size(), urls })
        };
        let layers = manifest.layers().iter().map(layer).collect::<Result<_>>();
        Ok(Manifest {
            config: digest(manifest.config()).map_err(|error| wrong(&error))?,
            config_size: manifest.config().size(),
            layers: layers.map_err(|error: Error| error.within("image manifest"))?,
        })
    }
}

/// Reads an index.
pub(super) fn parse_index(json: &[u8], media_type: Option<&str>) -> Result<ImageIndex> {
    let wrong = |why: &dyn std::fmt::Display| Error::new(format!("image index: {why}"));
    unambiguous(json, media_type.unwrap_or_default()).map_err(|error| wrong(&error))?;
    serde_json::from_slice(json).map_err(|error| wrong(&error))
}

/// The digest of a descriptor.
pub(super) fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Digest::parse(descriptor.digest().as_ref())
}

/// A document that can be read as manifest and as index has two meanings under one digest
/// (CVE-2021-41190); so has one whose own media type is not the one it was called by.
fn unambiguous(json: &[u8], media_type: &str) -> Result<()> {
    let document: Value =
        serde_json::from_slice(json).map_err(|error| Error::new(error.to_string()))?;
    let has = |key: &str| document.get(key).is_some();
    if has("manifests") && (has("layers") || has("config")) {
        return Err(Error::new("has both manifests and layers"));
    }
    match document.get("mediaType").and_then(Value::as_str) {
        Some(own) if !media_type.is_empty() && own != media_type => {
            Err(Error::new(format!("says it is {own}, its descriptor says {media_type}")))
        }
        _ => Ok(()),
    }
}

fn check_layer(media_type: &str) -> Result<()> {
    const KNOWN: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    if media_type.ends_with("+encrypted") {
        return Err(Error::new(format!("layer of type {media_type}: the layer is encrypted"))
            .hint("decrypt the image first, for example with `skopeo copy --decryption-key`"));
    }
    // The packing itself is told by content, as the other tools do.
    let plain = ["+gzip", "+zstd", ".gzip", ".zstd"]
        .iter()
        .find_map(|suffix| media_type.strip_suffix(suffix))
        .unwrap_or(media_type);
    if KNOWN.contains(&plain) {
        return Ok(());
    }
    Err(Error::new(format!("layer of type {media_type}: not supported"))
        .hint("layers are tar archives, plain or packed with gzip or zstd"))
}

/// Writes a manifest for a config and layers that came without one.
pub fn compose_manifest(config: &[u8], layers: &[LayerDescriptor]) -> Vec<u8> {
    let layer = |layer: &LayerDescriptor| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": {
            "mediaType": CONFIG_MEDIA_TYPE,
            "digest": Digest::of(config),
            "size": config.len(),
        },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

impl LayerDescriptor {
    /// Describes a layer by what was seen while it was read.
    pub fn of(digest: Digest, size: u64, compression: Compression) -> Self {
        let media_type = match compression {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        LayerDescriptor { media_type: media_type.to_owned(), digest, size, urls: Vec::new() }
    }
}

/// Writes the config of an image that is one bare root file system of this host's kind.
pub fn compose_config(diff_id: Digest, created: &str) -> Vec<u8> {
    json!({
        "created": created,
        "architecture": host_architecture(),
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": created, "comment": "imported by casemate" }],
    })
    .to_string()
    .into_bytes()
}

/// A time as RFC 3339 text in UTC.
pub fn timestamp(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Howard Hinnant's civil_from_days: years start in March, so that a leap day comes last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let year_of_era = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Checks that a config is what its manifest says: as many layers.
pub(super) fn check_counts(config: &Config, layers: usize) -> Result<()> {
    if config.diff_ids.len() == layers {
        return Ok(());
    }
    Err(Error::new(format!(
        "the manifest has {layers} layers, the config {}",
        config.diff_ids.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(layer_type: &str, more: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{more}"config":{{"mediaType":"{CONFIG_MEDIA_TYPE}",
            "digest":"{ID}","size":0}},"layers":[{{"mediaType":"{layer_type}","digest":"{ID}","size":3}}]}}"#
        )
    }

    #[test]
    fn a_composed_manifest_reads_back() {
        let layer = LayerDescriptor::of(Digest::of(b""), 7, Compression::Gzip);
        let config = compose_config(Digest::of(b"x"), "2024-01-02T03:04:05Z");
        let json = compose_manifest(&config, std::slice::from_ref(&layer));
        let manifest = Manifest::parse(&json, MANIFEST_MEDIA_TYPE).unwrap();
        assert_eq!(manifest.layers, [layer]);
        assert_eq!(manifest.config, Digest::of(&config));
        assert_eq!(Config::parse(&config).unwrap().diff_ids, [Digest::of(b"x")]);
    }

    #[test]
    fn what_has_two_meanings_is_refused() {
        let good = "application/vnd.oci.image.layer.v1.tar+zstd";
        assert!(Manifest::parse(manifest(good, "").as_bytes(), MANIFEST_MEDIA_TYPE).is_ok());
        for more in [r#""manifests":[],"#, r#""mediaType":"application/x","#, r#""layers":[],"#] {
            let json = manifest(good, more);
            assert!(Manifest::parse(json.as_bytes(), MANIFEST_MEDIA_TYPE).is_err(), "{more}");
        }
    }

    #[test]
    fn layers_of_unknown_kinds_are_named() {
        for (kind, words) in [
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "is encrypted"),
            ("application/x-squashfs", "not supported"),
        ] {
            let json = manifest(kind, "");
            let error = Manifest::parse(json.as_bytes(), MANIFEST_MEDIA_TYPE).unwrap_err();
            assert!(error.to_string().contains(words) && error.to_string().contains(kind));
        }
        assert!(check_layer("application/vnd.docker.image.rootfs.diff.tar.gzip").is_ok());
    }

    #[test]
    fn times_are_calendar_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(timestamp(-1), "1969-12-31T23:59:59Z");
    }
}
