//! Grants into mounts: the host's paths opened, the box's paths cleaned, all in an order in which
//! they can be made.

use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::super::{Mount, Placeholder, What};
use super::{Inputs, guard, locate, protect};
use crate::error::{Error, Result};
use crate::host::{Host, Source, World};
use crate::identity::Identity;
use crate::profile::Grant;

/// How a grant shows its source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
    Overlay,
}

/// A mount that was granted, and how late.
struct Granted {
    rank: u32,
    mount: Mount,
}

/// The mounts that the profile asks for. `base` is what is there without it.
pub(super) fn grants(
    inputs: &Inputs<'_>,
    identity: &Identity,
    base: &[Mount],
    world: &mut dyn World,
) -> Result<(Vec<Mount>, Vec<Placeholder>)> {
    let Inputs { profile, host, own, .. } = inputs;
    let ways = [
        (&profile.files.write, Way::Write),
        (&profile.files.overlay, Way::Overlay),
        (&profile.files.read, Way::Read),
    ];
    let mut said: Vec<(&Grant, Way)> =
        ways.iter().flat_map(|(grants, way)| grants.iter().map(|grant| (grant, *way))).collect();
    // Stable: of one rank, what is read-only comes later, and so counts.
    said.sort_by_key(|(grant, _)| grant.rank);
    let mut granted = Vec::new();
    for (grant, way) in said {
        if let Some(mount) = bind(grant, way, host, world)? {
            granted.push(Granted { rank: grant.rank, mount });
        }
    }
    // First: what was granted at the place of one of these is not seen, and nothing of it to hide.
    let persistent = persistent(inputs, identity, &mut granted, world)?;
    let hidden = hide(inputs, base, &mut granted, &persistent, world)?;
    let granted: Vec<Mount> = granted.into_iter().map(|granted| granted.mount).collect();
    // What protects comes first, so that nothing that was said is widened by it.
    let guarded = guard::guard(inputs, &granted, world)?;
    let mut mounts = protect::protection(&granted, own, world)?;
    mounts.retain(|mount| !guarded.covers(mount));
    mounts.extend(guarded.mounts);
    // What keeps the host's files is not for what covers them: there it would show them again.
    let holds = |of: &Mount, mount: &Mount| mount.target.starts_with(&of.target);
    mounts.retain(|mount| {
        persistent.iter().all(|stays| {
            !holds(stays, mount)
                || granted.iter().any(|granted| holds(stays, granted) && holds(granted, mount))
        })
    });
    mounts.extend(granted);
    mounts.extend(hidden);
    // Nothing outside obeys what is in these, and they are casemate's own: nothing protects them.
    mounts.extend(persistent);
    for grant in &profile.files.tmpfs {
        let target = cleaned(&grant.at, "tmpfs")?;
        // Shared memory of another size is what people ask for.
        if target != Path::new("/dev/shm") {
            free(&target, "tmpfs")?;
        }
        mounts.push(Mount {
            target,
            what: What::Tmpfs {
                size: grant.size,
                mode: grant.mode.unwrap_or(0o1777),
                exec: grant.exec,
            },
            origin: "tmpfs".to_owned(),
        });
    }
    Ok((mounts, guarded.placeholders))
}

/// The directories that stay. Of one and a grant at the same place, the one that was said later counts,
/// and of those said together the grant: a program of the user's own is led to what it has.
fn persistent(
    inputs: &Inputs<'_>,
    identity: &Identity,
    granted: &mut Vec<Granted>,
    world: &mut dyn World,
) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for said in &inputs.profile.files.persist {
        // An image says where the home is.
        let origin = said.origin.to_string();
        let target = cleaned(&identity.home.join(&said.below), &origin)?;
        free(&target, &origin)?;
        let at_it = |granted: &Granted| granted.mount.target == target;
        if granted.iter().any(|granted| at_it(granted) && granted.rank >= said.rank) {
            continue;
        }
        granted.retain(|granted| !at_it(granted));
        let directory = inputs.persistent.as_ref().ok_or_else(|| {
            Error::new(format!("{}: no directory for data is known", said.origin)).hint("set HOME")
        })?;
        let path = directory.join(said.file_name());
        let source = world
            .open(&path)
            .map_err(|error| Error::os("open", path.display(), &error).within(&said.origin))?;
        let what = What::Bind { source, write: true, exec: true };
        mounts.push(Mount { target, what, origin });
    }
    Ok(mounts)
}

/// Empties what is to be hidden, wherever in the box it would be seen. A grant below a hidden
/// directory is an exception to it where it was said as late or later; one of the directory itself
/// where it was said later. What stays for the boxes is theirs: what it covers is not the host's.
fn hide(
    inputs: &Inputs<'_>,
    base: &[Mount],
    granted: &mut Vec<Granted>,
    persistent: &[Mount],
    world: &mut dyn World,
) -> Result<Vec<Mount>> {
    let mut hidden = Vec::new();
    for said in &inputs.profile.files.hide {
        let within = |error: Error| error.within(&said.origin);
        let source = match locate::on_host(&said.path, inputs.host, world) {
            Ok(path) => match world.open(&path) {
                Ok(source) => source,
                // What is not there cannot be seen.
                Err(error) if is_missing(&error) => continue,
                Err(error) => return Err(within(Error::os("open", path.display(), &error))),
            },
            Err(error) if error.errno() == Some(Errno::ENOENT) => continue,
            Err(error) => return Err(within(error)),
        };
        granted.retain(|granted| {
            let is_below =
                shown(&granted.mount).is_some_and(|of| of.path.starts_with(&source.path));
            let is_it = shown(&granted.mount).is_some_and(|of| of.path == source.path);
            !is_below || granted.rank > said.rank || granted.rank == said.rank && !is_it
        });
        let later = |mount: &Mount, target: &Path| {
            granted.iter().any(|granted| {
                granted.rank > said.rank && granted.mount.target == target && mount.target != target
            })
        };
        let mounts = base.iter().chain(granted.iter().map(|granted| &granted.mount));
        for mount in mounts {
            let Some(of) = shown(mount) else { continue };
            let Ok(rest) = source.path.strip_prefix(&of.path) else { continue };
            if rest == Path::new("") && granted.iter().any(|g| g.mount.target == mount.target) {
                continue;
            }
            let target: PathBuf = mount.target.join(rest).components().collect();
            let is_covered = |stays: &Mount| {
                target.starts_with(&stays.target) && stays.target.starts_with(&mount.target)
            };
            if !later(mount, &target) && !persistent.iter().any(is_covered) {
                hidden.push(Mount {
                    target,
                    what: What::Empty { directory: source.identity.is_dir() },
                    origin: said.origin.to_string(),
                });
            }
        }
    }
    Ok(hidden)
}

/// What of the host a mount shows.
fn shown(mount: &Mount) -> Option<&Source> {
    match &mount.what {
        What::Bind { source, .. } | What::Overlaid { source } => Some(source),
        _ => None,
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

fn bind(grant: &Grant, way: Way, host: &Host, world: &mut dyn World) -> Result<Option<Mount>> {
    let path = match locate::on_host(&grant.path, host, world) {
        Ok(path) => path,
        Err(error) if grant.optional && error.errno() == Some(Errno::ENOENT) => return Ok(None),
        Err(error) => return Err(error.within(&grant.origin)),
    };
    let source = match world.open(&path) {
        Ok(source) => source,
        Err(error) if grant.optional && is_missing(&error) => return Ok(None),
        Err(error) => {
            let missing = is_missing(&error);
            let error = Error::os("open", path.display(), &error).within(&grant.origin);
            return Err(if missing {
                error.hint("a grant's source must exist: it is never made; `optional = true` in a profile lets it be missing")
            } else {
                error
            });
        }
    };
    if source.identity.is_socket() {
        return Err(Error::new(format!(
            "{}: {} is a socket: whoever answers there acts outside the box",
            grant.origin,
            path.display()
        )));
    }
    let target = match &grant.at {
        Some(at) => cleaned(at, &grant.origin.to_string())?,
        None => cleaned(&path, &grant.origin.to_string())?,
    };
    free(&target, &grant.origin.to_string())?;
    let what = match way {
        Way::Overlay => overlaid(source, grant, host)?,
        Way::Read | Way::Write => What::Bind { source, write: way == Way::Write, exec: grant.exec },
    };
    Ok(Some(Mount { target, what, origin: grant.origin.to_string() }))
}

/// An overlay whose writable layer is in the box's memory.
fn overlaid(source: Source, grant: &Grant, host: &Host) -> Result<What> {
    let refused = |why: &str| {
        Err(Error::new(format!("{}: overlay {}: {why}", grant.origin, source.path.display())))
    };
    if !source.identity.is_dir() {
        return refused("it is not a directory");
    }
    if !grant.exec {
        return refused("exec = false is for read and write");
    }
    if !host.tmpfs_xattrs {
        return refused("a writable layer in memory needs Linux 6.6");
    }
    Ok(What::Overlaid { source })
}

/// A path of the box: absolute, without `.`, and `..` resolved on paper, since it names a place in
/// a tree that is about to be made.
fn cleaned(path: &Path, origin: &str) -> Result<PathBuf> {
    if !path.is_absolute() {
        return Err(Error::new(format!(
            "{origin}: {}: must be an absolute path in the box",
            path.display()
        )));
    }
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    Ok(clean)
}

/// Refuses places that are the box's own: what is there is what confines the program.
fn free(target: &Path, origin: &str) -> Result<()> {
    if target == Path::new("/") {
        return Err(Error::new(format!("{origin}: a grant cannot replace the root /"))
            .hint("name a directory below it, such as /mnt"));
    }
    if target.starts_with("/proc") || target.starts_with("/dev") {
        return Err(Error::new(format!(
            "{origin}: {} is the box's own and cannot be replaced",
            target.display()
        )));
    }
    Ok(())
}

/// Whether something of a box's own would be made inside a grant.
pub(super) fn lies_below(own: &Mount, grant: &Mount) -> bool {
    let is_tree = match &grant.what {
        What::Bind { source, .. } => source.identity.is_dir(),
        What::Overlaid { .. } => true,
        What::Tmpfs { .. } => true,
        _ => false,
    };
    is_tree && own.target != grant.target && own.target.starts_with(&grant.target)
}

/// Parents before what is below them, and of several things at one place only the last one said;
/// otherwise in the order they were said.
pub(super) fn in_order(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut last: std::collections::BTreeMap<PathBuf, (usize, Mount)> = Default::default();
    for (index, mount) in mounts.into_iter().enumerate() {
        last.insert(mount.target.clone(), (index, mount));
    }
    let mut mounts: Vec<(usize, usize, Mount)> = last
        .into_values()
        .map(|(index, mount)| (mount.target.components().count(), index, mount))
        .collect();
    mounts.sort_by_key(|(depth, index, _)| (*depth, *index));
    mounts.into_iter().map(|(_, _, mount)| mount).collect()
}

/// Whether the host's directory is in the box at its own path.
pub(super) fn is_granted(path: &Path, mounts: &[Mount]) -> bool {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.components().count())
        .is_some_and(|mount| match &mount.what {
            What::Bind { source, .. } | What::Overlaid { source } => {
                mount.target == source.path || path == mount.target
            }
            _ => false,
        })
}

/// Refuses what would leave files of transient ids on disk: they are somebody else's tomorrow.
pub(super) fn check_owners(mounts: &[Mount], identity: &Identity, host: &Host) -> Result<()> {
    let is_transient = matches!(&host.range, Some(Ok(range)) if range.is_transient());
    if !identity.has_many() || !is_transient {
        return Ok(());
    }
    let writable = mounts.iter().find(|mount| matches!(mount.what, What::Bind { write: true, .. }));
    match writable {
        None => Ok(()),
        Some(mount) => Err(Error::new(format!(
            "{}: {}: writable in a box whose ids systemd-nsresourced lends: what it makes there would belong to somebody else later",
            mount.origin,
            mount.target.display()
        ))
        .hint("make it read-only, or use a range of your own (newuidmap), or --userns=single")),
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_box_are_cleaned_on_paper() {
        let clean = |path| cleaned(Path::new(path), "x").unwrap();
        assert_eq!(clean("/a/./b//c/.."), Path::new("/a/b"));
        assert_eq!(clean("/../../etc"), Path::new("/etc"));
        assert!(cleaned(Path::new("a"), "x").is_err());
    }

    #[test]
    fn parents_come_first_and_the_last_word_counts() {
        let mount = |target: &str, origin: &str| Mount {
            target: target.into(),
            what: What::Directory { mode: 0o755 },
            origin: origin.into(),
        };
        let ordered = in_order(vec![
            mount("/a/b/c", "1"),
            mount("/a", "2"),
            mount("/z", "3"),
            mount("/a/b/c", "4"),
        ]);
        let seen: Vec<_> =
            ordered.iter().map(|m| (m.target.to_str().unwrap(), m.origin.as_str())).collect();
        assert_eq!(seen, [("/a", "2"), ("/z", "3"), ("/a/b/c", "4")]);
    }
}
