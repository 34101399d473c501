//! What other programs obey stays as it is below writable grants: each such path becomes a mount that
//! cannot be written, renamed or replaced, and each directory above it one that cannot be renamed.
//! Where there is nothing yet, a placeholder stands as long as the box runs, or the program would make
//! what the user obeys later (CVE-2026-25725).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::super::{Mount, Placeholder, What};
use super::{Inputs, git, locate};
use crate::error::Result;
use crate::host::World;
use crate::profile::protected::{ALL, GIT, HOME, Protected, TREE, TREE_EXISTING};

/// How many symbolic links are followed for one path.
const LINKS: usize = 16;

/// What stands for a path that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing: it may be made.
    Nothing,
    /// An empty directory, which git does not see.
    Directory,
    /// A file with this content.
    File(&'static str),
}

/// One path of the host to be kept.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    path: PathBuf,
    missing: Missing,
}

impl Guard {
    pub(super) fn new(path: PathBuf, missing: Missing) -> Guard {
        Guard { path, missing }
    }
}

/// What keeps the paths of a plan.
#[derive(Default)]
pub(super) struct Guarded {
    pub(super) mounts: Vec<Mount>,
    pub(super) placeholders: Vec<Placeholder>,
}

impl Guarded {
    /// Whether a directory that is only to stay in its place lies in one that cannot be written.
    pub(super) fn covers(&self, mount: &Mount) -> bool {
        let is_kept = |kept: &Mount| {
            matches!(kept.what, What::Itself { write: false, .. })
                && mount.target.starts_with(&kept.target)
        };
        matches!(mount.what, What::Bind { write: true, .. }) && self.mounts.iter().any(is_kept)
    }
}

/// The mounts that keep what every box protects, and what the profile names.
pub(super) fn guard(
    inputs: &Inputs<'_>,
    granted: &[Mount],
    world: &mut dyn World,
) -> Result<Guarded> {
    let writable: Vec<(&Mount, &Path)> = granted
        .iter()
        .filter_map(|mount| match &mount.what {
            What::Bind { source, write: true, .. } if source.identity.is_dir() => {
                Some((mount, source.path.as_path()))
            }
            _ => None,
        })
        .collect();
    let mut guarded = Guarded::default();
    if writable.is_empty() {
        return Ok(guarded);
    }
    let sources: BTreeSet<&Path> = writable.iter().map(|(_, source)| *source).collect();
    let mut made = BTreeSet::new();
    for guard in all(inputs, &sources, world)? {
        for (mount, source) in &writable {
            let walk = Walk { inputs, granted, mount, source };
            walk.keep(guard.clone(), &mut guarded, &mut made, world);
        }
    }
    // A directory in what cannot be written needs no mount of its own; and what is to be kept counts
    // more than that something else within it stays in its place.
    let kept: Vec<PathBuf> = guarded
        .mounts
        .iter()
        .filter(|mount| matches!(mount.what, What::Itself { write: false, .. }))
        .map(|mount| mount.target.clone())
        .collect();
    let mut seen = BTreeSet::new();
    guarded.mounts.retain(|mount| {
        let is_pin = matches!(mount.what, What::Itself { write: true, .. });
        let below = |target: &PathBuf| {
            mount.target.starts_with(target) && (is_pin || mount.target != *target)
        };
        !kept.iter().any(below) && seen.insert(mount.target.clone())
    });
    Ok(guarded)
}

/// All paths that are kept, wherever they are.
fn all(
    inputs: &Inputs<'_>,
    sources: &BTreeSet<&Path>,
    world: &mut dyn World,
) -> Result<Vec<Guard>> {
    let files = &inputs.profile.files;
    let given_back =
        |name: &str| files.unprotect.iter().any(|Protected(given)| given == name || given == ALL);
    let mut guards = Vec::new();
    for said in &files.protect {
        let path = locate::on_host(&said.path, inputs.host, world)
            .map_err(|error| error.within(&said.origin))?;
        // Its directory without links, as grants are known; itself may be one.
        let parent = path.parent().and_then(|parent| world.open(parent).ok());
        let path = match (parent, path.file_name()) {
            (Some(parent), Some(name)) => parent.path.join(name),
            _ => path,
        };
        guards.push(Guard::new(path, Missing::Directory));
    }
    let home = inputs.host.caller.home.as_deref();
    let home = home.and_then(|home| world.open(home).ok()).map(|found| found.path);
    if let Some(home) = &home {
        for name in HOME.iter().filter(|name| !given_back(&format!("~/{name}"))) {
            guards.push(Guard::new(home.join(name), Missing::Directory));
        }
    }
    for source in sources {
        // Caches and programs' own directories are no place that an editor or a shell is started in.
        let below_home = home.as_ref().and_then(|home| source.strip_prefix(home).ok());
        let first = below_home.and_then(|below| below.components().next());
        let is_hidden = first.is_some_and(|first| {
            std::os::unix::ffi::OsStrExt::as_bytes(first.as_os_str()).starts_with(b".")
        });
        let missing = if is_hidden { Missing::Nothing } else { Missing::Directory };
        for name in TREE.iter().filter(|name| !given_back(name)) {
            guards.push(Guard::new(source.join(name), missing));
        }
        for name in TREE_EXISTING.iter().filter(|name| !given_back(name)) {
            guards.push(Guard::new(source.join(name), Missing::Nothing));
        }
        if !given_back(GIT) && (!is_hidden || world.open(&source.join(GIT)).is_ok()) {
            guards.extend(git::guards(source, world));
        }
    }
    Ok(guards)
}

/// One writable grant.
struct Walk<'a> {
    inputs: &'a Inputs<'a>,
    granted: &'a [Mount],
    mount: &'a Mount,
    source: &'a Path,
}

impl Walk<'_> {
    /// Keeps a path if the grant holds it: goes down to it, one part after another.
    fn keep(
        &self,
        guard: Guard,
        guarded: &mut Guarded,
        made: &mut BTreeSet<PathBuf>,
        world: &mut dyn World,
    ) {
        let mut guard = guard;
        for _ in 0..LINKS {
            match self.down(&guard, guarded, made, world) {
                // What a link on the way leads to has to stay, too, if it can be written at all.
                Some(path) => guard.path = path,
                None => return,
            }
        }
    }

    /// Where a symbolic link on the way leads, with the rest of the path.
    fn down(
        &self,
        guard: &Guard,
        guarded: &mut Guarded,
        made: &mut BTreeSet<PathBuf>,
        world: &mut dyn World,
    ) -> Option<PathBuf> {
        let below = guard.path.strip_prefix(self.source).ok()?;
        let What::Bind { exec, .. } = self.mount.what else { return None };
        let parts: Vec<_> = below.components().collect();
        let (mut path, mut target) = (self.source.to_owned(), self.mount.target.clone());
        let mut pins = Vec::new();
        let mut placeholders: Vec<Placeholder> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let parent = path.clone();
            path.push(part);
            target.push(part);
            // Another grant's, which was said for this very place.
            if self
                .granted
                .iter()
                .any(|other| other.target == target && !std::ptr::eq(other, self.mount))
            {
                return None;
            }
            let last = index + 1 == parts.len();
            let link = world.link(&path);
            let is_missing = self.inputs.placeholders.contains(&path) || link.is_err();
            let what = |write| What::Itself { write, exec };
            let mount = |write| Mount {
                target: target.clone(),
                what: what(write),
                origin: "protected".to_owned(),
            };
            let not_below = |error: &std::io::Error| error.raw_os_error() == Some(libc::ENOTDIR);
            if link.as_ref().is_err_and(not_below) {
                // A file stands where a directory would; the one must not become the other.
                if let Some(Mount { what: What::Itself { write, .. }, .. }) = pins.last_mut() {
                    *write = false;
                    guarded.mounts.append(&mut pins);
                }
                return None;
            }
            if is_missing {
                let content = match (last, guard.missing) {
                    (_, Missing::Nothing) => return None,
                    (true, Missing::File(content)) => Some(content),
                    _ => None,
                };
                // Where the user cannot make it, no program of theirs can.
                if placeholders.is_empty() && !world.may_write(&parent) {
                    return None;
                }
                placeholders.push(Placeholder { path: path.clone(), content });
            }
            match (link, last) {
                (Ok(Some(to)), _) if !is_missing => {
                    guarded.mounts.append(&mut pins);
                    guarded.mounts.push(mount(false));
                    let rest: PathBuf = parts[index + 1..].iter().collect();
                    let to = real_name(&parent.join(to), world)?;
                    return Some(if last { to } else { to.join(rest) });
                }
                (_, true) => pins.push(mount(false)),
                (_, false) => pins.push(mount(true)),
            }
        }
        guarded.mounts.append(&mut pins);
        for placeholder in placeholders {
            if made.insert(placeholder.path.clone()) {
                guarded.placeholders.push(placeholder);
            }
        }
        None
    }
}

/// A path without symbolic links, as grants are known; its last part need not exist.
fn real_name(path: &Path, world: &mut dyn World) -> Option<PathBuf> {
    if let Ok(found) = world.open(path) {
        return Some(found.path);
    }
    let parent = world.open(path.parent()?).ok()?;
    Some(parent.path.join(path.file_name()?))
}
