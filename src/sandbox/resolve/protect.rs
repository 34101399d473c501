//! What a program may not change although a writable grant holds it: casemate's own directories, and
//! what another grant says is read-only. A mount alone would not do: the directories above it could
//! be renamed away and made anew. Each of them becomes a mount too, which cannot be renamed.

use std::path::{Path, PathBuf};

use super::super::{Mount, What};
use crate::error::{During, Error, Result};
use crate::host::{Source, World};

/// A directory of casemate's own: a layer put there would be the next box's.
pub struct Own {
    /// It.
    source: Source,
    /// The directories that hold it, the nearest first.
    above: Vec<Source>,
    /// Symbolic links by which its name leads there, with the directories that hold each.
    links: Vec<(PathBuf, Vec<Source>)>,
}

impl Own {
    /// Looks at every part of its name.
    pub fn find(path: &Path, world: &mut dyn World) -> Result<Own> {
        let source = world.open(path).at("open", path)?;
        let mut links = Vec::new();
        for part in path.ancestors() {
            if world.link(part).at("look at", part)?.is_some()
                && let Some(parent) = part.parent()
            {
                let parent = world.open(parent).at("open", parent)?;
                let mut holders = above(&parent.path, world)?;
                holders.push(parent);
                links.push((part.to_owned(), holders));
            }
        }
        Ok(Own { above: above(&source.path, world)?, source, links })
    }
}

fn above(path: &Path, world: &mut dyn World) -> Result<Vec<Source>> {
    path.ancestors().skip(1).map(|part| world.open(part).at("open", part)).collect()
}

/// The mounts that protect what must not change, for the grants of a plan.
pub(super) fn protection(
    granted: &[Mount],
    own: &[Own],
    world: &mut dyn World,
) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for grant in granted {
        let What::Bind { source, write: true, .. } = &grant.what else { continue };
        for own in own {
            keep_own(grant, source, own, &mut mounts, world)?;
        }
        for inner in granted {
            let read_only = matches!(inner.what, What::Bind { write: false, .. });
            if let Ok(below) = inner.target.strip_prefix(&grant.target)
                && read_only
                && let Some(between) = below.parent()
            {
                pin(grant, &source.path, between, "a read-only grant below", &mut mounts, world);
            }
        }
    }
    Ok(mounts)
}

fn keep_own(
    grant: &Mount,
    source: &Source,
    own: &Own,
    mounts: &mut Vec<Mount>,
    world: &mut dyn World,
) -> Result<()> {
    let shown = source.path.display();
    if source.identity == own.source.identity || source.path.starts_with(&own.source.path) {
        return Err(Error::new(format!(
            "{}: {shown} is casemate's own or has its boxes' limits, which no program may change",
            grant.origin
        ))
        .hint("grant it read-only, or another directory"));
    }
    let is_it = |holder: &Source| holder.identity == source.identity;
    if let Some((link, _)) = own.links.iter().find(|(_, holders)| holders.iter().any(is_it)) {
        return Err(Error::new(format!(
            "{}: {} is a symbolic link in {shown}: a program could lead casemate's own directory elsewhere",
            grant.origin,
            link.display()
        ))
        .hint("set HOME, XDG_DATA_HOME or XDG_CONFIG_HOME to the path without links, or grant less"));
    }
    // By what it is, not by what it is called: a bind mount may show it under another name.
    let Some(holder) = own.above.iter().find(|holder| is_it(holder)) else { return Ok(()) };
    let Ok(below) = own.source.path.strip_prefix(&holder.path) else { return Ok(()) };
    if let Some(between) = below.parent() {
        pin(grant, &holder.path, between, "casemate's own files", mounts, world);
    }
    mounts.push(Mount {
        target: grant.target.join(below),
        what: What::Bind { source: own.source.clone(), write: false, exec: true },
        origin: "casemate's own files".to_owned(),
    });
    Ok(())
}

/// Makes each directory from a grant down to `between` a mount of its own, as writable as it was.
fn pin(
    grant: &Mount,
    from: &Path,
    between: &Path,
    origin: &str,
    mounts: &mut Vec<Mount>,
    world: &mut dyn World,
) {
    let What::Bind { exec, .. } = grant.what else { return };
    let (mut path, mut target) = (from.to_owned(), grant.target.clone());
    for part in between.components() {
        path.push(part);
        target.push(part);
        // One that is missing, or a link, is a mount point that is made or refused later.
        let Ok(source) = world.open(&path) else { return };
        if source.path != path || !source.identity.is_dir() {
            return;
        }
        mounts.push(Mount {
            target: target.clone(),
            what: What::Bind { source, write: true, exec },
            origin: origin.to_owned(),
        });
    }
}
