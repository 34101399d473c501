//! Who the program is.

use crate::common::{Image, Workspace, boxed_probe, casemate, image, user};

#[test]
fn the_program_is_the_user_and_nobody_more() {
    let (uid, gid) = (user().uid, user().gid);
    let ids = boxed_probe(&[], &["ids"]);
    assert_eq!(ids, format!("{uid} {uid} {uid} {gid} {gid} {gid}"));
    assert_ne!(uid, 0);
    let name = casemate(["run", "--", "id", "-un"]).text();
    assert_eq!(name, user().name, "the user's name is known in the box");
}

#[test]
fn the_program_is_not_the_first_process_and_cannot_see_more_than_the_box() {
    let text = casemate(["run", "--", "sh", "-c", "echo $$ $PPID"]).text();
    assert!(text.ends_with(" 1"), "a child of the box's init: {text}");
    assert_ne!(text, "1 0");
}

#[test]
fn a_filter_and_no_new_privileges_are_on_for_every_process() {
    let script =
        "for p in /proc/[0-9]*; do grep -hE '^(NoNewPrivs|Seccomp):' $p/status; done | sort -u";
    let text = casemate(["run", "--", "sh", "-c", script]).text();
    assert_eq!(text, "NoNewPrivs:\t1\nSeccomp:\t2");
}

#[test]
fn the_user_option_takes_names_and_numbers_of_the_image() {
    let name = image(Image::Small);
    let with = |user: &str| {
        let command = ["--", "sh", "-c", "echo $(id -u):$(id -g)"];
        casemate(["run", "--image", &name, "-u", user]).args(command).output()
    };
    assert_eq!(with("worker").succeeds().text(), "1234:2345");
    assert_eq!(with("1234").succeeds().text(), "1234:2345");
    assert_eq!(with("1234:50").succeeds().text(), "1234:50");
    assert_eq!(with("worker:staff").succeeds().text(), "1234:50");
    with("nobody-knows").refuses(125, &["nobody-knows"]);
}

#[test]
fn numbers_that_are_no_users_are_refused() {
    for user in ["1000;0", "-1", "4294967295", "0x0", "4294967296", " 1", "1:", ":1", ""] {
        let output = casemate(["run", "-u", user, "--", "id"]).output();
        output.refuses(125, &[]);
    }
}

#[test]
fn root_is_refused() {
    if !crate::common::require_root() {
        return;
    }
    let output = casemate(["run", "--", "true"]).by_root().output();
    output.refuses(125, &["root"]);
}

#[test]
fn the_host_name_is_the_boxes() {
    let outside = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name =
        |options: &[&str]| casemate(["run"]).args(options).args(["--", "uname", "-n"]).text();
    assert_ne!(name(&[]), outside.trim());
    assert_eq!(name(&["--hostname", "boxed-1"]), "boxed-1");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), outside);
}

#[test]
fn the_environment_is_what_was_asked_for() {
    let space = Workspace::new();
    let file = space.file("env", "# a comment\nFROM_FILE=1\nCOPIED\n\nWITH_SPACES=a b  c\n");
    let run =
        casemate(["run", "--env-file", &file, "-e", "GIVEN=x=y", "-e", "EMPTY=", "--", "env"]);
    let text = run.env("COPIED", "from outside").env("OTHER", "1").text();
    let lines: Vec<&str> = text.lines().collect();
    for line in ["FROM_FILE=1", "COPIED=from outside", "WITH_SPACES=a b  c", "GIVEN=x=y", "EMPTY="]
    {
        assert!(lines.contains(&line), "{line} is missing:\n{text}");
    }
    assert!(!text.contains("OTHER"), "{text}");
}
