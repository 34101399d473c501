//! What a box needs of a machine, step by step.

use serde::{Deserialize, Serialize};

/// The steps, in the order of their trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// clone3(2) with a user namespace.
    UserNamespace,
    /// Giving up setgroups(2).
    Setgroups,
    /// Writing the id maps.
    IdMaps,
    /// A mount namespace, without propagation.
    MountNamespace,
    /// A tmpfs.
    Tmpfs,
    /// overlayfs with `userxattr`, a new directory over a removed one included.
    Overlay,
    /// A FUSE file system, with the caller's /dev/fuse.
    Fuse,
    /// A PID namespace with its own /proc.
    Proc,
    /// A network namespace with loopback.
    Network,
    /// IPC, UTS and cgroup namespaces.
    OtherNamespaces,
    /// A devpts instance.
    Devpts,
    /// pivot_root(2).
    PivotRoot,
    /// Forbidding further user namespaces.
    NamespaceLock,
    /// A session keyring.
    Keyring,
    /// A seccomp filter.
    Seccomp,
    /// Landlock.
    Landlock,
    /// A directory where the store is, or would be.
    StoreWrite,
    /// `user.*` extended attributes there.
    StoreAttributes,
    /// overlayfs with its writable layer there.
    StoreOverlay,
    /// execve(2) of a file there.
    StoreExecute,
    /// `$XDG_RUNTIME_DIR`.
    RuntimeDirectory,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Step; 21] = [
        Step::UserNamespace,
        Step::Setgroups,
        Step::IdMaps,
        Step::MountNamespace,
        Step::Tmpfs,
        Step::Overlay,
        Step::Fuse,
        Step::Proc,
        Step::Network,
        Step::OtherNamespaces,
        Step::Devpts,
        Step::PivotRoot,
        Step::NamespaceLock,
        Step::Keyring,
        Step::Seccomp,
        Step::Landlock,
        Step::StoreWrite,
        Step::StoreAttributes,
        Step::StoreOverlay,
        Step::StoreExecute,
        Step::RuntimeDirectory,
    ];

    /// What it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Step::UserNamespace => "make a user namespace",
            Step::Setgroups => "give up setgroups",
            Step::IdMaps => "write the id maps",
            Step::MountNamespace => "make a mount namespace",
            Step::Tmpfs => "mount a tmpfs",
            Step::Overlay => "mount an overlay and write to it",
            Step::Fuse => "mount a FUSE file system",
            Step::Proc => "make a PID namespace and mount /proc",
            Step::Network => "make a network namespace and bring up loopback",
            Step::OtherNamespaces => "make IPC, UTS and cgroup namespaces",
            Step::Devpts => "mount a devpts",
            Step::PivotRoot => "change the root",
            Step::NamespaceLock => "forbid further user namespaces",
            Step::Keyring => "join a new session keyring",
            Step::Seccomp => "load a seccomp filter",
            Step::Landlock => "apply Landlock",
            Step::StoreWrite => "write where images are stored",
            Step::StoreAttributes => "keep extended attributes there",
            Step::StoreOverlay => "mount an overlay with its writable layer there",
            Step::StoreExecute => "execute a file there",
            Step::RuntimeDirectory => "use the runtime directory",
        }
    }

    /// Whether it is part of the trial in namespaces, from which no step may be missing.
    pub(super) fn is_needed(self) -> bool {
        self.id() < Step::Landlock.id()
    }

    /// Its number.
    pub(super) fn id(self) -> u8 {
        Step::ALL.iter().position(|step| *step == self).unwrap_or(0) as u8
    }
}
