//! The command line from outside: exit codes and both streams.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Image, Workspace, casemate, image};

#[test]
fn version_and_help_are_answers_on_standard_output() {
    let output = casemate(["--version"]).output().succeeds();
    assert_eq!(output.out(), format!("casemate {}\n", env!("CARGO_PKG_VERSION")));
    for words in [&["--help"][..], &["run", "--help"], &["explain", "-h"], &["doctor", "--help"]] {
        let output = casemate(words.iter().copied()).output().succeeds();
        assert!(output.out().contains("Usage: casemate"), "{words:?}");
        assert_eq!(output.err(), "");
    }
}

#[test]
fn what_is_wrong_with_the_words_is_125_and_one_message() {
    for (words, expected) in [
        (&[][..], "Usage: casemate"),
        (&["fly"], "unrecognized subcommand 'fly'"),
        (&["run", "--netwrok", "none", "ls"], "unexpected argument '--netwrok'"),
        (&["run", "-v", "data:/data", "ls"], "named volumes do not exist here"),
        (&["run", "-u", "1000;0", "ls"], "neither a number nor a user"),
        (&["run", "-u", "-1", "ls"], "-1"),
        (&["run", "--timeout", "soon", "ls"], "not a time span"),
        (&["run", "--ulimit", "nofile", "ls"], "NAME=SOFT[:HARD]"),
        (&["run", "--network", "bridge", "ls"], "expected one of none, host"),
        (&["import"], "<SOURCE>"),
    ] {
        let output = casemate(words.iter().copied()).output().fails(125);
        assert_eq!(output.out(), "", "{words:?}");
        assert!(output.err().contains(expected), "{words:?}: {}", output.err());
        assert!(output.err().starts_with("casemate: ") || words.is_empty(), "{}", output.err());
    }
}

#[test]
fn escape_sequences_in_what_we_print_are_visible() {
    let output = casemate(["run", "--image", "x\u{1b}]0;title\u{7}", "ls"]).output().fails(125);
    assert!(!output.err().contains('\u{1b}'), "{:?}", output.err());
    let output = casemate(["explain", "--", "echo", "\u{1b}[31m\nred"]).output().succeeds();
    assert!(!output.out().contains('\u{1b}') && output.out().contains("\\u{1b}[31m"));
}

#[test]
fn explain_prints_the_plan_and_runs_nothing() {
    let space = Workspace::new();
    let volume = format!("{}:/work", space.path().display());
    let words = ["-v", &volume, "-w", "/work", "--", "touch", "ran"];
    let text = casemate(["explain"].iter().chain(&words).copied()).text();
    for expected in ["command", "touch ran", "/work", "capabilities  none", "host name", "seccomp"]
    {
        assert!(text.contains(expected), "{expected} is not in:\n{text}");
    }
    let json = casemate(["explain", "--json"].iter().chain(&words).copied()).text();
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["program"]["argv"], serde_json::json!(["touch", "ran"]));
    assert_eq!(plan["program"]["workdir"], "/work");
    assert_eq!(plan["network"], "none");
    assert_eq!(plan["capabilities"], serde_json::json!([]));
    assert!(!space.path().join("ran").exists());
    casemate(["run"].iter().chain(&words).copied()).output().succeeds();
    assert!(space.path().join("ran").exists());
}

#[test]
fn explain_of_an_image_names_its_layers_and_its_writes() {
    let name = image(Image::Small);
    let json = casemate(["explain", "--json", "--image", &name]).text();
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["root"]["kind"], "image");
    assert!(!plan["root"]["layers"].as_array().unwrap().is_empty());
    assert!(plan["root"]["digest"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn a_profile_of_ones_own_is_found_by_its_path() {
    let space = Workspace::new();
    space.file(
        "p.toml",
        "[environment]\nset = { FROM = \"profile\" }\n[identity]\nhostname = \"inner\"\n",
    );
    let path = format!("{}/p.toml", space.path().display());
    let script = "echo $FROM $(cat /etc/hostname)";
    let text = casemate(["run", "-p", &path, "--", "sh", "-c", script]).text();
    assert_eq!(text, "profile inner");
    let over = casemate(["run", "-p", &path, "--hostname", "outer", "--", "sh", "-c", script]);
    assert_eq!(over.text(), "profile outer");
}
