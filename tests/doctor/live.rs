//! What a container's filter, another namespace or a device that is missing does to the steps.

use crate::common::{Run, Workspace, control, require_root};
use crate::{Report, after, doctor};

/// The doctor under a filter that refuses these calls.
fn refusing(rules: &[&str]) -> Run {
    let refuse = crate::common::compile("refuse", "tests/doctor/refuse.c");
    let doctor = doctor();
    let words: Vec<&str> = rules.iter().copied().chain(["--"]).collect();
    doctor.wrapped_in(refuse.to_str().unwrap(), &words)
}

/// What docker's filter refuses to a container without capabilities, with its errnos.
const DOCKER: [&str; 14] = [
    "clone3=ENOSYS",
    "clone-namespaces=EPERM",
    "unshare=EPERM",
    "setns=EPERM",
    "mount=EPERM",
    "umount2=EPERM",
    "pivot_root=EPERM",
    "fsopen=EPERM",
    "fsconfig=EPERM",
    "fsmount=EPERM",
    "open_tree=EPERM",
    "move_mount=EPERM",
    "mount_setattr=EPERM",
    "keyctl=EPERM",
];

#[test]
fn a_filter_like_dockers() {
    let report = Report::of(refusing(&DOCKER));
    report.has("seccomp-docker", "fatal", "user-namespace");
    assert_eq!(report.0["steps"][0]["error"], "Function not implemented");
    let command = report.finding("seccomp-docker")["command"].as_str().unwrap();
    assert!(command.starts_with("docker run --security-opt seccomp="), "{command}");
    // In podman the command is podman's.
    let report = Report::of(refusing(&DOCKER).env("container", "podman"));
    let command = report.finding("seccomp-docker")["command"].as_str().unwrap();
    assert!(command.starts_with("podman run --security-opt seccomp="), "{command}");
}

/// The filter that the command names, of the package containers-common.
#[test]
fn the_filter_that_is_advised_lets_boxes_run() {
    let space = Workspace::new();
    let advised = "/usr/share/containers/seccomp.json";
    let profile = space.file("p.toml", format!("[seccomp]\nbase = \"{advised}\"\n"));
    let script = format!(
        "$casemate seccomp show --form raw {profile} >{filter} && \
         exec bwrap --dev-bind / / --seccomp 3 $casemate doctor --json 3<{filter}",
        filter = space.at("filter")
    );
    let report = Report::of(Run::bash(&script));
    assert_ne!(report.0["exit"], 2, "{:#}", report.0);
    assert!(report.ids().contains("no-new-privs"), "no filter was set: {:#}", report.0);
}

#[test]
fn a_filter_that_refuses_a_later_step() {
    let report = Report::of(refusing(&["unshare=EPERM"]));
    report.has("seccomp-docker", "fatal", "mount-namespace");
    let report = Report::of(refusing(&["fsopen=ENOSYS"]));
    report.has("seccomp-docker", "fatal", "tmpfs");
    let report = Report::of(refusing(&["pivot_root=EPERM"]));
    report.has("seccomp-docker", "fatal", "pivot-root");
}

#[test]
fn a_filter_that_kills() {
    let report = Report::of(refusing(&["unshare=kill"]));
    report.has("killed", "fatal", "mount-namespace");
}

#[test]
fn what_a_box_can_be_without() {
    let report = Report::of(refusing(&["keyctl=EPERM"]));
    report.has("keyring", "warning", "keyring");
    assert_eq!(report.0["exit"], 1);
    let report = Report::of(refusing(&["landlock_create_ruleset=EOPNOTSUPP"]));
    report.has("landlock", "warning", "landlock");
    assert_eq!(report.0["exit"], 1);
}

#[test]
fn a_namespace_that_allows_none_below_it() {
    let script = "exec unshare --user --map-root-user bash -c '\
        echo 0 >/proc/sys/user/max_user_namespaces && exec $casemate doctor --json'";
    let report = Report::of(Run::bash(script));
    report.has("max-userns", "fatal", "user-namespace");
    let finding = report.finding("max-userns");
    assert!(finding["cause"].as_str().unwrap().contains("namespace that casemate is in"));
    // No sysctl of the machine's would help.
    assert!(finding["command"].is_null());
    let words = ["--dev-bind", "/", "/", "--unshare-user", "--disable-userns", "--"];
    Report::of(doctor().wrapped_in("bwrap", &words)).has("max-userns", "fatal", "user-namespace");
}

#[test]
fn a_namespace_without_ids() {
    let report = Report::of(Run::bash("exec unshare --user $casemate doctor --json"));
    report.has("unmapped", "fatal", "user-namespace");
}

#[test]
fn one_id_of_many_namespaces_is_well() {
    // The positive control of the one above.
    let report =
        Report::of(Run::bash("exec unshare --user --map-root-user $casemate doctor --json"));
    assert_ne!(report.0["exit"], 2);
}

#[test]
fn a_device_that_is_missing_closed_or_none() {
    if !require_root() {
        return;
    }
    Report::of(doctor().with_fuse_device(0o600)).has("fuse-device", "warning", "fuse");
    let space = Workspace::new();
    let no_device = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9";
    Report::of(after(no_device, &space)).has("fuse-module", "warning", "fuse");
    let no_fuse = "touch $dir/file && chmod 666 $dir/file && mount --bind $dir/file /dev/fuse";
    Report::of(after(no_fuse, &space)).has("fuse", "warning", "fuse");
}

#[test]
fn a_proc_with_masks() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    let mask = "mount --bind /dev/null /proc/timer_list";
    let report = Report::of(after(mask, &space));
    report.has("proc-masked", "fatal", "proc");
    let report = Report::of(after(mask, &space).env("container", "podman"));
    report.has("podman-parent", "fatal", "proc");
}

#[test]
fn a_proc_that_hides_others_processes_is_no_obstacle() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    Report::of(after("mount -t proc -o hidepid=invisible proc /proc", &space)).is_well();
}

#[test]
fn a_chroot() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    let base = crate::common::user().base.display().to_string();
    let script = format!(
        "mkdir -p $dir/root{base} && cd $dir/root && mkdir usr proc dev etc tmp && \
         for name in usr proc dev etc {base}; do mount --rbind /$name $dir/root/$name; done && \
         for name in bin sbin lib lib64; do cp -a /$name .; done && chroot=$dir/root"
    );
    let report = Report::of(after(&script, &space));
    report.has("chrooted", "fatal", "user-namespace");
    assert_eq!(report.0["steps"][0]["error"], "Operation not permitted");
}

#[test]
fn groups_that_open_other_peoples_files() {
    if !require_root() {
        return;
    }
    let report = Report::of(doctor().with_fuse());
    assert!(!report.ids().contains("groups"));
    let space = Workspace::new();
    let report = Report::of(after("groups=$(getent group shadow | cut -d : -f 3)", &space));
    report.is_well();
    let finding = report.finding("groups");
    assert_eq!(finding["level"], "note");
    assert!(finding["cause"].as_str().unwrap().contains("you are in shadow:"), "{finding}");
}

#[test]
fn nobody_who_gives_a_range() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    let ranges = ["no-subuid", "no-newuidmap", "no-new-privs"];
    let well = Report::of(doctor().with_fuse());
    let holds = ranges.iter().all(|id| !well.ids().contains(id));
    if !control("subuid", holds, "the suite's user has no range in /etc/subuid") {
        return;
    }
    // It is a note, and none about what would be there. Nobody is given ids that may be another's.
    let report = Report::of(after("mount --bind /dev/null /etc/subuid", &space));
    let finding = report.finding("no-subuid");
    assert!(finding["command"].is_null(), "{finding:#}");
    let fix = finding["fix"].as_str().unwrap();
    assert!(fix.contains("FIRST-LAST") && fix.contains("neither"), "{fix}");
    for (id, does) in [
        ("no-subuid", "mount --bind /dev/null /etc/subuid"),
        ("no-newuidmap", "mount --bind /dev/null /usr/bin/newuidmap"),
    ] {
        let report = Report::of(after(does, &space));
        report.is_well();
        assert_eq!(report.ids().intersection(&ranges.into()).collect::<Vec<_>>(), [&id]);
    }
    let report = Report::of(doctor().with_fuse().wrapped_in("setpriv", &["--no-new-privs"]));
    assert!(report.ids().contains("no-new-privs"), "{:#}", report.0);
}
