//! Why a step failed, and what to change: from the step, the errno and what the system says of
//! itself. A pure function of these, so that obstacles of other systems are tested by their record.

use serde::Serialize;

use super::step::Step;

/// What the system says of itself. Read only after something failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clues {
    /// kernel.apparmor_restrict_unprivileged_userns
    pub apparmor_restricts: bool,
    /// kernel.unprivileged_userns_clone is there and 0.
    pub userns_clone_off: bool,
    /// user.max_user_namespaces
    pub max_user_namespaces: Option<u64>,
    /// SELinux is enforcing.
    pub selinux_enforcing: bool,
    /// The kernel has user namespaces at all.
    pub has_user_namespaces: bool,
    /// This process runs under a seccomp filter.
    pub filtered: bool,
    /// The root is not that of PID 1, as far as that can be seen.
    pub chrooted: bool,
    /// Something is mounted below /proc.
    pub proc_masked: bool,
    /// tmpfs keeps `user.*` attributes.
    pub tmpfs_xattrs: bool,
    /// The kernel has overlayfs, or can load it.
    pub has_overlay: bool,
}

impl Clues {
    /// Looks around.
    pub fn gather() -> Clues {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let number = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
        let status = read("/proc/self/status").unwrap_or_default();
        let mounts = read("/proc/self/mountinfo").unwrap_or_default();
        let targets = || mounts.lines().filter_map(|line| line.split(' ').nth(4));
        Clues {
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
                == Some(1),
            userns_clone_off: number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            selinux_enforcing: number("/sys/fs/selinux/enforce") == Some(1),
            has_user_namespaces: std::path::Path::new("/proc/self/ns/user").exists(),
            filtered: status.lines().any(|line| line == "Seccomp:\t2"),
            chrooted: !mounts.is_empty() && !targets().any(|target| target == "/"),
            proc_masked: targets().any(|target| target.starts_with("/proc/")),
            tmpfs_xattrs: crate::sys::fs::tmpfs_has_user_xattrs(),
            has_overlay: read("/proc/filesystems")
                .is_some_and(|text| text.lines().any(|line| line.ends_with("\toverlay"))),
        }
    }
}

/// A cause with a stable name, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Its name, which does not change between versions.
    pub id: &'static str,
    /// What it is.
    pub cause: &'static str,
    /// What mends it: a command, or where there is none, words.
    pub fix: &'static str,
    /// Whether boxes run all the same, with less or differently.
    pub survivable: bool,
}

/// Names the cause.
pub fn diagnose(step: Step, errno: i32, clues: &Clues) -> Diagnosis {
    let fatal = |id, cause, fix| Diagnosis { id, cause, fix, survivable: false };
    let survivable = |id, cause, fix| Diagnosis { id, cause, fix, survivable: true };
    let denied = matches!(errno, libc::EPERM | libc::EACCES);
    match step {
        Step::UserNamespace if matches!(errno, libc::ENOSPC | libc::EUSERS) => fatal(
            "max-userns",
            if clues.max_user_namespaces == Some(0) {
                "user namespaces are forbidden: user.max_user_namespaces is 0 (some hardening guides set it)"
            } else {
                "the number of user namespaces is used up (user.max_user_namespaces)"
            },
            "echo user.max_user_namespaces=65536 | sudo tee /etc/sysctl.d/60-userns.conf && sudo sysctl --system",
        ),
        Step::UserNamespace if !clues.has_user_namespaces => fatal(
            "no-config",
            "this kernel is built without user namespaces, or they are switched off at boot",
            "boot a kernel with CONFIG_USER_NS=y",
        ),
        Step::UserNamespace if denied && clues.userns_clone_off => fatal(
            "userns-clone",
            "kernel.unprivileged_userns_clone is 0",
            "echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/60-userns.conf && sudo sysctl --system",
        ),
        Step::UserNamespace if errno == libc::EACCES && clues.selinux_enforcing => fatal(
            "selinux-userns",
            "SELinux denies user_namespace create to your domain",
            "ausearch -m AVC -c casemate shows the denial; a local policy module that allows user_namespace create for your domain mends it",
        ),
        Step::UserNamespace if clues.filtered && (denied || errno == libc::ENOSYS) => fatal(
            "seccomp-docker",
            "a container's seccomp filter refuses namespaces",
            "docker: --security-opt seccomp=FILE with a profile that allows clone, clone3, unshare, mount, fsopen, fsmount, open_tree, move_mount, mount_setattr and pivot_root",
        ),
        Step::UserNamespace if denied && clues.chrooted => fatal(
            "chrooted",
            "this process is in a chroot, where the kernel allows no user namespace",
            "leave the chroot, or enter the tree with pivot_root instead (unshare --mount --root is a chroot too)",
        ),
        Step::Setgroups | Step::IdMaps | Step::MountNamespace | Step::Network | Step::Tmpfs
            if denied && clues.apparmor_restricts =>
        {
            fatal(
                "apparmor-userns",
                "AppArmor takes the capabilities away from user namespaces (kernel.apparmor_restrict_unprivileged_userns=1)",
                "install a profile that allows `userns` for casemate's path (see apparmor.d(5)); as a last resort, for every program: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
            )
        }
        Step::Proc if denied && clues.proc_masked => fatal(
            "proc-masked",
            "a container masks parts of /proc, and the kernel then allows no fresh one",
            "docker: --security-opt systempaths=unconfined; podman: --security-opt unmask=ALL; Kubernetes: procMount: Unmasked",
        ),
        Step::Overlay if !clues.tmpfs_xattrs && matches!(errno, libc::EIO | libc::EOPNOTSUPP) => {
            survivable(
                "overlay-memory",
                "tmpfs keeps no user.* attributes here (Linux 6.6 and later can), so that changes to an image cannot be kept in memory",
                "nothing: they go to disk (scratch = \"disk\")",
            )
        }
        Step::Overlay if errno == libc::ENODEV || !clues.has_overlay => survivable(
            "overlay-module",
            "overlayfs is not there",
            "boxes without --image work, others with /dev/fuse; for images: sudo modprobe overlay && echo overlay | sudo tee /etc/modules-load.d/overlay.conf",
        ),
        Step::Overlay if errno == libc::EPERM => survivable(
            "overlay-old",
            "this kernel mounts no overlay in a user namespace (Linux 5.11 and later do)",
            "update the kernel; boxes without --image work, others with /dev/fuse",
        ),
        Step::Overlay => survivable(
            "overlay",
            "overlayfs refuses",
            "look for its reason in the kernel's log (sudo dmesg); boxes without --image work, others with /dev/fuse",
        ),
        Step::Fuse if matches!(errno, libc::ENOENT | libc::ENODEV | libc::ENXIO) => survivable(
            "fuse-module",
            "/dev/fuse is not there",
            "for --overlay hybrid and fuse: sudo modprobe fuse && echo fuse | sudo tee /etc/modules-load.d/fuse.conf; in a container: --device /dev/fuse",
        ),
        Step::Fuse if denied => survivable(
            "fuse-device",
            "/dev/fuse is not open to you, or a container forbids the device",
            "for --overlay hybrid and fuse: sudo chmod 666 /dev/fuse, as most systems have it; in a container: --device /dev/fuse",
        ),
        Step::Fuse => survivable(
            "fuse",
            "a FUSE file system cannot be mounted",
            "nothing, unless you want --overlay hybrid or fuse",
        ),
        Step::Landlock => survivable(
            "landlock",
            "this kernel has no Landlock, or it is not in its list of security modules",
            "add landlock to lsm= on the kernel's command line; or run with --may-degrade landlock",
        ),
        Step::Keyring => survivable(
            "keyring",
            "keyctl is refused, by a container's filter",
            "allow keyctl there; or run with --may-degrade keyring",
        ),
        _ if clues.filtered => fatal(
            "seccomp-docker",
            "a container's seccomp filter may refuse it",
            "run casemate outside of the container, or with a filter that allows the call",
        ),
        _ => fatal("unknown", "no known obstacle fits", "report the step and the errno"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from descriptions of these systems, not seen live here, save `max-userns`.
    #[test]
    fn known_obstacles_are_named() {
        let normal = Clues {
            has_user_namespaces: true,
            tmpfs_xattrs: true,
            has_overlay: true,
            ..Clues::default()
        };
        let cases = [
            (
                Step::UserNamespace,
                libc::ENOSPC,
                Clues { max_user_namespaces: Some(0), ..normal.clone() },
                "max-userns",
            ),
            (
                Step::UserNamespace,
                libc::EPERM,
                Clues { userns_clone_off: true, ..normal.clone() },
                "userns-clone",
            ),
            (
                Step::UserNamespace,
                libc::EINVAL,
                Clues { has_user_namespaces: false, ..normal.clone() },
                "no-config",
            ),
            (
                Step::UserNamespace,
                libc::EACCES,
                Clues { selinux_enforcing: true, ..normal.clone() },
                "selinux-userns",
            ),
            (
                Step::UserNamespace,
                libc::ENOSYS,
                Clues { filtered: true, ..normal.clone() },
                "seccomp-docker",
            ),
            (
                Step::UserNamespace,
                libc::EPERM,
                Clues { chrooted: true, ..normal.clone() },
                "chrooted",
            ),
            (
                Step::Setgroups,
                libc::EACCES,
                Clues { apparmor_restricts: true, ..normal.clone() },
                "apparmor-userns",
            ),
            (
                Step::Network,
                libc::EPERM,
                Clues { apparmor_restricts: true, ..normal.clone() },
                "apparmor-userns",
            ),
            (Step::Proc, libc::EPERM, Clues { proc_masked: true, ..normal.clone() }, "proc-masked"),
            (Step::Overlay, libc::EPERM, normal.clone(), "overlay-old"),
            (
                Step::Overlay,
                libc::EIO,
                Clues { tmpfs_xattrs: false, ..normal.clone() },
                "overlay-memory",
            ),
            (
                Step::Overlay,
                libc::ENODEV,
                Clues { has_overlay: false, ..normal.clone() },
                "overlay-module",
            ),
            (Step::Fuse, libc::ENOENT, normal.clone(), "fuse-module"),
            (Step::Fuse, libc::EACCES, normal.clone(), "fuse-device"),
            (Step::Landlock, libc::EOPNOTSUPP, normal.clone(), "landlock"),
            (Step::Devpts, libc::EINVAL, normal, "unknown"),
        ];
        for (step, errno, clues, id) in cases {
            let found = diagnose(step, errno, &clues);
            assert_eq!(found.id, id, "{step:?} {errno}");
            assert!(!found.fix.is_empty() && !found.cause.is_empty());
        }
    }
}
