//! The environment and the command line as ways in.

use std::collections::BTreeSet;

use crate::common::{Image, Run, Workspace, casemate, image};

/// Variables that carry secrets, or code into whatever is started.
const SECRETS: [&str; 40] = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "BASH_ENV",
    "ENV",
    "PYTHONSTARTUP",
    "PYTHONPATH",
    "PERL5OPT",
    "PERL5LIB",
    "RUBYOPT",
    "NODE_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "GIT_CONFIG_GLOBAL",
    "GIT_SSH_COMMAND",
    "GIT_EXEC_PATH",
    "GIT_ASKPASS",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "GPG_AGENT_INFO",
    "GNUPGHOME",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GITHUB_TOKEN",
    "NPM_TOKEN",
    "DOCKER_HOST",
    "KUBECONFIG",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "PULSE_SERVER",
    "XDG_RUNTIME_DIR",
    "XDG_DATA_HOME",
    "GLIBC_TUNABLES",
    "MALLOC_CONF",
    "CASEMATE_TEST_SECRET",
];

/// What a program may find in its environment when nothing was granted.
const EXPECTED: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "LANG",
    "TZ",
    "PWD",
    "HOSTNAME",
    "container",
    "TMPDIR",
];

fn names(text: &str) -> BTreeSet<&str> {
    text.split('\0').filter_map(|entry| entry.split_once('=').map(|(name, _)| name)).collect()
}

#[test]
fn escape_54_the_environment_of_the_host_does_not_come_in() {
    let set = |run: Run| {
        // A library that is not there: the loader complains and goes on.
        SECRETS.iter().fold(run, |run, name| run.env(name, "/nowhere/casemate-test"))
    };
    let plain = set(Run::new("env").arg("-0")).output().succeeds().out();
    assert!(SECRETS.iter().all(|name| names(&plain).contains(name)), "the control: {plain}");

    let inside = set(casemate(["run", "--", "env", "-0"])).without_env("XDG_DATA_HOME").output();
    let inside = inside.succeeds().out();
    assert!(!inside.contains("/nowhere/casemate-test"), "{inside}");
    assert!(["PATH", "HOME"].iter().all(|name| names(&inside).contains(name)), "{inside}");
    for name in names(&inside) {
        let known = EXPECTED.contains(&name) || name.starts_with("LC_");
        assert!(known, "{name} is in the box's environment: {inside}");
    }
}

#[test]
fn escape_54_what_is_asked_for_comes_in() {
    let run = casemate(["run", "-e", "GIVEN=a b", "-e", "COPIED", "--", "env", "-0"]);
    let text = run.env("COPIED", "from outside").env("NOT_COPIED", "x").output().succeeds().out();
    let entries: BTreeSet<&str> = text.split('\0').collect();
    assert!(entries.contains("GIVEN=a b") && entries.contains("COPIED=from outside"), "{text}");
    assert!(!names(&text).contains("NOT_COPIED"), "{text}");
}

#[test]
fn escape_59_a_command_that_looks_like_an_option_is_a_command() {
    // The control: bubblewrap takes it for its own, as any program does without the two dashes.
    let taken = Run::new("bwrap").args(["--ro-bind", "/", "/", "--version"]).text();
    assert!(taken.starts_with("bubblewrap"), "{taken}");

    for command in ["--bind", "--version", "--help", "-v", "--network=host"] {
        let output = casemate(["run", "--", command, "/", "/"]).output();
        output.refuses(127, &[command]);
    }
}

#[test]
fn escape_59_a_program_named_as_an_option_is_run() {
    let space = Workspace::new();
    space.script("bin/--bind", "#!/bin/sh\necho \"program $*\"\n");
    let volume = format!("{}:/opt/odd:ro,exec", space.at("bin"));
    let output = casemate(["run", "-v", &volume, "-e", "PATH=/opt/odd:/usr/bin:/bin", "--"])
        .args(["--bind", "/", "/"])
        .text();
    assert_eq!(output, "program / /");
}

#[test]
fn escape_59_words_after_the_command_are_its_own() {
    let text = casemate(["run", "echo", "--network", "host", "-v", "/:/host", "--"]).text();
    assert_eq!(text, "--network host -v /:/host --");
    let image = image(Image::Entry);
    let text = casemate(["run", "--image", &image, "--", "--network", "host"]).text();
    assert_eq!(text, "entry --network host", "arguments of the image's entry point");
}
