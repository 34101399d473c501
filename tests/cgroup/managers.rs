//! What stands where the user's systemd should be, and is not it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::{Run, Workspace, casemate, require_root, user};

/// A runtime directory of the test's own.
fn runtime(work: &Workspace) -> PathBuf {
    let path = PathBuf::from(work.directory("run"));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::create_dir(path.join("systemd")).unwrap();
    user().own(&path.join("systemd"));
    path
}

/// Python that listens on the manager's private socket and then does this with each connection.
fn listen(does: &str) -> String {
    format!(
        "import socket,sys,os,time\ns=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\nos.chmod(sys.argv[1],0o777)\ns.listen(8)\nprint('ready',flush=True)\nkept=[]\nwhile True:\n  c,_=s.accept()\n  kept.append(c)\n  {does}\n"
    )
}

/// Runs a box with a limit before such a manager; returns its warning and how long it took.
fn before(does: &str, by_root: bool) -> (String, Duration) {
    let work = Workspace::new();
    let runtime = runtime(&work);
    let socket = runtime.join("systemd/private");
    let script = listen(does);
    let mut manager = Run::new("python3").args(["-c", &script]).arg(&socket);
    if by_root {
        manager = manager.by_root();
    }
    let manager = manager.spawn();
    manager.expect("ready");
    let start = Instant::now();
    let words = ["run", "--may-degrade=limits", "--memory=64m", "--", "sh", "-c", "ulimit -d"];
    let output = casemate(words).env("XDG_RUNTIME_DIR", &runtime).output().succeeds();
    let took = start.elapsed();
    // Limited all the same, and said to be weaker.
    assert_eq!(output.text(), "65536");
    drop(manager);
    (output.err(), took)
}

#[test]
fn a_manager_that_never_answers_is_waited_for_a_while() {
    let (warning, took) = before("pass", false);
    assert!(warning.contains("no answer in time"), "{warning}");
    assert!(took > Duration::from_secs(25) && took < Duration::from_secs(50), "{took:?}");
}

/// What was asked for is not given up because a manager is slow.
#[test]
fn a_manager_that_hangs_is_an_error_where_limits_may_not_be_lost() {
    let work = Workspace::new();
    let runtime = runtime(&work);
    let script = listen("pass");
    let manager = Run::new("python3").args(["-c", &script]).arg(runtime.join("systemd/private"));
    let manager = manager.spawn();
    manager.expect("ready");
    let words = ["run", "--memory=64m", "--", "true"];
    let refused = casemate(words).env("XDG_RUNTIME_DIR", &runtime).output();
    refused.refuses(125, &["the user manager of systemd", "no answer in time", "--may-degrade"]);
    drop(manager);
}

#[test]
fn a_manager_that_hangs_up_or_babbles_is_none() {
    for does in [
        "c.close()",
        "c.sendall(b'REJECTED\\r\\n')",
        "c.sendall(b'OK 1\\r\\nAGREE_UNIX_FD\\r\\n'+b'\\xff'*64)",
        "c.sendall(b'OK 1\\r\\nAGREE_UNIX_FD\\r\\n'+b'l\\x02\\0\\x01'+b'\\xff'*12)",
        "c.sendall(b'OK 1\\r\\n'+b'x'*100000)",
    ] {
        let (warning, _) = before(does, false);
        assert!(warning.contains("no user manager of systemd answers"), "{does}: {warning}");
        assert!(!warning.contains('\u{fffd}'), "{warning}");
    }
}

#[test]
fn a_manager_of_another_user_is_refused() {
    if !require_root() {
        return;
    }
    let (warning, _) = before("pass", true);
    assert!(warning.contains("it belongs to user 0, not to you"), "{warning}");
}

/// An address that su(1) left in the environment.
#[test]
fn a_bus_without_systemd_on_it_is_no_manager() {
    let work = Workspace::new();
    let runtime = runtime(&work);
    let bus = runtime.join("elsewhere");
    let script =
        "dbus-daemon --session --nofork --nopidfile --address=unix:path=$1 --print-address";
    let daemon = Run::new("bash").args(["-c", script, "bash"]).arg(&bus).spawn();
    daemon.expect("unix:");
    let words = ["run", "--memory", "64m", "--", "true"];
    let limited = |address: &str| {
        let command = casemate(words).env("XDG_RUNTIME_DIR", &runtime);
        command.env("DBUS_SESSION_BUS_ADDRESS", address).output().succeeds().err()
    };
    let warning = limited(&format!("unix:path={}", bus.display()));
    assert!(warning.contains("org.freedesktop.systemd1"), "{warning}");
    let warning = limited("unix:path=/nowhere;tcp:host=localhost,port=1");
    assert!(warning.contains("No such file or directory"), "{warning}");
    drop(daemon);
}

#[test]
fn without_any_the_error_says_what_makes_one() {
    let refused = casemate(["run", "--require-limits", "--cpus", "1", "--", "true"]).output();
    refused.refuses(125, &["limits of the box in total", "loginctl enable-linger"]);
}
