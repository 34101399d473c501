//! Signals to casemate reach the program; casemate's own death ends the box.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::command::slowness;
use crate::common::{Image, Leftovers, casemate, image};

#[test]
fn signals_are_forwarded() {
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2]
    {
        let name = signal.as_str().strip_prefix("SIG").unwrap();
        let script = format!(
            "trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let running = casemate(["run", "--", "sh", "-c", &script]).spawn();
        running.expect("ready");
        running.signal(signal);
        let output = running.wait().fails(7);
        assert!(output.out().ends_with(&format!("got {name}\n")), "{}", output.out());
    }
}

#[test]
fn a_signal_that_ends_the_program_ends_the_box() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let running = casemate(["run", "--", "sh", "-c", "echo ready; exec sleep 60"]).spawn();
        running.expect("ready");
        running.signal(signal);
        running.wait().fails(128 + signal as i32);
    }
}

#[test]
fn stopping_and_continuing_does_not_lose_the_box() {
    let running = casemate(["run", "--", "sh", "-c", "echo ready; sleep 0.5; exit 5"]).spawn();
    running.expect("ready");
    running.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(700));
    running.signal(Signal::SIGCONT);
    running.wait().fails(5);
}

#[test]
fn killing_casemate_at_any_moment_leaves_nothing() {
    let name = image(Image::Small);
    let watch = Leftovers::watch();
    let script = "trap '' TERM HUP INT; sleep 60 & (setsid sleep 60 &); sleep 60";
    // The moments walk from the first system call to long after the program runs.
    for round in (0..50_u64).step_by(slowness() as usize) {
        let moment = Duration::from_micros(round * round * 12 + (round * 7919) % 400);
        let moment = moment * slowness().pow(2);
        let root: &[&str] =
            if round / u64::from(slowness()) % 2 == 0 { &[] } else { &["--image", &name] };
        let run = casemate(["run"])
            .args(root)
            .args(["--tmpfs", "/scratch", "--", "/bin/sh", "-c", script]);
        let running = run.spawn();
        std::thread::sleep(moment);
        running.signal(Signal::SIGKILL);
        let output = running.wait();
        assert_eq!(output.signal(), Some(9), "after {moment:?}: {output:?}");
        watch.none();
    }
}

#[test]
fn terminating_casemate_at_any_moment_leaves_nothing() {
    let watch = Leftovers::watch();
    for round in (0..25_u64).step_by(slowness() as usize) {
        let moment = Duration::from_micros(round * round * 25) * slowness().pow(2);
        let running = casemate(["run", "--", "sleep", "60"]).spawn();
        std::thread::sleep(moment);
        running.signal(Signal::SIGTERM);
        let output = running.wait();
        // Before it has a handler the signal ends casemate itself; afterwards the program.
        let ended = output.signal() == Some(15) || output.code() == Some(128 + 15);
        assert!(ended, "after {moment:?}: {output:?}");
        watch.none();
    }
}
