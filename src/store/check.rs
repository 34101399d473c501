//! Verifying what is in the store: every document by its digest, every layer by making its tar
//! stream again and hashing it, and by comparing the tree with the one that the stream stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::fstat;

use super::fault::{Fault, Place, Remedy, Report};
use super::hold::Held;
use super::index::{Entry, Index};
use super::intake::Intake;
use super::layer::{Info, directory_name};
use super::lookup::{self, Wanted};
use super::{Store, catalogue, collect, compare, layer_index, open_directory, rebuild, strays};
use crate::error::{During, Error, Result};
use crate::image::{Config, Digest, Hashing, Manifest};

/// Told how a check goes.
pub trait Progress {
    /// These bytes, of so many layers, are going to be read.
    fn begin(&self, layers: usize, bytes: u64);
    /// This layer comes next; they are counted from 1.
    fn layer(&self, number: usize, layer: &Digest);
    /// More bytes of it were read.
    fn read(&self, bytes: u64);
}

/// What images need, and which ones: the names by document and by layer.
#[derive(Default)]
pub(super) struct Needs {
    pub(super) documents: BTreeMap<Digest, BTreeSet<String>>,
    pub(super) layers: BTreeMap<Digest, BTreeSet<String>>,
}

impl Needs {
    /// What can be told of these names; the documents that are damaged need nothing themselves.
    pub(super) fn of<'a>(store: &Store, entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut needs = Needs::default();
        for entry in entries {
            let Ok(digest) = entry.digest() else { continue };
            let add = |map: &mut BTreeMap<Digest, BTreeSet<String>>, digest| {
                map.entry(digest).or_default().insert(entry.name());
            };
            add(&mut needs.documents, digest);
            let Ok(json) = catalogue::blob(store, &digest) else { continue };
            let Ok(manifest) = Manifest::parse(&json, &entry.media_type()) else { continue };
            add(&mut needs.documents, manifest.config);
            let Ok(json) = catalogue::blob(store, &manifest.config) else { continue };
            let Ok(config) = Config::parse(&json) else { continue };
            config.diff_ids.into_iter().for_each(|layer| add(&mut needs.layers, layer));
        }
        needs
    }
}

pub(super) fn check(
    store: &Store,
    wanted: &[Wanted<'_>],
    progress: &dyn Progress,
) -> Result<Report> {
    let abandoned = if wanted.is_empty() { strays::abandoned(store)? } else { Vec::new() };
    let _more = more_files()?;
    let intake = Intake::open(store, 1)?;
    let mut report = Report::default();
    layout(store, &mut report)?;
    let index = match Index::read(store) {
        Ok(index) => Some(index),
        Err(error) if !wanted.is_empty() => return Err(error),
        Err(error) => {
            let what = vec![error.to_string()];
            report.faults.push(Fault::new(Place::Index, what, Remedy::Nothing));
            None
        }
    };
    let mut entries: Vec<&Entry> = Vec::new();
    if let Some(index) = &index {
        match wanted {
            [] => entries.extend(index.named()),
            wanted => {
                for image in wanted {
                    entries.push(lookup::find(index, image)?.first());
                }
            }
        }
    }
    let needs = Needs::of(store, entries.iter().copied());
    documents(store, &entries, &needs, wanted.is_empty(), &mut report)?;
    let mut layers: BTreeSet<Digest> = needs.layers.keys().copied().collect();
    if wanted.is_empty() {
        layers.extend(collect::on_disk(store, "layers")?);
    }
    let bytes = |layer: &Digest| Some(Info::read(store, layer).ok()??.stream_size);
    progress.begin(layers.len(), layers.iter().filter_map(bytes).sum());
    for (number, digest) in layers.iter().enumerate() {
        progress.layer(number + 1, digest);
        let Some(held) = Held::layer(store, digest)? else {
            // One that no image needs, and that went away meanwhile, is none of the store's.
            if needs.layers.contains_key(digest) {
                let what = vec!["is missing".to_owned()];
                report.faults.push(Fault::new(Place::Layer(*digest), what, Remedy::Bring));
            }
            continue;
        };
        report.layers += 1;
        report.faults.extend(layer(store, &intake, digest, progress)?);
        drop(held);
    }
    if wanted.is_empty() {
        report.faults.extend(strays::strays(store)?);
        // A process that has just made its directory has not locked it yet.
        let still = strays::abandoned(store)?;
        for path in abandoned.into_iter().filter(|path| still.contains(path)) {
            let what = vec!["was left by a command that was killed".to_owned()];
            report.faults.push(Fault::new(Place::Staging(path), what, Remedy::Remove));
        }
    }
    settle(store, needs, &mut report);
    report.faults.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(report)
}

/// Lets this process have as many files open as may be, until the returned value goes: two trees are
/// walked at once, and names may be 512 deep.
pub(super) fn more_files() -> Result<MoreFiles> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).during("read", "the open files limit")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).during("set", "the open files limit")?;
    Ok(MoreFiles { soft, hard })
}

/// The limit as it was.
pub(super) struct MoreFiles {
    soft: u64,
    hard: u64,
}

impl Drop for MoreFiles {
    fn drop(&mut self) {
        // Lowering one's own limit is always allowed.
        let _stays_raised = setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard);
    }
}

/// Says which images each fault concerns, and forgets what the images of this moment do not need
/// any more.
fn settle(store: &Store, before: Needs, report: &mut Report) {
    let (now, without) = match Index::read(store) {
        Ok(index) => (Needs::of(store, index.named()), Remedy::Remove),
        // Nobody knows what is needed.
        Err(_) => (before, Remedy::Nothing),
    };
    report.faults.retain_mut(|fault| {
        let (names, is_there) = match &fault.place {
            Place::Document(digest) => {
                (now.documents.get(digest), catalogue::blob_path(store, digest).exists())
            }
            Place::Layer(digest) => {
                let path = store.layers_dir().join(directory_name(digest));
                (now.layers.get(digest), path.exists())
            }
            _ => return true,
        };
        fault.images = names.into_iter().flatten().cloned().collect();
        if fault.images.is_empty() && fault.remedy == Remedy::Bring {
            fault.remedy = without;
        }
        is_there || !fault.images.is_empty()
    });
}

fn layout(store: &Store, report: &mut Report) -> Result<()> {
    let path = store.path.join("oci/oci-layout");
    let what = match std::fs::read(&path) {
        Ok(text) if text == catalogue::LAYOUT => return Ok(()),
        Ok(_) => "is not what it should be".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "is missing".to_owned(),
        Err(error) => return Err(Error::os("read", path.display(), error)),
    };
    report.faults.push(Fault::new(Place::Layout, vec![what], Remedy::Write));
    Ok(())
}

/// The documents of these images, and where all are to be verified those that no image needs.
fn documents(
    store: &Store,
    entries: &[&Entry],
    needs: &Needs,
    all: bool,
    report: &mut Report,
) -> Result<()> {
    let mut digests: BTreeSet<Digest> = needs.documents.keys().copied().collect();
    if all {
        digests.extend(collect::on_disk(store, "oci/blobs/sha256")?);
    }
    for digest in digests {
        report.documents += 1;
        let path = catalogue::blob_path(store, &digest);
        let what = match std::fs::read(&path) {
            Ok(content) if Digest::of(&content) == digest => continue,
            Ok(content) => format!("its content has the digest {}", Digest::of(&content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "is missing".to_owned(),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)) {
                // What stands there is no file, or the disk has lost it.
                errno @ (Errno::EISDIR | Errno::ELOOP | Errno::EIO | Errno::EUCLEAN) => {
                    errno.desc().to_owned()
                }
                errno => return Err(Error::os("read", path.display(), errno)),
            },
        };
        report.faults.push(Fault::new(Place::Document(digest), vec![what], Remedy::Bring));
    }
    // What is whole may still be no image to this version of casemate, and no layers are known then.
    for entry in entries {
        let name = entry.name();
        let failed = match entry.digest() {
            Err(error) => error,
            Ok(digest) => match catalogue::documents(store, entry) {
                Err(error) if !is_told(store, report, entry) => {
                    let what = vec![error.to_string()];
                    report.faults.push(Fault::new(Place::Document(digest), what, Remedy::Bring));
                    continue;
                }
                _ => continue,
            },
        };
        let what = vec![format!("image {name}: {failed}")];
        report.faults.push(Fault::new(Place::Index, what, Remedy::Nothing));
    }
    Ok(())
}

/// Whether a document of this image is among the faults.
fn is_told(store: &Store, report: &Report, entry: &Entry) -> bool {
    let mut own: Vec<Digest> = entry.digest().into_iter().collect();
    let manifest = own.first().and_then(|digest| catalogue::blob(store, digest).ok());
    let manifest = manifest.and_then(|json| Manifest::parse(&json, &entry.media_type()).ok());
    own.extend(manifest.map(|manifest| manifest.config));
    let is_own = |place: &Place| own.iter().any(|digest| *place == Place::Document(*digest));
    report.faults.iter().any(|fault| is_own(&fault.place))
}

/// Verifies one layer, which the caller holds.
pub(super) fn layer(
    store: &Store,
    intake: &Intake<'_>,
    layer: &Digest,
    progress: &dyn Progress,
) -> Result<Option<Fault>> {
    let path = store.layers_dir().join(directory_name(layer));
    let stat = fstat(&open_directory(&path)?).at("stat", &path)?;
    let broken = |what: Vec<String>, remedy| {
        let directory = Some((stat.st_dev, stat.st_ino));
        Ok(Some(Fault { directory, ..Fault::new(Place::Layer(*layer), what, remedy) }))
    };
    match Info::read(store, layer) {
        Ok(Some(_)) => (),
        Ok(None) => return broken(vec!["its record is missing".to_owned()], Remedy::Bring),
        Err(error) => return broken(vec![error.to_string()], Remedy::Bring),
    }
    let outline = intake.outline(|pipe| {
        let pipe = BufWriter::with_capacity(256 << 10, File::from(pipe));
        let mut pipe = Counting { inner: pipe, progress };
        rebuild::write(store, layer, &mut pipe)?;
        pipe.flush().during("write", "the layer's stream")
    });
    let (outline, digest) = match outline {
        Ok(outline) => outline,
        Err(error) => match contents(store, layer) {
            // The layer is whole: what failed is the check itself, for want of room or memory.
            Ok(digest) if digest == *layer => return Err(error),
            Ok(digest) => return broken(vec![wrong(&digest)], Remedy::Bring),
            Err(error) => {
                let remedy = match error.errno() {
                    // It may all be there, and be read again.
                    Some(Errno::EACCES | Errno::EPERM) => Remedy::Nothing,
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => return Err(error),
                    _ => Remedy::Bring,
                };
                return broken(vec![error.to_string()], remedy);
            }
        },
    };
    if digest != *layer {
        return broken(vec![wrong(&digest)], Remedy::Bring);
    }
    let differences = compare::differences(
        &open_directory(&path.join("fs"))?,
        &open_directory(&outline.join("fs"))?,
    )?;
    let in_index = layer_index::differences(&path, &outline);
    intake.forget(&outline);
    match (differences, in_index?) {
        (tree, _) if !tree.is_empty() => broken(tree, Remedy::Unpack),
        (_, index) if !index.is_empty() => broken(index, Remedy::Write),
        _ => Ok(None),
    }
}

fn wrong(digest: &Digest) -> String {
    format!("its contents have the digest {digest}")
}

/// The digest of a layer's stream as it can be made now.
fn contents(store: &Store, layer: &Digest) -> Result<Digest> {
    let (reading, writing) = io::pipe().during("make", "a pipe")?;
    std::thread::scope(|scope| {
        let hash = std::thread::Builder::new()
            .name("casemate-hash".to_owned())
            .spawn_scoped(scope, move || {
                let mut stream = Hashing::new(reading);
                stream.drain().map(|()| stream.digest())
            })
            .map_err(|error| Error::os("start", "a thread", error))?;
        let written =
            rebuild::write(store, layer, &mut BufWriter::with_capacity(256 << 10, writing));
        let digest = hash.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
        written?;
        digest.during("hash", "the layer's stream")
    })
}

/// Tells how many bytes pass.
struct Counting<'a, W> {
    inner: W,
    progress: &'a dyn Progress,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.progress.read(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
