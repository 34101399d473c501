//! Pushing keys into the terminal that the box and the user's shell share.

use crate::common::probe::volume;
use crate::common::{Pty, Run, control};

/// Runs the attack on the terminal of a shell script, which then reads what was typed: the probe's word
/// and the line that was read.
fn attack(command: &str) -> (String, String) {
    let script = format!(
        "{command}; IFS= read -r -t 1 line; printf 'line=<%s>\\n' \"$line\"; echo finished"
    );
    let mut pty = Pty::start(Run::bash(&script).env("volume", volume()));
    let screen = pty.expect("finished");
    let line = screen.split("line=<").nth(1).and_then(|rest| rest.split('>').next());
    let words = ["ok", "EPERM", "EACCES", "ENOTTY", "EIO", "EINVAL"];
    let word = screen.lines().map(str::trim).find(|line| words.contains(line));
    (
        word.unwrap_or_else(|| panic!("no word on the screen:\n{screen}")).to_string(),
        line.unwrap_or_else(|| panic!("no line on the screen:\n{screen}")).to_string(),
    )
}

fn refused_in_a_box(command: &str) {
    let plain = attack(&format!("\"$probe\" {command} $'injected\\n'"));
    let works = plain == ("ok".to_string(), "injected".to_string());
    if !control("tiocsti", works, &format!("{command} does not inject on this kernel: {plain:?}")) {
        return;
    }
    for options in ["", "-i", "-it"] {
        let boxed = attack(&format!(
            "\"$casemate\" run {options} -v \"$volume\" -- /run/probe {command} $'injected\\n'"
        ));
        assert_eq!(boxed, ("EPERM".to_string(), String::new()), "with options {options:?}");
    }
}

#[test]
fn escape_01_tiocsti_cannot_type_for_the_user() {
    refused_in_a_box("tiocsti");
}

#[test]
fn escape_02_tiocsti_with_high_bits_is_the_same_call() {
    refused_in_a_box("tiocsti-high");
}

#[test]
fn escape_03_tioclinux_cannot_paste() {
    // The control: the call reaches the terminal's driver, which is no virtual console here.
    let script = "\"$probe\" tioclinux; echo finished";
    let mut plain = Pty::start(Run::bash(script));
    let screen = plain.expect("finished");
    assert!(screen.contains("ENOTTY"), "{screen}");

    for options in ["", "-it"] {
        let script = format!(
            "\"$casemate\" run {options} -v \"$volume\" -- /run/probe tioclinux; echo finished"
        );
        let mut boxed = Pty::start(Run::bash(&script).env("volume", volume()));
        let screen = boxed.expect("finished");
        assert!(screen.contains("EPERM"), "with options {options:?}: {screen}");
    }
}

#[test]
fn escape_03_the_line_discipline_stays_as_it_is() {
    // TIOCSETD, with and without bits above the 32 that the kernel looks at.
    for call in ["0x5423", "0xbeef000000005423"] {
        let plain = Pty::start(Run::bash(&format!("\"$probe\" ioctl {call}; echo finished")))
            .expect("finished");
        assert!(plain.contains("ok"), "{call} outside: {plain}");
        let script =
            format!("\"$casemate\" run -v \"$volume\" -- /run/probe ioctl {call}; echo finished");
        let boxed = Pty::start(Run::bash(&script).env("volume", volume())).expect("finished");
        assert!(boxed.contains("EPERM"), "{call}: {boxed}");
    }
}

#[test]
fn escape_01_no_controlling_terminal_without_asking() {
    // Its output is a pipe, so it is not interactive and gets no terminal of its own.
    let mut pty = Pty::start(Run::bash(
        "exec 3<>/dev/tty && echo outside-has-one; \"$casemate\" run -i -- sh -c \
         'if (exec 3<>/dev/tty); then echo inside-has-one; else echo inside-has-none; fi' 2>&1 | cat; \
         echo finished",
    ));
    let screen = pty.expect("finished");
    assert!(screen.contains("outside-has-one"), "{screen}");
    assert!(screen.contains("inside-has-none") && !screen.contains("inside-has-one"), "{screen}");
}
