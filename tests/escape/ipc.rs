//! Keys, shared memory and sockets that belong to the host.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::common::probe::volume;
use crate::common::{Run, Workspace, boxed_probe, plain_probe, require_root};

/// Runs a script in a session keyring of its own that holds a secret; `$key` is its serial number.
fn with_secret(command: &str) -> Vec<String> {
    let space = Workspace::new();
    let profile = space.file("unfiltered.toml", "[seccomp]\nbase = \"none\"\n");
    let script =
        format!("key=$(keyctl add user casemate-test:secret hunter2 @s); export key; {command}");
    let text = Run::new("keyctl")
        .args(["session", "-", "bash", "-c", &script])
        .env("probe", crate::common::probe())
        .env("casemate", crate::common::user().casemate())
        .env("volume", volume())
        .env("profile", profile)
        .text();
    text.lines().map(String::from).collect()
}

#[test]
fn escape_46_the_session_keyring_of_the_host_is_not_there() {
    let search = "key-search user casemate-test:secret";
    // The control: the keyring is inherited into a plain sandbox.
    let plain = with_secret(&format!(
        "bwrap --unshare-all --bind / / -- \"$probe\" {search}; \
         bwrap --unshare-all --bind / / -- \"$probe\" key-read \"$key\""
    ));
    assert!(plain.len() == 2 && plain[0].parse::<u32>().is_ok(), "{plain:?}");
    assert_eq!(plain[1], "hunter2");

    let run = "\"$casemate\" run -v \"$volume\"";
    let filtered = with_secret(&format!(
        "{run} -- /run/probe {search}; {run} -- /run/probe key-read \"$key\"; \
         {run} -- /run/probe key-session"
    ));
    assert_eq!(filtered, ["EPERM", "EPERM", "EPERM"]);
    // Without the filter the keyring is the box's own, and the key is somebody else's.
    let unfiltered = with_secret(&format!(
        "{run} -p \"$profile\" -- /run/probe {search}; \
         {run} -p \"$profile\" -- /run/probe key-read \"$key\""
    ));
    assert_eq!(unfiltered[0], "ENOKEY");
    assert!(["EACCES", "EPERM"].contains(&unfiltered[1].as_str()), "{unfiltered:?}");
}

#[test]
fn escape_47_shared_memory_of_the_host_is_not_there() {
    let key = format!("{:#x}", 0x0ca5_0000 | (std::process::id() & 0xffff));
    assert_eq!(plain_probe(&["shm-make", &key]), "ok");
    let script = "exec bwrap --unshare-user --bind / / -- \"$probe\" shm-get \"$key\"";
    let plain = Run::bash(script).env("key", &key).text();
    let inside = boxed_probe(&[], &["shm-get", &key]);
    let list = crate::common::casemate(["run", "--", "cat", "/proc/sysvipc/shm"]).text();
    assert_eq!(plain_probe(&["shm-remove", &key]), "ok");
    assert_eq!(plain, "ok", "the control");
    assert_eq!(inside, "ENOENT");
    assert_eq!(list.lines().count(), 1, "the heading and no segment:\n{list}");
}

#[test]
fn escape_47_posix_shared_memory_of_the_host_is_not_there() {
    let name = format!("/dev/shm/casemate-test-{}", std::process::id());
    Run::bash("echo secret >\"$name\"").env("name", &name).output().succeeds();
    let plain = plain_probe(&["read", &name]);
    let inside = boxed_probe(&[], &["read", &name]);
    Run::new("rm").arg(&name).output().succeeds();
    assert_eq!(plain, "ok 7", "the control");
    assert_eq!(inside, "ENOENT");
}

#[test]
fn escape_48_abstract_sockets_of_the_host_are_not_reached() {
    let name = format!("casemate-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    assert_eq!(plain_probe(&["abstract", &name]), "ok");
    let script = "exec bwrap --unshare-user --bind / / -- \"$probe\" abstract \"$name\"";
    assert_eq!(Run::bash(script).env("name", &name).text(), "ok", "the control");

    assert_eq!(boxed_probe(&["--network", "none"], &["abstract", &name]), "ECONNREFUSED");
    // With the host's network the name is there, and Landlock's scope bars the way.
    assert_eq!(boxed_probe(&["--network", "host"], &["abstract", &name]), "EPERM");
}

#[test]
fn escape_49_sockets_of_the_host_are_not_in_the_tree() {
    if !require_root() {
        return;
    }
    let path = "/run/casemate-test.sock";
    let _ = std::fs::remove_file(path);
    let _listener = UnixListener::bind(path).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(path, open).unwrap();
    let plain = plain_probe(&["unix", path]);
    let inside = boxed_probe(&[], &["unix", path]);
    std::fs::remove_file(path).unwrap();
    assert_eq!(plain, "ok", "the control");
    assert_eq!(inside, "ENOENT");
}
