//! One layer on disk: its directory, and what is recorded about it.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::Store;
use super::pipeline::Packed;
use super::unpack::Unpacked;
use crate::error::{During, Error, Result};
use crate::image::{Compression, Digest};

/// The version of the layers' format on disk.
const FORMAT: u32 = 1;

/// What was seen while a layer was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Info {
    format: u32,
    /// Bytes of file data.
    pub(super) size: u64,
    /// Entries of the archive.
    pub(super) entries: u64,
    /// Digest and size of the layer as it was packed, and how it was.
    pub(super) blob: Digest,
    pub(super) blob_size: u64,
    pub(super) compression: String,
    /// Nothing of the layers below shows through.
    pub(super) opaque_root: bool,
}

impl Info {
    /// The record of a layer that was just unpacked.
    pub(super) fn of(blob: Packed, unpacked: Unpacked) -> Self {
        let compression = match blob.compression {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        Info {
            format: FORMAT,
            size: unpacked.bytes,
            entries: unpacked.entries,
            blob: blob.digest,
            blob_size: blob.size,
            compression: compression.to_owned(),
            opaque_root: unpacked.opaque_root,
        }
    }

    pub(super) fn packed_with(&self) -> Compression {
        match self.compression.as_str() {
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The record of a layer in the store; `None` where the layer is not there.
    pub(super) fn read(store: &Store, layer: &Digest) -> Result<Option<Self>> {
        let path = store.layers_dir().join(directory_name(layer)).join("info");
        let json = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            json => json.at("read", &path)?,
        };
        let broken = |why: &dyn std::fmt::Display| {
            Error::new(format!("read {}: {why}", path.display()))
                .hint("remove the layer's directory and import the image again")
        };
        let info: Info = serde_json::from_slice(&json).map_err(|error| broken(&error))?;
        if info.format != FORMAT {
            return Err(broken(&format_args!("format {} is not known", info.format)));
        }
        Ok(Some(info))
    }

    /// Writes the record beside the tree.
    pub(super) fn write(&self, dir: &OwnedFd) -> Result<()> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::new(format!("write the layer's record: {error}")))?;
        super::staging::write_file(dir, "info", &json)
    }
}

/// The directory of a layer. No colon: overlayfs splits `lowerdir` there.
pub(super) fn directory_name(layer: &Digest) -> String {
    format!("sha256-{}", layer.hex())
}
