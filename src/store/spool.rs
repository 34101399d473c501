//! Room on the store's file system for what is made on the way, and layers packed there.
//!
//! The digest of a packed layer is known only at its end, and whoever takes it wants to know it
//! first. So it is packed into a file without a name; what came of it is noted beside the layer, so
//! that a registry that has it already is asked for it by digest, and nothing is packed again.

use std::fs::File;
use std::io::{self, Seek};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::layer::directory_name;
use super::staging::Staging;
use super::{LayerStream, Store, with_space_hint};
use crate::error::{During, Errno, Error, Result};
use crate::image::{Compression, Digest, Hashing, Packed};

/// How many packings of a layer are remembered, and how long the record may be.
const MAX_RECORDED: usize = 16;
const MAX_RECORD: u64 = 64 << 10;

/// Files without a name, and a directory, that go when this is dropped. Nothing is made before it
/// is needed: of a store that cannot be written an image can still be sent as it is.
pub struct Spool<'a> {
    store: &'a Store,
    staging: Mutex<Option<Staging>>,
}

impl Store {
    /// Room for what is made on the way.
    pub fn spool(&self) -> Spool<'_> {
        Spool { store: self, staging: Mutex::default() }
    }
}

impl Spool<'_> {
    /// The staging directory, made at the first call. The lock is also held while a file is made
    /// and loses its name.
    fn staging(&self) -> Result<MutexGuard<'_, Option<Staging>>> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Some(Staging::new(self.store)?);
        }
        Ok(staging)
    }

    /// An empty file without a name.
    pub fn file(&self) -> Result<File> {
        match &*self.staging()? {
            Some(staging) => staging.scratch(),
            None => Err(Error::new("make a file in the store: no directory")),
        }
    }

    /// A path where nothing is, on the store's file system.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        match &*self.staging()? {
            Some(staging) => Ok(staging.path().join(name)),
            None => Err(Error::new("make a directory in the store: no directory")),
        }
    }

    /// Packs a layer into a file, and notes what came of it. The file is at its beginning. A layer
    /// whose tree was changed is an error.
    pub fn pack(&self, layer: &Digest, compression: Compression) -> Result<(Packed, File)> {
        let mut stream = LayerStream::open(self.store, layer)?;
        let file = self.file()?;
        let packing = |error: io::Error| match Error::carried(&error) {
            Some(error) => error,
            None => {
                let errno = Errno::from(&error).0;
                with_space_hint(Error::os("pack", format_args!("layer {layer}"), errno), errno)
            }
        };
        let mut encoder = compression.encode(Hashing::new(file)).map_err(packing)?;
        copy(&mut stream, &mut encoder).map_err(packing)?;
        let (mut file, digest, size) = encoder.finish().map_err(packing)?.finish();
        file.rewind().during("seek in", "a packed layer")?;
        let packed = Packed { digest, size, compression };
        // Without the note it is packed again the next time, and no more.
        let _only_slower = self.remember(layer, packed);
        Ok((packed, file))
    }

    fn remember(&self, layer: &Digest, packed: Packed) -> Result<()> {
        let mut all = remembered(self.store, layer);
        if all.contains(&packed) {
            return Ok(());
        }
        // A newer packer may pack otherwise; what an older one sent is still of use.
        all.push(packed);
        all.drain(..all.len().saturating_sub(MAX_RECORDED));
        let json = serde_json::to_vec(&all)
            .map_err(|error| Error::new(format!("write the layer's packings: {error}")))?;
        match &*self.staging()? {
            Some(staging) => staging.publish_file(&json, &record(self.store, layer)),
            None => Ok(()),
        }
    }
}

/// As std's, with a buffer that is worth a compressor's while.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}

fn record(store: &Store, layer: &Digest) -> PathBuf {
    store.layers_dir().join(directory_name(layer)).join("packed.json")
}

/// What a layer was packed to before. Nothing where the record is missing or cannot be read.
pub(super) fn remembered(store: &Store, layer: &Digest) -> Vec<Packed> {
    let read = || {
        let path = record(store, layer);
        let is_ours = std::fs::symlink_metadata(&path)
            .is_ok_and(|stat| stat.is_file() && stat.len() <= MAX_RECORD);
        serde_json::from_slice(&if is_ours { std::fs::read(path).ok()? } else { return None }).ok()
    };
    read().unwrap_or_default()
}
