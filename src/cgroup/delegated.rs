//! A cgroup that is the user's already, where no manager is: that of a service with `Delegate=`, of
//! a container, or one that an administrator made (cgroup-v2, "Delegation").

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access};

use super::group::{self, Group};
use super::limits::Controller;
use super::{PAYLOAD, SUPERVISOR};
use crate::error::{During, Error, Result};
use crate::sys::fs;

/// How long the cgroup may be another's: each has it while it makes its own, and a hundred boxes that
/// begin at once on a slow machine have it one after the other.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cgroup below which boxes may have theirs.
pub(super) struct Delegated {
    pub(super) group: Group,
    /// What those below it can have.
    pub(super) controllers: Vec<Controller>,
    /// Whether this process has to leave it first: a cgroup with processes gives no controllers.
    leave: bool,
}

/// Finds the nearest one that can give all that is needed, or else the nearest.
pub(super) fn find(needed: &[Controller]) -> Result<Delegated> {
    let mount = group::mount().ok_or_else(|| {
        Error::new("find the cgroup: no unified hierarchy (cgroup v2) is mounted")
    })?;
    let own = group::own()?;
    let top = boundary(&mount, &own);
    let mut nearest = None;
    for part in own.ancestors() {
        if top.as_deref().is_some_and(|top| !part.starts_with(top)) {
            break;
        }
        let path = mount.join(part);
        if !is_ours(&path) {
            break;
        }
        let found = look(Group::open(&path)?, part == own)?;
        if needed.iter().all(|controller| found.controllers.contains(controller)) {
            return Ok(found);
        }
        nearest.get_or_insert(found);
    }
    nearest
        .ok_or_else(|| Error::new(format!("cgroup /{}: it is not delegated to you", own.display())))
}

/// The cgroup above which nothing is ours to change although its owner is the user: where systemd
/// runs, that of the unit, which must say `Delegate=` (systemd.resource-control(5)). A unit without
/// has no directory of ours: the root's path, below which nothing is.
fn boundary(mount: &Path, own: &Path) -> Option<PathBuf> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let is_unit = |part: &&Path| {
        part.extension().is_some_and(|end| end == "service" || end == "scope" || end == "slice")
    };
    let unit = own.ancestors().find(is_unit)?;
    let delegated = fs::open_path(mount.join(unit)).is_ok_and(|_| {
        std::fs::File::open(mount.join(unit)).is_ok_and(
            |dir| matches!(fs::get_xattr(&dir, c"user.delegate"), Ok(Some(value)) if value == b"1"),
        )
    });
    Some(if delegated { unit.to_owned() } else { PathBuf::from("/") })
}

fn is_ours(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
        && access(&path.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
}

fn look(group: Group, is_own: bool) -> Result<Delegated> {
    let given = Controller::list(&group.read("cgroup.subtree_control")?);
    let all = group.controllers()?;
    let members = group.read("cgroup.procs")?;
    let mut members = members.lines();
    let alone = is_own
        && members.next().and_then(|pid| pid.parse().ok()) == Some(nix::unistd::getpid().as_raw())
        && members.next().is_none();
    let empty = !is_own && group.read("cgroup.procs")?.is_empty();
    if alone && given.len() < all.len() {
        return Ok(Delegated { group, controllers: all, leave: true });
    }
    let controllers = if empty { all } else { given };
    Ok(Delegated { group, controllers, leave: false })
}

/// A box's own cgroup below a delegated one.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) top: Group,
    pub(super) parent: Group,
    pub(super) name: String,
    /// Whether this process is in it.
    pub(super) has_supervisor: bool,
    /// Tells others that it is in use.
    _lock: Flock<std::fs::File>,
}

impl Delegated {
    /// Makes it.
    pub(super) fn make(self, box_name: &str) -> Result<Made> {
        // One that is made and not locked yet would be taken for what a crash left.
        let path = self.group.path();
        let among_others = std::fs::File::open(path).at("open cgroup", path)?;
        let among_others =
            fs::lock_in_time(among_others, PATIENCE).at("lock cgroup", path).map_err(|error| {
                error.hint("another casemate was stopped while it had it: let it go on, or end it")
            })?;
        self.sweep();
        let name = format!("casemate-{box_name}-{:08x}", super::random()?);
        let top = self.group.child(&name)?;
        let lock = try_lock(&top)?.ok_or_else(|| {
            Error::new(format!("lock cgroup {}: somebody else has it", top.path().display()))
        })?;
        drop(among_others);
        if self.leave {
            top.child(SUPERVISOR)?.enter()?;
        }
        let given = Controller::list(&self.group.read("cgroup.subtree_control")?);
        let more: Vec<Controller> =
            self.controllers.iter().filter(|one| !given.contains(one)).copied().collect();
        self.group.enable_below(&more)?;
        Ok(Made { top, parent: self.group, name, has_supervisor: self.leave, _lock: lock })
    }

    /// Removes what boxes left that were killed with their supervisor.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(self.group.path()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with("casemate-")) else {
                continue;
            };
            // What cannot be removed stays: it is in use, or not ours.
            let _stays = Group::open(&entry.path()).and_then(|left| {
                let Some(_lock) = try_lock(&left)? else { return Ok(()) };
                if left.is_populated()? {
                    return Ok(());
                }
                left.remove(PAYLOAD)?;
                left.remove(SUPERVISOR)?;
                self.group.remove(name)
            });
        }
    }
}

/// Locks a cgroup's directory; `None` where another has it.
fn try_lock(group: &Group) -> Result<Option<Flock<std::fs::File>>> {
    // Of an open file of its own: a lock is shared by all copies of a descriptor.
    let path = group.path();
    let own = std::fs::File::open(path).at("open cgroup", path)?;
    match Flock::lock(own, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(Error::os("lock cgroup", path.display(), error)),
    }
}
