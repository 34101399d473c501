//! A box in a scope, by a manager that does what casemate asks systemd for and nothing else: the way
//! to it, and what casemate does meanwhile. The real manager is in the guest.

use std::time::Duration;

use crate::common::{Output, Run};
use crate::delegated::Given;

/// Has a manager for the user's scripts. A job of its takes so many seconds; it refuses the first call
/// with an error of that name.
fn script(given: &Given, pause: &str, refuses: &str, script: &str) -> Run {
    given.bash(&format!(
        "mkdir -p $XDG_RUNTIME_DIR/systemd; rm -f $XDG_RUNTIME_DIR/systemd/private; : >$ticks; python3 -c \"$manager\" $XDG_RUNTIME_DIR/systemd/private $group {pause} {refuses} >$ticks & \
         manager=$!; trap 'kill $manager' EXIT; until [ -s $ticks ]; do sleep 0.02; done; {script}"
    ))
    .env("manager", include_str!("manager.py"))
}

fn run(given: &Given, pause: &str, refuses: &str, words: &str) -> Output {
    script(given, pause, refuses, words).output().succeeds()
}

/// Waits until the box of a name has its program, and sets `$scope`.
const FIND: &str = "find() { for i in $(seq 200); do $casemate ps | grep -q \"^$1 *running\" && break; sleep 0.05; done; \
    scope=$(echo $group/casemate.slice/casemate-$1-*.scope); };";

#[test]
fn the_box_is_in_its_scope_before_the_program_can_be() {
    let Some(given) = Given::make("scope") else { return };
    let words = format!(
        "{FIND} $casemate run --name s -- sh -c 'grep ^0 /proc/self/cgroup; exec sleep 60' & find s; \
         wc -l < $scope/payload/cgroup.procs; wc -l < $scope/supervisor/cgroup.procs; \
         wc -l < $scope/cgroup.procs; $casemate ps --json | grep -c casemate-s-; \
         $casemate pause s; $casemate ps | grep -c paused; $casemate resume s; \
         $casemate kill -s TERM s; wait $!; echo $?; sleep 0.3; ls $group/casemate.slice | grep scope"
    );
    let output = script(&given, "0", "-", &words).output();
    assert_eq!(output.out(), "0::/\n2\n1\n0\n1\n1\n143\n", "{}", output.err());
}

/// All is made while the manager works, and the program waits.
#[test]
fn a_slow_manager_is_waited_for_before_the_program() {
    let Some(given) = Given::make("slow") else { return };
    let words = "$casemate run --name s -- grep ^0 /proc/self/cgroup";
    assert_eq!(run(&given, "0.5", "-", words).text(), "0::/");
    // What cannot be started is told when it is known, whatever the manager does.
    let words = "$casemate run --name s -- /nowhere; echo $?";
    assert_eq!(run(&given, "0.5", "-", words).text(), "127");
    // Whoever ends it need not wait for the manager.
    let words = "$casemate run --name s -- sleep 60 & sleep 0.5; kill $!; wait $!; echo $?";
    let output = script(&given, "30", "-", words).timeout(Duration::from_secs(20)).output();
    assert_eq!(output.text(), "143", "{}", output.err());
    let words = "$casemate run --name s -- sleep 60 & for i in $(seq 200); do $casemate ps | grep -q starting && break; \
         sleep 0.05; done; $casemate kill s; wait $!; echo $?; $casemate ps -q";
    let output = script(&given, "30", "-", words).timeout(Duration::from_secs(20)).output();
    assert_eq!(output.text(), "137", "{}", output.err());
    let words = "$casemate run --timeout 1 --name s -- sleep 60; echo $?";
    let output = script(&given, "30", "-", words).timeout(Duration::from_secs(20)).output();
    assert_eq!(output.text(), "124", "{}", output.err());
}

#[test]
fn a_refusal_of_systemd_that_can_be_mended_is() {
    let Some(given) = Given::make("mend") else { return };
    let words = "$casemate run --name s -- grep ^0 /proc/self/cgroup";
    for name in ["org.freedesktop.systemd1.UnitExists", "org.freedesktop.DBus.Error.InvalidArgs"] {
        assert_eq!(run(&given, "0", name, words).text(), "0::/", "{name}");
    }
    let refused = script(&given, "0", "org.freedesktop.DBus.Error.AccessDenied", words).output();
    refused.refuses(125, &["start scope casemate-s-", "AccessDenied", "journalctl --user"]);
}

#[test]
fn many_boxes_at_once_have_each_their_scope() {
    let Some(given) = Given::make("scopes") else { return };
    let words = "for i in $(seq 100); do $casemate run --name n$i -- grep ^0 /proc/self/cgroup & done 2>&1 | \
        sort | uniq -c; for i in $(seq 100); do [ -z \"$(ls -d $group/casemate.slice/*/)\" ] && break; \
        sleep 0.1; done 2>/dev/null; ls -d $group/casemate.slice/*/ 2>/dev/null; true";
    let output = script(&given, "0", "-", words).timeout(Duration::from_secs(120)).output();
    assert_eq!(output.text().trim(), "100 0::/", "{}", output.err());
}

/// A process of the box's that is killed before it is in its scope leaves a reason.
#[test]
fn a_manager_that_goes_away_is_told() {
    let Some(given) = Given::make("away") else { return };
    let words = "$casemate run --name s -- sleep 60 & sleep 0.5; kill $manager; wait $!; echo $?";
    let output = script(&given, "30", "-", words).timeout(Duration::from_secs(20)).output();
    assert_eq!(output.text(), "125", "{}", output.err());
    assert!(output.err().contains("the connection was closed"), "{}", output.err());
}

/// In a range of ids the box waits before it is anyone else: the manager moves the user's own.
#[test]
fn a_box_of_many_ids_is_in_its_scope_as_well() {
    let Some(given) = Given::make("ranges") else { return };
    given.1.file("config/casemate/config.toml", "allow-setuid-helper = true\n");
    let words = format!(
        "{FIND} export XDG_CONFIG_HOME=$config; \
         $casemate run --userns many --name r -- sh -c 'grep ^0 /proc/self/cgroup; exec sleep 60' & find r; \
         wc -l < $scope/payload/cgroup.procs; $casemate kill r; wait $!; echo $?; $casemate holder stop"
    );
    let run = script(&given, "0", "-", &words).env("config", given.1.at("config"));
    let output = run.output();
    assert_eq!(output.out(), "0::/\n2\n137\n", "{}", output.err());
}
