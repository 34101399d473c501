//! The root in the modes that have a server: what it shows, how it lives and how it ends.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::command::slowness;
use crate::common::{Image, Leftovers, Run, Running, casemate, image, require_root, user};

/// The modes that have a server.
const SERVED: [&str; 2] = ["hybrid", "fuse"];

/// `casemate run` of the small image with a root of this mode.
fn served(mode: &str, options: &[&str], script: &str) -> Run {
    let name = image(Image::Small);
    casemate(["run", "--overlay", mode, "--image", &name])
        .args(options)
        .args(["--", "sh", "-c", script])
        .with_fuse()
}

/// The children of casemate: the first process of the box, which has an id of the box's own too, and
/// the server, which has none.
fn children(of: &Running) -> (i32, i32) {
    let list = format!("/proc/{0}/task/{0}/children", of.pid());
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let list = std::fs::read_to_string(&list).unwrap();
        let mut found = (None, None);
        for pid in list.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()) {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            match ids.map(|ids| ids.split_whitespace().count()) {
                // The network's process has none either, as long as it lives.
                Some(1) if status.starts_with("Name:\tcasemate-layers\n") => found.1 = Some(pid),
                Some(1) | None => {}
                Some(_) => found.0 = Some(pid),
            }
        }
        if let (Some(init), Some(server)) = found {
            return (init, server);
        }
        assert!(Instant::now() < deadline, "casemate has no server: {list:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_root_with_a_server_is_the_tree_of_the_image() {
    if !require_root() {
        return;
    }
    for mode in SERVED {
        let list = "find / -xdev \\( -path /proc -o -path /dev -o -path /sys -o -path /tmp -o \
                    -path /run \\) -prune -o -type f -exec md5sum {} + -o -type l -print | sort";
        let name = image(Image::Small);
        let kernel =
            casemate(["run", "--overlay", "kernel", "--image", &name, "--", "sh", "-c", list]);
        let kernel = kernel.text();
        assert!(kernel.lines().count() > 10, "{kernel}");
        assert_eq!(served(mode, &[], list).text(), kernel);
        assert_eq!(served(mode, &["--scratch", "disk"], list).text(), kernel);
        assert_eq!(served(mode, &["--read-only"], list).text(), kernel);
    }
}

#[test]
fn a_root_with_a_server_is_written_to_and_forgets() {
    if !require_root() {
        return;
    }
    for mode in SERVED {
        let script = "cd /data && echo new > kept/file && mv replaced moved && rm -r covered && \
                      mkdir covered && touch covered/again && ln moved linked && ls . covered && \
                      cat kept/file linked";
        let expected =
            ".:\ncovered\nhardlink\nkept\nlinked\nmoved\nsymlink\n\ncovered:\nagain\nnew\nthird";
        for options in [&[][..], &["--scratch", "disk"]] {
            assert_eq!(served(mode, options, script).text(), expected, "{options:?}");
            assert_eq!(served(mode, options, "cat /data/replaced").text(), "third");
        }
        let refused = served(mode, &["--read-only"], "echo x > /data/new").output().fails(1);
        assert!(refused.err().contains("Read-only file system"), "{}", refused.err());
    }
}

#[test]
fn exit_codes_and_signals_are_the_programs() {
    if !require_root() {
        return;
    }
    for mode in SERVED {
        let watch = Leftovers::watch();
        assert_eq!(served(mode, &[], "exit 7").output().code(), Some(7));
        assert_eq!(served(mode, &[], "kill -9 $$").output().code(), Some(137));
        served(mode, &["--timeout", "1"], "sleep 60").output().fails(124);
        let name = image(Image::Small);
        let missing = ["run", "--overlay", mode, "--image", &name, "--", "/nothing"];
        casemate(missing).with_fuse().output().refuses(127, &["/nothing"]);
        watch.none();
    }
}

#[test]
fn the_end_of_the_server_ends_the_run_with_125() {
    if !require_root() {
        return;
    }
    for mode in SERVED {
        let watch = Leftovers::watch();
        // What the kernel has not seen yet has to be asked for, and nobody is there to answer.
        let script = "echo up; read go; read line < /srv/second/file && echo $line; exit 3";
        let mut running = served(mode, &[], script).open_stdin().spawn();
        running.expect("up");
        let (_, server) = children(&running);
        kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
        running.write("go\n");
        let output = running.wait().fails(125);
        assert_eq!(output.out().trim_end(), "up");
        let words = match mode {
            "hybrid" => "overlay's shared server ended before its boxes",
            _ => "overlay's server was ended by signal 9",
        };
        assert!(output.err().contains(words), "{}", output.err());
        watch.none();
    }
}

#[test]
fn a_server_that_hangs_does_not_keep_a_box_that_is_to_end() {
    if !require_root() {
        return;
    }
    for mode in SERVED {
        let watch = Leftovers::watch();
        let running = served(mode, &["--timeout", "3"], "echo up; sleep 1; ls -lR /").spawn();
        running.expect("up");
        let (_, server) = children(&running);
        kill(Pid::from_raw(server), Signal::SIGSTOP).unwrap();
        running.wait().fails(124);
        watch.none();
    }
}

#[test]
fn the_server_ends_with_casemate() {
    if !require_root() {
        return;
    }
    for mode in SERVED {
        let watch = Leftovers::watch();
        let running = served(mode, &[], "echo up; sleep 60").spawn();
        running.expect("up");
        let both = children(&running);
        running.signal(Signal::SIGKILL);
        assert_eq!(running.wait().status.code(), None);
        let deadline = Instant::now() + Duration::from_secs(5);
        for pid in [both.0, both.1] {
            let is_alive = || {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
                status.is_ok_and(|status| !status.contains("State:\tZ"))
            };
            while is_alive() {
                assert!(Instant::now() < deadline, "{pid} lives on");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        watch.none();
    }
}

#[test]
fn the_server_is_confined() {
    if !require_root() {
        return;
    }
    for mode in SERVED {
        let running = served(mode, &[], "echo up; sleep 60").spawn();
        running.expect("up");
        let (init, server) = children(&running);
        has_lines(server, &["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"]);
        // The device, the layers, two sockets, and nothing of the box's or the caller's.
        let links = std::fs::read_dir(format!("/proc/{server}/fd")).unwrap();
        for entry in links.flatten() {
            let Ok(link) = std::fs::read_link(entry.path()) else { continue };
            let link = link.to_str().unwrap().to_owned();
            // Where the device is a mount of the box's, it has no name outside.
            let is_device = std::fs::metadata(entry.path()).is_ok_and(|it| {
                std::os::unix::fs::MetadataExt::rdev(&it) == nix::sys::stat::makedev(10, 229)
            });
            let known = link == "/dev/null" || link.starts_with("socket:[") || is_device;
            // Below the box's memory, which has no name outside either.
            let is_upper = mode == "fuse" && (link.contains("/upper") || link.ends_with("/work"));
            // The pipe hangs up when it ends.
            let is_life = link.starts_with("pipe:[");
            let known = known || is_upper || is_life;
            assert!(known || link.contains("/casemate/store/layers/"), "{link}");
        }
        // PID 1 of the box has neither.
        for entry in std::fs::read_dir(format!("/proc/{init}/fd")).unwrap().flatten() {
            let link = std::fs::read_link(entry.path()).unwrap_or_default();
            assert!(!link.starts_with("/dev/fuse") && !link.to_string_lossy().contains("layers"));
        }
    }
}

#[test]
fn a_device_that_is_missing_or_closed_is_told_and_nothing_taken_instead() {
    if !require_root() {
        return;
    }
    let name = image(Image::Small);
    for mode in ["hybrid", "fuse"] {
        let run = casemate(["run", "--overlay", mode, "--image", &name, "--", "true"]);
        let closed = run.with_fuse_device(0o600).output();
        let words = [&format!("overlay {mode}: open /dev/fuse: Permission denied"), "chmod 666"];
        closed.refuses(125, &words);
    }
    let kernel = casemate(["run", "--overlay", "kernel", "--image", &name, "--", "true"]);
    kernel.with_fuse_device(0o600).output().succeeds();
    let doctor = casemate(["doctor"]).with_fuse_device(0o600).output().fails(1);
    assert!(doctor.out().contains("[fuse-device]"), "{}", doctor.out());
}

#[test]
fn a_trial_is_noted_and_not_made_again() {
    let name = image(Image::Small);
    let note = crate::common::user().data().join("casemate/overlayfs-works");
    let run = || casemate(["explain", "--image", &name, "--", "true"]).text();
    assert!(run().contains("kernel: overlayfs on the layers; the cheapest"));
    let first = std::fs::metadata(&note).unwrap().modified().unwrap();
    run();
    assert_eq!(std::fs::metadata(&note).unwrap().modified().unwrap(), first);
    // One that is of another machine is not believed.
    std::fs::write(&note, "another kernel\n").unwrap();
    run();
    assert!(!std::fs::read_to_string(&note).unwrap().starts_with("another"));
}

/// What /proc says of a process.
fn has_lines(pid: i32, lines: &[&str]) {
    // A thread is confined before it answers anything, which the first one may do a moment later.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let missing = lines.iter().find(|line| !status.lines().any(|have| have == **line));
        let Some(missing) = missing else { return };
        assert!(Instant::now() < deadline, "{missing} is missing:\n{status}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes of the test user that have this name and live.
fn named(name: &str) -> Vec<i32> {
    let is_meant = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let uid = format!("Uid:\t{}\t", user().uid);
        status.starts_with(&format!("Name:\t{name}\n"))
            && status.contains(&uid)
            && !status.contains("State:\tZ")
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_meant).collect()
}

/// Where boxes meet, and what is there.
fn meeting_place() -> Vec<String> {
    let entries = std::fs::read_dir(user().runtime().join("casemate/overlay")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn fifty_boxes_have_one_server_which_ends_with_the_last() {
    if !require_root() {
        return;
    }
    let watch = Leftovers::watch();
    let boxes: Vec<Running> = (0..50 / slowness())
        .map(|_| served("hybrid", &[], "echo up; read go; md5sum /srv/second/file").open_stdin())
        .map(Run::spawn)
        .collect();
    for running in &boxes {
        running.expect("up");
    }
    let (servers, keepers) = (named("casemate-layers"), named("casemate-keeper"));
    assert_eq!((servers.len(), keepers.len()), (1, 1), "{servers:?} {keepers:?}");
    has_lines(servers[0], &["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"]);
    has_lines(keepers[0], &["Seccomp:\t2", "NoNewPrivs:\t1"]);
    // The one that started it ends first, and the others go on.
    let mut results = std::collections::BTreeSet::new();
    for mut running in boxes {
        running.write("go\n");
        results.insert(running.wait().succeeds().out());
    }
    assert_eq!(results.len(), 1, "{results:?}");
    watch.none();
    assert_eq!(meeting_place(), ["lock"]);
}

#[test]
fn boxes_go_on_without_the_keeper_and_others_start_another() {
    if !require_root() {
        return;
    }
    let watch = Leftovers::watch();
    let script = "echo up; read go; md5sum /srv/second/file";
    let mut first = served("hybrid", &[], script).open_stdin().spawn();
    first.expect("up");
    let keeper = named("casemate-keeper")[0];
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    while named("casemate-keeper").contains(&keeper) {
        std::thread::sleep(Duration::from_millis(2));
    }
    // Its socket is still there, and nobody at it.
    assert_eq!(meeting_place().len(), 2);
    let mut second = served("hybrid", &[], script).open_stdin().spawn();
    second.expect("up");
    assert_eq!(named("casemate-layers").len(), 2);
    for running in [&mut first, &mut second] {
        running.write("go\n");
    }
    assert_eq!(first.wait().succeeds().out(), second.wait().succeeds().out());
    watch.none();
    assert_eq!(meeting_place(), ["lock"]);
}

#[test]
fn a_box_that_cannot_meet_others_has_a_server_of_its_own() {
    if !require_root() {
        return;
    }
    let alone = |run: Run| {
        let running = run.open_stdin().spawn();
        running.expect("up");
        assert_eq!(named("casemate-keeper"), Vec::<i32>::new());
        children(&running);
    };
    let watch = Leftovers::watch();
    let script = "echo up; read go";
    alone(served("hybrid", &[], script).without_env("XDG_RUNTIME_DIR"));
    // Not the user's own.
    alone(served("hybrid", &[], script).env("XDG_RUNTIME_DIR", "/usr"));
    // A server that others use would end by this user's limit.
    let name = image(Image::Small);
    let script = format!(
        "ulimit -t 1000; exec $casemate run --overlay hybrid --image {name} -- \
         sh -c 'echo up; read go'"
    );
    alone(Run::bash(&script).with_fuse());
    watch.none();
}

#[test]
fn a_shared_server_that_hangs_keeps_no_box_that_is_to_end() {
    if !require_root() {
        return;
    }
    let watch = Leftovers::watch();
    let script = "echo up; read go; cat /srv/second/file";
    let mut other = served("hybrid", &[], script).open_stdin().spawn();
    other.expect("up");
    let script = "echo up; sleep 1; cat /srv/second/file";
    let running = served("hybrid", &["--timeout", "2"], script).spawn();
    running.expect("up");
    let server = Pid::from_raw(named("casemate-layers")[0]);
    kill(server, Signal::SIGSTOP).unwrap();
    running.wait().fails(124);
    kill(server, Signal::SIGCONT).unwrap();
    other.write("go\n");
    other.wait().succeeds();
    watch.none();
}

#[test]
fn a_keeper_that_is_stopped_is_told_in_bounded_time() {
    if !require_root() {
        return;
    }
    let watch = Leftovers::watch();
    let mut first = served("hybrid", &[], "echo up; read go").open_stdin().spawn();
    first.expect("up");
    let keeper = Pid::from_raw(named("casemate-keeper")[0]);
    kill(keeper, Signal::SIGSTOP).unwrap();
    let refused = served("hybrid", &[], "true").output();
    kill(keeper, Signal::SIGCONT).unwrap();
    refused.refuses(125, &["shared server: it does not answer", "pkill casemate-keeper"]);
    first.write("go\n");
    first.wait().succeeds();
    watch.none();
}
