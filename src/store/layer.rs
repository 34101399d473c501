//! One layer on disk: its directory, and what is recorded about it.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::workshop::Done;
use super::{Store, durable};
use crate::error::{During, Error, Result};
use crate::image::{Compression, Digest, Packed};

/// The version of the layers' format on disk: 2 has the skeleton.
const FORMAT: u32 = 2;

/// What was seen while a layer was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Info {
    format: u32,
    /// Bytes of file data.
    pub(super) size: u64,
    /// Entries of the archive.
    pub(super) entries: u64,
    /// Bytes of the tar stream.
    pub(super) stream_size: u64,
    /// Digest and size of the layer as it was packed, and how it was.
    pub(super) blob: Digest,
    pub(super) blob_size: u64,
    pub(super) compression: Compression,
    /// Nothing of the layers below shows through.
    pub(super) opaque_root: bool,
    /// Which start of the machine it was made in (proc_sys_kernel(5), `random/boot_id`); `None` for
    /// one that the disk had before it was put in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) boot: Option<String>,
}

impl Info {
    /// The record of a layer that was just unpacked.
    pub(super) fn of(done: &Done) -> Self {
        Info {
            format: FORMAT,
            size: done.unpacked.bytes,
            entries: done.unpacked.entries,
            stream_size: done.size,
            blob: done.packed.digest,
            blob_size: done.packed.size,
            compression: done.packed.compression,
            opaque_root: done.unpacked.opaque_root,
            boot: durable::boot(),
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
                .hint("`casemate store check --repair` mends it, or says how")
        };
        let info: Info = serde_json::from_slice(&json).map_err(|error| broken(&error))?;
        if info.format != FORMAT {
            return Err(broken(&format_args!("format {} is not known", info.format)));
        }
        Ok(Some(info))
    }

    /// The layer as it came.
    pub(super) fn packed(&self) -> Packed {
        Packed { digest: self.blob, size: self.blob_size, compression: self.compression }
    }

    /// The record of the same layer, put in its place only when the disk has it.
    pub(super) fn on_disk(&self) -> Self {
        Info { boot: None, ..self.clone() }
    }

    /// Writes the record beside the tree.
    pub(super) fn write(&self, dir: &OwnedFd) -> Result<()> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::new(format!("write the layer's record: {error}")))?;
        super::staging::write_file(dir, "info", &json).map(drop)
    }
}

/// The directory of a layer. No colon: overlayfs splits `lowerdir` there.
pub(super) fn directory_name(layer: &Digest) -> String {
    format!("sha256-{}", layer.hex())
}
