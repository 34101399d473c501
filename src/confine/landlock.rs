//! Landlock: a second wall behind the mounts (landlock(7)). Whatever the mounts show, the program
//! can use only what these rules name, and no mount made later can widen them.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use serde::Serialize;

use crate::error::{During, Error, Result};
use crate::sys;

/// The newest ABI whose rights are asked for; a newer kernel has these too.
const NEWEST: u32 = 9;

/// The ABI from which abstract sockets and signals can be kept inside (Linux 6.12).
pub const SCOPES_SINCE: u32 = 6;

/// The ABI from which TCP ports can be told apart (Linux 6.7).
pub const PORTS_SINCE: u32 = 4;

/// The newest ABI of the running kernel, 0 without Landlock.
pub fn kernel_abi() -> u32 {
    sys::seccomp::landlock_abi()
}

/// What the program may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// The ABI that the rules are made for.
    pub abi: u32,
    /// Whether abstract sockets and processes outside are out of reach by Landlock's own doing.
    pub scoped: bool,
    /// What is allowed below each path.
    pub paths: Vec<Rule>,
    /// The TCP ports that may be connected to; `None` is all.
    pub tcp_connect: Option<Vec<u16>>,
    /// The TCP ports that may be listened on; `None` is all.
    pub tcp_bind: Option<Vec<u16>>,
}

/// What is allowed below one path of the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The path.
    #[serde(serialize_with = "crate::text::path")]
    pub path: PathBuf,
    /// What.
    pub access: Access,
}

/// The kinds of access that grants come down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read files and directories, execute.
    Read,
    /// All that files allow, save making device nodes.
    Write,
    /// Make and change files, whiteouts among them, and execute none: unpacking.
    Unpack,
    /// Read and write what is there (/proc).
    Update,
    /// Read, write and control what is there (/dev).
    Device,
}

impl Access {
    fn rights(self, abi: ABI) -> BitFlags<AccessFs> {
        let update = AccessFs::ReadFile
            | AccessFs::ReadDir
            | AccessFs::WriteFile
            | (AccessFs::from_all(abi) & AccessFs::Truncate);
        match self {
            Access::Read => AccessFs::from_read(abi),
            Access::Unpack => {
                AccessFs::from_all(abi)
                    & !(AccessFs::Execute
                        | AccessFs::MakeBlock
                        | AccessFs::IoctlDev
                        | AccessFs::ResolveUnix)
            }
            Access::Update => update,
            Access::Device => update | (AccessFs::from_all(abi) & AccessFs::IoctlDev),
            // A device node would be dead anyway: every mount is nodev. Sockets of the box's own
            // programs need no right; those of others act outside (ABI 9).
            Access::Write => {
                AccessFs::from_all(abi)
                    & !(AccessFs::MakeChar
                        | AccessFs::MakeBlock
                        | AccessFs::IoctlDev
                        | AccessFs::ResolveUnix)
            }
        }
    }
}

impl Rules {
    /// Applies them to this process, for good. `no_new_privs` must be set.
    pub fn apply(&self) -> Result<()> {
        let ports =
            [(AccessNet::ConnectTcp, &self.tcp_connect), (AccessNet::BindTcp, &self.tcp_bind)];
        let net = ports.iter().filter(|(_, list)| list.is_some()).map(|(access, _)| *access);
        let mut walls = Walls::new(self.abi, self.scoped, net.collect())?;
        for (access, list) in ports {
            for port in list.iter().flatten() {
                walls = walls.allow_port(*port, access)?;
            }
        }
        for rule in &self.paths {
            let fd = sys::fs::open_path(&rule.path).at("open for Landlock", &rule.path)?;
            let is_dir = sys::fs::identity(&fd).at("stat", &rule.path)?.is_dir();
            walls = walls.allow(fd, rule.access, is_dir)?;
        }
        walls.close()
    }

    /// Adds a rule.
    pub fn add(&mut self, path: impl AsRef<Path>, access: Access) {
        self.paths.push(Rule { path: path.as_ref().to_owned(), access });
    }
}

/// Leaves this thread, and those it will start, what lies below some open directories, and nothing
/// else that has a path. What is open stays usable. `no_new_privs` must be set.
pub fn restrict_to<'a>(
    directories: impl IntoIterator<Item = (BorrowedFd<'a>, Access)>,
) -> Result<()> {
    let abi = kernel_abi();
    restrict(directories, abi, abi >= SCOPES_SINCE)
}

/// As [`restrict_to`], for a process that is to send signals to one outside.
pub fn restrict_files_to<'a>(
    directories: impl IntoIterator<Item = (BorrowedFd<'a>, Access)>,
) -> Result<()> {
    restrict(directories, kernel_abi(), false)
}

fn restrict<'a>(
    directories: impl IntoIterator<Item = (BorrowedFd<'a>, Access)>,
    abi: u32,
    scoped: bool,
) -> Result<()> {
    let mut walls = Walls::new(abi, scoped, BitFlags::EMPTY)?;
    for (directory, access) in directories {
        walls = walls.allow(directory, access, true)?;
    }
    walls.close()
}

/// A ruleset being made.
struct Walls {
    ruleset: RulesetCreated,
    abi: ABI,
}

impl Walls {
    fn new(abi: u32, scoped: bool, net: BitFlags<AccessNet>) -> Result<Self> {
        let abi = match abi.min(NEWEST) {
            1 => ABI::V1,
            2 => ABI::V2,
            3 => ABI::V3,
            4 => ABI::V4,
            5 => ABI::V5,
            6 => ABI::V6,
            7 => ABI::V7,
            8 => ABI::V8,
            9 => ABI::V9,
            _ => return Err(Error::new("apply Landlock rules: this kernel has no Landlock")),
        };
        // A right that the kernel refuses although its ABI has it is an error, never dropped.
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))
            .map_err(|error| refused(&error))?;
        if !net.is_empty() {
            ruleset = ruleset.handle_access(net).map_err(|error| refused(&error))?;
        }
        if scoped {
            ruleset = ruleset
                .scope(Scope::AbstractUnixSocket | Scope::Signal)
                .map_err(|error| refused(&error))?;
        }
        let ruleset = ruleset.create().map_err(|error| refused(&error))?;
        Ok(Walls { ruleset, abi })
    }

    fn allow(self, fd: impl AsFd, access: Access, is_dir: bool) -> Result<Self> {
        let mut rights = access.rights(self.abi);
        if !is_dir {
            rights &= AccessFs::from_file(self.abi);
        }
        let rule = PathBeneath::new(fd, rights);
        let ruleset = self.ruleset.add_rule(rule).map_err(|error| refused(&error))?;
        Ok(Walls { ruleset, ..self })
    }

    fn allow_port(self, port: u16, access: AccessNet) -> Result<Self> {
        let rule = NetPort::new(port, access);
        let ruleset = self.ruleset.add_rule(rule).map_err(|error| refused(&error))?;
        Ok(Walls { ruleset, ..self })
    }

    fn close(self) -> Result<()> {
        let status = self.ruleset.restrict_self().map_err(|error| refused(&error))?;
        match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(()),
            _ => Err(Error::new("apply Landlock rules: the kernel enforces only a part of them")),
        }
    }
}

fn refused(error: &dyn std::error::Error) -> Error {
    Error::new(format!("apply Landlock rules: {}", innermost(error)))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
