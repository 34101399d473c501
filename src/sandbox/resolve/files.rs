//! Grants into mounts: the host's paths opened, the box's paths cleaned, all in an order in which
//! they can be made.

use std::path::{Component, Path, PathBuf};

use super::super::{Mount, What};
use super::{Inputs, protect};
use crate::error::{Error, Result};
use crate::host::{Host, World};
use crate::identity::Identity;
use crate::profile::Grant;

pub(super) fn grants(inputs: &Inputs<'_>, world: &mut dyn World) -> Result<Vec<Mount>> {
    let Inputs { profile, host, own, .. } = inputs;
    let writable = profile.files.write.iter().map(|grant| (grant, true));
    let readable = profile.files.read.iter().map(|grant| (grant, false));
    let mut said: Vec<_> = writable.chain(readable).collect();
    // Stable: of one rank, what is read-only comes later, and so counts.
    said.sort_by_key(|(grant, _)| grant.rank);
    let mut granted = Vec::new();
    for (grant, write) in said {
        granted.extend(bind(grant, write, host, world)?);
    }
    // What protects comes first, so that nothing that was said is widened by it.
    let mut mounts = protect::protection(&granted, own, world)?;
    mounts.extend(granted);
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
    Ok(mounts)
}

fn bind(grant: &Grant, write: bool, host: &Host, world: &mut dyn World) -> Result<Option<Mount>> {
    let path = on_host(&grant.path, host).map_err(|error| error.within(&grant.origin))?;
    let source = match world.open(&path) {
        Ok(source) => source,
        Err(error) if grant.optional && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
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
    Ok(Some(Mount {
        target,
        what: What::Bind { source, write, exec: grant.exec },
        origin: grant.origin.to_string(),
    }))
}

/// A grant's path as an absolute one of the host.
pub(super) fn on_host(path: &Path, host: &Host) -> Result<PathBuf> {
    if let Ok(rest) = path.strip_prefix("~") {
        let home = host.caller.home.as_ref().ok_or_else(|| {
            Error::new(format!("{}: no home directory is known", path.display())).hint("set HOME")
        })?;
        return Ok(lexical(&home.join(rest)));
    }
    if path.is_absolute() {
        return Ok(lexical(path));
    }
    let cwd = host
        .cwd
        .as_ref()
        .ok_or_else(|| Error::new(format!("{}: the working directory is gone", path.display())))?;
    Ok(lexical(&cwd.join(path)))
}

/// Drops `.` components and doubled slashes; `..` stays, for the kernel to resolve.
fn lexical(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
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
            What::Bind { source, .. } => mount.target == source.path || path == mount.target,
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
