//! The calls of the default policy, by purpose. Each name stands in one group only.

mod allowed;
mod refused;

pub(super) use allowed::ALLOWED;
pub(super) use refused::{HIDDEN, REFUSED};

/// Calls with the same verdict for the same reason.
pub(super) struct Group {
    /// What profiles call it; several have one name.
    pub(super) name: &'static str,
    /// Why, in the words that `explain` uses.
    pub(super) why: &'static str,
    /// Sorted.
    pub(super) names: &'static [&'static str],
}

/// Why the default policy allows or refuses a call whatever its arguments.
pub fn reason(name: &str) -> Option<&'static str> {
    let mut groups = ALLOWED.iter().chain(REFUSED).chain(HIDDEN);
    groups.find(|group| group.names.contains(&name)).map(|group| group.why)
}

/// The calls that have a rule of their own, which looks at arguments, and their groups.
const CONDITIONAL: [(&str, &str); 5] = [
    ("clone", "@process"),
    ("ioctl", "@io"),
    ("personality", "@process"),
    ("socket", "@network"),
    ("socketpair", "@network"),
];

/// The names of the groups, sorted.
pub fn groups() -> std::collections::BTreeSet<&'static str> {
    ALLOWED.iter().chain(REFUSED).chain(HIDDEN).map(|group| group.name).collect()
}

/// The calls of a group, sorted; none where there is no such group.
pub fn group(name: &str) -> Vec<&'static str> {
    let all = ALLOWED.iter().chain(REFUSED).chain(HIDDEN).filter(|group| group.name == name);
    let mut calls: Vec<&str> = all.flat_map(|group| group.names.iter().copied()).collect();
    calls.extend(CONDITIONAL.iter().filter(|(_, of)| *of == name).map(|(call, _)| *call));
    calls.sort_unstable();
    calls
}

/// What `nesting` gives back.
pub(super) const NESTING: &[&str] = &[
    "chroot",
    "clone",
    "clone3",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "listns",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "pivot_root",
    "setdomainname",
    "sethostname",
    "setns",
    "umount",
    "umount2",
    "unshare",
];

/// What `debug` gives back.
pub(super) const DEBUG: &[&str] =
    &["kcmp", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::seccomp::names;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_exists_and_stands_once() {
        let mut seen = BTreeSet::new();
        for group in ALLOWED.iter().chain(REFUSED).chain(HIDDEN) {
            assert!(!group.why.is_empty() && group.name.starts_with('@'));
            for name in group.names {
                names::check(name).unwrap();
                assert!(seen.insert(*name), "{name} twice");
            }
        }
        for (name, _) in CONDITIONAL {
            assert!(!seen.contains(name), "{name} has a rule of its own");
        }
        for name in NESTING.iter().chain(DEBUG) {
            assert!(seen.contains(name) || *name == "clone", "{name}");
        }
    }
}
