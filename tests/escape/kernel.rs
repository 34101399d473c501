//! The kernel's surface: nested namespaces, io_uring, foreign system call tables, the new mount calls.

use crate::common::probe::boxed;
use crate::common::{Run, Workspace, boxed_probe, control, plain_probe};

/// A profile without a filter, for what must hold without one.
fn unfiltered(space: &Workspace) -> String {
    space.file("unfiltered.toml", "[seccomp]\nbase = \"none\"\n")
}

#[test]
fn escape_35_no_namespace_can_be_made() {
    let plain = plain_probe(&["namespaces"]);
    assert!(
        plain.lines().count() == 30 && plain.lines().all(|line| line.ends_with(" ok")),
        "{plain}"
    );

    let expected: Vec<String> = plain
        .lines()
        .map(|line| {
            let name = line.strip_suffix(" ok").unwrap();
            let errno = if name.starts_with("clone3 ") { "ENOSYS" } else { "EPERM" };
            format!("{name} {errno}")
        })
        .collect();
    assert_eq!(boxed_probe(&[], &["namespaces"]).lines().collect::<Vec<_>>(), expected);
    assert_eq!(boxed_probe(&[], &["setns", "/proc/self/ns/mnt"]), "EPERM");
}

#[test]
fn escape_35_no_sandbox_can_be_built_in_a_box() {
    let bubblewrap = "bwrap --unshare-all --ro-bind / / -- /bin/true";
    Run::bash(bubblewrap).output().succeeds();
    for command in [bubblewrap, "unshare -U true", "unshare -Urn true", "unshare -Urm true"] {
        let inside = crate::common::casemate(["run", "--", "sh", "-c", command]).output();
        assert_ne!(inside.code(), Some(0), "{command}: {inside:?}");
    }
}

#[test]
fn escape_35_nor_without_the_filter() {
    let space = Workspace::new();
    let profile = unfiltered(&space);
    let answers = boxed_probe(&["-p", &profile], &["namespaces", "unshare"]);
    for line in answers.lines() {
        assert!(line.ends_with(" ENOSPC"), "{line}");
    }
    assert_eq!(answers.lines().count(), 8);
}

#[test]
fn escape_38_only_four_socket_families() {
    let plain = plain_probe(&["sockets"]);
    let more = plain.lines().filter(|line| line.ends_with(" ok")).count() > 4;
    if !control("sockets", more, &format!("this kernel has no other families:\n{plain}")) {
        return;
    }
    for line in boxed_probe(&["--network", "host"], &["sockets"]).lines() {
        let (family, answer) = line.split_once(' ').unwrap();
        let expected = if ["1", "2", "10", "16"].contains(&family) { "ok" } else { "EAFNOSUPPORT" };
        assert_eq!(answer, expected, "family {family}");
    }
    // Of netlink, only the routing protocol: audit and kobject events are others.
    assert_eq!(plain_probe(&["socket", "16", "3", "15"]), "ok");
    assert_ne!(boxed_probe(&[], &["socket", "16", "3", "15"]), "ok");
    assert_eq!(boxed_probe(&[], &["socket", "16", "3", "0"]), "ok");
}

#[test]
fn escape_39_io_uring_does_not_go_around_the_filter() {
    let plain = plain_probe(&["io-uring"]);
    if control("io_uring", plain == "ok", &format!("io_uring is off on this kernel: {plain}")) {
        assert_eq!(boxed_probe(&[], &["io-uring"]), "ENOSYS");
    }
}

#[test]
fn escape_40_other_system_call_tables_are_shut() {
    let plain = plain_probe(&["int80", "20"]);
    if control("int80", plain == "ok", &format!("no 32-bit entry on this kernel: {plain}")) {
        assert_eq!(boxed_probe(&[], &["int80", "20"]), "SIGSYS");
        // A socket of a denied family by the same way.
        assert_eq!(boxed_probe(&[], &["int80", "359", "40", "1", "0"]), "SIGSYS");
    }
    // x32's getpid: a kernel without x32 answers ENOSYS; the box, nothing at all.
    let plain = plain_probe(&["syscall", "0x40000027"]);
    assert!(["ok", "ENOSYS"].contains(&plain.as_str()), "{plain}");
    let inside = boxed_probe(&[], &["syscall", "0x40000027"]);
    assert!(["SIGSYS", "ENOSYS"].contains(&inside.as_str()), "{inside}");
}

#[test]
fn escape_41_the_new_mount_calls_are_not_there() {
    let plain = Run::bash("exec unshare -Urm -- \"$probe\" mount-api").text();
    for call in ["fsopen ok", "open_tree ok"] {
        assert!(plain.contains(call), "the control: {plain}");
    }
    let boxed = boxed_probe(&[], &["mount-api"]);
    assert!(boxed.lines().all(|line| line.ends_with(" ENOSYS")), "{boxed}");
    assert_eq!(boxed.lines().count(), plain.lines().count());
}

#[test]
fn escape_41_threads_work_without_clone3() {
    assert_eq!(plain_probe(&["namespaces", "clone3"]).lines().next(), Some("clone3 user ok"));
    assert_eq!(
        boxed_probe(&[], &["namespaces", "clone3"]).lines().next(),
        Some("clone3 user ENOSYS")
    );
    assert_eq!(boxed_probe(&[], &["threads"]), "ok");
}

#[test]
fn escape_57_calls_without_use_are_refused_by_the_filter() {
    // Outside, most of them fail for their arguments: they reached the kernel's own code.
    let plain = plain_probe(&["surface"]);
    assert!(plain.contains("bpf EINVAL") && plain.contains("add_key EFAULT"), "{plain}");
    let boxed = boxed_probe(&[], &["surface"]);
    assert_eq!(boxed.lines().count(), plain.lines().count());
    for line in boxed.lines() {
        let refused = line.ends_with(" EPERM") || line.ends_with(" ENOSYS");
        assert!(refused, "{line}");
    }
}

#[test]
fn escape_57_address_randomisation_cannot_be_switched_off() {
    assert_eq!(plain_probe(&["personality", "0x40000"]), "ok", "the control");
    assert_eq!(boxed_probe(&[], &["personality", "0x40000"]), "EPERM");
    assert_eq!(boxed_probe(&[], &["personality", "0xffffffff"]), "ok");
    // What the caller had is not inherited either.
    let run =
        |command: &str| Run::bash(command).env("volume", crate::common::probe::volume()).text();
    assert_eq!(run("exec setarch -R bash -c 'cat /proc/self/personality'"), "00040000");
    let inside = run("exec setarch -R \"$casemate\" run -- cat /proc/self/personality");
    assert_eq!(inside, "00000000");
}

#[test]
fn escape_17_the_core_limit_keeps_root_handlers_from_running() {
    assert_eq!(boxed_probe(&[], &["core-limit"]), "1 1");
    let crashed = boxed(&[]).arg("crash").output();
    assert_eq!(crashed.code(), Some(128 + libc::SIGSEGV));
}
