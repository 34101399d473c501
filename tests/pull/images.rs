//! Images made in memory, with whatever is wrong with them that a test wants, and put into the
//! registry's own storage, which verifies nothing when it serves.

use std::io::Write;

use casemate::image::Digest;
use serde_json::{Value, json};

use crate::archives::{Entry, archive};
use crate::common::registry::Registry;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A layer as it is packed, and what its image says of it.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) tar: Vec<u8>,
    pub(crate) packed: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) urls: Vec<String>,
}

impl Layer {
    /// Not compressed, of the OCI's type.
    pub(crate) fn plain(tar: Vec<u8>) -> Self {
        Layer { packed: tar.clone(), tar, media_type: OCI_LAYER.to_owned(), urls: Vec::new() }
    }

    pub(crate) fn gzip(tar: Vec<u8>) -> Self {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&tar).unwrap();
        let packed = packer.finish().unwrap();
        Layer { packed, media_type: format!("{OCI_LAYER}+gzip"), ..Layer::plain(tar) }
    }

    pub(crate) fn zstd(tar: Vec<u8>) -> Self {
        let packed = zstd::encode_all(&tar[..], 1).unwrap();
        Layer { packed, media_type: format!("{OCI_LAYER}+zstd"), ..Layer::plain(tar) }
    }

    pub(crate) fn typed(mut self, media_type: &str) -> Self {
        self.media_type = media_type.to_owned();
        self
    }

    /// With one file that nobody else has, of this size; its bytes do not compress.
    pub(crate) fn noise(name: &str, size: usize) -> Self {
        let mut state = Digest::of(name.as_bytes())
            .hex()
            .bytes()
            .fold(1u64, |all, byte| all.wrapping_mul(31).wrapping_add(byte.into()));
        let mut content = String::with_capacity(size);
        for _ in 0..size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.push(char::from(32 + (state % 95) as u8));
        }
        Layer::plain(archive([Entry::file(name, &content)]))
    }

    pub(crate) fn diff_id(&self) -> Digest {
        Digest::of(&self.tar)
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.packed)
    }

    fn descriptor(&self) -> Value {
        let mut descriptor = json!({ "mediaType": self.media_type, "digest": self.digest(),
            "size": self.packed.len() });
        if !self.urls.is_empty() {
            descriptor["urls"] = json!(self.urls);
        }
        descriptor
    }
}

/// What a registry's `architecture` is here.
pub(crate) fn host() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// An image whose documents can still be changed.
pub(crate) struct Made {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: Value,
    pub(crate) manifest: Value,
}

impl Made {
    pub(crate) fn new(layers: &[Layer]) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(Layer::diff_id).collect();
        let config = json!({ "architecture": host(), "os": "linux",
            "config": { "Cmd": ["/bin/sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let descriptors: Vec<_> = layers.iter().map(Layer::descriptor).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json" },
            "layers": descriptors });
        Made { layers: layers.to_vec(), config, manifest }
    }

    /// The same in docker's media types.
    pub(crate) fn docker(mut self) -> Self {
        self.manifest["mediaType"] = json!(DOCKER_MANIFEST);
        self.manifest["config"]["mediaType"] =
            json!("application/vnd.docker.container.image.v1+json");
        self
    }

    /// For another machine.
    pub(crate) fn for_machine(mut self, os: &str, architecture: &str) -> Self {
        self.config["os"] = json!(os);
        self.config["architecture"] = json!(architecture);
        self
    }

    fn config_bytes(&self) -> Vec<u8> {
        self.config.to_string().into_bytes()
    }

    /// The manifest as it goes to the registry.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        let config = self.config_bytes();
        let entry = &mut manifest["config"];
        if entry["digest"].is_null() {
            entry["digest"] = json!(Digest::of(&config));
            entry["size"] = json!(config.len());
        }
        manifest.to_string().into_bytes()
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes())
    }

    /// Puts it all there; foreign layers are left out.
    pub(crate) fn put(&self, registry: &Registry, repository: &str, tag: Option<&str>) {
        for layer in self.layers.iter().filter(|layer| layer.urls.is_empty()) {
            registry.put_blob(repository, &layer.digest().hex(), &layer.packed);
        }
        let config = self.config_bytes();
        registry.put_blob(repository, &Digest::of(&config).hex(), &config);
        registry.put_manifest(repository, tag, &self.digest().hex(), &self.bytes());
    }

    /// What an index says of it.
    pub(crate) fn entry(&self) -> Value {
        let platform =
            json!({ "os": self.config["os"], "architecture": self.config["architecture"] });
        json!({ "mediaType": self.manifest["mediaType"], "digest": self.digest(),
            "size": self.bytes().len(), "platform": platform })
    }
}

/// An index of these entries; its own entry for another index.
pub(crate) fn put_index(
    registry: &Registry,
    repository: &str,
    tag: Option<&str>,
    media_type: &str,
    entries: &[Value],
) -> Value {
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    let bytes = index.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    registry.put_manifest(repository, tag, &digest.hex(), &bytes);
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}
