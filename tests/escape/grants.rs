//! What lies in a writable grant and must not become a way to more: the host's files under the names
//! that a box makes for itself, casemate's own store, directories above what is read-only.

use crate::common::{Run, Workspace, casemate};

#[test]
fn a_grant_at_etc_keeps_its_files() {
    let space = Workspace::new();
    let etc = space.directory("etc");
    space.file("etc/passwd", "mine\n");
    space.file("etc/hosts", "precious\n");
    let volume = format!("{etc}:/etc");
    let text = casemate(["run", "-v", &volume, "--", "cat", "/etc/passwd", "/etc/hosts"]).text();
    assert_eq!(text, "mine\nprecious");
    let left = Run::bash("ls \"$0\"").arg(&etc).text();
    assert_eq!(left, "hosts\npasswd");
}

#[test]
fn a_read_only_grant_cannot_be_renamed_away_above_a_writable_one() {
    let space = Workspace::new();
    let project = space.directory("project");
    space.directory("project/sub");
    space.directory("project/sub/.git");
    space.file("project/sub/.git/config", "safe\n");
    let attack = "mv sub away && mkdir -p sub/.git && echo evil >sub/.git/config";
    let outside = Workspace::new();
    outside.directory("sub");
    let plain = Run::bash(attack).directory(outside.path()).output();
    assert!(plain.code() == Some(0), "the control: the attack works outside: {plain:?}");
    let volume = format!("{project}:/p");
    let inner = format!("{project}/sub/.git:/p/sub/.git:ro");
    let boxed =
        casemate(["run", "-v", &volume, "-v", &inner, "-w", "/p", "--", "sh", "-c", attack]);
    let output = boxed.output();
    assert!(output.err().contains("Device or resource busy"), "{output:?}");
    assert_eq!(space.read("project/sub/.git/config"), "safe\n");
}

#[test]
fn casemates_own_directory_cannot_be_replaced_by_any_name() {
    let space = Workspace::new();
    let home = space.directory("home");
    let volume = format!("{home}:/h");
    let attack = "mv /h/.local /h/gone 2>&1; touch /h/.local/share/casemate/x 2>&1; touch /h/fine";
    let text = casemate(["run", "-v", &volume, "--", "sh", "-c", attack])
        .env("HOME", &home)
        .without_env("XDG_DATA_HOME")
        .text();
    assert!(text.contains("busy") && text.contains("Read-only file system"), "{text}");
    // With a link on the way, a program could lead the name elsewhere: that is refused.
    let linked = Workspace::new();
    let home = linked.directory("home");
    linked.directory("home/elsewhere");
    linked.symlink("elsewhere", "home/.local");
    let volume = format!("{home}:/h");
    casemate(["run", "-v", &volume, "--", "true"])
        .env("HOME", &home)
        .without_env("XDG_DATA_HOME")
        .output()
        .refuses(125, &["symbolic link", ".local"]);
}

#[test]
fn a_directory_as_standard_input_is_no_way_out() {
    // The control: a sandbox without the host's /etc, and still the way to it.
    let way = "bwrap --unshare-all --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib \
               --symlink usr/lib64 /lib64 --proc /proc cat /proc/self/fd/0/../etc/passwd </usr";
    let outside = Run::bash(way).output();
    assert!(outside.out().contains("root:"), "the control: the way leads out: {outside:?}");
    Run::bash("\"$casemate\" run -- true </usr")
        .output()
        .refuses(125, &["standard input is a directory"]);
    Run::bash("\"$casemate\" run -- true 2</usr >/dev/null").output().fails(125);
}

#[test]
fn the_boxs_own_places_cannot_be_granted_over() {
    let space = Workspace::new();
    let directory = space.directory("d");
    for place in ["/", "/proc", "/proc/sys", "/proc/self", "/dev", "/dev/pts"] {
        let volume = format!("{directory}:{place}");
        casemate(["run", "-v", &volume, "--", "true"]).output().refuses(125, &["--volume"]);
        if place != "/" {
            casemate(["run", "--tmpfs", place, "--", "true"]).output().refuses(125, &[place]);
        }
    }
    casemate(["run", "--tmpfs", "/dev/shm:size=1m", "--", "touch", "/dev/shm/x"])
        .output()
        .succeeds();
    let left = Run::bash("ls -A \"$0\"").arg(&directory).text();
    assert_eq!(left, "");
}

/// Another box with the same directory could turn the link while this one is made, and turn it back
/// before the last look: what protects a grant would then lie somewhere else.
#[test]
fn a_link_in_a_writable_grant_leads_no_other_grant_away() {
    let space = Workspace::new();
    let shared = space.directory("shared");
    let other = space.directory("other");
    space.directory("shared/real");
    space.symlink("real", "shared/link");
    let run = |by: &str| {
        let volumes = [format!("{shared}:/s"), format!("{other}:/s/{by}/here")];
        casemate(["run", "-v", &volumes[0], "-v", &volumes[1], "--", "true"]).output()
    };
    run("real").succeeds();
    run("link").refuses(125, &["nothing is mounted at /s/link/here", "symbolic link"]);
}
