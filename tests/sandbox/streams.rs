//! The three streams: untouched, unbuffered, and ending when they end.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::common::{Run, casemate};

#[test]
fn stdout_and_stderr_are_the_programs_to_the_byte() {
    let script = r"printf 'out\0\377\r\n'; printf 'err\0\376' >&2";
    let output = casemate(["run", "--", "bash", "-c", script]).output().succeeds();
    assert_eq!(output.stdout, b"out\0\xff\r\n");
    assert_eq!(output.stderr, b"err\0\xfe");
}

#[test]
fn sixty_four_mebibytes_pass_through_both_ways() {
    let mut bytes = Vec::with_capacity(64 << 20);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while bytes.len() < 64 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    let expected = Sha256::digest(&bytes);
    let output = casemate(["run", "-i", "--", "cat"]).stdin(bytes).output().succeeds();
    assert_eq!(output.stdout.len(), 64 << 20);
    assert_eq!(Sha256::digest(&output.stdout), expected);
}

#[test]
fn the_end_of_the_input_arrives() {
    let mut running = casemate(["run", "-i", "--", "cat"]).open_stdin().spawn();
    running.write("first\n");
    running.expect("first\n");
    running.write("second\n");
    running.expect("second\n");
    running.close_stdin();
    running.wait().succeeds();
}

#[test]
fn the_end_of_the_output_arrives() {
    // The reader leaves: the program is told by SIGPIPE, as without a box.
    let script = "\"$casemate\" run -- yes | head -n 3; echo ${PIPESTATUS[0]}";
    let text = Run::bash(script).timeout(Duration::from_secs(20)).text();
    assert_eq!(text, "y\ny\ny\n141");
}

#[test]
fn a_box_is_a_good_part_of_a_pipeline() {
    let script = "seq 100000 | \"$casemate\" run -i -- sort -n -r | \"$casemate\" run -i -- head -n 2; \
                  printf x | \"$casemate\" run -i -- wc -c";
    assert_eq!(Run::bash(script).text(), "100000\n99999\n1");
}

#[test]
fn a_file_as_stdin_and_stdout_is_used_as_it_is() {
    let space = crate::common::Workspace::new();
    space.file("in", "one\ntwo\n");
    let script = "\"$casemate\" run -i -- tac <in >out 2>err; echo $?";
    assert_eq!(Run::bash(script).directory(space.path()).text(), "0");
    assert_eq!((space.read("out"), space.read("err")), ("two\none\n".into(), String::new()));
}
