//! The plan as an ordered list: what the first process of the box does, and nothing besides. The
//! order is the kernel's and is argued for in each line; a test holds it.

use super::{Keyring, Mount, Root, Sandbox, What};
use crate::profile::{NetworkMode, Size};
use crate::rootfs::Overlay;

/// One step of making the box.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Write the id maps: before any file is made, which would have no owner otherwise.
    IdMaps,
    /// A session keyring of its own. (The shared one was joined before the clone: keyrings are
    /// found by name within a user namespace.)
    Keyring,
    /// End the propagation of mounts. A mount namespace of another user namespace is a slave of
    /// its parent, not private (mount_namespaces(7)).
    PrivatePropagation,
    /// Find the host's files by name, for the last time.
    FindSources,
    /// Become the root of the box's range of ids: what is made from here on is that one's. Behind
    /// the search for the host's files, which is by the user's own rights.
    BecomeRoot,
    /// Wait until the manager has put this process into the scope, and make that the root of the
    /// cgroups that are seen. As late as can be: the manager works meanwhile. With many ids behind
    /// the search for the host's files, since it moves only processes of the user's own.
    JoinScope,
    /// The box's own memory: one tmpfs for the writable layer, /tmp, /run, the home, /dev.
    Memory(Size),
    /// Mount what the overlay's server shows, and hand it the device. It answers while this process
    /// goes on. /dev is still the host's.
    Serve(Overlay),
    /// The root, as a mount that is not the root yet.
    Root(&'a Root),
    /// Something below it. The old root has not been left, so that the host's files can be found;
    /// the new one is walked by descriptor, so that nothing in it can point out.
    Mount(&'a Mount),
    /// An empty directory becomes read-only: what was to be mounted below it is there.
    SealEmpty(&'a Mount),
    /// No user namespace can be made below this one: kept out even without a filter. Needs the
    /// box's own /proc, and a capability that is gone later.
    LockNamespaces,
    /// What of /proc changes the host or the box's namespaces becomes read-only.
    CloseSettings,
    /// The root becomes read-only: everything that was to be made in it is there.
    SealRoot,
    /// Leave the host's root for good.
    Pivot,
    /// Compare what is mounted with what was planned.
    Verify,
    /// Enter the network namespace that was made meanwhile.
    JoinNetwork,
    /// Set the host name.
    Hostname(&'a str),
}

/// The steps of a plan, in order.
pub fn steps(sandbox: &Sandbox) -> Vec<Step<'_>> {
    let mut steps = vec![Step::IdMaps];
    if sandbox.keyring == Keyring::Private {
        steps.push(Step::Keyring);
    }
    steps.push(Step::PrivatePropagation);
    steps.push(Step::FindSources);
    let has_many = sandbox.identity.has_many();
    if has_many {
        if sandbox.has_scope() {
            steps.push(Step::JoinScope);
        }
        steps.push(Step::BecomeRoot);
    }
    steps.push(Step::Memory(sandbox.memory));
    if let Some(overlay) = sandbox.root.overlay().filter(|overlay| overlay.has_server()) {
        steps.push(Step::Serve(overlay));
    }
    steps.push(Step::Root(&sandbox.root));
    steps.extend(sandbox.mounts.iter().map(Step::Mount));
    let empty = |mount: &&Mount| matches!(mount.what, What::Empty { directory: true });
    steps.extend(sandbox.mounts.iter().filter(empty).map(Step::SealEmpty));
    if !sandbox.nesting {
        steps.push(Step::LockNamespaces);
    }
    steps.push(Step::CloseSettings);
    if !sandbox.root.is_writable() {
        steps.push(Step::SealRoot);
    }
    steps.push(Step::Pivot);
    steps.push(Step::Verify);
    if sandbox.network == NetworkMode::None {
        steps.push(Step::JoinNetwork);
    }
    steps.push(Step::Hostname(&sandbox.hostname));
    if !has_many && sandbox.has_scope() {
        steps.push(Step::JoinScope);
    }
    steps
}
