//! A cgroup that is the user's, made by root, on the hierarchy of this machine. It may be without
//! controllers, so that what is tested is all but the numbers.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{Image, Output, Run, Workspace, control, image, require_root, user};

/// A directory in the unified hierarchy that the user owns; gone when dropped.
pub(super) struct Given(pub(super) PathBuf, pub(super) Workspace);

impl Given {
    pub(super) fn make(name: &str) -> Option<Given> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists());
        if !control("cgroup2", mount.is_some(), "no unified hierarchy of cgroups is mounted") {
            return None;
        }
        if !require_root() {
            return None;
        }
        let path = mount.unwrap().join(format!("casemate-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::create_dir(path.join("shell")).unwrap();
        for inner in ["", "cgroup.procs", "cgroup.subtree_control", "shell", "shell/cgroup.procs"] {
            user().own(&path.join(inner));
        }
        let work = Workspace::new();
        let runtime = work.directory("run");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(runtime, private).unwrap();
        Some(Given(path, work))
    }

    /// A script of the user's in it; `$casemate` is the program.
    pub(super) fn bash(&self, script: &str) -> Run {
        let procs = self.0.join("shell/cgroup.procs");
        let outer = format!(
            "echo $$ > {} && exec setpriv --reuid {} --regid {} --clear-groups -- bash -c \"$1\"",
            procs.display(),
            user().uid,
            user().gid
        );
        Run::new("bash")
            .args(["-c", &outer, "bash", script])
            .env("casemate", user().casemate())
            .env("group", &self.0)
            .env("XDG_RUNTIME_DIR", self.1.at("run"))
            .env("ticks", self.1.at("ticks"))
            .by_root()
    }

    fn run(&self, script: &str) -> Output {
        self.bash(script).output().succeeds()
    }

    /// The boxes' cgroups that are there.
    fn left(&self) -> Vec<String> {
        let mut names = Vec::new();
        for place in [self.0.clone(), self.0.join("shell")] {
            let entries = std::fs::read_dir(place).unwrap();
            let found = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.extend(found.filter(|name| name.starts_with("casemate-")));
        }
        names
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        loop {
            for place in ["", "shell", "casemate.slice"].map(|place| self.0.join(place)) {
                for entry in std::fs::read_dir(&place).into_iter().flatten().flatten() {
                    for inner in ["payload", "supervisor", ""] {
                        let _ = std::fs::remove_dir(entry.path().join(inner));
                    }
                }
            }
            if std::fs::remove_dir(&self.0).is_ok() || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_program_is_born_in_the_boxs_cgroup_and_sees_no_other() {
    let Some(given) = Given::make("born") else { return };
    let seen = given.run("$casemate run --name born -- grep ^0 /proc/self/cgroup");
    assert_eq!(seen.text(), "0::/");
    // The control: without a cgroup of its own it sees that it is in the caller's, as its root.
    let script = "$casemate run --name born2 -- sleep 30 & \
        for i in $(seq 100); do [ -n \"$(cat $group/shell/casemate-born2-*/payload/cgroup.procs)\" ] && break; sleep 0.05; done 2>/dev/null; \
        wc -l < $(echo $group/shell/casemate-born2-*/payload/cgroup.procs); \
        cat /proc/$($casemate ps --json | grep -o '\"pid\": [0-9]*' | grep -o '[0-9]*')/cgroup | grep ^0; \
        $casemate kill born2; wait $!; echo $?";
    let text = given.run(script).out();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "2", "the box has a PID 1 and a program: {text}");
    // casemate itself is not in it.
    assert!(lines[1].ends_with("/shell"), "{text}");
    assert_eq!(lines[2], "137", "{text}");
    assert!(given.left().is_empty(), "{:?}", given.left());
}

/// The box of a range of ids is made by a process that has left the user's namespace.
#[test]
fn the_program_with_many_ids_is_born_in_it_as_well() {
    let Some(given) = Given::make("range") else { return };
    given.1.file("config/casemate/config.toml", "allow-setuid-helper = true\n");
    let script = "export XDG_CONFIG_HOME=$config; many() { $casemate run --userns many \"$@\"; }; \
        many --name r1 -- sh -c 'id -u; grep ^0 /proc/self/cgroup'; \
        many --name r2 -- sleep 60 & \
        for i in $(seq 100); do [ $(wc -l < $group/shell/casemate-r2-*/payload/cgroup.procs) = 2 ] && break; sleep 0.05; done 2>/dev/null; \
        wc -l < $(echo $group/shell/casemate-r2-*/payload/cgroup.procs); \
        ls -d $group/shell/casemate-* | wc -l; $casemate pause r2; $casemate ps | grep -c paused; \
        $casemate resume r2; $casemate kill -s TERM r2; wait $!; echo $?; $casemate holder stop";
    let output = given.bash(script).env("config", given.1.at("config")).output().succeeds();
    let text = output.out();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1..], ["0::/", "2", "1", "1", "143"], "{text} {}", output.err());
    assert!(given.left().is_empty(), "{:?}", given.left());
}

/// The one server of all boxes is in none of their cgroups, so that it can outlive the first.
#[test]
fn boxes_with_cgroups_share_a_server_beside_them() {
    let Some(given) = Given::make("server") else { return };
    let name = image(Image::Small);
    let procs = given.0.join("shell/cgroup.procs");
    let script = "box() { $casemate run --image $image --overlay hybrid --name $1 -- /bin/sleep 60 & \
        for i in $(seq 100); do $casemate ps | grep -q \"^$1 .* running \" && break; sleep 0.05; done; }; \
        box a; a=$!; box b; b=$!; pgrep -c -u $UID casemate-layers; \
        grep ^0 /proc/$(pgrep -u $UID casemate-layers)/cgroup; kill $a; wait $a; echo $?; \
        ls $group/shell | grep casemate; pgrep -c -u $UID casemate-layers; kill $b; wait $b; echo $?";
    let run = Run::bash(script).env("image", &name).env("XDG_RUNTIME_DIR", given.1.at("run"));
    let enter = ["-c", "echo $$ > \"$0\" && exec \"$@\"", procs.to_str().unwrap()];
    let run = run.env("group", &given.0);
    let output = run.with_fuse().wrapped_in("bash", &enter).output();
    let text = output.out();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1", "{text}{}", output.err());
    assert!(lines[1].ends_with("/shell"), "{text}");
    assert!(lines[3].starts_with("casemate-b-"), "{text}");
    assert_eq!((lines[2], &lines[4..]), ("143", &["1", "143"][..]), "{text}{}", output.err());
    assert!(given.left().is_empty(), "{:?}", given.left());
}

#[test]
fn a_paused_box_stands_still_and_goes_on() {
    let Some(given) = Given::make("pause") else { return };
    let script = "exec 2>&1; $casemate run --name p -- sh -c 'while :; do echo x; sleep 0.05; done' > $ticks & \
        for i in $(seq 100); do [ -s $ticks ] && break; sleep 0.05; done; \
        $casemate pause p; $casemate ps | grep -c paused; a=$(stat -c %s $ticks); sleep 0.5; \
        b=$(stat -c %s $ticks); $casemate resume p; sleep 0.5; c=$(stat -c %s $ticks); \
        echo $((b - a)) $((c > b)); $casemate pause p; $casemate kill p; wait $!; echo $?";
    let output = given.run(script);
    assert_eq!(output.out(), "1\n0 1\n137\n", "{}", output.err());
    assert!(given.left().is_empty(), "{:?}", given.left());
}

/// Whatever moment casemate is killed in, the box ends, and the next one takes away what is left.
#[test]
fn what_a_killed_casemate_leaves_is_swept() {
    let Some(given) = Given::make("kill") else { return };
    for delay in ["0", "0.002", "0.005", "0.01", "0.02", "0.05", "0.3"] {
        let script = format!(
            "$casemate run --name k -- sleep 60 & sleep {delay}; kill -9 $!; wait 2>/dev/null; \
             for i in $(seq 100); do grep -q 'populated 1' $group/shell/casemate-*/cgroup.events || break; sleep 0.05; done 2>/dev/null; \
             cat $group/shell/casemate-*/payload/cgroup.procs 2>/dev/null | wc -l; $casemate ps -q; $casemate run --name k -- true"
        );
        let output = given.run(&script);
        assert_eq!(output.out(), "0\n", "{delay}: {}", output.err());
        assert!(given.left().is_empty(), "{delay}: {:?}", given.left());
    }
}

#[test]
fn many_boxes_at_once_have_each_their_own() {
    let Some(given) = Given::make("many") else { return };
    let script = "for i in $(seq 100); do $casemate run --name m$i -- sh -c 'grep ^0 /proc/self/cgroup' & done | sort | uniq -c; wait";
    let output = given.bash(script).timeout(Duration::from_secs(120)).output().succeeds();
    assert_eq!(output.text().trim(), "100 0::/", "{}", output.err());
    assert!(given.left().is_empty(), "{:?}", given.left());
}

/// The user owns the files of the box's cgroup: a box that could write them would have no limit.
#[test]
fn a_box_cannot_write_to_cgroups_whatever_is_granted() {
    let Some(given) = Given::make("grant") else { return };
    // The control: the user can.
    given.run("mkdir $group/x && echo 1 > $group/x/cgroup.freeze && rmdir $group/x");
    let refused = given.bash("$casemate run -v $group -- true").output();
    refused.refuses(125, &["has its boxes' limits"]);
    let tried = given.run(
        "$casemate run --name g -v /sys -- sh -c \"test -e $group/cgroup.procs && mkdir $group/x || echo no\" 2>&1",
    );
    assert!(tried.out().contains("Read-only file system"), "{}", tried.out());
    assert!(tried.out().ends_with("no\n"), "{}", tried.out());
}

/// A hierarchy without controllers gives less than limits of each process do.
#[test]
fn without_controllers_limits_count_for_each_process() {
    let Some(given) = Given::make("weak") else { return };
    let controllers = std::fs::read_to_string(given.0.join("cgroup.controllers")).unwrap();
    if !control("no-controllers", controllers.trim().is_empty(), "this hierarchy has controllers") {
        return;
    }
    let script = "$casemate run --memory 64m --pids-limit 9 -- sh -c 'ulimit -d; ulimit -p'";
    let output = given.run(script);
    assert_eq!(output.out(), "65536\n10\n");
    assert!(output.err().contains("memory counts for each process, not in total"));
    let script = "$casemate run --pids-limit 9 --ulimit nproc=100 -- sh -c 'ulimit -p'";
    let output = given.run(script);
    assert_eq!(output.out(), "10\n");
    assert!(output.err().contains("processes counts for each user id"), "{}", output.err());
    // The caller's own limit is the stricter one, and no reason against the run.
    let script = "ulimit -d 40000; $casemate run --memory 64m -- sh -c 'ulimit -d'";
    assert_eq!(given.run(script).out(), "40000\n");
    let refused = given.bash("$casemate run --require-limits --memory 64m -- true").output();
    refused.refuses(125, &["limits of the box in total", "no user manager", "enable-linger"]);
}
