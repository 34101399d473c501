//! Pull: an image comes from a registry.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::watch::Watch;
use crate::crew;
use crate::error::{Error, Result};
use crate::image::{self, Config, Digest, LayerDescriptor, Manifest, Platform, Reference};
use crate::registry::{Access, Document, Registries, Remote};
use crate::store::{Brought, Expected, Held, Image, Imported, Intake, Origin, Store, Wanted};

/// How many layers come at the same time.
const PARALLEL: usize = 3;
/// How long a layer that is complete may wait for others before it is put in its place. What is
/// there when a pull is killed is not pulled again.
const SETTLE: Duration = Duration::from_secs(5);

/// Which of the images that a name stands for is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// The one for this machine; a single one for another machine is refused.
    Host,
    /// The one for this platform.
    Of(Platform),
}

impl Platforms {
    fn platform(&self) -> Platform {
        match self {
            Platforms::Host => Platform::host(),
            Platforms::Of(platform) => platform.clone(),
        }
    }
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// The registry has what the store has.
    Current {
        /// The image's name, as the user would type it.
        name: String,
        /// The digest of its manifest.
        digest: Digest,
    },
    /// It has come.
    New(Imported),
}

/// Pulls what a name stands for: of a short name the first of its candidates that is to be had.
pub fn pull(
    store: &Store,
    registries: &Registries,
    wanted: &Reference,
    platforms: &Platforms,
    watch: &dyn Watch,
) -> Result<Pulled> {
    // Its processes are forked before there are threads, and before any password is in memory.
    let mut intake = Some(Intake::open(store, PARALLEL)?);
    let mut failed: Vec<Error> = Vec::new();
    for candidate in registries.candidates(wanted)? {
        let remote = registries.open(&candidate, Access::Pull)?;
        let one = Pull { store, remote, reference: &candidate, platforms, watch };
        match one.look() {
            Ok(Look::Current(image)) => {
                return Ok(Pulled::Current { name: image.name, digest: image.digest });
            }
            Ok(Look::Other(document)) => {
                let Some(intake) = intake.take() else { break };
                return one.take(intake, document);
            }
            // Only one that does not have it is passed over: what is meant by a name must not depend
            // on which registry can be reached today.
            Err(error) if error.errno() == Some(Errno::ENOENT) => failed.push(error),
            Err(error) => return Err(error),
        }
    }
    let last = failed.pop().unwrap_or_else(|| Error::new(format!("pull {wanted}: no registry")));
    // The reasons of all, since any of them may be the one that was meant.
    Err(failed.iter().rev().fold(last, |error, earlier| error.hint(format!("before: {earlier}"))))
}

/// What the registry has.
enum Look {
    /// What the store has.
    Current(Box<Image>),
    /// Something else.
    Other(Document),
}

struct Pull<'a> {
    store: &'a Store,
    remote: Remote,
    reference: &'a Reference,
    platforms: &'a Platforms,
    watch: &'a dyn Watch,
}

impl Pull<'_> {
    /// Asks the registry, by one small request where the store may have the same. After an error
    /// another candidate may be tried.
    fn look(&self) -> Result<Look> {
        if let Some((image, _held)) = self.known() {
            // What is under a digest is the same for ever.
            let is_current = self.reference.digest().is_some()
                || self
                    .remote
                    .head(self.reference)?
                    .is_some_and(|digest| image.origin.digest == Some(digest));
            if is_current {
                return Ok(Look::Current(Box::new(image)));
            }
        }
        self.remote.manifest(self.reference).map(Look::Other)
    }

    /// The image of the very name and platform that is in the store, if all its layers are there.
    fn known(&self) -> Option<(Image, Vec<Held>)> {
        let (image, held) = self.store.hold(&Wanted::of(self.reference)).ok()?;
        // What may be damaged is looked at by the intake, and brought again if it is.
        if !self.store.uncertain(&image).ok()?.is_empty() {
            return None;
        }
        let platform = self.platforms.platform().to_string();
        (image.origin.platform == Some(platform)).then_some((image, held))
    }

    fn take(&self, intake: Intake<'_>, document: Document) -> Result<Pulled> {
        let within = |error: Error| error.within(format_args!("pull {}", self.reference));
        let digest = document.digest;
        let chosen = self.choose(document).map_err(within)?;
        let manifest = Manifest::parse(&chosen.bytes, &chosen.media_type).map_err(within)?;
        let config_json =
            self.remote.document(&manifest.config, manifest.config_size).map_err(within)?;
        let config = Config::parse(&config_json).map_err(within)?;
        manifest.check_config(&config).map_err(within)?;
        self.check_platform(&config).map_err(within)?;
        let brought = self.layers(&intake, &manifest, &config);
        if brought.is_err() {
            // What is complete is kept for the next try; the first failure is the one to tell.
            let _kept_if_possible = intake.settle();
        }
        brought.map_err(within)?;
        let origin = Origin {
            digest: Some(digest),
            from: Some(self.reference.full()),
            platform: Some(self.platforms.platform().to_string()),
        };
        let image = Brought {
            manifest: &chosen.bytes,
            media_type: &chosen.media_type,
            config_json: &config_json,
            config: &config,
            origin,
        };
        intake.name(self.reference, &image).map(Pulled::New).map_err(within)
    }

    /// The image's own manifest, by way of the index where there is one.
    fn choose(&self, document: Document) -> Result<Document> {
        if !image::is_index(&document.media_type) {
            return Ok(document);
        }
        let mut read = |digest: Digest, size: u64, media_type: &str| -> Result<Vec<u8>> {
            if image::is_manifest(media_type) {
                self.remote.manifest_at(digest).map(|document| document.bytes)
            } else {
                self.remote.document(&digest, size)
            }
        };
        let platform = self.platforms.platform();
        let media_type = Some(document.media_type.as_str());
        let mut fitting = image::choose(&document.bytes, media_type, &platform, &mut read)?;
        let best = fitting.swap_remove(0);
        let found = self.remote.manifest_at(best.digest)?;
        if found.bytes.len() as u64 != best.size || found.media_type != best.media_type {
            return Err(Error::new(format!(
                "manifest {}: is not what the index says of it",
                best.digest
            )));
        }
        Ok(found)
    }

    fn check_platform(&self, config: &Config) -> Result<()> {
        let (wanted, made) = (self.platforms.platform(), config.platform());
        if made.os == wanted.os && made.architecture == wanted.architecture {
            return Ok(());
        }
        let error = Error::new(format!("the image is for {made}, not for {wanted}"));
        match self.platforms {
            Platforms::Host => {
                Err(error.hint(format!("--platform {made} pulls it; programs in it may not run")))
            }
            Platforms::Of(_) => Err(error.hint(format!("--platform {made} pulls this one"))),
        }
    }

    fn layers(&self, intake: &Intake<'_>, manifest: &Manifest, config: &Config) -> Result<()> {
        let mut missing: Vec<(usize, &LayerDescriptor, Digest)> = Vec::new();
        for (number, (layer, diff_id)) in manifest.layers.iter().zip(&config.diff_ids).enumerate() {
            let comes = missing.iter().any(|(.., coming)| coming == diff_id);
            if !comes && !intake.has(diff_id)? {
                missing.push((number + 1, layer, *diff_id));
            }
        }
        let sizes: Vec<_> =
            missing.iter().map(|(_, layer, _)| (layer.digest, layer.size)).collect();
        self.watch.begin(&sizes, manifest.layers.len() - missing.len());
        let run = Run {
            pull: self,
            intake,
            stop: AtomicBool::new(false),
            settled: Mutex::new(Instant::now()),
        };
        crew::each(PARALLEL, missing.len(), &run.stop, |index| {
            let (number, layer, diff_id) = missing[index];
            let done = run.layer(index, layer, diff_id).and_then(|()| run.settle());
            let total = manifest.layers.len();
            done.map_err(|error| error.within(format_args!("layer {number} of {total}")))?;
            self.watch.done(index);
            Ok(())
        })
        .map(drop)
    }
}

/// Layers on their way, shared by the threads that bring them.
struct Run<'a> {
    pull: &'a Pull<'a>,
    intake: &'a Intake<'a>,
    stop: AtomicBool,
    settled: Mutex<Instant>,
}

impl Run<'_> {
    fn layer(&self, index: usize, layer: &LayerDescriptor, diff_id: Digest) -> Result<()> {
        let blob = self.pull.remote.blob(&layer.digest, layer.size, &layer.urls)?;
        let mut blob = Stoppable { inner: blob, stop: &self.stop };
        let expected =
            Expected { packed: Some(layer.digest), diff_id: Some(diff_id), end_marker: false };
        self.intake.stream(&mut blob, expected, &|bytes| self.pull.watch.moved(index, bytes))
    }

    fn settle(&self) -> Result<()> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.elapsed() < SETTLE {
            return Ok(());
        }
        self.intake.settle()?;
        *settled = Instant::now();
        Ok(())
    }
}

/// Ends when another layer has failed.
struct Stoppable<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        self.inner.read(buffer)
    }
}
