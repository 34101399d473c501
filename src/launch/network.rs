//! The box's network namespace, made beside the rest: making one takes the kernel half as long as
//! all mounts of a box together, so a process of its own does it while the box's first process
//! mounts, and hands it over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};

use super::message::{Channel, Message};
use crate::error::{During, Error, Result};
use crate::sys::clone::{self, Child, Forked};
use crate::sys::process;

/// Forks the process that makes the namespace for a box, which is given by its user namespace or by a
/// pidfd of its first process; the namespace arrives at the other end of `channel`. The caller waits
/// for the process in the end.
pub(super) fn make_beside(of: BorrowedFd<'_>, channel: Channel) -> Result<Child> {
    match clone::clone3(0).during("start", "the network's process")? {
        Forked::Parent(child) => Ok(child),
        Forked::Child => {
            let sent = match make(of) {
                Ok(network) => channel.send(&Message::Network, Some(network.as_fd())),
                Err(error) => channel.send(&Message::failed(&error), None),
            };
            clone::exit_now(i32::from(sent.is_err()))
        }
    }
}

fn make(of: BorrowedFd<'_>) -> Result<OwnedFd> {
    process::set_parent_death_signal(libc::SIGKILL).during("set", "the parent death signal")?;
    // The box's user namespace shall own the network: only then are its capabilities, and the lack
    // of them, the box's.
    setns(of, CloneFlags::CLONE_NEWUSER).during("join", "the box's user namespace")?;
    unshare(CloneFlags::CLONE_NEWNET).during("make", "a network namespace").map_err(|error| {
        error.hint("see /proc/sys/user/max_net_namespaces; `casemate doctor` tries each step")
    })?;
    process::loopback_up().during("bring up", "the loopback interface")?;
    std::fs::File::open("/proc/self/ns/net").at("open", "/proc/self/ns/net").map(OwnedFd::from)
}

/// Waits for the namespace and goes there: the box's first process, before the program exists.
pub(super) fn join(channel: &Channel) -> Result<()> {
    match channel.receive()? {
        Some((Message::Network, Some(network))) => {
            setns(&network, CloneFlags::CLONE_NEWNET).during("join", "the box's network namespace")
        }
        Some((message, _)) => Err(message
            .into_error()
            .unwrap_or_else(|| Error::new("join the box's network namespace: none came"))),
        None => Err(Error::new("join the box's network namespace: its process ended")),
    }
}
