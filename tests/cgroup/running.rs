//! The list of boxes that run, without any cgroup.

use crate::common::{Pty, Run, Workspace, casemate};

/// A script with a list of its own.
fn bash(work: &Workspace, script: &str) -> Run {
    let runtime = work.directory("run");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&runtime, private).unwrap();
    Run::bash(script).env("XDG_RUNTIME_DIR", runtime)
}

const STARTED: &str =
    "for i in $(seq 200); do $casemate ps | grep -q running && break; sleep 0.05; done";

#[test]
fn boxes_are_listed_by_name_and_gone_with_their_end() {
    let work = Workspace::new();
    let script = format!(
        "$casemate ps -q; $casemate run --name b -- sleep 30 & {STARTED}; $casemate ps -q; \
         $casemate kill --signal TERM b; wait $!; echo $?; $casemate ps -q"
    );
    let output = bash(&work, &script).output().succeeds();
    assert_eq!(output.out(), "b\n143\n", "{}", output.err());
}

#[test]
fn a_name_is_had_by_one_box_at_a_time() {
    let work = Workspace::new();
    let script = format!(
        "$casemate run --name b -- sleep 30 & {STARTED}; $casemate run --name b -- echo twice 2>&1; \
         echo $?; $casemate kill b; wait $!; $casemate run --name b -- echo again"
    );
    let output = bash(&work, &script).output().succeeds();
    assert!(output.out().starts_with("casemate: name b: a box of this name is running\n"));
    assert!(output.out().ends_with("125\nagain\n"), "{}", output.out());
    for bad in ["a/b", "..", "-x", "", "a b"] {
        let option = format!("--name={bad}");
        casemate(["run", &option, "--", "true"]).output().refuses(125, &["--name"]);
    }
}

#[test]
fn a_box_whose_casemate_was_killed_is_not_listed() {
    let work = Workspace::new();
    let script = format!(
        "$casemate run --name b -- sleep 30 & {STARTED}; kill -9 $!; wait 2>/dev/null; \
         $casemate ps -q; $casemate kill b 2>&1; echo $?; ls $XDG_RUNTIME_DIR/casemate/boxes"
    );
    let output = bash(&work, &script).output().succeeds();
    let expected =
        "casemate: box b: none of this name is running\nhint: `casemate ps` lists them\n125\n";
    assert_eq!(output.out(), expected);
}

/// The lock's holder has no number there, and is no crash for that.
#[test]
fn a_box_of_another_pid_namespace_is_left_alone() {
    let work = Workspace::new();
    let script = format!(
        "$casemate run --name b -- sleep 30 & {STARTED}; apart() {{ unshare --map-current-user --pid --fork \"$@\"; }}; \
         apart $casemate ps -q; apart $casemate kill b 2>&1; apart $casemate run --name b -- true 2>&1; \
         $casemate ps -q; $casemate kill b; wait $!; echo $?"
    );
    let output = bash(&work, &script).output().succeeds();
    let (out, err) = (output.out(), output.err());
    assert!(out.starts_with("casemate: box b: it is of another PID namespace\n"), "{out}{err}");
    assert!(out.contains("casemate: name b: a box of this name is running\n"), "{out}{err}");
    assert!(out.ends_with("\nb\n137\n"), "{out}{err}");
}

#[test]
fn what_needs_a_cgroup_says_so() {
    let work = Workspace::new();
    let script = format!(
        "$casemate run -- sleep 30 & {STARTED}; name=$($casemate ps -q); $casemate pause $name; \
         $casemate update $name --memory 1g; $casemate update nobody --memory 1g; $casemate update $name; \
         $casemate stats --json; $casemate kill $name"
    );
    let output = bash(&work, &script).output().succeeds();
    assert!(output.err().contains("the box has no cgroup of its own"), "{}", output.err());
    assert!(output.err().contains("box nobody: none of this name is running"), "{}", output.err());
    assert!(output.err().contains("nothing to change"), "{}", output.err());
    assert!(output.out().contains("\"cpu_percent\": null"), "{}", output.out());
}

/// On a terminal the table is shown again each second, until Ctrl-C; elsewhere, or where that is asked
/// for, once.
#[test]
fn what_boxes_use_is_shown_as_it_changes() {
    let work = Workspace::new();
    let script = format!(
        "$casemate run --name b -- sleep 60 & {STARTED}; $casemate stats --no-stream; echo once; \
         exec $casemate stats"
    );
    let mut pty = Pty::start(bash(&work, &script));
    pty.expect("once");
    pty.expect("\x1b[H");
    pty.expect("\x1b[J\x1b[H");
    pty.write("\x03");
    let (status, screen) = pty.end();
    assert_eq!(screen.split("once").next().unwrap().matches("NAME").count(), 1, "{screen}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2), "{screen}");
    bash(&work, "$casemate kill b").output();
    let once = bash(&work, "$casemate stats | cat").output().succeeds();
    assert!(once.out().starts_with("NAME") && !once.out().contains('\x1b'), "{}", once.out());
}

/// The files of the list are claims; whoever can write there is the user, but a file may be broken.
#[test]
fn broken_files_in_the_list_are_told_or_removed() {
    let work = Workspace::new();
    let script = "mkdir -p $XDG_RUNTIME_DIR/casemate/boxes; cd $XDG_RUNTIME_DIR/casemate/boxes; \
         echo '{' > a; touch b .draft 'c d'; ln -s /etc/passwd e; $casemate ps -q; ls";
    let output = bash(&work, script).output();
    // A symbolic link is not followed, which is an error; the files that nobody holds went.
    assert!(output.err().contains("Too many symbolic links"), "{}", output.err());
    let again =
        bash(&work, "cd $XDG_RUNTIME_DIR/casemate/boxes; rm -f e; $casemate ps -q; ls -A").output();
    assert_eq!(again.succeeds().out(), ".draft\nc d\n");
}

#[test]
fn a_box_without_a_name_needs_no_list() {
    let work = Workspace::new();
    let script = "mkdir $XDG_RUNTIME_DIR/casemate; touch $XDG_RUNTIME_DIR/casemate/boxes; \
         $casemate run -- echo ran; $casemate run --name b -- echo never; echo $?";
    let output = bash(&work, script).output().succeeds();
    assert_eq!(output.out(), "ran\n125\n", "{}", output.err());
    assert!(output.err().contains("warning: the box is not in the list"), "{}", output.err());
}
