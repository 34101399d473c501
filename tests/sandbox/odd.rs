//! Callers and programs with odd habits: none of them hangs casemate or costs an exit code.

use std::time::{Duration, Instant};

use crate::common::{Pty, Run, Workspace, casemate};

#[test]
fn a_real_time_signal_ends_a_program_like_any_other() {
    for number in [34, 40, 64] {
        let script = format!("kill -{number} $$");
        casemate(["run", "--", "bash", "-c", &script]).output().fails(128 + number);
    }
}

#[test]
fn a_caller_that_ignores_its_children_gets_the_exit_code() {
    let script = "import os, signal, sys\n\
                  signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
                  os.execv(sys.argv[1], [sys.argv[1], 'run', '--', 'sh', '-c', 'exit 9'])";
    Run::bash("exec python3 -c \"$0\" \"$casemate\"").arg(script).output().fails(9);
}

#[test]
fn a_program_that_stops_itself_does_not_stop_the_clock() {
    let mut pty = Pty::shell();
    let begin = Instant::now();
    pty.line("\"$casemate\" run --timeout 2 -- sh -c 'kill -STOP $$'; echo end\"\"ed $?");
    // Under a shell with job control casemate stops, as the program did, and is woken.
    pty.expect("ended");
    while begin.elapsed() < Duration::from_secs(8) {
        pty.line("jobs; echo look\"\"ed");
        pty.expect("looked");
        if !pty.screen().lines().rev().take(4).any(|line| line.contains("Stopped")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "{}", pty.screen());
}

#[test]
fn a_reader_that_is_stuck_does_not_stop_the_clock() {
    // How long casemate itself took, while its reader sleeps and takes nothing.
    let script = "{ begin=$(date +%s); \"$casemate\" run -t --timeout 1 -- yes; \
                  echo $? $(($(date +%s) - begin)) >&2; } | sleep 12";
    let output = Run::bash(script).output();
    let last = output.err().lines().last().unwrap_or_default().to_owned();
    let (code, seconds) = last.split_once(' ').unwrap_or_default();
    assert!(code == "124" && seconds.parse::<u32>().unwrap() < 9, "{output:?}");
}

#[test]
fn a_home_may_be_written_in_any_way() {
    for home in
        ["/home/somebody/", "/home//somebody", "/home/./somebody", "/", "/usr", "/proc/self"]
    {
        let text = casemate(["run", "--", "sh", "-c", "touch ~/x && ls /usr/bin/env && ls ~"])
            .env("HOME", home)
            .env("XDG_DATA_HOME", "/nonexistent")
            .text();
        assert_eq!(text, "/usr/bin/env\nx", "{home}");
    }
}

#[test]
fn numbers_and_names_without_measure_are_errors() {
    let output = casemate(["run", "--timeout", "18446744073709551615", "--", "true"]).output();
    output.succeeds();
    let long = "a".repeat(100_000);
    let output = casemate(["run", "--", &long]).output();
    assert_eq!(output.code(), Some(126));
    assert!(output.err().len() < 10_000 && output.err().starts_with("casemate: execute aaa"));
}

#[test]
fn variables_can_come_from_a_pipe() {
    let text =
        Run::bash("\"$casemate\" run --env-file <(echo A=from-a-pipe) -- sh -c 'echo $A'").text();
    assert_eq!(text, "from-a-pipe");
}

#[test]
fn a_size_that_cannot_be_enforced_is_refused() {
    let space = Workspace::new();
    let text = "[root]\nscratch = \"disk\"\nscratch-size = \"1m\"\n";
    let profile = space.file("p.toml", text);
    let name = crate::common::image(crate::common::Image::Small);
    casemate(["run", "-p", &profile, "--image", &name, "--", "true"])
        .output()
        .refuses(125, &["scratch-size"]);
}
