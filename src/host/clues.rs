//! What a system says of itself. Never a reason to call something broken: it names the cause of
//! what was tried and failed, and what is worth a note.

use super::look::Look;

/// What casemate runs in, other than a machine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// A box of casemate's.
    Casemate,
    /// Flatpak.
    Flatpak,
    /// A snap.
    Snap,
    /// firejail.
    Firejail,
    /// gVisor's own kernel.
    Gvisor,
    /// Windows, with no Linux at all.
    Wsl1,
    /// Windows, with a Linux kernel.
    Wsl2,
    /// ChromeOS.
    Crostini,
    /// podman, rootless or not.
    Podman,
    /// A Kubernetes pod.
    Kubernetes,
    /// docker.
    Docker,
}

/// What the system says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clues {
    /// kernel.apparmor_restrict_unprivileged_userns
    pub apparmor_restricts: bool,
    /// kernel.apparmor_restrict_unprivileged_unconfined
    pub apparmor_restricts_unconfined: bool,
    /// The AppArmor profile that confines this process.
    pub apparmor_profile: Option<String>,
    /// kernel.unprivileged_userns_clone is there and 0.
    pub userns_clone_off: bool,
    /// user.max_user_namespaces
    pub max_user_namespaces: Option<u64>,
    /// SELinux is enforcing.
    pub selinux_enforcing: bool,
    /// The kernel has user namespaces at all.
    pub has_user_namespaces: bool,
    /// This process is in a user namespace that is not the machine's.
    pub in_user_namespace: bool,
    /// It is in one that has no ids at all.
    pub unmapped: bool,
    /// This process runs under a seccomp filter.
    pub filtered: bool,
    /// The root is not that of PID 1, as far as that can be seen.
    pub chrooted: bool,
    /// Something is mounted below /proc, or /proc shows processes only.
    pub proc_masked: bool,
    /// tmpfs keeps `user.*` attributes.
    pub tmpfs_xattrs: bool,
    /// The kernel has overlayfs, or can load it.
    pub has_overlay: bool,
    /// The type of the file system that the store is, or would be, on.
    pub store_type: Option<String>,
    /// What there is around.
    pub around: Option<Around>,
    /// Whether systemd is the machine's init.
    pub has_systemd: bool,
    /// The kernel's release.
    pub release: String,
    /// dev.tty.legacy_tiocsti is 1.
    pub tiocsti: bool,
    /// kernel.yama.ptrace_scope
    pub ptrace_scope: Option<u64>,
    /// The groups of this process that are as good as root, or open other people's files.
    pub groups: Vec<String>,
}

const RESTRICTS: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// Groups that are as good as root, or open other people's files: with one mapped id a program
/// keeps them (setgroups(2) is denied).
const DANGEROUS: [&str; 12] = [
    "adm",
    "disk",
    "docker",
    "incus-admin",
    "kmem",
    "kvm",
    "libvirt",
    "lxd",
    "shadow",
    "sudo",
    "video",
    "wheel",
];

impl Clues {
    /// Looks around. `store` is where the store is, without symbolic links.
    pub fn gather(look: &impl Look, store: Option<&str>, tmpfs_xattrs: bool) -> Clues {
        let number = |path: &str| look.read(path).and_then(|text| text.trim().parse::<u64>().ok());
        let status = look.read("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).unwrap_or_default()
        };
        let mounts = look.read("/proc/self/mountinfo").unwrap_or_default();
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let [uid_map, gid_map] =
            ["uid_map", "gid_map"].map(|map| look.read(&format!("/proc/self/{map}")));
        let is_whole = |map: &String| map.split_whitespace().eq(["0", "0", "4294967295"]);
        let is_empty = |map: &Option<String>| map.as_ref().is_some_and(|map| map.trim().is_empty());
        let subset = |mount: &Mount<'_>| mount.at == "/proc" && has_option(mount, "subset=pid");
        let masks = |mount: &Mount<'_>| {
            mount.at.starts_with("/proc/") && mount.kind != "binfmt_misc" && mount.kind != "autofs"
        };
        Clues {
            // Only root may read it on some systems; then that it is there is enough.
            apparmor_restricts: look.exists(RESTRICTS) && number(RESTRICTS) != Some(0),
            apparmor_restricts_unconfined: number(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_unconfined",
            ) == Some(1),
            apparmor_profile: apparmor_profile(look),
            userns_clone_off: number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            selinux_enforcing: number("/sys/fs/selinux/enforce") == Some(1),
            has_user_namespaces: look.exists("/proc/self/ns/user"),
            in_user_namespace: uid_map.as_ref().is_some_and(|map| !is_whole(map)),
            unmapped: is_empty(&uid_map) || is_empty(&gid_map),
            filtered: field("Seccomp") == "2",
            chrooted: !mounts.is_empty() && !mounts.iter().any(|mount| mount.at == "/"),
            proc_masked: mounts.iter().any(|mount| masks(mount) || subset(mount)),
            tmpfs_xattrs,
            has_overlay: look
                .read("/proc/filesystems")
                .is_some_and(|text| text.lines().any(|line| line.ends_with("\toverlay"))),
            store_type: store.and_then(|path| type_at(&mounts, path)),
            around: around(look, field("Seccomp") == "2"),
            has_systemd: look.exists("/run/systemd/system"),
            release: look.read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            tiocsti: number("/proc/sys/dev/tty/legacy_tiocsti") == Some(1),
            ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
            groups: groups(field("Groups"), &look.read("/etc/group").unwrap_or_default()),
        }
    }
}

/// A line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let kind = after.next()?;
        Some(Mount { at: before.split(' ').nth(4)?, kind, options: after.nth(1)? })
    }
}

fn has_option(mount: &Mount<'_>, option: &str) -> bool {
    mount.options.split(',').any(|one| one == option)
}

/// The type of the file system at a path: that of the last mount whose point is the nearest above.
fn type_at(mounts: &[Mount<'_>], path: &str) -> Option<String> {
    let above =
        |mount: &&Mount<'_>| std::path::Path::new(path).starts_with(mount.at.replace("\\040", " "));
    let nearest = mounts.iter().filter(above).max_by_key(|mount| mount.at.len())?;
    Some(nearest.kind.to_owned())
}

/// A label such as `docker-default (enforce)`. One that is none but in name confines nothing; one
/// that only complains can refuse files that it has no name for (in an overlay's layers).
fn apparmor_profile(look: &impl Look) -> Option<String> {
    let enabled = look.read("/sys/module/apparmor/parameters/enabled")?;
    if !enabled.starts_with('Y') {
        return None;
    }
    let label = look
        .read("/proc/self/attr/apparmor/current")
        .or_else(|| look.read("/proc/self/attr/current"))?;
    let label = label.trim_matches(['\n', '\0']);
    let name = label.strip_suffix(" (enforce)").or_else(|| label.strip_suffix(" (complain)"))?;
    Some(name.to_owned())
}

fn around(look: &impl Look, filtered: bool) -> Option<Around> {
    let container = look.variable("container").unwrap_or_default();
    let release = look.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = look.read("/proc/version").unwrap_or_default();
    let found = [
        // The variable alone could be a box's that a file was copied from; the filter is not.
        (container == "casemate" && filtered, Around::Casemate),
        (version.contains("gVisor"), Around::Gvisor),
        (look.exists("/.flatpak-info"), Around::Flatpak),
        (container == "firejail", Around::Firejail),
        (look.variable("SNAP").is_some_and(|path| path.starts_with('/')), Around::Snap),
        (release.contains("microsoft-standard"), Around::Wsl2),
        (release.contains("Microsoft"), Around::Wsl1),
        (look.exists("/dev/.cros_milestone"), Around::Crostini),
        (container == "podman" || look.exists("/run/.containerenv"), Around::Podman),
        (look.variable("KUBERNETES_SERVICE_HOST").is_some(), Around::Kubernetes),
        (look.exists("/.dockerenv"), Around::Docker),
    ];
    found.into_iter().find(|(is_there, _)| *is_there).map(|(_, around)| around)
}

/// The names of the dangerous ones among the ids.
fn groups(ids: &str, names: &str) -> Vec<String> {
    let ids: Vec<&str> = ids.split_whitespace().collect();
    names
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (ids.contains(&fields.nth(1)?) && DANGEROUS.contains(&name)).then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_is_the_stores() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                    2 1 0:40 / /home rw,noexec shared:1 - nfs4 server:/home rw\n\
                    3 1 0:41 / /home/a\\040b rw - vfat /dev/sdb rw";
        let mounts: Vec<Mount<'_>> = text.lines().filter_map(Mount::parse).collect();
        assert_eq!(type_at(&mounts, "/home/ann/.local").as_deref(), Some("nfs4"));
        assert_eq!(type_at(&mounts, "/homes").as_deref(), Some("ext4"));
        assert_eq!(type_at(&mounts, "/home/a b/x").as_deref(), Some("vfat"));
    }

    #[test]
    fn groups_are_named_by_their_lines() {
        let names = "root:x:0:\nadm:x:4:ann\nsudo:x:27:ann\nbroken\nann:x:1000:\n";
        assert_eq!(groups("4 1000", names), ["adm"]);
        assert_eq!(groups("", names), [""; 0]);
    }
}
