//! Exit codes: the program's own, and casemate's 124 to 127.

use std::time::{Duration, Instant};

use crate::common::command::slowness;
use crate::common::{Image, Leftovers, Run, casemate, image};

fn shell(script: &str) -> crate::common::Run {
    casemate(["run", "--", "sh", "-c", script])
}

#[test]
fn the_programs_exit_code_is_casemates() {
    for code in [0, 1, 2, 42, 124, 125, 126, 127, 255] {
        let output = shell(&format!("exit {code}")).output().fails(code);
        assert_eq!((output.out(), output.err()), (String::new(), String::new()));
    }
}

#[test]
fn a_program_that_a_signal_ended_gives_128_and_its_number() {
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("ABRT", 6), ("PIPE", 13)] {
        let output = shell(&format!("kill -{name} $$")).output().fails(128 + number);
        assert_eq!(output.out(), "");
    }
}

#[test]
fn a_command_that_is_not_there_is_127() {
    casemate(["run", "--", "casemate-no-such-program"])
        .output()
        .refuses(127, &["casemate-no-such-program", "not found"]);
    casemate(["run", "--", "/no/such/program"])
        .output()
        .refuses(127, &["/no/such/program", "No such file or directory"]);
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    casemate(["run", "--", "/etc/passwd"])
        .output()
        .refuses(126, &["/etc/passwd", "Permission denied"]);
    casemate(["run", "--", "/usr"]).output().refuses(126, &["/usr"]);
}

#[test]
fn time_that_is_over_is_124_and_leaves_nothing() {
    let watch = Leftovers::watch();
    for command in ["sleep 60", "trap '' TERM INT HUP; sleep 60 & sleep 60; sleep 60"] {
        let begin = Instant::now();
        casemate(["run", "--timeout", "1", "--", "sh", "-c", command])
            .output()
            .refuses(124, &["timeout", "1 s"]);
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
        watch.none();
    }
    let quick = casemate(["run", "--timeout", "30", "--", "sh", "-c", "exit 3"]).output();
    assert_eq!(quick.code(), Some(3));
}

#[test]
fn what_the_program_leaves_running_ends_with_it() {
    let watch = Leftovers::watch();
    let begin = Instant::now();
    shell("sleep 60 & (setsid sleep 60 &) ; echo done").output().succeeds();
    crate::common::probe::boxed(&[]).args(["orphan", "60"]).output().succeeds();
    assert!(begin.elapsed() < Duration::from_secs(10));
    watch.none();
}

#[test]
fn an_orphan_is_reaped_while_the_program_runs() {
    // The orphan ends before the shell does, and must not stay as a zombie.
    let script = "(sleep 0.1 &) ; sleep 0.5; cat /proc/[0-9]*/stat | grep -c ' Z ' ; true";
    assert_eq!(shell(script).text(), "0");
}

#[test]
fn without_a_command_the_images_own_is_run() {
    let name = image(Image::Static);
    let output = casemate(["run", "--image", &name]).output().succeeds();
    assert_eq!(output.text(), "hello from a box without a shell");
}

#[test]
fn fifty_boxes_leave_nothing() {
    let watch = Leftovers::watch();
    for _ in 0..50 / slowness() {
        casemate(["run", "--", "true"]).output().succeeds();
    }
    watch.none();
}

#[test]
fn where_no_core_may_be_dumped_none_is() {
    let name = image(Image::Small);
    let script = format!("ulimit -Hc 0; exec $casemate run --image {name} -- sh -c 'ulimit -Hc'");
    assert_eq!(Run::bash(&script).text(), "0");
}
