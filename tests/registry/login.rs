//! `casemate login` and `logout`, from outside.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::common::registry::{PASSWORD, Registry, USER, layout};
use crate::common::{Pty, Run, Workspace, casemate};

/// casemate with settings of its own.
fn run(work: &Workspace, words: &[&str]) -> Run {
    work.directory("config");
    casemate(words).env("XDG_CONFIG_HOME", work.at("config")).env("XDG_RUNTIME_DIR", work.at("run"))
}

fn trust(work: &Workspace, registry: &Registry) {
    let path = format!("config/containers/certs.d/{}/ca.crt", registry.host());
    work.file(&path, registry.authority());
}

fn auths(work: &Workspace, name: &str) -> Value {
    serde_json::from_str::<Value>(&work.read(name)).unwrap()["auths"].clone()
}

#[test]
fn a_password_is_tried_and_kept() {
    let registry = Registry::with_password();
    let work = Workspace::new();
    work.directory("run");
    let host = registry.host();
    let log_in = ["login", "-u", USER, "--password-stdin", &host];
    let untrusted = run(&work, &log_in).stdin(PASSWORD).output();
    untrusted.refuses(125, &["not signed by an authority", &format!("certs.d/{host}/ca.crt")]);
    trust(&work, &registry);
    let wrong = run(&work, &log_in).stdin("wrong").output();
    wrong.refuses(125, &["log in to", "the user name or the password is wrong"]);
    assert!(!work.path().join("run/containers").exists(), "nothing is kept");

    let done = run(&work, &log_in).stdin(format!("{PASSWORD}\n")).output().succeeds();
    assert_eq!((done.out().as_str(), done.err().contains("logged in to")), ("", true));
    assert!(!done.err().contains(PASSWORD));
    let file = work.path().join("run/containers/auth.json");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        auths(&work, "run/containers/auth.json"),
        json!({ host.as_str(): { "auth": "YW5uOnBhc3Mgd29yZDox" } })
    );

    // Others can use it.
    let image = layout(&work.path().join("image"), &[b"layer"]);
    registry.push(&format!("oci:{}:latest", image.display()), "x");
    let reference = format!("docker://{host}/x");
    let auth_file = work.at("run/containers/auth.json");
    let inspect = ["inspect", "--tls-verify=false", "--authfile", &auth_file, &reference];
    Run::new("skopeo").args(inspect).output().succeeds();

    run(&work, &["logout", &host]).output().succeeds();
    assert_eq!(auths(&work, "run/containers/auth.json"), json!({}));
    run(&work, &["logout", &host]).output().refuses(125, &["has no credential for it"]);
}

#[test]
fn the_terminal_asks_and_does_not_show() {
    let registry = Registry::with_password();
    let work = Workspace::new();
    trust(&work, &registry);
    let file = work.at("auth.json");
    let mut pty = Pty::start(run(&work, &["login", "--authfile", &file, &registry.host()]));
    pty.expect("User name at");
    pty.write(&format!("{USER}\n"));
    pty.expect("Password of ann at");
    // A slip is taken back.
    pty.write(&format!("pax\u{7f}{}\r", &PASSWORD[2..]));
    let screen = pty.expect("logged in to");
    assert!(!screen.contains("word"), "{screen}");
    assert_eq!(pty.wait().code(), Some(0));
    assert_eq!(auths(&work, "auth.json").as_object().unwrap().len(), 1);

    // Ctrl-C ends it and leaves the terminal as it was.
    let mut shell = Pty::shell();
    let command = format!(
        "XDG_CONFIG_HOME={} $casemate login -u ann --authfile {file} {}",
        work.at("config"),
        registry.host()
    );
    shell.write(&format!("{command}\n"));
    shell.expect("Password of ann at");
    shell.write("half\u{3}");
    shell.expect("nothing was answered");
    shell.write("stty -a | grep -o ' echo '; echo ended\n");
    let screen = shell.expect("\nended");
    assert!(screen.contains(" echo "), "{screen}");
}

#[test]
fn a_helper_keeps_what_is_its() {
    let registry = Registry::with_password();
    let work = Workspace::new();
    trust(&work, &registry);
    let host = registry.host();
    let script = "#!/bin/sh\nd=$(dirname \"$0\")\ncase $1 in\nstore) cat >\"$d/kept\" ;;\n\
                  get) cat >/dev/null; test -e \"$d/kept\" && cat \"$d/kept\" || { echo credentials not found in native keychain; exit 1; } ;;\n\
                  erase) cat >/dev/null; rm -f \"$d/kept\" ;;\nesac\n";
    work.script("bin/docker-credential-test", script);
    let path = format!("{}:/usr/bin:/bin", work.at("bin"));
    let config = json!({ "credHelpers": { host.as_str(): "test" }, "auths": {} }).to_string();
    let file = work.file("auth.json", &config);
    let words = ["login", "-u", USER, "--password-stdin", "--authfile", &file, &host];
    let done = run(&work, &words).env("PATH", &path).stdin(PASSWORD).output().succeeds();
    assert!(done.err().contains("kept by docker-credential-test"), "{}", done.err());
    let kept: Value = serde_json::from_str(&work.read("bin/kept")).unwrap();
    assert_eq!(kept, json!({ "ServerURL": host, "Username": USER, "Secret": PASSWORD }));
    assert_eq!(work.read("auth.json"), config, "the file is as it was");
    let out = ["logout", "--authfile", &file, &host];
    run(&work, &out).env("PATH", &path).output().succeeds();
    assert!(!work.path().join("bin/kept").exists());
    run(&work, &words).stdin(PASSWORD).output().refuses(125, &["docker-credential-test store"]);
}

#[test]
fn what_cannot_be_is_refused() {
    let work = Workspace::new();
    let refuses = |words: &[&str], text: &str| {
        run(&work, words).output().refuses(125, &[text]);
    };
    refuses(&["login", "a.io"], "no terminal to ask at");
    refuses(&["login", "--password-stdin", "a.io"], "needs a user name");
    refuses(&["login", "-u", "a:b", "-p", "x", "a.io"], "no user name");
    refuses(&["login", "-u", "a", "--password-stdin", "a.io"], "the password is empty");
    refuses(&["login", "-u", "a", "-p", "x", "a b"], "expected HOST");
    refuses(&["logout"], "required");
    let file = work.file("broken.json", "{\"auths\": [secret");
    let words = ["logout", "--authfile", &file, "a.io"];
    let output = run(&work, &words).output().fails(125);
    assert!(output.err().contains("not a file of credentials") && !output.err().contains("secret"));
}
