//! Profiles: what a program may have, as data. The TOML language is read here, strictly: an unknown
//! key, a wrong type or a key that this version cannot enforce is an error with file, line and
//! column. Command-line options become a [`Profile`] too, laid over the one that was named, so that
//! there is one translator (`sandbox::resolve`) and not two.
//!
//! Fields are `Option` where "not said" differs from any value, so that an overlay replaces exactly
//! what it says; lists add up.

mod amounts;
mod compare;
mod filters;
mod grants;
mod ids;
mod library;
mod lint;
mod merge;
mod names;
mod parse;
mod persistent;
pub mod places;
mod project;
pub mod protected;
mod repeats;
mod shipped;
mod show;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

pub use amounts::{Amount, Count, CpuSet, Cpus, Weight};
pub use compare::{Difference, Effect, Paths};
pub use filters::{
    Bits, Comparison, ErrnoName, RuleAction, RuleArgument, SeccompBase, SeccompRule,
};
pub use grants::{Grant, HostPath, Origin, TmpfsGrant, Word};
pub use ids::{Ids, MapLine};
pub use library::{Layers, Library, Listed, shipped};
pub use lint::{Level, Lint};
pub use names::{CommandName, Port, SecurityLabel};
pub use parse::parse;
pub use persistent::Persistent;
pub use project::{PROJECT_FILE, Project, Search, Trust};
pub use values::{
    Capability, Control, Duration, EnvName, EnvValue, Hostname, Id, NetworkMode, Overlay, Pattern,
    Pull, Reserved, ResourceLimit, ResourceName, Scratch, Size, Terminal, UserSpec,
};

use crate::image::Reference;

/// One profile, or an overlay on one.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Profile {
    /// One line for people.
    pub description: Option<String>,
    /// The program names that this profile is for.
    pub commands: Vec<CommandName>,
    /// Profiles that this one builds on, the lowest first.
    pub extends: Vec<Word>,
    /// Controls that the run may go without where the machine cannot apply them.
    pub may_degrade: Vec<Control>,
    /// Controls that must hold whatever another profile is willing to lose.
    pub require: Vec<Control>,
    /// `[root]`: the root file system.
    pub root: Root,
    /// `[identity]`: who the program is.
    pub identity: Identity,
    /// `[program]`: how the program starts.
    pub program: Program,
    /// `[files]`: what of the host is there.
    pub files: Files,
    /// `[environment]`: the variables that the program gets.
    pub environment: Environment,
    /// `[network]`: what the program can reach.
    pub network: Network,
    /// `[limits]`: how much it may use.
    pub limits: Limits,
    /// `[capabilities]`: what it may keep inside its own user namespace.
    pub capabilities: Capabilities,
    /// `[seccomp]`: which system calls it has.
    pub seccomp: Seccomp,
    /// `[landlock]`: rules beside those that follow from the file grants.
    pub landlock: Option<Reserved>,
    /// `[lsm]`: AppArmor and SELinux.
    pub lsm: Lsm,
    /// `[desktop]`: display, sound, portals.
    pub desktop: Option<Reserved>,
}

impl Profile {
    /// Whether the run may go without a control: it is listed, and required nowhere.
    pub fn may_lose(&self, control: Control) -> bool {
        self.may_degrade.contains(&control) && !self.require.contains(&control)
    }

    /// Whether limits of the box in total that can only be weaker are an error.
    pub fn requires_limits(&self) -> bool {
        self.limits.require == Some(true) || self.require.contains(&Control::Limits)
    }
}

/// `[root]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Root {
    /// The image whose layers are the root; without one, the host's own system.
    #[serde(deserialize_with = "values::reference")]
    pub image: Option<Reference>,
    /// When the image is pulled from its registry.
    pub pull: Option<Pull>,
    /// Which overlay assembles the layers.
    pub overlay: Option<Overlay>,
    /// Whether files of the root have extended attributes where casemate's own server is all of it;
    /// if not said, where a layer has some.
    pub xattrs: Option<bool>,
    /// Whether the root is read-only (/tmp, /var/tmp, /run, /dev/shm and the home stay writable).
    pub read_only: Option<bool>,
    /// Where writes to the root go until the box ends.
    pub scratch: Option<Scratch>,
    /// How much may be written there.
    pub scratch_size: Option<Size>,
}

/// `[identity]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Identity {
    /// How many ids the box has.
    pub ids: Option<Ids>,
    /// Who the program is in the box.
    pub user: Option<UserSpec>,
    /// Whether changes of owner and id succeed without effect, where the box has one id.
    pub fake_root: Option<bool>,
    /// The map of user ids (`--uidmap`), instead of the one that `ids` means.
    #[serde(skip)]
    pub uid_map: Vec<MapLine>,
    /// The map of group ids (`--gidmap`); that of the user ids where it is empty.
    #[serde(skip)]
    pub gid_map: Vec<MapLine>,
    /// The host name in the box.
    pub hostname: Option<Hostname>,
}

/// `[program]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Program {
    /// The directory it starts in.
    pub workdir: Option<PathBuf>,
    /// Whether it gets a pseudo-terminal of its own.
    pub terminal: Option<Terminal>,
}

/// `[files]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Files {
    /// Files and directories of the host, read-only.
    pub read: Vec<Grant>,
    /// Files and directories of the host, writable.
    pub write: Vec<Grant>,
    /// Empty file systems in memory.
    pub tmpfs: Vec<TmpfsGrant>,
    /// Directories of the host that can be changed, with the changes thrown away at the end.
    pub overlay: Vec<Grant>,
    /// Directories of the boxes' own that stay from one to the next.
    pub persist: Vec<Persistent>,
    /// Paths of the host that are empty wherever a grant shows them.
    pub hide: Vec<HostPath>,
    /// Paths of the host that stay as they are, or missing, below writable grants, besides those that
    /// every box protects.
    pub protect: Vec<HostPath>,
    /// Which of those that every box protects are not.
    pub unprotect: Vec<protected::Protected>,
}

/// `[environment]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Environment {
    /// Variables of the caller that are passed on; a trailing `*` matches any ending.
    pub keep: Vec<Pattern>,
    /// Variables with their values.
    pub set: BTreeMap<EnvName, EnvValue>,
    /// Files of `NAME=value` lines.
    pub from_file: Vec<PathBuf>,
    /// Variables of the caller that are passed on whatever an image says (`--env PREFIX*`).
    #[serde(skip)]
    pub pass: Vec<Pattern>,
}

/// `[network]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Network {
    /// None at all, or the host's.
    pub mode: Option<NetworkMode>,
    /// Names that may be reached.
    pub allow: Option<Reserved>,
    /// Names that may not.
    pub deny: Option<Reserved>,
    /// Ports of the box that the host can reach.
    pub publish: Option<Reserved>,
    /// Name servers.
    pub dns: Option<Reserved>,
    /// The TCP ports that the program may connect to; all if not said.
    pub tcp_connect: Option<Vec<Port>>,
    /// The TCP ports that it may listen on; all if not said.
    pub tcp_bind: Option<Vec<Port>>,
}

/// `[limits]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Limits {
    /// Limits of each process (setrlimit(2)).
    pub rlimits: BTreeMap<ResourceName, ResourceLimit>,
    /// How long the box may run.
    pub timeout: Option<Duration>,
    /// Memory of the whole box.
    pub memory: Option<Amount>,
    /// Memory above which it is slowed down.
    pub memory_high: Option<Amount>,
    /// Swap of the whole box.
    pub swap: Option<Amount>,
    /// Processes and threads of the whole box.
    pub processes: Option<Count>,
    /// Processors.
    pub cpus: Option<Cpus>,
    /// Share of the processors.
    pub cpu_weight: Option<Weight>,
    /// Share of the disks.
    pub io_weight: Option<Weight>,
    /// Which processors.
    pub cpuset: Option<CpuSet>,
    /// Whether limits that can only be weaker are an error.
    pub require: Option<bool>,
}

/// `[capabilities]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Capabilities {
    /// Capabilities that the program has in its own user namespace.
    pub keep: Vec<Capability>,
}

/// `[seccomp]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Seccomp {
    /// What `allow` and `deny` start from.
    pub base: Option<SeccompBase>,
    /// System calls that are allowed besides.
    pub allow: Vec<Word>,
    /// System calls that are refused besides.
    pub deny: Vec<Word>,
    /// Whether the program may make sandboxes of its own (browsers, bubblewrap).
    pub nesting: Option<bool>,
    /// Whether it may trace its own children (debuggers).
    pub debug: Option<bool>,
    /// Whether 32-bit programs run.
    pub compat32: Option<bool>,
    /// Rules with arguments, of which the last one that matches counts.
    pub rule: Vec<SeccompRule>,
}

/// `[lsm]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Lsm {
    /// The name of a loaded AppArmor profile, which is stacked on what applies already.
    pub apparmor: Option<SecurityLabel>,
    /// The SELinux context that the program is executed in.
    pub selinux: Option<SecurityLabel>,
}

/// A profile with the name it goes by in messages and in `explain`.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The shipped profile's name, or the file's path.
    pub name: String,
    /// What it says.
    pub profile: Profile,
}
