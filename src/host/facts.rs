//! The facts that a plan depends on, gathered once, by cheap calls only: they are on the start
//! path of every run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use nix::unistd;

use super::doctor::Outcome;
use crate::cgroup;
use crate::confine::{landlock, lsm};
use crate::identity::{self, Caller, Unavailable, range};
use crate::sys;

/// This machine and this caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Who calls.
    pub caller: Caller,
    /// The caller's supplementary groups; one mapped id keeps them (setgroups is denied).
    pub groups: Vec<u32>,
    /// The working directory, unless it is gone.
    pub cwd: Option<PathBuf>,
    /// The caller's environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Whether standard input, output and error are terminals.
    pub terminals: [bool; 3],
    /// The newest Landlock ABI of the kernel; 0 where there is none.
    pub landlock_abi: u32,
    /// Whether tmpfs can hold the upper layer of an overlay (Linux 6.6).
    pub tmpfs_xattrs: bool,
    /// How a trial of the kernel's overlayfs went, where one was made.
    pub kernel_overlay: Outcome,
    /// Whether /dev/fuse opens, where that was tried.
    pub fuse: Outcome,
    /// Whether a new session keyring can be had.
    pub keyring: bool,
    /// Whether AppArmor is there and on.
    pub apparmor: bool,
    /// Whether SELinux is.
    pub selinux: bool,
    /// The range of ids, or why there is none; looked for only where a plan needs one.
    pub range: Option<Result<range::Facts, Unavailable>>,
    /// Where a cgroup for the box can be, where one was asked for.
    pub cgroup: cgroup::Facts,
}

impl Host {
    /// Looks. What only overlays depend on is not looked at without one.
    pub fn probe(directories: &Directories, overlays: bool) -> Host {
        Host {
            caller: directories.caller.clone(),
            groups: unistd::getgroups()
                .map(|groups| groups.into_iter().map(unistd::Gid::as_raw).collect())
                .unwrap_or_default(),
            cwd: std::env::current_dir().ok(),
            environment: std::env::vars_os().collect(),
            terminals: [
                std::io::stdin().is_terminal(),
                std::io::stdout().is_terminal(),
                std::io::stderr().is_terminal(),
            ],
            landlock_abi: landlock::kernel_abi(),
            tmpfs_xattrs: overlays && sys::fs::tmpfs_has_user_xattrs(),
            kernel_overlay: Outcome::NotTried,
            fuse: Outcome::NotTried,
            keyring: sys::process::keyring_is_reachable(),
            apparmor: lsm::has_apparmor(),
            selinux: lsm::has_selinux(),
            range: None,
            cgroup: cgroup::Facts::default(),
        }
    }
}

/// Where the caller's files are, by the XDG base directory specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Who calls.
    pub caller: Caller,
    /// `$XDG_DATA_HOME`, unless neither it nor a home is known.
    pub data: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, likewise.
    pub config: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
}

impl Directories {
    /// Finds them from the environment and /etc/passwd. A relative path is passed over, as the
    /// specification says.
    pub fn find() -> Directories {
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let uid = unistd::getuid().as_raw();
        let mut home = absolute("HOME");
        let mut name = std::env::var("USER").ok();
        if home.is_none() || name.is_none() {
            // An unreadable or empty file leaves the caller nameless, which is no obstacle.
            let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
            if let Some(entry) = identity::find_user(&passwd, |entry| entry.uid == uid) {
                home = home.or(Some(entry.home)).filter(|home| home.is_absolute());
                name = name.or(Some(entry.name));
            }
        }
        // Without doubled slashes, `.` and a slash at the end, as mount points are compared.
        let home = home.map(|home| home.components().collect::<PathBuf>());
        let name = name.filter(|name| name.parse::<crate::profile::Id>().is_ok_and(is_name));
        let below = |variable: &str, fallback: &str| {
            absolute(variable).or_else(|| home.as_deref().map(|home| home.join(fallback)))
        };
        Directories {
            data: below("XDG_DATA_HOME", ".local/share"),
            config: below("XDG_CONFIG_HOME", ".config"),
            runtime: absolute("XDG_RUNTIME_DIR"),
            caller: Caller { uid, gid: unistd::getgid().as_raw(), name, home },
        }
    }

    /// Where the store's directory is, or the error that says which variable to set.
    pub fn store(&self) -> crate::error::Result<&Path> {
        self.data.as_deref().ok_or_else(|| {
            crate::error::Error::new("image store: no place for it, as no home directory is known")
                .hint("set HOME, or XDG_DATA_HOME, to an absolute path")
        })
    }
}

fn is_name(id: crate::profile::Id) -> bool {
    matches!(id, crate::profile::Id::Name(_))
}
