//! The host's processes: to trace them, to read them, to kill them.

use std::fs;

use crate::common::probe::boxed;
use crate::common::{Run, Running, Workspace, boxed_probe, casemate, plain_probe, probe};

/// A process of the test user on the host.
fn victim() -> Running {
    let victim = Run::new(probe()).args(["sleep", "60"]).spawn();
    victim.expect("ready");
    victim
}

/// An address that the process can read itself.
fn address(pid: i32) -> String {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let start = maps.split('-').next().unwrap();
    format!("0x{start}")
}

#[test]
fn escape_44_the_hosts_processes_cannot_be_traced_or_read() {
    let victim = victim();
    let pid = victim.pid().to_string();
    let address = address(victim.pid());
    let attacks: [&[&str]; 4] =
        [&["ptrace", &pid], &["kcmp", &pid], &["pidfd-getfd", &pid], &["vm-read", &pid, &address]];
    for attack in attacks {
        let plain = plain_probe(attack);
        let reason = format!("{} of an own process fails on this machine: {plain}", attack[0]);
        if !crate::common::control("ptrace", plain == "ok", &reason) {
            return;
        }
    }
    // Under the filter the calls are refused; without it there is no such process.
    for attack in attacks {
        let answer = boxed_probe(&[], attack);
        let expected = if attack[0] == "pidfd-getfd" { "ESRCH" } else { "EPERM" };
        assert_eq!(answer, expected, "{attack:?}");
    }
    let space = Workspace::new();
    let profile = space.file("unfiltered.toml", "[seccomp]\nbase = \"none\"\n");
    for attack in attacks {
        assert_eq!(
            boxed_probe(&["-p", &profile], attack),
            "ESRCH",
            "{attack:?} without the filter"
        );
    }
}

#[test]
fn escape_45_the_hosts_processes_cannot_be_killed() {
    // The control: a user namespace alone does not stop a signal.
    let mut prey = victim();
    let pid = prey.pid().to_string();
    let script = "exec unshare -U -- \"$probe\" kill \"$pid\" 9";
    assert_eq!(Run::bash(script).env("pid", &pid).text(), "ok");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(prey.has_ended(), "the control: the signal arrived");

    let mut prey = victim();
    let pid = prey.pid().to_string();
    assert_eq!(boxed_probe(&[], &["kill", &pid, "9"]), "ESRCH");
    casemate(["run", "--", "sh", "-c", "kill -9 -1; kill -9 1; true"]).output();
    // All that is left in the box is killed, and nothing else; PID 1 of the box is out of reach.
    let alone = boxed(&[]).args(["kill", "-1", "9"]).output();
    assert!(["ESRCH", "ok"].contains(&alone.text().as_str()), "{alone:?}");
    assert!(!prey.has_ended());
}

#[test]
fn escape_45_the_hosts_processes_are_not_seen() {
    let victim = victim();
    let path = format!("/proc/{}", victim.pid());
    assert_eq!(plain_probe(&["open", &path]), "ok");
    assert_eq!(boxed_probe(&[], &["open", &path]), "ENOENT");
    let listing = casemate(["run", "--", "sh", "-c", "echo /proc/[0-9]*"]).text();
    assert!(listing.split(' ').count() <= 3, "init, the shell and no more: {listing}");
}
