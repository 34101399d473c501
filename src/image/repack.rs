//! A manifest for an image of which layers are packed in another way than it says.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::manifest::{CONFIG_MEDIA_TYPE, MANIFEST_MEDIA_TYPE};
use super::{Compression, Digest};
use crate::error::{Error, Result};

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What a layer's annotations say of its bytes as they were packed: where a table of contents is in
/// them. It is not true of other bytes.
const OF_THE_PACKING: [&str; 4] = [
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
    "io.containers.zstd-chunked.",
    "io.github.containers.zstd-chunked.",
];

/// The bytes of a layer as it is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// How it is packed.
    pub compression: Compression,
}

/// Which media types the manifest may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// OCI's, for places that know no others: an OCI image layout.
    Oci,
    /// Those that it has. docker's have gzip only; with any other packing it becomes one of OCI's.
    Own,
}

/// Writes a manifest anew; the bytes and their media type. `layers` has for each layer how it is
/// packed now, or `None` where it is as the manifest says. Everything else in it stays, annotations
/// and what casemate does not know; where nothing changes, so does every byte.
pub fn repack(
    json: &[u8],
    media_type: &str,
    layers: &[Option<Packed>],
    family: Family,
) -> Result<(Vec<u8>, String)> {
    let is_docker = media_type == DOCKER_MANIFEST;
    let fits_docker = layers.iter().flatten().all(|layer| layer.compression == Compression::Gzip);
    let convert = is_docker && (family == Family::Oci || !fits_docker);
    if !convert && layers.iter().all(Option::is_none) {
        return Ok((json.to_vec(), media_type.to_owned()));
    }
    let wrong = || Error::new("image manifest: is not as it was read before");
    let mut document: Map<String, Value> = serde_json::from_slice(json).map_err(|_| wrong())?;
    let descriptors = document.get_mut("layers").and_then(Value::as_array_mut);
    let descriptors = descriptors.filter(|all| all.len() == layers.len()).ok_or_else(wrong)?;
    for (descriptor, layer) in descriptors.iter_mut().zip(layers) {
        let descriptor = descriptor.as_object_mut().ok_or_else(wrong)?;
        relabel(descriptor, *layer, is_docker && !convert).ok_or_else(wrong)?;
    }
    if convert {
        document.insert("mediaType".to_owned(), MANIFEST_MEDIA_TYPE.into());
        let config = document.get_mut("config").and_then(Value::as_object_mut).ok_or_else(wrong)?;
        config.insert("mediaType".to_owned(), CONFIG_MEDIA_TYPE.into());
    }
    let media_type = if convert { MANIFEST_MEDIA_TYPE } else { media_type };
    Ok((Value::from(document).to_string().into_bytes(), media_type.to_owned()))
}

/// Changes a layer's descriptor; `None` where it is none.
fn relabel(descriptor: &mut Map<String, Value>, layer: Option<Packed>, docker: bool) -> Option<()> {
    let own = descriptor.get("mediaType")?.as_str()?;
    let (plain, suffix) = split(own);
    let foreign = [OCI_FOREIGN, DOCKER_FOREIGN].contains(&plain);
    let base = match (docker, foreign) {
        (false, false) => OCI_LAYER,
        (false, true) => OCI_FOREIGN,
        (true, false) => DOCKER_LAYER,
        (true, true) => DOCKER_FOREIGN,
    };
    let suffix = match layer.map(|layer| layer.compression) {
        None => suffix,
        Some(Compression::None) => "",
        Some(Compression::Gzip) => "gzip",
        Some(Compression::Zstd) => "zstd",
    };
    let media_type = match (suffix, docker) {
        ("", _) => base.to_owned(),
        (suffix, true) => format!("{base}.{suffix}"),
        (suffix, false) => format!("{base}+{suffix}"),
    };
    descriptor.insert("mediaType".to_owned(), media_type.into());
    let Some(layer) = layer else { return Some(()) };
    descriptor.insert("digest".to_owned(), layer.digest.to_string().into());
    descriptor.insert("size".to_owned(), layer.size.into());
    // Other bytes are at those addresses.
    descriptor.remove("urls");
    descriptor.remove("data");
    if let Some(annotations) = descriptor.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !OF_THE_PACKING.iter().any(|start| key.starts_with(start)));
    }
    Some(())
}

/// A layer's media type without its packing, and the packing.
fn split(media_type: &str) -> (&str, &str) {
    for packing in ["gzip", "zstd"] {
        let plain = media_type.strip_suffix(packing).and_then(|rest| rest.strip_suffix(['+', '.']));
        if let Some(plain) = plain {
            return (plain, packing);
        }
    }
    (media_type, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Manifest;
    use serde_json::json;

    fn manifest(own: &str, config: &str, layers: &[&str]) -> Vec<u8> {
        let digest = Digest::of(b"");
        let layer = |kind: &&str| {
            json!({ "mediaType": kind, "digest": digest, "size": 3, "urls": ["https://a.example"],
                "annotations": { "a": "b", "io.github.containers.zstd-chunked.manifest-position": "1" } })
        };
        json!({ "schemaVersion": 2, "mediaType": own, "annotations": { "k": "v" }, "other": [1],
            "config": { "mediaType": config, "digest": digest, "size": 0 },
            "layers": layers.iter().map(layer).collect::<Vec<_>>() })
        .to_string()
        .into_bytes()
    }

    fn oci() -> Vec<u8> {
        let zstd = format!("{OCI_LAYER}+zstd");
        manifest(MANIFEST_MEDIA_TYPE, CONFIG_MEDIA_TYPE, &[&zstd, OCI_FOREIGN])
    }

    fn docker() -> Vec<u8> {
        let config = "application/vnd.docker.container.image.v1+json";
        let (layer, foreign) = (format!("{DOCKER_LAYER}.gzip"), format!("{DOCKER_FOREIGN}.gzip"));
        manifest(DOCKER_MANIFEST, config, &[&layer, &foreign])
    }

    fn now(compression: Compression) -> Option<Packed> {
        Some(Packed { digest: Digest::of(b"x"), size: 9, compression })
    }

    #[test]
    fn what_is_as_it_was_stays_to_the_byte() {
        for (json, media_type) in [(oci(), MANIFEST_MEDIA_TYPE), (docker(), DOCKER_MANIFEST)] {
            let same = repack(&json, media_type, &[None, None], Family::Own).unwrap();
            assert_eq!(same, (json, media_type.to_owned()));
        }
    }

    #[test]
    fn only_what_is_packed_anew_is_described_anew() {
        let (json, kind) =
            repack(&oci(), MANIFEST_MEDIA_TYPE, &[now(Compression::Gzip), None], Family::Oci)
                .unwrap();
        let read = Manifest::parse(&json, &kind).unwrap();
        assert_eq!(read.layers[0].media_type, format!("{OCI_LAYER}+gzip"));
        assert_eq!((read.layers[0].digest, read.layers[0].size), (Digest::of(b"x"), 9));
        assert_eq!((read.layers[0].urls.len(), read.layers[1].urls.len()), (0, 1));
        assert_eq!(read.layers[1].media_type, OCI_FOREIGN);
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&value["annotations"]["k"], &value["other"][0]), (&json!("v"), &json!(1)));
        assert_eq!(value["layers"][0]["annotations"], json!({ "a": "b" }));
        assert_eq!(value["layers"][1]["annotations"].as_object().unwrap().len(), 2);
    }

    #[test]
    fn dockers_stays_dockers_with_gzip_alone() {
        let repacked = |layer, family| repack(&docker(), DOCKER_MANIFEST, &[layer, None], family);
        let (json, kind) = repacked(now(Compression::Gzip), Family::Own).unwrap();
        assert_eq!(kind, DOCKER_MANIFEST);
        let read = Manifest::parse(&json, &kind).unwrap();
        assert_eq!(read.layers[0].media_type, format!("{DOCKER_LAYER}.gzip"));
        for (layer, family) in [(now(Compression::Zstd), Family::Own), (None, Family::Oci)] {
            let (json, kind) = repacked(layer, family).unwrap();
            assert_eq!(kind, MANIFEST_MEDIA_TYPE);
            let read = Manifest::parse(&json, &kind).unwrap();
            let suffix = if layer.is_some() { "+zstd" } else { "+gzip" };
            assert_eq!(read.layers[0].media_type, format!("{OCI_LAYER}{suffix}"));
            assert_eq!(read.layers[1].media_type, format!("{OCI_FOREIGN}+gzip"));
            let value: Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(value["config"]["mediaType"], CONFIG_MEDIA_TYPE);
        }
    }
}
