//! A box in a range of ids: its first process is made by one that has joined the range's namespace,
//! and writes the map. That takes a process of its own, since nobody comes back from a user
//! namespace; it makes the first process as a child of the supervisor (CLONE_PARENT) and ends.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};

use super::message::{Channel, Message};
use super::namespaces::{namespaces, no_namespaces};
use crate::error::{During, Error, Result};
use crate::identity::IdMap;
use crate::sandbox::Sandbox;
use crate::sys::clone::{self, Child, Forked};
use crate::sys::process;

/// Who goes on.
pub(super) enum Made {
    /// The supervisor.
    Supervisor {
        /// The box's first process.
        child: Child,
        /// The box's user namespace, where its first process may be nobody's to ask for it.
        identity: Option<OwnedFd>,
    },
    /// The box's first process.
    Box,
}

/// Makes the box's first process in the namespace of a range, or in this one where there is none. It
/// is born in the cgroup, and waits for the word at the other end of `mapped`.
pub(super) fn make(
    sandbox: &Sandbox,
    namespace: Option<&OwnedFd>,
    cgroup: Option<BorrowedFd<'_>>,
    mapped: Channel,
) -> Result<Made> {
    let (ours, theirs) = Channel::pair()?;
    match clone::clone3(0).during("start", "the process that maps ids")? {
        Forked::Child => {
            drop(ours);
            let made = match join(namespace) {
                Ok(()) => clone::clone3_into(flags(sandbox), cgroup)
                    .map_err(|error| no_namespaces(&error)),
                Err(error) => Err(error),
            };
            let child = match made {
                Ok(Forked::Child) => return Ok(Made::Box),
                Ok(Forked::Parent(child)) => child,
                Err(error) => theirs.fail(&error),
            };
            if let Err(error) = give_ids(sandbox, &child, &mapped, &theirs) {
                // It is the supervisor's child, which may never have heard of it.
                let _ended_already = clone::send_signal(&child.pidfd, libc::SIGKILL);
                theirs.fail(&error)
            }
            clone::exit_now(0)
        }
        Forked::Parent(helper) => {
            drop((theirs, mapped));
            let made = receive(&ours);
            clone::wait_for_end(&helper.pidfd).during("wait for", "the process that maps ids")?;
            made
        }
    }
}

/// Whether the range's namespace was made for this box, with its map.
fn is_own(sandbox: &Sandbox) -> bool {
    matches!(&sandbox.identity.ids, IdMap::Many { backend, .. } if !backend.is_holdable())
}

fn flags(sandbox: &Sandbox) -> u64 {
    let all = namespaces(sandbox) | u64::from(libc::CLONE_PARENT.cast_unsigned());
    match is_own(sandbox) {
        true => all & !u64::from(libc::CLONE_NEWUSER.cast_unsigned()),
        false => all,
    }
}

fn join(namespace: Option<&OwnedFd>) -> Result<()> {
    process::set_parent_death_signal(libc::SIGKILL).during("set", "the parent death signal")?;
    match namespace {
        Some(namespace) => setns(namespace, CloneFlags::CLONE_NEWUSER)
            .during("join", "the namespace of the range of ids"),
        None => Ok(()),
    }
}

/// Writes the maps, hands over what was made, and lets it go on.
fn give_ids(sandbox: &Sandbox, child: &Child, mapped: &Channel, to: &Channel) -> Result<()> {
    // The number stays the process's own: nobody has waited for it.
    let place = format!("/proc/{}", child.pid);
    let write = |name: &str, text: &str| {
        let path = format!("{place}/{name}");
        let opened = File::options().write(true).open(&path).at("open", &path);
        // One write: the kernel takes no second.
        opened.and_then(|mut file| file.write_all(text.as_bytes()).at("write", &path))
    };
    if !is_own(sandbox) {
        write("uid_map", &sandbox.identity.uid_map())?;
        write("gid_map", &sandbox.identity.gid_map())?;
    }
    let path = format!("{place}/ns/user");
    let identity = File::open(&path).at("open", &path)?;
    let born = Message::Born { pid: child.pid.as_raw() };
    to.send(&born, Some(child.pidfd.as_fd()))?;
    to.send(&Message::Identity, Some(identity.as_fd()))?;
    mapped.send(&Message::Mapped, None)
}

fn receive(from: &Channel) -> Result<Made> {
    let lost = || Error::new("map the box's ids: the process that does it ended");
    let (pid, pidfd) = match from.receive()? {
        Some((Message::Born { pid }, Some(pidfd))) => (pid, pidfd),
        Some((message, _)) => return Err(message.into_error().unwrap_or_else(lost)),
        None => return Err(lost()),
    };
    let child = Child { pid: nix::unistd::Pid::from_raw(pid), pidfd };
    match from.receive()? {
        Some((Message::Identity, Some(identity))) => {
            Ok(Made::Supervisor { child, identity: Some(identity) })
        }
        other => {
            let _ended_already = clone::send_signal(&child.pidfd, libc::SIGKILL);
            Err(other.and_then(|(message, _)| message.into_error()).unwrap_or_else(lost))
        }
    }
}

/// Waits until the ids are mapped: the box's first process.
pub(super) fn wait(mapped: &Channel) -> Result<()> {
    match mapped.receive()? {
        Some((Message::Mapped, _)) => Ok(()),
        _ => Err(Error::new("map the box's ids: the process that does it ended")),
    }
}
