//! Layers on their way into the store, whoever brings them.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::catalogue::{self, Documents};
use super::hold::Held;
use super::index::Origin;
use super::layer::{Info, directory_name};
use super::share::{self, Way};
use super::staging::Staging;
use super::workshop::{Done, Workshop};
use super::{Imported, Store, durable};
use crate::error::{Error, Result};
use crate::image::{Config, Digest, Reference, Section};

/// What a layer must turn out to be, as far as its image says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// The digest of the bytes as packed.
    pub packed: Option<Digest>,
    /// The digest of the tar stream.
    pub diff_id: Option<Digest>,
    /// Nothing vouches for the stream, so that it must have its end marker: nothing else would tell
    /// that it was cut between two entries.
    pub end_marker: bool,
}

/// The documents of an image of which all layers have been brought.
pub struct Brought<'a> {
    /// The manifest as it is, and its media type.
    pub manifest: &'a [u8],
    /// As the descriptor or the registry calls it.
    pub media_type: &'a str,
    /// The config as it is.
    pub config_json: &'a [u8],
    /// The config as read.
    pub config: &'a Config,
    /// Where it comes from.
    pub origin: Origin,
}

/// An import or pull under way: its staging directory, its processes, and the layers that are
/// unpacked. They are renamed into place when every one is verified; a source that fails leaves
/// nothing.
pub struct Intake<'a> {
    store: &'a Store,
    // The processes end before their directory goes.
    workshop: Workshop,
    staging: Staging,
    arrived: Mutex<Arrived>,
    /// How layers share what they have in common; tried when the first one has come.
    way: OnceLock<Way>,
    sharing: Mutex<()>,
}

#[derive(Default)]
struct Arrived {
    /// Unpacked and verified, still in staging: directory, digest and record.
    ready: Vec<(String, Digest, Info)>,
    /// All layers of the image, until it has its name: nobody else would know that they are needed.
    held: Vec<Held>,
    /// In their places, but not surely on disk.
    published: Vec<Digest>,
    /// How many directories have been made.
    begun: usize,
    layers_new: usize,
    bytes: u64,
}

impl Drop for Intake<'_> {
    fn drop(&mut self) {
        let published = std::mem::take(&mut self.arrived().published);
        durable::write_out_behind(self.store, &published);
    }
}

impl<'a> Intake<'a> {
    /// Starts one that takes up to `pairs` layers at the same time. Call it before there are
    /// threads: it forks.
    pub fn open(store: &'a Store, pairs: usize) -> Result<Self> {
        let staging = Staging::new(store)?;
        let workshop = Workshop::open(&staging, pairs)?;
        Ok(Intake {
            store,
            workshop,
            staging,
            arrived: Mutex::default(),
            way: OnceLock::new(),
            sharing: Mutex::default(),
        })
    }

    pub(super) fn workshop(&self) -> &Workshop {
        &self.workshop
    }

    pub(super) fn staging(&self) -> &Staging {
        &self.staging
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        // Only whole values are put in under the lock.
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a layer that is in the store, or has arrived just now.
    pub(super) fn known(&self, diff_id: &Digest) -> Result<Option<Info>> {
        let find = |arrived: &Arrived| {
            let found = arrived.ready.iter().find(|(_, id, _)| id == diff_id);
            found.map(|(.., info)| info.clone())
        };
        if let Some(info) = find(&self.arrived()) {
            return Ok(Some(info));
        }
        // It may have to be waited for, while other layers arrive.
        if let Some(held) = self.hold(diff_id)? {
            self.arrived().held.push(held);
            return Info::read(self.store, diff_id);
        }
        Ok(find(&self.arrived()))
    }

    /// Holds a layer that is in the store, and whole as far as one can know.
    fn hold(&self, diff_id: &Digest) -> Result<Option<Held>> {
        match Held::layer(self.store, diff_id)? {
            Some(held) => durable::keep_or_take_away(self.store, self, diff_id, held),
            None => Ok(None),
        }
    }

    /// Whether a layer need not be brought.
    pub fn has(&self, diff_id: &Digest) -> Result<bool> {
        self.known(diff_id).map(|known| known.is_some())
    }

    /// Unpacks a layer from a stream; `seen` is told how many packed bytes came. Several threads
    /// may do so at once.
    pub fn stream(
        &self,
        raw: &mut (dyn Read + Send),
        expected: Expected,
        seen: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        self.layer(expected, |dir| self.workshop.unpack(dir, raw, expected.packed, seen)).map(drop)
    }

    /// As [`Intake::stream`]; what the layer turned out to be.
    pub(super) fn streamed(
        &self,
        raw: &mut (dyn Read + Send),
        expected: Expected,
    ) -> Result<(Digest, Info)> {
        self.layer(expected, |dir| self.workshop.unpack(dir, raw, expected.packed, &|_| ()))
    }

    /// Unpacks a layer that lies in a file.
    pub(super) fn section(&self, section: Section, expected: Expected) -> Result<(Digest, Info)> {
        self.layer(expected, |dir| {
            self.workshop.unpack_section(dir, section, expected.packed, &|_| ())
        })
    }

    /// Unpacks a layer that is made as a tar stream.
    pub(super) fn made(&self, make: impl FnOnce(OwnedFd) -> Result<()>) -> Result<(Digest, Info)> {
        self.layer(Expected::default(), |dir| self.workshop.unpack_made(dir, false, make))
    }

    /// The tree that a stream stands for, without the contents of its files: its directory, which
    /// goes with the intake, and the stream's digest.
    pub(super) fn outline(
        &self,
        make: impl FnOnce(OwnedFd) -> Result<()>,
    ) -> Result<(PathBuf, Digest)> {
        let (name, _dir) = self.begin()?;
        let done = self.workshop.unpack_made(&name, true, make)?;
        Ok((self.staging.path().join(name), done.diff_id))
    }

    /// A layer that is in the store, unpacked once more in staging, with the record that it has: the
    /// name of its directory there.
    pub(super) fn again(
        &self,
        diff_id: &Digest,
        info: &Info,
        make: impl FnOnce(OwnedFd) -> Result<()>,
    ) -> Result<String> {
        let (name, dir) = self.begin()?;
        let done = self.workshop.unpack_made(&name, false, make)?;
        if done.diff_id != *diff_id {
            return Err(Error::new(format!("its contents have the digest {}", done.diff_id)));
        }
        info.on_disk().write(&dir)?;
        self.share(diff_id, &dir)?;
        self.staging.sync()?;
        Ok(name)
    }

    /// Removes an outline that is not needed any more.
    pub(super) fn forget(&self, outline: &Path) {
        // What cannot be removed now goes with the staging directory.
        let _goes_later = self.staging.remove(outline);
    }

    /// A new directory for a layer.
    fn begin(&self) -> Result<(String, OwnedFd)> {
        let name = {
            let mut arrived = self.arrived();
            arrived.begun += 1;
            format!("layer-{}", arrived.begun - 1)
        };
        let dir = self.staging.directory(&name)?;
        Ok((name, dir))
    }

    fn layer(
        &self,
        expected: Expected,
        unpack: impl FnOnce(&str) -> Result<Done>,
    ) -> Result<(Digest, Info)> {
        let (name, dir) = self.begin()?;
        let done = unpack(&name)?;
        if let Some(expected) = expected.diff_id
            && expected != done.diff_id
        {
            return Err(Error::new(format!(
                "unpacked content has the digest {}, the config says {expected}",
                done.diff_id
            )));
        }
        if expected.end_marker && !done.unpacked.end_marker {
            return Err(Error::new("the archive is cut short: it has no end marker"));
        }
        let info = Info::of(&done);
        info.write(&dir)?;
        // One after the other, so that each sees what the others have.
        let _one = self.sharing.lock().unwrap_or_else(PoisonError::into_inner);
        self.share(&done.diff_id, &dir)?;
        let held = Held::staged(dir)?;
        let mut arrived = self.arrived();
        arrived.held.push(held);
        arrived.ready.push((name, done.diff_id, info.clone()));
        Ok((done.diff_id, info))
    }

    /// Lets a layer have the files of others that are equal to its own.
    fn share(&self, diff_id: &Digest, dir: &OwnedFd) -> Result<()> {
        let way = *self.way.get_or_init(|| Way::of(&self.staging));
        let ready: Vec<PathBuf> = {
            let arrived = self.arrived();
            arrived.ready.iter().map(|(name, ..)| self.staging.path().join(name)).collect()
        };
        share::share(self.store, way, diff_id, dir, &ready)
    }

    /// Puts the layers that have arrived in their places: what a pull that fails later has brought
    /// need not be brought again. They are dangling until a name leads to them.
    pub fn settle(&self) -> Result<()> {
        let ready = std::mem::take(&mut self.arrived().ready);
        // Without a way to tell one start of the machine from another, nobody could tell later
        // whether the disk has them.
        if ready.iter().any(|(.., info)| info.boot.is_none()) {
            self.staging.sync()?;
        }
        for (name, diff_id, info) in ready {
            let to = self.store.layers_dir().join(directory_name(&diff_id));
            loop {
                if self.staging.publish_directory(&name, &to)? {
                    let mut arrived = self.arrived();
                    arrived.published.push(diff_id);
                    arrived.layers_new += 1;
                    arrived.bytes += info.size;
                    break;
                }
                // Another import was faster; ours goes with the staging directory then. Unless what
                // is there was garbage, and is gone by now.
                if let Some(held) = self.hold(&diff_id)? {
                    self.arrived().held.push(held);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Names an image, of which every layer is in the store or has arrived. An image that has the
    /// name already loses it.
    pub fn name(self, reference: &Reference, image: &Brought<'_>) -> Result<Imported> {
        let mut hidden_layers = 0;
        for (number, diff_id) in image.config.diff_ids.iter().enumerate() {
            // Nothing below an opaque root can show through.
            if self.known(diff_id)?.is_some_and(|info| info.opaque_root) {
                hidden_layers = number;
            }
        }
        self.settle()?;
        let documents = Documents {
            manifest: image.manifest,
            media_type: image.media_type,
            config: image.config_json,
            diff_ids: &image.config.diff_ids,
            hidden_layers,
            origin: image.origin.clone(),
        };
        let digest = catalogue::publish(self.store, &self.staging, reference, &documents)?;
        let arrived = self.arrived();
        Ok(Imported {
            name: reference.to_string(),
            digest,
            layers_new: arrived.layers_new,
            layers_shared: documents.diff_ids.len().saturating_sub(arrived.layers_new),
            bytes: arrived.bytes,
        })
    }
}
