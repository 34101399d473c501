//! [`Sandbox`]: everything about one run, resolved, immutable, printable, complete. `explain`
//! prints it, `launch` executes it, and nothing else decides anything.

pub mod explain;
mod resolve;
pub mod steps;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

pub use resolve::{DEFAULT_PATH, ImageInput, Inputs, Own, filter, resolve};

use crate::cgroup;
use crate::confine::landlock::Rules;
use crate::confine::lsm::Labels;
use crate::confine::rlimits::Rlimit;
use crate::confine::seccomp::Filter;
use crate::host::Source;
use crate::identity::Identity;
use crate::profile::{Capability, Control, NetworkMode, Size};
use crate::rootfs::{Overlay, Scratch};
use crate::text;

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Sandbox {
    /// The profiles it came from, lowest first.
    pub profiles: Vec<String>,
    /// What runs.
    pub program: Program,
    /// Who it is.
    pub identity: Identity,
    /// The host name in the box.
    pub hostname: String,
    /// What lies at /.
    pub root: Root,
    /// What is made, written and mounted below it, in this order.
    pub mounts: Vec<Mount>,
    /// What is made on the host, and taken away at the end, so that it can be kept from being made by
    /// the program; parents first.
    pub placeholders: Vec<Placeholder>,
    /// How much the box's own memory holds: the writable layer where that is in memory, /tmp, /run,
    /// the home, shared memory.
    pub memory: Size,
    /// What it can reach.
    pub network: NetworkMode,
    /// How much each process may use.
    pub rlimits: Vec<Rlimit>,
    /// The box's own cgroup with what it may use in total; `None` where nothing asks for one.
    pub cgroup: Option<cgroup::Plan>,
    /// Seconds until the box is ended.
    pub timeout: Option<u64>,
    /// What it keeps, inside its own user namespace.
    pub capabilities: Vec<Capability>,
    /// Whether it may make user namespaces of its own.
    pub nesting: bool,
    /// Which system calls it has; `None` where the profile says `base = "none"`.
    pub seccomp: Option<Filter>,
    /// Which files Landlock lets it use; `None` where that was given up.
    pub landlock: Option<Rules>,
    /// What the system's own security modules are to do; `None` where nothing was asked for.
    pub lsm: Option<Labels>,
    /// Which session keyring it has.
    pub keyring: Keyring,
    /// What was asked for and is not enforced on this machine, because the profile allows that.
    pub degraded: Vec<Degraded>,
    /// What the user should know and may want to change.
    pub notes: Vec<String>,
}

impl Sandbox {
    /// Whether its cgroup is a scope, which the manager makes while the box is being made.
    pub fn has_scope(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|plan| plan.place == cgroup::Where::Scope)
    }
}

/// What runs.
#[derive(Debug, Clone, Serialize)]
pub struct Program {
    /// The command and its arguments.
    #[serde(serialize_with = "text::list")]
    pub argv: Vec<OsString>,
    /// Its whole environment, sorted by name.
    #[serde(serialize_with = "text::pairs")]
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts.
    #[serde(serialize_with = "text::path")]
    pub workdir: PathBuf,
    /// Which of standard input, output and error are on a pseudo-terminal of the box's own.
    pub terminal: [bool; 3],
}

impl Program {
    /// Whether there is a pseudo-terminal at all.
    pub fn has_terminal(&self) -> bool {
        self.terminal.contains(&true)
    }
}

/// What lies at /.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Root {
    /// An empty read-only directory, filled by the mounts.
    Host,
    /// The layers of an image.
    Image {
        /// Its name.
        name: String,
        /// The digest of its manifest.
        digest: Box<str>,
        /// The directory that holds the layers.
        store: Source,
        /// The layers' trees below it, lowest first.
        #[serde(serialize_with = "text::paths")]
        layers: Vec<PathBuf>,
        /// What assembles them.
        overlay: Overlay,
        /// Why that.
        overlay_why: Box<str>,
        /// Whether files have extended attributes.
        xattrs: bool,
        /// Why they do, or not.
        xattrs_why: &'static str,
        /// Where writes go.
        scratch: Scratch,
        /// The directory for them where that is the disk.
        #[serde(serialize_with = "text::optional_path")]
        scratch_dir: Option<PathBuf>,
        /// Why there.
        why: Box<str>,
        /// Whether there are writes at all.
        read_only: bool,
    },
}

impl Root {
    /// True where the program can write to the root itself.
    pub fn is_writable(&self) -> bool {
        matches!(self, Root::Image { read_only: false, .. })
    }

    /// True where programs can have extended attributes on its files.
    pub fn has_xattrs(&self) -> bool {
        matches!(self, Root::Image { xattrs: true, .. })
    }

    /// What assembles it; `None` where nothing has to.
    pub fn overlay(&self) -> Option<Overlay> {
        match self {
            Root::Host => None,
            Root::Image { overlay, .. } => Some(*overlay),
        }
    }
}

/// One thing below the root.
#[derive(Debug, Clone, Serialize)]
pub struct Mount {
    /// Where in the box.
    #[serde(serialize_with = "text::path")]
    pub target: PathBuf,
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// Who said so.
    pub origin: String,
}

/// Something on the host that stands, as long as boxes run, where there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placeholder {
    /// Where.
    #[serde(serialize_with = "text::path")]
    pub path: PathBuf,
    /// What is in it, where it is a file.
    pub content: Option<&'static str>,
}

/// What a [`Mount`] is.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// A file or directory of the host, with all that is mounted below it.
    Bind {
        /// It.
        source: Source,
        /// Whether it may be changed.
        write: bool,
        /// Whether programs in it may be executed.
        exec: bool,
    },
    /// A directory of the host with a writable layer over it, in the box's own memory, that is thrown
    /// away.
    Overlaid {
        /// It.
        source: Source,
    },
    /// What a grant shows there, be it a symbolic link, as a mount of its own: it cannot be renamed,
    /// removed or replaced.
    Itself {
        /// Whether it may be changed.
        write: bool,
        /// Whether programs in it may be executed.
        exec: bool,
    },
    /// Nothing to be seen in the place of a file or directory of the host.
    Empty {
        /// Whether a directory is there, or a file.
        directory: bool,
    },
    /// An empty file system in memory with a size of its own.
    Tmpfs {
        /// How much it holds; the kernel's default, half of the memory, where not said.
        size: Option<Size>,
        /// The mode of its top.
        mode: u32,
        /// Whether programs in it may be executed.
        exec: bool,
    },
    /// A private writable directory in the box's own memory.
    Private {
        /// Its mode.
        mode: u32,
    },
    /// A directory that exists.
    Directory {
        /// Its mode, where it has to be made.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        #[serde(serialize_with = "text::path")]
        to: PathBuf,
    },
    /// A file written for the box.
    File {
        /// What is in it.
        #[serde(serialize_with = "text::bytes")]
        content: Vec<u8>,
    },
    /// null, zero, full, random, urandom, tty, and a devpts and shared memory of its own.
    Devices,
    /// The process information of its own PID namespace, with the host's parts masked.
    Proc,
}

/// The session keyring of a box; never the caller's, whose keys a program could read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keyring {
    /// An empty one that all boxes share whose filter refuses every call that could use it: the
    /// kernel allows a user 200 keyrings (keyrings(7), maxkeys).
    Shared,
    /// Its own.
    Private,
    /// The caller's, because the profile allows that.
    Callers,
}

/// A control that is not enforced, with the profile's consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Degraded {
    /// Which.
    pub control: Control,
    /// Why it cannot be, here.
    pub reason: String,
}
