//! Image formats: names, digests, manifests, configs, and the archives that carry them. Knows bytes
//! and no disk layout of our own; `store` puts what is read here on disk.

mod compression;
mod config;
mod digest;
mod index;
mod location;
mod manifest;
mod members;
mod platform;
mod reference;
mod repack;
mod source;
pub mod tar;

pub use compression::{Compression, Encoder, Inflate, peek};
pub use config::Config;
pub use digest::{Digest, Hashing};
pub use index::{Candidate, ReadDocument, choose};
pub use location::{Form, Location, Transport};
pub use manifest::{
    LayerDescriptor, MANIFEST_MEDIA_TYPE, Manifest, compose_config, compose_manifest, is_index,
    is_manifest, timestamp,
};
pub use members::Section;
pub use platform::Platform;
pub use reference::Reference;
pub use repack::{Family, Packed, repack};
pub use source::{Bundle, Choice, Layer, Source, is_tree};
