//! Interactive boxes: a terminal of their own, its size, its keys, and the job control around it.

use std::time::Duration;

use crate::common::{Pty, Run};

const BOX: &str = "\"$casemate\" run -it --";

fn interactive(command: &str) -> Pty {
    Pty::start(Run::bash(&format!("exec {BOX} {command}")))
}

#[test]
fn an_interactive_box_has_a_terminal_of_its_own() {
    let mut pty = interactive("sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && echo all three'");
    pty.expect("/dev/pts/0");
    pty.expect("all three");
    assert!(pty.wait().success());
}

#[test]
fn without_the_option_a_box_in_a_pipeline_has_no_terminal_of_its_own() {
    let script = "\"$casemate\" run -- sh -c 'tty; test -t 1 || echo none' | cat";
    let mut pty = Pty::start(Run::bash(script));
    pty.expect("none");
}

#[test]
fn the_size_is_the_outer_terminals_and_follows_it() {
    let mut pty = interactive(
        "bash -c 'stty size; trap \"stty size; echo resized\" WINCH; echo ready; \
         for i in {1..100}; do sleep 0.1; done'",
    );
    pty.expect("24 80");
    pty.expect("ready");
    pty.resize(51, 132);
    pty.expect("51 132");
    pty.expect("resized");
}

#[test]
fn what_is_typed_arrives_and_comes_back() {
    let mut pty = interactive("sh -c 'stty -echo; echo ready; read -r line; echo \"<$line>\"'");
    pty.expect("ready");
    pty.line("typed by hand");
    pty.expect("<typed by hand>");
    assert!(pty.wait().success());
}

#[test]
fn the_end_of_file_key_ends_the_input() {
    let mut pty = interactive("sh -c 'echo ready; cat; echo over'");
    pty.expect("ready");
    pty.write("\x04");
    pty.expect("over");
    assert!(pty.wait().success());
}

#[test]
fn ctrl_c_kills_the_program_and_not_the_shell_in_the_box() {
    let mut pty = interactive("bash --norc --noprofile -i");
    pty.expect("$ ");
    pty.line("sleep 60");
    std::thread::sleep(Duration::from_millis(300));
    pty.write("\x03");
    pty.expect("$ ");
    pty.line("echo status $?");
    pty.expect("status 130");
    pty.line("exit 9");
    assert_eq!(pty.wait().code(), Some(9));
}

#[test]
fn ctrl_c_ends_a_box_whose_program_it_kills() {
    let mut pty = Pty::shell();
    pty.line(&format!("{BOX} sh -c 'echo re''ady; exec sleep 60'"));
    pty.expect("ready");
    pty.write("\x03");
    pty.expect("outer> ");
    pty.line("echo status $?");
    pty.expect("status 130");
}

#[test]
fn job_control_works_inside_the_box() {
    let mut pty = interactive("bash --norc --noprofile -i");
    pty.expect("$ ");
    pty.line("sh -c 'echo re''ady; sleep 1; echo fin''ished'");
    pty.expect("ready");
    // A shell that is just starting its program with vfork is not stopped by the key, in or out of a box.
    std::thread::sleep(Duration::from_millis(300));
    pty.write("\x1a");
    pty.expect("Stopped");
    pty.line("fg");
    pty.expect("finished");
    pty.line("exit");
    pty.wait();
}

#[test]
fn ctrl_z_of_a_box_without_a_terminal_of_its_own_stops_casemate_and_fg_resumes() {
    let mut pty = Pty::shell();
    pty.line(
        "\"$casemate\" run -i -- sh -c 'echo re''ady; sleep 1; read -r line; echo \"<$line>\"'",
    );
    pty.expect("ready");
    // A shell that is just starting its program with vfork is not stopped by the key, in or out of a box.
    std::thread::sleep(Duration::from_millis(300));
    pty.write("\x1a");
    pty.expect("Stopped");
    pty.expect("outer> ");
    pty.line("fg");
    pty.line("resumed");
    pty.expect("<resumed>");
    pty.expect("outer> ");
    pty.line("echo status $?");
    pty.expect("status 0");
}

#[test]
fn the_terminals_settings_are_as_before() {
    let mut pty = Pty::shell();
    let before = pty.settings();
    for command in ["true", "sh -c 'stty raw -echo; exit 3'", "sh -c 'kill -9 $$'"] {
        pty.line(&format!("{BOX} {command}; echo fin''ished"));
        pty.expect("finished");
        pty.expect("outer> ");
        std::thread::sleep(Duration::from_millis(100));
        let after = pty.settings();
        assert_eq!(after.local_flags, before.local_flags, "{command}");
        assert_eq!(after.input_flags, before.input_flags, "{command}");
        assert_eq!(after.output_flags, before.output_flags, "{command}");
    }
}

#[test]
fn the_terminal_goes_when_its_window_is_closed() {
    let watch = crate::common::Leftovers::watch();
    let mut pty = interactive("sh -c 'trap \"\" HUP; echo ready; sleep 60'");
    pty.expect("ready");
    drop(pty);
    watch.none();
}
