//! Why a step failed, and what to change: from the step, the errno and what the system says of
//! itself. A pure function of these, so that obstacles of other systems are tested by their record.

use serde::{Deserialize, Serialize};

use super::clues::{Around, Clues};
use super::step::Step;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Boxes do not run.
    Fatal,
    /// Boxes run, with less or differently.
    Warning,
    /// Nothing fails; the user should know of it.
    Note,
}

/// A cause with a stable name, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, which does not change between versions.
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// The step that failed, unless it is a note.
    pub step: Option<Step>,
    /// What it is.
    pub cause: String,
    /// What mends it, in words.
    pub fix: String,
    /// The command that does, for a shell, where one alone does.
    pub command: Option<String>,
}

/// Every id that there is. They do not change between versions.
pub const IDS: [&str; 46] = [
    "apparmor-confined",
    "apparmor-unconfined",
    "apparmor-userns",
    "cgroups",
    "chrooted",
    "crostini",
    "firejail",
    "flatpak",
    "fuse",
    "fuse-device",
    "fuse-module",
    "groups",
    "gvisor",
    "home-fs",
    "home-full",
    "home-noexec",
    "home-none",
    "home-overlay",
    "home-write",
    "kernel-bugs",
    "keyring",
    "killed",
    "landlock",
    "max-userns",
    "nested",
    "no-config",
    "no-new-privs",
    "no-newuidmap",
    "no-subuid",
    "overlay",
    "overlay-memory",
    "overlay-module",
    "overlay-old",
    "podman-parent",
    "proc-masked",
    "runtime-dir",
    "seccomp-docker",
    "selinux-userns",
    "snap",
    "tiocsti",
    "unknown",
    "unmapped",
    "userns-clone",
    "wsl1",
    "wsl2",
    "yama",
];

impl Finding {
    /// The same with a command.
    #[must_use]
    pub fn with(mut self, command: impl Into<String>) -> Finding {
        self.command = Some(command.into());
        self
    }

    fn at(mut self, step: Step) -> Finding {
        self.step = Some(step);
        self
    }
}

fn fatal(id: &'static str, cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    let (cause, fix) = (cause.into(), fix.into());
    Finding { id, level: Level::Fatal, step: None, cause, fix, command: None }
}

fn warning(id: &'static str, cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, ..fatal(id, cause, fix) }
}

/// A finding that nothing failed for.
pub fn note(id: &'static str, cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { level: Level::Note, ..fatal(id, cause, fix) }
}

/// A command that sets a sysctl now and at every boot. Each has a file of its own, so that one does not
/// undo another; a late name, since of several files that set it the last one counts.
fn sysctl(name: &str, value: &str) -> String {
    format!(
        "echo {name}={value} | sudo tee /etc/sysctl.d/99-zz-casemate-{name}.conf && sudo sysctl --system"
    )
}

/// What comes after all files of sysctl.d(5) where it is read at all.
const SYSCTL_LAST: &str = "where /etc/sysctl.conf sets it too, change it there";

/// Names the cause.
pub fn diagnose(step: Step, errno: i32, clues: &Clues) -> Finding {
    let found = match step {
        Step::UserNamespace => user_namespace(errno, clues),
        Step::Overlay | Step::StoreOverlay => overlay(step, errno, clues),
        Step::Fuse => fuse(errno),
        Step::StoreWrite | Step::StoreAttributes | Step::StoreExecute => store(step, errno, clues),
        Step::RuntimeDirectory => runtime_directory(errno),
        Step::Landlock => warning(
            "landlock",
            "this kernel has no Landlock, or it is not in its list of security modules",
            "add landlock to lsm= on the kernel's command line; or run with --may-degrade landlock",
        ),
        Step::Keyring => warning(
            "keyring",
            "keyctl is refused, by a container's filter",
            "allow keyctl there; or run with --may-degrade keyring",
        ),
        _ => inside(step, errno, clues),
    };
    found.at(step)
}

fn is_denied(errno: i32) -> bool {
    matches!(errno, libc::EPERM | libc::EACCES)
}

fn user_namespace(errno: i32, clues: &Clues) -> Finding {
    let exhausted = matches!(errno, libc::ENOSPC | libc::EUSERS);
    let refused = is_denied(errno) || errno == libc::ENOSYS;
    match clues.around {
        Some(Around::Casemate) if exhausted || refused => {
            return fatal(
                "nested",
                "this is inside of a box, whose programs can make no box of their own",
                "run casemate outside; shims and `casemate NAME` start a program as it is in here",
            );
        }
        Some(Around::Wsl1) => {
            return fatal(
                "wsl1",
                "this is WSL 1, which is no Linux kernel and has no namespaces",
                "change the distribution to WSL 2, from Windows",
            )
            .with("wsl.exe --set-version \"$WSL_DISTRO_NAME\" 2");
        }
        Some(Around::Gvisor) => return gvisor(),
        _ => {}
    }
    if exhausted && clues.in_user_namespace {
        return fatal(
            "max-userns",
            "the user namespace that casemate is in allows none below it: user.max_user_namespaces is 0 in it or used up (bwrap --disable-userns does that)",
            "run casemate outside of that namespace; nothing inside can lift it",
        );
    }
    if exhausted {
        let cause = if clues.max_user_namespaces == Some(0) {
            "user namespaces are forbidden: user.max_user_namespaces is 0 (some hardening guides set it)"
        } else {
            "the number of user namespaces is used up (user.max_user_namespaces)"
        };
        return fatal("max-userns", cause, format!("allow them again; {SYSCTL_LAST}"))
            .with(sysctl("user.max_user_namespaces", "65536"));
    }
    if !clues.has_user_namespaces {
        return fatal(
            "no-config",
            "this kernel is built without user namespaces, or they are switched off at boot",
            "boot a kernel with CONFIG_USER_NS=y, and without user_namespace.enable=0",
        );
    }
    if is_denied(errno) && clues.unmapped {
        return fatal(
            "unmapped",
            "the user namespace that casemate is in has no ids, and nobody in it may make another",
            "have its maps written: unshare with --map-current-user or --map-root-user",
        );
    }
    if is_denied(errno) && clues.userns_clone_off {
        return fatal(
            "userns-clone",
            "kernel.unprivileged_userns_clone is 0",
            format!("allow user namespaces to users; {SYSCTL_LAST}"),
        )
        .with(sysctl("kernel.unprivileged_userns_clone", "1"));
    }
    if errno == libc::EACCES && clues.selinux_enforcing {
        return fatal(
            "selinux-userns",
            "SELinux denies user_namespace create to your domain",
            "add a local policy module that allows it: the command makes one from the denials in the audit log; read casemate-userns.te first, which may allow nothing else, then sudo semodule -i casemate-userns.pp; or use the distribution's own switch",
        )
        .with("sudo ausearch -m AVC -c casemate --raw | grep tclass=user_namespace | audit2allow -M casemate-userns");
    }
    if clues.filtered && refused {
        return filter(clues, "refuses namespaces");
    }
    if is_denied(errno)
        && let Some(profile) = &clues.apparmor_profile
    {
        return confined(profile, clues);
    }
    if is_denied(errno) && clues.chrooted {
        return fatal(
            "chrooted",
            "this process is in a chroot, where the kernel allows no user namespace",
            "leave the chroot, or enter the tree with pivot_root instead (unshare --mount --root is a chroot too)",
        );
    }
    unknown()
}

/// Steps inside of the user namespace that was made.
fn inside(step: Step, errno: i32, clues: &Clues) -> Finding {
    if clues.around == Some(Around::Gvisor) {
        return gvisor();
    }
    let first = matches!(
        step,
        Step::Setgroups | Step::IdMaps | Step::MountNamespace | Step::Network | Step::Tmpfs
    );
    let by_label = clues.apparmor_profile.as_deref() == Some("unprivileged_userns");
    if first && is_denied(errno) && (clues.apparmor_restricts || by_label) {
        return fatal(
            "apparmor-userns",
            if by_label {
                "AppArmor takes the capabilities away from user namespaces: casemate is in the profile unprivileged_userns"
            } else {
                "AppArmor takes the capabilities away from user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)"
            },
            "install a profile that allows them to casemate (casemate-doctor(1), AppArmor); as a last resort, for every program: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
        .with("casemate doctor --apparmor | sudo tee /etc/apparmor.d/casemate >/dev/null && sudo apparmor_parser --replace /etc/apparmor.d/casemate");
    }
    if step == Step::Proc && is_denied(errno) && clues.proc_masked {
        return masked(clues);
    }
    if is_denied(errno)
        && let Some(profile) = &clues.apparmor_profile
    {
        return confined(profile, clues);
    }
    if clues.filtered {
        return filter(clues, "may refuse it");
    }
    unknown()
}

/// A filter of system calls that somebody else has set.
fn filter(clues: &Clues, does: &str) -> Finding {
    let calls = "clone, clone3, unshare, mount, umount2, pivot_root, fsopen, fsconfig, fsmount, open_tree, move_mount and mount_setattr";
    match clues.around {
        Some(Around::Flatpak) => fatal(
            "flatpak",
            format!("this is inside of a Flatpak, whose filter {does}"),
            "run casemate outside: the permission to talk to org.freedesktop.Flatpak, which the command takes, is no sandbox any more",
        )
        .with("flatpak-spawn --host casemate doctor"),
        Some(Around::Snap) => snap(does),
        Some(Around::Firejail) => fatal(
            "firejail",
            format!("this is inside of firejail, whose filter {does}"),
            "run casemate outside of it, or have firejail leave system calls and /proc alone (its options noprofile and ignore seccomp)",
        ),
        Some(Around::Kubernetes) => fatal(
            "seccomp-docker",
            format!("the pod's seccomp filter {does}"),
            format!("give the pod a seccompProfile of type Localhost that allows {calls}"),
        ),
        Some(Around::Podman) => fatal(
            "seccomp-docker",
            format!("the container's seccomp filter {does}"),
            "give the container podman's own filter, which allows namespaces and mounts",
        )
        .with("podman run --security-opt seccomp=/usr/share/containers/seccomp.json --security-opt unmask=ALL …"),
        _ => fatal(
            "seccomp-docker",
            format!("a seccomp filter {does}: a container's, or a service's (RestrictNamespaces=, SystemCallFilter=)"),
            format!("give the container a filter that allows {calls}, such as that of podman (package containers-common), or run casemate outside"),
        )
        .with("docker run --security-opt seccomp=/usr/share/containers/seccomp.json --security-opt apparmor=unconfined --security-opt systempaths=unconfined …"),
    }
}

/// An AppArmor profile that somebody else has put casemate in.
fn confined(profile: &str, clues: &Clues) -> Finding {
    if clues.around == Some(Around::Snap) || profile.starts_with("snap.") {
        return snap("refuses namespaces");
    }
    let found = fatal(
        "apparmor-confined",
        format!("casemate runs in the AppArmor profile {profile}, which refuses it"),
        "run casemate from a program that is not confined, or let that profile allow userns, mount, umount and pivot_root",
    );
    match profile {
        "docker-default" => found.with("docker run --security-opt apparmor=unconfined …"),
        _ => found,
    }
}

fn snap(does: &str) -> Finding {
    fatal(
        "snap",
        format!("this is inside of a snap, whose confinement {does}"),
        "run casemate from a shell that is none (a terminal or an editor that is not a snap, or is one of classic confinement)",
    )
}

fn gvisor() -> Finding {
    fatal(
        "gvisor",
        "this is gVisor, whose kernel has not all that a box is made of",
        "run casemate outside, or give the container runc or crun as its runtime",
    )
}

fn masked(clues: &Clues) -> Finding {
    let cause = "parts of /proc are masked, and the kernel then allows no fresh one";
    match clues.around {
        Some(Around::Podman) => fatal(
            "podman-parent",
            format!("this is inside of podman: {cause}"),
            "have podman mask nothing; the container stays in its own user namespace",
        )
        .with("podman run --security-opt unmask=ALL …"),
        Some(Around::Crostini) => fatal(
            "crostini",
            format!("this is ChromeOS' own container: {cause}"),
            "use a container of your own in its virtual machine (vmc start termina, then lxc launch with security.nesting=true)",
        ),
        Some(Around::Firejail) => fatal(
            "firejail",
            format!("this is inside of firejail: {cause}"),
            "run casemate outside of it",
        ),
        Some(Around::Kubernetes) => fatal(
            "proc-masked",
            format!("in this pod {cause}"),
            "set procMount: Unmasked in the container's securityContext, with hostUsers: false",
        ),
        _ => fatal(
            "proc-masked",
            cause,
            "have the container mask nothing: docker as below, podman unmask=ALL, Kubernetes procMount: Unmasked",
        )
        .with("docker run --security-opt systempaths=unconfined …"),
    }
}

fn overlay(step: Step, errno: i32, clues: &Clues) -> Finding {
    if errno == libc::EACCES
        && let Some(profile) = &clues.apparmor_profile
    {
        return Finding { level: Level::Warning, ..confined(profile, clues) };
    }
    if step == Step::StoreOverlay && clues.has_overlay && errno == libc::EINVAL {
        return home_overlay(clues);
    }
    if step == Step::Overlay && !clues.tmpfs_xattrs && matches!(errno, libc::EIO | libc::EOPNOTSUPP)
    {
        return warning(
            "overlay-memory",
            "tmpfs keeps no user.* attributes here (Linux 6.6 and later can), so that changes to an image cannot be kept in memory",
            "nothing: they go to disk (scratch = \"disk\")",
        );
    }
    if errno == libc::ENODEV || !clues.has_overlay {
        return warning(
            "overlay-module",
            "overlayfs is not there",
            "load it; without it boxes without --image work, others with /dev/fuse",
        )
        .with("sudo modprobe overlay && echo overlay | sudo tee /etc/modules-load.d/overlay.conf");
    }
    if errno == libc::EPERM {
        return warning(
            "overlay-old",
            "this kernel mounts no overlay in a user namespace (Linux 5.11 and later do)",
            "update the kernel; boxes without --image work, others with /dev/fuse",
        );
    }
    warning(
        "overlay",
        "overlayfs refuses",
        "look for its reason in the kernel's log; boxes without --image work, others with /dev/fuse",
    )
    .with("sudo dmesg | grep overlayfs")
}

/// overlayfs works, but not with the store's file system.
pub(super) fn home_overlay(clues: &Clues) -> Finding {
    let kind = clues.store_type.as_deref().unwrap_or("unknown");
    warning(
        "home-overlay",
        format!("the file system of the store ({kind}) cannot be part of an overlay"),
        "put the store on another one (ext4, xfs, btrfs), by XDG_DATA_HOME; images run with /dev/fuse all the same",
    )
    .at(Step::StoreOverlay)
}

fn fuse(errno: i32) -> Finding {
    match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => warning(
            "fuse-module",
            "/dev/fuse is not there",
            "for --overlay hybrid and fuse: load it; in a container: --device /dev/fuse",
        )
        .with("sudo modprobe fuse && echo fuse | sudo tee /etc/modules-load.d/fuse.conf"),
        errno if is_denied(errno) => warning(
            "fuse-device",
            "/dev/fuse is not open to you, or a container forbids the device",
            "for --overlay hybrid and fuse: open it to everybody, as most systems have it; in a container: --device /dev/fuse",
        )
        .with("sudo chmod 666 /dev/fuse"),
        _ => warning(
            "fuse",
            "a FUSE file system cannot be mounted",
            "nothing, unless you want --overlay hybrid or fuse",
        ),
    }
}

fn store(step: Step, errno: i32, clues: &Clues) -> Finding {
    let kind = clues.store_type.as_deref().unwrap_or("unknown");
    match (step, errno) {
        (Step::StoreWrite, libc::ENOENT) => warning(
            "home-none",
            "there is no home directory, and so no place for images",
            "set HOME, or XDG_DATA_HOME, to an absolute path of a directory of yours; boxes without --image work",
        ),
        (Step::StoreWrite, libc::ENOSPC | libc::EDQUOT) => warning(
            "home-full",
            format!("the file system of the store ({kind}) is full, or your quota is"),
            "remove what no name leads to, then images by casemate rmi, or set XDG_DATA_HOME to a directory elsewhere",
        )
        .with("casemate prune"),
        (Step::StoreWrite, _) => warning(
            "home-write",
            format!("the place of the store ({kind}) cannot be written to"),
            "set XDG_DATA_HOME to a directory that is yours; boxes without --image work",
        ),
        (Step::StoreExecute, _) => note(
            "home-noexec",
            format!(
                "nothing can be executed on the file system of the store ({kind}), as with the mount option noexec"
            ),
            "programs of an image run; those in directories of that file system that are granted do not",
        ),
        _ => warning(
            "home-fs",
            format!(
                "the file system of the store ({kind}) keeps no user.* attributes, which images need"
            ),
            "put the store on another one (ext4, xfs, btrfs), by XDG_DATA_HOME; boxes without --image work",
        ),
    }
}

fn runtime_directory(errno: i32) -> Finding {
    let cause = match errno {
        libc::ENOENT => "XDG_RUNTIME_DIR is not set, or is no directory: this is no login session",
        _ => "XDG_RUNTIME_DIR is a directory that is not yours alone",
    };
    warning(
        "runtime-dir",
        format!("{cause}. Nothing can be kept between boxes: a range of ids is asked for by each, and each has its own overlay server"),
        "log in by login, ssh or machinectl shell, not by su; where there is systemd, the command makes it stay",
    )
    .with("sudo loginctl enable-linger \"$USER\" && export XDG_RUNTIME_DIR=/run/user/$(id -u)")
}

/// The trial ended at a step, without a failure of any.
pub(super) fn ended(step: Step) -> Finding {
    fatal(
        "killed",
        "the trial was killed: a container's seccomp filter may end programs instead of refusing them",
        "run casemate outside of the container, or with a filter that allows the call",
    )
    .at(step)
}

fn unknown() -> Finding {
    fatal("unknown", "no known obstacle fits", "report the step and the errno")
}
