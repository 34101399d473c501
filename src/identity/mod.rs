//! Who the program is: the id map of the box, and the passwd and group entries that name its ids.
//!
//! An unprivileged process can map one id, its own (user_namespaces(7)): with that alone the program
//! runs as the one id, under whatever number the box calls it, and without capabilities. A range of
//! subordinate ids comes from somebody who may give it ([`range`]); then the program runs as one of
//! these, which is nobody on the host, and may be the box's root.

pub mod map;
mod passwd;
pub mod range;
mod resolve;
pub mod subid;

use serde::Serialize;

pub use map::Extent;
pub use passwd::{GroupEntry, PasswdEntry, find_group, find_user, groups_of};
pub use range::{Backend, Unavailable};
pub use resolve::{Asked, Question, needs_many, resolve};

/// The ids of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The program's user id in the box.
    pub uid: u32,
    /// The program's group id in the box.
    pub gid: u32,
    /// Its user id on the host: the caller's own, or a subordinate one.
    pub host_uid: u32,
    /// Its group id on the host.
    pub host_gid: u32,
    /// Which ids there are besides.
    pub ids: IdMap,
    /// Why these.
    pub ids_why: String,
    /// Whether changes of owner and id succeed without effect.
    pub fake_root: bool,
    /// The login name in the box.
    pub name: String,
    /// The home directory in the box.
    pub home: std::path::PathBuf,
    /// The login shell in the box, for /etc/passwd and $SHELL.
    pub shell: String,
    /// Whether the box's own /etc/passwd and /etc/group name these ids already.
    pub known: Known,
    /// Why it is this id.
    pub reason: String,
}

/// The map of a box's ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum IdMap {
    /// The program's ids are the caller's own, and there are no others.
    Single,
    /// A range.
    Many {
        /// Who gave it.
        backend: Backend,
        /// User ids; outside are those of the range's namespace.
        uids: Vec<Extent>,
        /// Group ids.
        gids: Vec<Extent>,
        /// The program's supplementary groups, in the box. The caller's are gone.
        groups: Vec<u32>,
    },
}

/// Which of the ids the root file system names by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Known {
    /// The user is in /etc/passwd.
    pub user: bool,
    /// The group is in /etc/group.
    pub group: bool,
}

/// The caller, as the host knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Login name, if any is known.
    pub name: Option<String>,
    /// Home directory, if any is known.
    pub home: Option<std::path::PathBuf>,
}

/// What names the ids in the box: the root file system's own files, as far as it has them.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The text of /etc/passwd.
    pub passwd: Vec<u8>,
    /// The text of /etc/group.
    pub group: Vec<u8>,
}

impl Identity {
    /// The line of this user for /etc/passwd (passwd(5)).
    pub fn passwd_line(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        let mut line = format!("{}:x:{}:{}::", self.name, self.uid, self.gid).into_bytes();
        // A colon or a line break in the path would forge fields; such a home is written as /.
        let home = self.home.as_os_str().as_bytes();
        let plain = !home.iter().any(|byte| matches!(byte, b':' | b'\n'));
        line.extend_from_slice(if plain { home } else { b"/" });
        line.extend_from_slice(format!(":{}\n", self.shell).as_bytes());
        line
    }

    /// The line of this group for /etc/group (group(5)).
    pub fn group_line(&self) -> Vec<u8> {
        format!("{}:x:{}:\n", self.name, self.gid).into_bytes()
    }

    /// Whether the box has a range of ids.
    pub fn has_many(&self) -> bool {
        matches!(self.ids, IdMap::Many { .. })
    }

    /// Whether the program is the box's root, and not by name only.
    pub fn is_root(&self) -> bool {
        self.uid == 0 && self.has_many()
    }

    /// The text for /proc/PID/uid_map.
    pub fn uid_map(&self) -> String {
        match &self.ids {
            IdMap::Single => format!("{} {} 1\n", self.uid, self.host_uid),
            IdMap::Many { uids, .. } => map::text(uids),
        }
    }

    /// The text for /proc/PID/gid_map.
    pub fn gid_map(&self) -> String {
        match &self.ids {
            IdMap::Single => format!("{} {} 1\n", self.gid, self.host_gid),
            IdMap::Many { gids, .. } => map::text(gids),
        }
    }
}
