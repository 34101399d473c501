//! Limits of a box in total by the user's own systemd.

use std::time::Duration;

use crate::common::{Output, Run, Workspace, casemate, user};
use crate::{as_root, in_session};

/// A script in the session; `$casemate` is the program.
fn bash(script: &str) -> Run {
    let run = Run::new("bash").args(["--norc", "--noprofile", "-c", script]);
    in_session(run.env("casemate", user().casemate())).timeout(Duration::from_secs(240))
}

fn output(script: &str) -> Output {
    bash(script).output().succeeds()
}

/// Waits until the box of a name runs, and sets `$scope` to the directory of its cgroup and `$unit`
/// to its name.
const FIND: &str = "find() { for i in $(seq 400); do \
    $casemate ps | grep -q \"^$1 *running\" && break; sleep 0.1; done; \
    user=$(id -u); slice=/sys/fs/cgroup/user.slice/user-$user.slice/user@$user.service/casemate.slice; \
    scope=$(echo $slice/casemate-$1-*.scope); unit=${scope##*/}; };";

#[test]
#[ignore = "in the guest of tests/vm"]
fn a_box_with_limits_is_in_a_scope_that_has_them() {
    let text = output(&format!(
        "{FIND} $casemate run --name lim --memory 64m --cpus 0.5 --pids-limit 20 --cpu-weight 50 -- sleep 600 & find lim; \
         cat $scope/payload/memory.max $scope/payload/memory.swap.max $scope/payload/pids.max $scope/cpu.max $scope/cpu.weight; \
         wc -l < $scope/payload/cgroup.procs; wc -l < $scope/cgroup.procs; \
         systemctl --user show $unit -p Slice -p Delegate -p CollectMode | sort; \
         $casemate kill lim; wait $!; echo $?; for i in $(seq 60); do [ -d $scope ] || break; sleep 0.5; done; ls -d $scope 2>&1; true"
    ));
    let all = text.out();
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines[..7], ["67108864", "0", "21", "50000 100000", "50", "2", "0"], "{all}");
    let unit = ["CollectMode=inactive-or-failed", "Delegate=yes", "Slice=casemate.slice"];
    assert_eq!(lines[7..10], unit);
    assert_eq!(lines[10], "137");
    assert!(lines[11].contains("No such file or directory"), "{}", lines[11]);
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn a_box_that_uses_up_its_memory_is_ended_with_the_reason() {
    // A large process, and small ones that fill a file system in memory.
    for script in [
        "python3 -c 'a = bytearray(200 << 20)'",
        "sh -c 'head -c 25m /dev/zero >/tmp/x; head -c 25m /dev/zero >/dev/shm/y; sleep 60'",
    ] {
        let ended = bash(&format!("$casemate run --memory 32m -- {script}")).output().fails(137);
        let words =
            "casemate: killed: memory limit 32 MiB, peak 32 MiB\nhint: raise it: [limits] memory";
        assert!(ended.err().contains(words), "{}", ended.err());
    }
    // The control: the same with enough.
    output("$casemate run --memory 400m -- python3 -c 'a = bytearray(200 << 20)'");
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn the_number_of_processes_is_the_programs() {
    output("$casemate run --pids-limit 1 -- true");
    let refused = bash("$casemate run --pids-limit 1 -- sh -c 'true & wait; ls /'").output();
    assert!(refused.err().contains("Cannot fork"), "{}", refused.err());
    output("$casemate run --pids-limit 3 -- sh -c 'sleep 0.1 & sleep 0.1 & wait'");
    let script = "$casemate run --pids-limit 3 -- sh -c 'sleep 9 & sleep 9 & sleep 9 & wait'";
    let refused = bash(script).output();
    assert!(refused.err().contains("Cannot fork"), "{}", refused.err());
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn limits_of_a_running_box_can_be_changed() {
    let text = output(&format!(
        "{FIND} $casemate run --name upd --memory 64m -- sleep 600 & find upd; \
         $casemate update upd --memory 128m --pids-limit 7 --cpus 0.25; \
         cat $scope/payload/memory.max $scope/payload/pids.max $scope/cpu.max; \
         $casemate update upd --memory 0 --pids-limit -1 --cpus 0; \
         cat $scope/payload/memory.max $scope/payload/pids.max $scope/cpu.max; \
         $casemate stats --json upd; $casemate update upd --cpuset-cpus 0; echo $?; $casemate kill upd; wait"
    ));
    let all = text.out();
    assert!(all.starts_with("134217728\n8\n25000 100000\nmax\nmax\nmax 100000\n"), "{all}");
    assert!(all.contains("\"memory_limit\": null") && all.contains("\"processes\": 1"), "{all}");
    let told = text.err();
    assert!(all.ends_with("125\n") && told.contains("controller cpuset"), "{all}{told}");
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn a_controller_that_is_not_delegated_is_named_with_what_delegates_it() {
    for option in ["--io-weight=50", "--cpuset-cpus=0"] {
        let refused = in_session(casemate(["run", option, "--", "true"])).output();
        let words = ["is not delegated to you", "Delegate=cpu cpuset io memory pids"];
        refused.refuses(125, &words);
        let words = ["run", option, "--memory=64m", "--may-degrade=limits", "--", "true"];
        let lost = in_session(casemate(words)).output().succeeds();
        assert!(lost.err().contains("without effect: not delegated to you"), "{}", lost.err());
    }
}

/// A user of its own, whose manager starts with the drop-in that the error names.
#[test]
#[ignore = "in the guest of tests/vm"]
fn what_the_drop_in_delegates_can_be_limited() {
    let casemate = user().casemate();
    let script = format!(
        "useradd --create-home --uid 1717 delegate; unit=/etc/systemd/system/user@1717.service.d; mkdir $unit; \
         printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' >$unit/delegate.conf; systemctl daemon-reload; \
         loginctl enable-linger delegate; runtime=/run/user/1717; \
         for i in $(seq 120); do [ -S $runtime/systemd/private ] && break; sleep 0.5; done; \
         install -m 755 {} /usr/local/bin/casemate-1717; cd /; \
         own() {{ setpriv --reuid 1717 --regid 1717 --init-groups env -u DBUS_SESSION_BUS_ADDRESS \
         XDG_RUNTIME_DIR=$runtime HOME=/home/delegate casemate-1717 \"$@\"; }}; \
         own run --name all --require-limits --memory 64m --memory-swap 96m --cpuset-cpus 0 --io-weight 50 -- sleep 600 & \
         for i in $(seq 200); do own ps | grep -q '^all *running' && break; sleep 0.1; done; \
         cd /sys/fs/cgroup/user.slice/user-1717.slice/user@1717.service/casemate.slice/casemate-all-*.scope; \
         cat cpuset.cpus payload/memory.swap.max; cat io.weight || cat io.bfq.weight; \
         own update all --io-weight 70 --cpuset-cpus 0; cat io.weight || cat io.bfq.weight; \
         cd /; own kill all; wait; loginctl disable-linger delegate",
        casemate.display()
    );
    let tried = as_root(&script).timeout(Duration::from_secs(240)).output();
    let (all, told) = (tried.out(), tried.err());
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.get(..2), Some(&["0", "33554432"][..]), "{all}{told}");
    assert_eq!(lines.get(2..), Some(&["default 50", "default 70"][..]), "{all}{told}");
}

/// The files of the scope are the user's, and so is the program to the host.
#[test]
#[ignore = "in the guest of tests/vm"]
fn a_box_cannot_raise_its_own_limits() {
    let work = Workspace::new();
    let text = "[capabilities]\nkeep = [\"sys_admin\"]\n[seccomp]\nnesting = true\n";
    let profile = work.file("p.toml", text);
    let tried = output(&format!(
        "{FIND} $casemate run --name up --memory 64m --pids-limit 10 -p {profile} --tmpfs /mnt -- sh -c \
         'mkdir /mnt/c; mount -t cgroup2 none /mnt/c && ls /mnt/c | head -n1; \
          for f in memory.max pids.max; do echo max > /mnt/c/$f || echo refused; done; sleep 600' & find up; sleep 5; \
         cat $scope/payload/memory.max $scope/payload/pids.max; \
         echo 99999744 > $scope/payload/memory.max && cat $scope/payload/memory.max; $casemate kill up; wait"
    ));
    let (all, told) = (tried.out(), tried.err());
    // It sees its cgroup, and the kernel refuses the limits there (nsdelegate, cgroups(7)).
    assert!(all.contains("cgroup.controllers"), "{all}{told}");
    assert_eq!(all.matches("refused").count(), 2, "{all}{told}");
    // The control: the same user outside can.
    assert!(all.contains("67108864\n11\n9999"), "{all}");
    let granted = in_session(casemate(["run", "-v", "/sys/fs/cgroup", "--", "true"])).output();
    granted.refuses(125, &["has its boxes' limits"]);
    let read_only = in_session(casemate(["run", "-v", "/sys", "--", "sh", "-c"]))
        .arg("mkdir /sys/fs/cgroup/user.slice/user-$(id -u).slice/user@$(id -u).service/x")
        .output();
    assert!(read_only.err().contains("Read-only file system"), "{}", read_only.err());
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn a_paused_box_stands_still_goes_on_and_can_be_killed() {
    let text = output(&format!(
        "{FIND} $casemate run --name pau -- sh -c 'while :; do echo; sleep 0.1; done' >$HOME/ticks & find pau; \
         used() {{ stat -c %s $HOME/ticks; }}; \
         $casemate pause pau; $casemate ps | grep -c '^pau *paused'; \
         a=$(used); sleep 2; [ \"$a\" = \"$(used)\" ] && echo still; \
         $casemate resume pau; sleep 3; [ \"$a\" = \"$(used)\" ] || echo goes on; \
         $casemate pause pau; $casemate kill pau; wait $!; echo $?"
    ));
    assert_eq!(text.out(), "1\nstill\ngoes on\n137\n", "{}", text.err());
}

/// Killed in any moment, it leaves no unit and no process: the kernel ends the box with it, and the
/// manager takes away a scope that is empty. How soon is the manager's, which an emulated machine has
/// wait.
#[test]
#[ignore = "in the guest of tests/vm"]
fn nothing_is_left_of_a_killed_casemate() {
    let started = output(&format!(
        "{FIND} for delay in 0.1 0.3 0.6 1 1.5 2.5; do \
         {{ $casemate run --name die-$delay --memory 64m -- sleep 77 & sleep $delay; kill -9 $!; }} & \
         done 2>/dev/null; $casemate run --name die --memory 64m -- sleep 77 & last=$!; find die; \
         systemctl --user list-units --all --plain --no-legend 'casemate-die-*'; kill -9 $last; wait"
    ));
    // The control: the last had come as far as that.
    assert!(started.out().contains("active running"), "{}", started.out());
    let left = output(
        "left() { pgrep -ax sleep | grep ' 77$'; $casemate ps -q | grep die; \
         systemctl --user list-units --all --plain --no-legend 'casemate-die*'; }; \
         for i in $(seq 60); do [ -z \"$(left)\" ] && break; sleep 0.5; done; left; \
         systemctl --user --failed --plain --no-legend; true",
    );
    assert_eq!(left.out(), "", "{}", left.err());
}

/// Fewer than the hundred of `tests/cgroup`: an emulated manager makes some three scopes a second.
#[test]
#[ignore = "in the guest of tests/vm"]
fn many_boxes_at_once_have_each_their_scope() {
    let boxes = output(
        "for i in $(seq 20); do \
         $casemate run --memory 64m --pids-limit 9 --name n$i -- grep ^0 /proc/self/cgroup & \
         done 2>&1 | sort | uniq -c; wait; \
         left() { systemctl --user list-units --all --plain --no-legend 'casemate-n*'; }; \
         for i in $(seq 60); do [ -z \"$(left)\" ] && break; sleep 0.5; done; left",
    );
    assert_eq!(boxes.out().trim(), "20 0::/", "{}", boxes.err());
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn the_manager_is_found_by_its_socket_by_the_bus_or_not_at_all() {
    let place = |environment: &str| {
        let explain = "$casemate explain --memory 64m -- true | grep '  cgroup '";
        output(&format!("exec env {environment} bash -c \"{explain}\"")).text()
    };
    assert!(place("A=1").ends_with("by its private socket"));
    // An address of nobody's does not matter beside the private socket.
    let wrong = "DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere";
    assert!(place(wrong).ends_with("by its private socket"));
    assert!(place(&format!("-u XDG_RUNTIME_DIR {wrong}")).ends_with("by its private socket"));
    let work = Workspace::new();
    let empty = work.directory("run");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&empty, private).unwrap();
    assert!(place(&format!("XDG_RUNTIME_DIR={empty}")).ends_with("by the session bus"));
    let none = format!("XDG_RUNTIME_DIR={empty} {wrong}");
    assert!(place(&none).contains("none: each process is limited alone"));
    output(&format!("env XDG_RUNTIME_DIR={empty} $casemate run --memory 64m -- true"));
    let strict = "$casemate run --require-limits --memory 64m -- true";
    let refused = bash(&format!("env {none} {strict}")).output();
    refused.refuses(125, &["no user manager of systemd answers"]);
    // The system's own manager is root's, and is not asked.
    let system = "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket";
    let warned =
        output(&format!("env XDG_RUNTIME_DIR={empty} {system} $casemate run --memory 64m -- true"));
    assert!(warned.err().contains("belongs to user 0"), "{}", warned.err());
}

/// A service with `Delegate=yes` from where no manager can be reached.
#[test]
#[ignore = "in the guest of tests/vm"]
fn a_delegated_service_is_enough() {
    let run = |delegate: &str, words: &str| {
        let service = format!(
            "systemd-run --quiet --wait --pipe --collect --uid={} -p Delegate={delegate} \
             -p InaccessiblePaths=/run/user {} {words}",
            user().name,
            user().casemate().display(),
        );
        as_root(&service).output()
    };
    let inside = run("yes", "run --memory 64m --pids-limit 5 -- grep ^0 /proc/self/cgroup");
    let inside = inside.succeeds();
    assert_eq!((inside.text().as_str(), inside.err().as_str()), ("0::/", ""));
    let plan = run("yes", "explain --memory 64m -- true").succeeds();
    assert!(plan.out().contains("below a cgroup that is yours"), "{}", plan.out());
    let ended = run("yes", "run --memory 32m -- python3 -c 'a=bytearray(200*1024*1024)'");
    assert!(ended.err().contains("killed: memory limit 32 MiB"), "{}", ended.err());
    // Without delegation the cgroup is root's.
    let weaker = run("no", "run --memory 64m -- true").succeeds();
    assert!(weaker.err().contains("memory counts for each process"), "{}", weaker.err());
}
