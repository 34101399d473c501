//! Choosing the program's ids.

use super::map::{self, Wanted};
use super::range::{Facts, Unavailable, on_host};
use super::{Caller, IdMap, Identity, Known, Names, PasswdEntry, find_group, find_user, groups_of};
use crate::error::{Error, Result};
use crate::profile::{self, Id, Ids, UserSpec};

/// More supplementary groups than this are not taken from an image.
const MOST_GROUPS: usize = 64;

/// Who asked for which user.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// The profile or the command line.
    Profile(&'a UserSpec),
    /// The image's configuration.
    Image(&'a str),
    /// Nobody.
    Nobody,
}

/// What the choice is made from.
pub struct Question<'a> {
    /// Who asked for whom.
    pub asked: Asked<'a>,
    /// What the profile says of ids.
    pub wanted: &'a profile::Identity,
    /// Who calls.
    pub caller: &'a Caller,
    /// What names the ids.
    pub names: &'a Names,
    /// Whether the root is an image's.
    pub in_image: bool,
    /// The range, or why there is none, where [`needs_many`] said so.
    pub range: Option<&'a std::result::Result<Facts, Unavailable>>,
    /// Whether one id will do where there is no range.
    pub may_be_single: bool,
}

/// Why the profile needs many ids, if it does. The user's names are looked up where it asks for
/// somebody.
pub fn needs_many(wanted: &profile::Identity, names: &Names) -> Option<&'static str> {
    let has_map = !wanted.uid_map.is_empty() || !wanted.gid_map.is_empty();
    match wanted.ids.unwrap_or(Ids::Auto) {
        Ids::Single => None,
        Ids::Many | Ids::KeepId { .. } => Some("asked for"),
        Ids::Auto if has_map => Some("a map was asked for"),
        Ids::Auto if wanted.fake_root == Some(true) => None,
        Ids::Auto => {
            let spec = wanted.user.as_ref()?;
            // A user who is not there is an error of its own, later.
            let is_root = user(&spec.user, names).is_ok_and(|(uid, _)| uid == 0);
            is_root.then_some("the program is to be root")
        }
    }
}

/// Chooses. The text is why one id has to do where many were asked for.
pub fn resolve(question: &Question<'_>) -> Result<(Identity, Option<String>)> {
    let wanted = question.wanted;
    let has_map = !wanted.uid_map.is_empty() || !wanted.gid_map.is_empty();
    if wanted.ids == Some(Ids::Single) && has_map {
        return Err(Error::new("--uidmap and --gidmap map a range; ids are to be single"));
    }
    let Some(why) = needs_many(wanted, question.names) else {
        let fake_root = wanted.fake_root == Some(true);
        let why = if fake_root {
            "one, your own; changes of owner and id succeed without effect"
        } else {
            "one, your own, which is enough for this plan"
        };
        return single(question, fake_root, why).map(|identity| (identity, None));
    };
    if wanted.fake_root == Some(true) {
        return Err(Error::new("--fake-root is for a box with one id; this one has many")
            .hint("leave one of the two out"));
    }
    match question.range {
        Some(Ok(range)) => many(question, range, why).map(|identity| (identity, None)),
        Some(Err(unavailable)) if question.may_be_single => {
            let identity = single(question, true, "one, your own: there is no range of ids here")?;
            let said: Vec<String> = unavailable
                .reasons
                .iter()
                .map(|(backend, reason)| format!("{backend}: {reason}"))
                .collect();
            Ok((identity, Some(format!("no range of ids ({})", said.join("; ")))))
        }
        Some(Err(unavailable)) => Err(unavailable.clone().into_error(why)),
        None => Err(Unavailable::default().into_error(why)),
    }
}

fn single(question: &Question<'_>, fake_root: bool, why: &str) -> Result<Identity> {
    let Question { asked, caller, names, in_image, .. } = question;
    let done = |uid, gid, entry, reason: &str| {
        let own = (caller.uid, caller.gid);
        let maker = Finish { uid, gid, entry, host: own, ids: IdMap::Single, fake_root, why };
        Ok(maker.finish(question, reason))
    };
    let own = |reason: &str| {
        if fake_root {
            let entry = find_user(&names.passwd, |entry| entry.uid == 0).filter(|_| *in_image);
            return done(0, 0, entry, "root by name, with your own id");
        }
        if caller.uid == 0 {
            return Err(Error::new("user 0: the program runs as a non-root id")
                .hint("you are root of a user namespace: --user names another, --userns=many makes root one of its ids"));
        }
        let entry =
            if *in_image { find_user(&names.passwd, |e| e.uid == caller.uid) } else { None };
        done(caller.uid, caller.gid, entry, reason)
    };
    match asked {
        Asked::Profile(spec) => {
            let (uid, entry) = user(&spec.user, names)?;
            if uid == 0 && !fake_root {
                return Err(Error::new(format!(
                    "user {}: the program runs as a non-root id where there is one id",
                    display(&spec.user)
                ))
                .hint(
                    "leave --user out: the program runs as your own id, which owns the box's files",
                )
                .hint("--userns=many makes it root of a range of ids, --fake-root one by name"));
            }
            let gid = match &spec.group {
                Some(group_id) => group(group_id, names)?,
                None => entry.as_ref().map_or(caller.gid, |entry| entry.gid),
            };
            if gid == 0 && !fake_root {
                return Err(Error::new(
                    "group 0: the program runs with a non-root group where there is one id",
                ));
            }
            done(uid, gid, entry, "asked for")
        }
        Asked::Image(text) if !text.is_empty() => {
            let (uid, entry, spec) = images_user(text, names)?;
            if uid == 0 {
                return own("the image asks for root, the program gets your own id");
            }
            let gid = match &spec.group {
                Some(group_id) => group(group_id, names).map_err(|e| e.within("image user"))?,
                None => entry.as_ref().map_or(caller.gid, |entry| entry.gid),
            };
            // An image's root group is as little a privilege here as any other: one id is mapped.
            let gid = if gid == 0 { caller.gid } else { gid };
            done(uid, gid, entry, "the image's user")
        }
        Asked::Image(_) => own("the image names no user, the program gets your own id"),
        Asked::Nobody => own("your own id"),
    }
}

fn many(question: &Question<'_>, range: &Facts, why: &str) -> Result<Identity> {
    let Question { asked, wanted, caller, names, in_image, .. } = question;
    let keep = match wanted.ids {
        Some(Ids::KeepId { uid, gid }) => {
            Some((uid.unwrap_or(caller.uid), gid.unwrap_or(caller.gid)))
        }
        _ => None,
    };
    let said = (!wanted.uid_map.is_empty(), !wanted.gid_map.is_empty());
    if keep.is_some() && said != (false, false) {
        return Err(Error::new("keep-id and a map of one's own exclude each other"));
    }
    if !range.backend.is_holdable() && (keep.is_some() || said != (false, false)) {
        return Err(Error::new(format!(
            "{} lends its ids as they are: neither keep-id nor a map of one's own can be had of it",
            range.backend
        ))
        .hint("use a range of your own: newuidmap, in casemate-run(1) under \"Many ids\""));
    }
    let user_lines = if said.0 { &wanted.uid_map } else { &wanted.gid_map };
    let group_lines = if said.1 { &wanted.gid_map } else { &wanted.uid_map };
    let kind = |keep: Option<u32>, lines| match (keep, said) {
        (Some(id), _) => Wanted::Keep(id),
        (None, (false, false)) => Wanted::Many,
        (None, _) => Wanted::Lines(lines),
    };
    let failed = |reason: String| {
        Error::new(format!("map ids: {reason}"))
            .within(format_args!("range of ids from {}", range.backend))
    };
    let users = kind(keep.map(|keep| keep.0), user_lines);
    let uids = map::compose(users, &range.uids, caller.uid, "user").map_err(failed)?;
    let groups = kind(keep.map(|keep| keep.1), group_lines);
    let gids = map::compose(groups, &range.gids, caller.gid, "group").map_err(failed)?;

    let (uid, gid, entry, reason) = match (asked, keep) {
        (Asked::Profile(spec), _) => {
            let (uid, entry) = user(&spec.user, names)?;
            let gid = spec.group.as_ref().map(|id| group(id, names)).transpose()?;
            (uid, gid, entry, "asked for")
        }
        (Asked::Image(text), None) if !text.is_empty() => {
            let (uid, entry, spec) = images_user(text, names)?;
            let gid = spec.group.as_ref().map(|id| group(id, names)).transpose();
            (uid, gid.map_err(|e| e.within("image user"))?, entry, "the image's user")
        }
        (_, Some((uid, gid))) => {
            let entry = find_user(&names.passwd, |entry| entry.uid == uid).filter(|_| *in_image);
            (uid, Some(gid), entry, "your own id, kept")
        }
        (Asked::Image(_), None) => {
            let entry = find_user(&names.passwd, |entry| entry.uid == 0);
            (0, Some(0), entry, "the image names no user, which is root")
        }
        (Asked::Nobody, None) => {
            (caller.uid, Some(caller.gid), None, "your number, as a subordinate id")
        }
    };
    // As in every container: a number that no account has is in root's group.
    let gid = gid.unwrap_or_else(|| entry.as_ref().map_or(0, |entry| entry.gid));
    let unmapped = |what: &str, id: u32| {
        Error::new(format!("{what} {id}: the box has no such id"))
            .hint("its ids are 0 to 65535 unless --uidmap and --gidmap say others")
    };
    let host_uid = on_host(uid, &uids, &range.uids).ok_or_else(|| unmapped("user", uid))?;
    let host_gid = on_host(gid, &gids, &range.gids).ok_or_else(|| unmapped("group", gid))?;
    let groups = match &entry {
        Some(entry) if *in_image => groups_of(&names.group, &entry.name, MOST_GROUPS),
        _ => Vec::new(),
    };
    let groups = groups
        .into_iter()
        .filter(|group| *group != gid && map::outside(&gids, *group).is_some())
        .collect();
    let why = format!(
        "{} from {}: {why}",
        uids.iter().map(|extent| u64::from(extent.count)).sum::<u64>(),
        range.backend
    );
    let ids = IdMap::Many { backend: range.backend, uids, gids, groups };
    let host = (host_uid, host_gid);
    let maker = Finish { uid, gid, entry, host, ids, fake_root: false, why: &why };
    Ok(maker.finish(question, reason))
}

fn images_user(text: &str, names: &Names) -> Result<(u32, Option<PasswdEntry>, UserSpec)> {
    let spec: UserSpec =
        text.parse().map_err(|reason: String| Error::new(format!("image user: {reason}")))?;
    let (uid, entry) = user(&spec.user, names).map_err(|error| error.within("image user"))?;
    Ok((uid, entry, spec))
}

/// What is known of the program's ids before the names are.
struct Finish<'a> {
    uid: u32,
    gid: u32,
    entry: Option<PasswdEntry>,
    host: (u32, u32),
    ids: IdMap,
    fake_root: bool,
    why: &'a str,
}

impl Finish<'_> {
    fn finish(self, question: &Question<'_>, reason: &str) -> Identity {
        let Finish { uid, gid, entry, host, ids, fake_root, why } = self;
        let Question { caller, names, in_image, .. } = question;
        // The host's passwd is not shown in a box without an image: it gets one with its own ids only.
        let known = Known {
            user: *in_image && entry.is_some(),
            group: *in_image && find_group(&names.group, |e| e.gid == gid).is_some(),
        };
        let fallback_name = match uid {
            0 => "root".to_owned(),
            _ => caller.name.clone().unwrap_or_else(|| "user".to_owned()),
        };
        let name = entry.as_ref().map_or(fallback_name, |entry| entry.name.clone());
        let same_user = uid == caller.uid;
        let home = match (&entry, &caller.home) {
            (Some(entry), _) if *in_image && is_plain(&entry.home) => {
                entry.home.components().collect()
            }
            (_, Some(home)) if !in_image && same_user && is_a_home(home) => home.clone(),
            _ if uid == 0 => "/root".into(),
            _ => std::path::Path::new("/home").join(&name),
        };
        let shell = entry
            .map(|entry| entry.shell)
            .filter(|shell| shell.starts_with('/'))
            .unwrap_or_else(|| "/bin/sh".to_owned());
        Identity {
            uid,
            gid,
            host_uid: host.0,
            host_gid: host.1,
            ids,
            ids_why: why.to_owned(),
            fake_root,
            name,
            home,
            shell,
            known,
            reason: reason.to_owned(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Backend, Extent};

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\ntoor:x:0:0::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\npostgres:x:104:\nadm:x:4:syslog,postgres\n";

    fn caller() -> Caller {
        Caller { uid: 1000, gid: 1000, name: Some("ann".into()), home: Some("/home/ann".into()) }
    }

    fn names() -> Names {
        Names { passwd: PASSWD.to_vec(), group: GROUP.to_vec() }
    }

    fn ask(asked: Asked<'_>, caller: &Caller, in_image: bool) -> Result<Identity> {
        with(asked, &profile::Identity::default(), caller, in_image, None).map(|found| found.0)
    }

    fn with(
        asked: Asked<'_>,
        wanted: &profile::Identity,
        caller: &Caller,
        in_image: bool,
        range: Option<&std::result::Result<Facts, Unavailable>>,
    ) -> Result<(Identity, Option<String>)> {
        let mut wanted = wanted.clone();
        if let Asked::Profile(spec) = asked {
            wanted.user = Some(spec.clone());
        }
        let names = names();
        let may_be_single = false;
        let wanted = &wanted;
        resolve(&Question { asked, wanted, caller, names: &names, in_image, range, may_be_single })
    }

    fn asked(text: &str) -> Result<Identity> {
        let spec: UserSpec = text.parse().unwrap();
        ask(Asked::Profile(&spec), &caller(), true)
    }

    fn range() -> Facts {
        let extents = vec![
            Extent { inside: 0, outside: 100_000, count: 65536 },
            Extent { inside: 65536, outside: 1000, count: 1 },
        ];
        let (uids, gids) = (extents.clone(), extents);
        Facts { backend: Backend::Newuidmap, uids, gids }
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
            let identity = ask(Asked::Image(user), &caller(), true).unwrap();
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
        let identity = ask(Asked::Nobody, &caller(), false).unwrap();
        assert_eq!(identity.home, std::path::Path::new("/home/ann"));
        for odd in ["/", "/usr", "/proc/self", "/etc/x", "/tmp", "/home", "/home/../usr"] {
            let caller = Caller { home: Some(odd.into()), ..caller() };
            let identity = ask(Asked::Nobody, &caller, false).unwrap();
            assert_eq!(identity.home, std::path::Path::new("/home/ann"), "{odd}");
        }
        let homeless = Caller { name: None, home: None, ..caller() };
        let identity = ask(Asked::Nobody, &homeless, false).unwrap();
        assert_eq!((identity.name.as_str(), identity.home.to_str()), ("user", Some("/home/user")));
    }

    #[test]
    fn with_many_ids_the_program_is_whom_the_image_says() {
        let found = Ok(range());
        let wanted = profile::Identity { ids: Some(Ids::Many), ..Default::default() };
        let ask = |asked| with(asked, &wanted, &caller(), true, Some(&found)).unwrap().0;
        let root = ask(Asked::Image(""));
        assert_eq!((root.uid, root.host_uid), (0, 100_000));
        assert!(root.is_root() && root.home == std::path::Path::new("/root"));
        let postgres = ask(Asked::Image("postgres"));
        assert_eq!((postgres.uid, postgres.gid), (101, 104));
        assert_eq!((postgres.host_uid, postgres.host_gid), (100_101, 100_104));
        assert!(!postgres.is_root());
        assert_eq!(postgres.uid_map(), "0 0 65536\n");
        let IdMap::Many { groups, .. } = postgres.ids else { panic!() };
        assert_eq!(groups, [4]);
    }

    #[test]
    fn an_own_id_that_is_kept_is_the_programs() {
        let found = Ok(range());
        let ids = Some(Ids::KeepId { uid: Some(7), gid: None });
        let wanted = profile::Identity { ids, ..Default::default() };
        let kept = with(Asked::Image(""), &wanted, &caller(), true, Some(&found)).unwrap().0;
        assert_eq!((kept.uid, kept.gid), (7, 1000));
        assert_eq!((kept.host_uid, kept.host_gid), (1000, 1000));
        assert_eq!(kept.uid_map(), "0 0 7\n7 65536 1\n8 7 65528\n");
    }

    #[test]
    fn root_without_a_range_is_an_error_that_says_what_to_do() {
        let spec: UserSpec = "root".parse().unwrap();
        let none = Err(Unavailable::default());
        let wanted = profile::Identity::default();
        let failed = with(Asked::Profile(&spec), &wanted, &caller(), true, Some(&none));
        let error = failed.unwrap_err();
        assert!(error.to_string().contains("65536 ids"), "{error}");
        assert_eq!(error.hints().len(), 3);
        let wanted = profile::Identity { fake_root: Some(true), ..Default::default() };
        let faked = with(Asked::Image(""), &wanted, &caller(), true, None).unwrap().0;
        assert_eq!((faked.uid, faked.gid, faked.uid_map().as_str()), (0, 0, "0 1000 1\n"));
        assert!(!faked.is_root());
    }
}
