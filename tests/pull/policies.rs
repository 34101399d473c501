//! `run --pull`: when an image is asked for, and that nothing of the asking stays.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::archives::{Entry, archive};
use crate::common::{Leftovers, Pty};
use crate::images::Layer;
use crate::link::Link;
use crate::scene::{Home, Scene};

/// A layer with busybox as `cat`, and a file that says `version`.
fn layer(version: &str) -> Layer {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let program = Entry::file("bin/cat", busybox).mode(0o755);
    Layer::gzip(archive([program, Entry::file("version", version)]))
}

fn run(home: &Home, policy: Option<&str>, name: &str) -> crate::common::Run {
    let pull: Vec<&str> = policy.into_iter().flat_map(|policy| ["--pull", policy]).collect();
    home.casemate(["run"]).args(pull).args(["--image", name, "cat", "/version"])
}

#[test]
fn run_pulls_what_is_missing_and_no_more() {
    let mut scene = Scene::new();
    let name = scene.put("app", &[layer("1")]);
    let home = &scene.home;
    // `explain` never does, whatever it is told.
    for policy in ["always", "missing", "newer", "never"] {
        let words = ["explain", "--pull", policy, "--image", &name, "true"];
        home.casemate(words).output().refuses(125, &["not in the store"]);
    }
    let words = ["not in the store", "casemate pull", "casemate import"];
    run(home, Some("never"), &name).output().refuses(125, &words);
    assert!(scene.registry.requests().is_empty());
    let output = run(home, None, &name).output().succeeds();
    assert_eq!(output.out(), "1");
    assert!(output.err().contains("1 layer new"), "{}", output.err());
    let requests = scene.registry.requests().len();
    for policy in [None, Some("missing"), Some("never")] {
        let output = run(home, policy, &name).output().succeeds();
        assert_eq!((output.out(), output.err()), ("1".to_owned(), String::new()));
    }
    assert_eq!(scene.registry.requests().len(), requests, "nothing was asked");
    // What is current is one question.
    for policy in ["always", "newer"] {
        let before = scene.registry.requests().len();
        assert_eq!(run(home, Some(policy), &name).output().succeeds().out(), "1");
        assert_eq!(scene.registry.requests()[before..], ["HEAD /v2/app/manifests/latest"]);
    }
    for (policy, version) in [("always", "2"), ("newer", "3")] {
        scene.put("app", &[layer(version)]);
        assert_eq!(run(home, Some(policy), &name).output().succeeds().out(), version);
    }
    assert_eq!(home.on_disk("staging").len(), 0);
    // Quiet is quiet, and the profile has the same words.
    scene.put("app", &[layer("4")]);
    let profile = home.0.file("p.toml", format!("[root]\nimage = \"{name}\"\npull = \"always\"\n"));
    let output =
        home.casemate(["run", "-q", "-p", &profile, "cat", "/version"]).output().succeeds();
    assert_eq!((output.out(), output.err()), ("4".to_owned(), String::new()));
    let output = home.casemate(["run", "--pull", "sometimes", "--image", &name, "true"]).output();
    assert!(output.fails(125).err().contains("always, missing, never, newer"));
    // With the registry away.
    scene.registry.stop();
    let home = &scene.home;
    let output = run(home, Some("newer"), &name).output().succeeds();
    assert_eq!(output.out(), "4");
    assert!(
        output.err().contains("going on with what is there"),
        "it says that it could not ask: {}",
        output.err()
    );
    assert_eq!(run(home, Some("missing"), &name).output().succeeds().out(), "4");
    for (policy, name) in [("always", name), ("newer", scene.name("other"))] {
        let output = run(home, Some(policy), &name).arg("-").output().fails(125);
        assert!(
            output
                .err()
                .contains(&format!("{name}: {}: connection refused", scene.registry.host())),
            "{}",
            output.err()
        );
    }
}

#[test]
fn the_pulling_process_leaves_nothing_behind() {
    let watch = Leftovers::watch();
    let scene = Scene::new();
    let name = scene.put("app", &[layer("1")]);
    let mut held = run(&scene.home, None, &name).args(["-"]).open_stdin().spawn();
    held.expect("1");
    // While the box runs there is the supervisor, its init and the program, and no more threads.
    let children = |pid: i32| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(path).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>()
    };
    let init = children(held.pid());
    assert_eq!(init.len(), 1, "init alone");
    assert_eq!(children(init[0]).len(), 1, "the program alone");
    assert_eq!(fs::read_dir(format!("/proc/{}/task", held.pid())).unwrap().count(), 1);
    let open = fs::read_dir(format!("/proc/{}/fd", held.pid())).unwrap();
    let open: Vec<_> = open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
    let sockets = open.iter().filter(|to| to.to_string_lossy().contains("socket:"));
    assert!(sockets.count() <= 1, "{open:?}");
    held.close_stdin();
    held.wait().succeeds();
    drop(scene);
    watch.none();
}

#[test]
fn an_interrupt_ends_the_pull_and_what_started_it() {
    let watch = Leftovers::watch();
    let scene = Scene::new();
    scene.put("slow", &[Layer::noise("slow", 1 << 20)]);
    let link = Link::new(scene.registry.host(), 0, 200 << 10);
    scene.home.insecure(&[&link.host()]);
    let name = format!("{}/slow", link.host());
    for words in [&["pull", &name][..], &["run", "--image", &name, "true"]] {
        let mut screen = Pty::start(scene.home.casemate(words));
        screen.expect("KiB of");
        let start = Instant::now();
        screen.write("\x03");
        let (status, text) = screen.end();
        assert_eq!(status.signal(), Some(libc::SIGINT), "{text}");
        assert!(start.elapsed() < Duration::from_secs(3));
        assert!(!text.contains("\x1b[?25l") || text.contains("\x1b[?25h"), "the cursor is there");
        assert!(scene.home.on_disk("layers").is_empty());
        // And when only the one that was started is told so, by its id.
        let before = link.passed();
        let running = scene.home.casemate(words).spawn();
        link.wait_for(before + (100 << 10));
        running.signal(Signal::SIGTERM);
        let output = running.wait();
        assert_eq!(output.signal(), Some(libc::SIGTERM), "{}", output.err());
    }
    scene.home.casemate(["prune"]).output().succeeds();
    scene.home.has_just(&[]);
    drop((scene, link));
    watch.none();
}
