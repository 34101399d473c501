//! `casemate pull`: brings images from registries, and what `run --pull` does.

use super::registries;
use crate::cli::{PullArgs, RegistryArgs};
use crate::error::{During, Error, Exit, Result, Told};
use crate::host::Directories;
use crate::image::{Digest, Platform, Reference};
use crate::profile::Pull;
use crate::registry::Registries;
use crate::store::{Store, Wanted};
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Forked};
use crate::sys::process;
use crate::transfer::{self, Platforms, Pulled, Watch};
use crate::ui::{self, Progress, Show};
use nix::unistd::{Pid, getpid, getppid};

/// Pulls each; standard output gets the names alone, for scripts.
pub(super) fn pull(args: &PullArgs, directories: &Directories) -> Result<i32> {
    // As podman and skopeo write it.
    let bare = |name: &str| Reference::parse(name.strip_prefix("docker://").unwrap_or(name));
    let references: Vec<_> = args.images.iter().map(|name| bare(name)).collect::<Result<_>>()?;
    let mut failed = false;
    for reference in &references {
        let one =
            pull_one(reference, args.platform.as_ref(), &args.registry, directories, args.quiet);
        match one {
            Ok(name) => ui::output(&format!("{name}\n"))?,
            Err(error) if references.len() == 1 => return Err(error),
            Err(error) => {
                ui::error(&error);
                failed = true;
            }
        }
    }
    Ok(if failed { Exit::Failed.code() } else { 0 })
}

/// Pulls one image and says what came of it; returns the name that it has in the store.
fn pull_one(
    reference: &Reference,
    platform: Option<&Platform>,
    args: &RegistryArgs,
    directories: &Directories,
    quiet: bool,
) -> Result<String> {
    let registries = Registries::load(registries::options(args, directories, quiet))?;
    let store = Store::open(directories.store()?)?;
    let platforms = platform.map_or(Platforms::Host, |platform| Platforms::Of(platform.clone()));
    let watched = Watched::new("pulling", reference.to_string(), quiet);
    let pulled = transfer::pull(&store, &registries, reference, &platforms, &watched)?;
    drop(watched);
    let (name, said) = match pulled {
        Pulled::Current { name, .. } => (name, "the registry has nothing newer".to_owned()),
        Pulled::New(imported) => {
            let said = super::import::summary(&imported);
            (imported.name, said)
        }
    };
    if !quiet {
        ui::note(&format!("pulled {name}: {said}"));
    }
    Ok(name)
}

/// A transfer as it is shown.
pub(super) struct Watched {
    what: String,
    progress: Progress,
}

impl Watched {
    /// `verb` is what is done to `what` (`pulling`).
    pub(super) fn new(verb: &'static str, what: String, quiet: bool) -> Self {
        let show = if quiet { Show::Nothing } else { Show::Progress };
        Watched { what, progress: Progress::new(verb, show) }
    }
}

impl Watch for Watched {
    fn begin(&self, layers: &[(Digest, u64)], present: usize) {
        let parts = layers.iter().map(|(digest, size)| (digest.hex()[..12].to_owned(), *size));
        let beside = match present {
            0 => String::new(),
            count => format!(" ({count} there already)"),
        };
        self.progress.begin(&self.what, parts, &beside);
    }

    fn moved(&self, layer: usize, bytes: u64) {
        self.progress.moved(layer, bytes);
    }

    fn done(&self, layer: usize) {
        self.progress.done(layer);
    }
}

/// How `run` gets an image that it may not have.
pub(super) struct Obtain<'a> {
    pub(super) directories: &'a Directories,
    pub(super) quiet: bool,
}

impl Obtain<'_> {
    /// Before the store is asked: what must be current.
    pub(super) fn before(&self, reference: &Reference, policy: Pull) -> Result<()> {
        match policy {
            Pull::Always => self.pull(reference),
            Pull::Newer => {
                let pulled = self.pull(reference);
                let candidates = registries::candidates(reference, self.directories);
                let wanted = Wanted::of(reference).with_candidates(&candidates);
                let store = Store::find(self.directories.store()?)?;
                let there = store.is_some_and(|store| store.has(&wanted));
                match pulled {
                    // What is there is as new as can be had.
                    Err(error) if there => {
                        if !self.quiet {
                            ui::warning(&format!("{error}; going on with what is there"));
                        }
                        Ok(())
                    }
                    pulled => pulled,
                }
            }
            Pull::Missing | Pull::Never => Ok(()),
        }
    }

    /// After it did not have the image, which `missing` says.
    pub(super) fn after(&self, reference: &Reference, policy: Pull, missing: Error) -> Result<()> {
        match policy {
            Pull::Never => Err(missing),
            // The store's own hints are of use here too: the name may be mistyped.
            _ => self.pull(reference).map_err(|error| {
                missing
                    .hints()
                    .iter()
                    .filter(|hint| hint.starts_with("did you"))
                    .fold(error, |error, hint| error.hint(hint.as_str()))
            }),
        }
    }

    /// Pulls in a process of its own, of which nothing stays in this one: neither threads, which a
    /// process that forks must not have, nor memory, which would be held as long as the box runs.
    fn pull(&self, reference: &Reference) -> Result<()> {
        let (ours, theirs) = Channel::pair().during("make", "a socket pair")?;
        let parent = getpid();
        match clone::fork().during("start", "the pulling process")? {
            Forked::Child => {
                drop(ours);
                let pulled = end_with(parent).and_then(|()| {
                    let args = RegistryArgs::default();
                    pull_one(reference, None, &args, self.directories, self.quiet)
                });
                let told = pulled.as_ref().err().map(Told::of);
                // Without an answer the other side tells that this process ended.
                let _told = serde_json::to_vec(&told).map(|text| theirs.send(&text, &[]));
                clone::exit_now(0)
            }
            Forked::Parent(child) => {
                drop(theirs);
                let answer = ours.receive(MESSAGE).during("receive from", "the pulling process")?;
                clone::wait_for_end(&child.pidfd).during("wait for", "the pulling process")?;
                let (text, _) = answer.ok_or_else(|| ended(reference))?;
                let told: Option<Told> =
                    serde_json::from_slice(&text).map_err(|_| ended(reference))?;
                told.map_or(Ok(()), |told| Err(told.into_error()))
            }
        }
    }
}

/// Nobody waits for an image when the process that was to run it has gone.
fn end_with(parent: Pid) -> Result<()> {
    process::set_parent_death_signal(libc::SIGKILL).during("set", "the parent death signal")?;
    // It may have gone before.
    if getppid() == parent { Ok(()) } else { clone::exit_now(0) }
}

fn ended(reference: &Reference) -> Error {
    Error::new(format!("pull {reference}: the pulling process ended without an answer"))
}

/// The longest answer.
const MESSAGE: usize = 128 << 10;
