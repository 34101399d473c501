//! Who the program is: the id map of the box, and the passwd and group entries that name its ids.
//!
//! An unprivileged process can map one id, its own (user_namespaces(7)). The program runs as that
//! one id, under whatever number the box calls it; a number other than 0, and without capabilities.

mod passwd;

use serde::Serialize;

pub use passwd::{GroupEntry, PasswdEntry, find_group, find_user};

use crate::error::{Error, Result};
use crate::profile::{Id, UserSpec};

/// The ids of a box. Outside are the caller's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The program's user id in the box.
    pub uid: u32,
    /// The program's group id in the box.
    pub gid: u32,
    /// The caller's user id, which the kernel sees.
    pub host_uid: u32,
    /// The caller's group id.
    pub host_gid: u32,
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

/// Who asked for which user.
pub enum Asked<'a> {
    /// The profile or the command line.
    Profile(&'a UserSpec),
    /// The image's configuration.
    Image(&'a str),
    /// Nobody.
    Nobody,
}

/// Chooses the program's ids. `in_image` says whether the root is an image's.
pub fn resolve(
    asked: &Asked<'_>,
    caller: &Caller,
    names: &Names,
    in_image: bool,
) -> Result<Identity> {
    match asked {
        Asked::Profile(spec) => {
            let (uid, entry) = user(&spec.user, names)?;
            if uid == 0 {
                return Err(Error::new(format!(
                    "user {}: the program runs as a non-root id",
                    display(&spec.user)
                ))
                .hint("leave --user out: the program runs as your own id, which owns the box's files")
                .hint("several ids and root in the box need a subordinate range (ids = \"many\"), which this version does not have"));
            }
            let gid = match &spec.group {
                Some(group_id) => group(group_id, names)?,
                None => entry.as_ref().map_or(caller.gid, |entry| entry.gid),
            };
            nonroot_group(gid)?;
            Ok(finish(uid, gid, entry, caller, names, in_image, "asked for".to_owned()))
        }
        Asked::Image(text) if !text.is_empty() => {
            let spec: UserSpec = text
                .parse()
                .map_err(|reason: String| Error::new(format!("image user: {reason}")))?;
            let (uid, entry) =
                user(&spec.user, names).map_err(|error| error.within("image user"))?;
            if uid == 0 {
                let reason = "the image asks for root, the program gets your own id".to_owned();
                return Ok(own(caller, names, in_image, reason));
            }
            let gid = match &spec.group {
                Some(group_id) => group(group_id, names).map_err(|e| e.within("image user"))?,
                None => entry.as_ref().map_or(caller.gid, |entry| entry.gid),
            };
            // An image's root group is as little a privilege here as any other: one id is mapped.
            let gid = if gid == 0 { caller.gid } else { gid };
            Ok(finish(uid, gid, entry, caller, names, in_image, "the image's user".to_owned()))
        }
        Asked::Image(_) => {
            let reason = "the image names no user, the program gets your own id".to_owned();
            Ok(own(caller, names, in_image, reason))
        }
        Asked::Nobody => Ok(own(caller, names, in_image, "your own id".to_owned())),
    }
}

fn nonroot_group(gid: u32) -> Result<()> {
    if gid == 0 {
        return Err(Error::new("group 0: the program runs with a non-root group"));
    }
    Ok(())
}

fn own(caller: &Caller, names: &Names, in_image: bool, reason: String) -> Identity {
    let entry = if in_image { find_user(&names.passwd, |e| e.uid == caller.uid) } else { None };
    finish(caller.uid, caller.gid, entry, caller, names, in_image, reason)
}

fn finish(
    uid: u32,
    gid: u32,
    entry: Option<PasswdEntry>,
    caller: &Caller,
    names: &Names,
    in_image: bool,
    reason: String,
) -> Identity {
    // The host's passwd is not shown in a box without an image: it gets one with its own ids only.
    let known = Known {
        user: in_image && entry.is_some(),
        group: in_image && find_group(&names.group, |e| e.gid == gid).is_some(),
    };
    let fallback_name = caller.name.clone().unwrap_or_else(|| "user".to_owned());
    let name = entry.as_ref().map_or(fallback_name, |entry| entry.name.clone());
    let same_user = uid == caller.uid;
    let home = match (&entry, &caller.home) {
        (Some(entry), _) if in_image && is_plain(&entry.home) => entry.home.components().collect(),
        (_, Some(home)) if !in_image && same_user && is_a_home(home) => home.clone(),
        _ => std::path::Path::new("/home").join(&name),
    };
    let shell = entry
        .map(|entry| entry.shell)
        .filter(|shell| shell.starts_with('/'))
        .unwrap_or_else(|| "/bin/sh".to_owned());
    Identity {
        uid,
        gid,
        host_uid: caller.uid,
        host_gid: caller.gid,
        name,
        home,
        shell,
        known,
        reason,
    }
}

/// Whether a path is absolute and means what it says.
fn is_plain(path: &std::path::Path) -> bool {
    let mut parts = path.components();
    path.is_absolute() && !parts.any(|part| part == std::path::Component::ParentDir)
}

/// Whether a private directory at this path would hide nothing that a box needs: $HOME may say
/// anything.
fn is_a_home(path: &std::path::Path) -> bool {
    use std::path::Component;
    let clean =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let mut names = path.components().filter(|part| matches!(part, Component::Normal(_)));
    let top = names.next().and_then(|name| name.as_os_str().to_str());
    // Of what the system is made of and what every box makes, only /var and /tmp can hold a home.
    let reserved =
        ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "proc", "dev", "run"];
    let deep = names.next().is_some();
    match top {
        Some("var" | "tmp" | "home") => clean && deep,
        Some(top) => clean && !reserved.contains(&top),
        None => false,
    }
}

fn user(id: &Id, names: &Names) -> Result<(u32, Option<PasswdEntry>)> {
    match id {
        Id::Number(uid) => Ok((*uid, find_user(&names.passwd, |entry| entry.uid == *uid))),
        Id::Name(name) => match find_user(&names.passwd, |entry| entry.name == *name) {
            Some(entry) => Ok((entry.uid, Some(entry))),
            None => Err(Error::new(format!(
                "user {name}: no such user in the /etc/passwd of the root file system"
            ))),
        },
    }
}

fn group(id: &Id, names: &Names) -> Result<u32> {
    match id {
        Id::Number(gid) => Ok(*gid),
        Id::Name(name) => find_group(&names.group, |entry| entry.name == *name)
            .map(|entry| entry.gid)
            .ok_or_else(|| {
                Error::new(format!(
                    "group {name}: no such group in the /etc/group of the root file system"
                ))
            }),
    }
}

fn display(id: &Id) -> String {
    match id {
        Id::Number(number) => number.to_string(),
        Id::Name(name) => name.clone(),
    }
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

    /// The one line for /proc/PID/uid_map.
    pub fn uid_map(&self) -> String {
        format!("{} {} 1\n", self.uid, self.host_uid)
    }

    /// The one line for /proc/PID/gid_map.
    pub fn gid_map(&self) -> String {
        format!("{} {} 1\n", self.gid, self.host_gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\ntoor:x:0:0::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\npostgres:x:104:\nadm:x:4:syslog\n";

    fn caller() -> Caller {
        Caller { uid: 1000, gid: 1000, name: Some("ann".into()), home: Some("/home/ann".into()) }
    }

    fn names() -> Names {
        Names { passwd: PASSWD.to_vec(), group: GROUP.to_vec() }
    }

    fn asked(text: &str) -> Result<Identity> {
        let spec: UserSpec = text.parse().unwrap();
        resolve(&Asked::Profile(&spec), &caller(), &names(), true)
    }

    #[test]
    fn names_come_from_the_box() {
        let identity = asked("postgres").unwrap();
        assert_eq!((identity.uid, identity.gid), (101, 104));
        assert_eq!(identity.home, std::path::Path::new("/var/lib/postgresql"));
        assert!(identity.known.user && identity.known.group);
        assert_eq!(asked("postgres:adm").unwrap().gid, 4);
        assert_eq!(asked("777").unwrap().uid, 777);
        assert!(asked("nobody-here").unwrap_err().to_string().contains("no such user"));
    }

    #[test]
    fn root_is_refused_when_asked_and_replaced_when_the_images() {
        assert!(asked("0").is_err());
        assert!(asked("root").is_err());
        assert!(asked("toor").is_err());
        assert!(asked("1000:0").is_err());
        for user in ["", "root", "0", "0:0", "toor"] {
            let identity = resolve(&Asked::Image(user), &caller(), &names(), true).unwrap();
            assert_eq!((identity.uid, identity.gid), (1000, 1000), "{user:?}");
        }
    }

    #[test]
    fn a_home_cannot_forge_fields() {
        let mut identity = asked("777").unwrap();
        identity.home = "/home/x:0:0".into();
        assert_eq!(identity.passwd_line(), b"ann:x:777:1000::/:/bin/sh\n");
    }

    #[test]
    fn without_an_image_the_home_is_at_its_own_path() {
        let identity = resolve(&Asked::Nobody, &caller(), &names(), false).unwrap();
        assert_eq!(identity.home, std::path::Path::new("/home/ann"));
        for odd in ["/", "/usr", "/proc/self", "/etc/x", "/tmp", "/home", "/home/../usr"] {
            let caller = Caller { home: Some(odd.into()), ..caller() };
            let identity = resolve(&Asked::Nobody, &caller, &Names::default(), false).unwrap();
            assert_eq!(identity.home, std::path::Path::new("/home/ann"), "{odd}");
        }
        let homeless = Caller { name: None, home: None, ..caller() };
        let identity = resolve(&Asked::Nobody, &homeless, &Names::default(), false).unwrap();
        assert_eq!((identity.name.as_str(), identity.home.to_str()), ("user", Some("/home/user")));
    }
}
