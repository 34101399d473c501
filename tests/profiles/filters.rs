//! System call filters, and ports.

use std::path::Path;

use crate::Place;
use crate::common::Run;

/// Makes one socket of a family and prints the outcome, and one call of the 32-bit ABI.
const CALLS: &str = "#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1) {
        long pid;
        __asm__ volatile(\"int $0x80\" : \"=a\"(pid) : \"a\"(20) : \"memory\");
        return pid == getpid() ? 0 : 1;
    }
    printf(\"inet %s\\n\", socket(AF_INET, SOCK_STREAM, 0) < 0 ? strerrorname_np(errno) : \"ok\");
    printf(\"unix %s\\n\", socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? strerrorname_np(errno) : \"ok\");
    syscall(SYS_ioctl, 1, 0x100000000 | 0x1234, 0);
    printf(\"ioctl %s\\n\", strerrorname_np(errno));
    printf(\"keyctl %s\\n\", syscall(SYS_keyctl, 0, 0, 0) < 0 ? strerrorname_np(errno) : \"ok\");
    return 0;
}
";

#[test]
#[cfg(target_arch = "x86_64")]
fn filters_start_from_a_base_and_take_groups_and_rules() {
    let place = Place::new();
    place.space.file("calls.c", CALLS);
    Run::bash("cc -D_GNU_SOURCE -o calls calls.c")
        .directory(place.space.path())
        .output()
        .succeeds();
    let program = place.space.at("calls");
    let run = |text: &str, words: &[&str]| {
        place.profile("p", &format!("[files]\nread = [\".\"]\n[seccomp]\n{text}"));
        place.casemate(&[&["run", "-p", "p", program.as_str()], words].concat()).output()
    };
    let out = |text: &str| run(text, &[]).succeeds().out();
    assert_eq!(out(""), "inet ok\nunix ok\nioctl ENOTTY\nkeyctl EPERM\n");
    assert_eq!(
        out("base = \"strict\""),
        "inet EAFNOSUPPORT\nunix ok\nioctl ENOTTY\nkeyctl EPERM\n"
    );
    assert_eq!(
        out("base = \"strict\"\nallow = [\"@network\"]\ndeny = [\"@io-uring\"]"),
        "inet ok\nunix ok\nioctl ENOTTY\nkeyctl EPERM\n"
    );
    assert_eq!(
        out("deny = [\"@network\"]"),
        "inet EPERM\nunix EPERM\nioctl ENOTTY\nkeyctl EPERM\n"
    );
    // A rule that refuses sees through the high bits that the kernel does not read.
    let rules = "[[seccomp.rule]]\ncalls = [\"ioctl\"]\naction = \"deny\"\nerrno = \"EXDEV\"\nargs = [{ index = 1, value = 0x1234 }]\n[[seccomp.rule]]\ncalls = [\"socket\"]\naction = \"deny\"\nargs = [{ index = 0, op = \"!=\", value = 2 }]";
    assert_eq!(out(rules), "inet ok\nunix EPERM\nioctl EXDEV\nkeyctl EPERM\n");
    // As podman reads it.
    let oci = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errno": "EDOM", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#;
    let file = place.space.file("oci.json", oci);
    assert_eq!(
        out(&format!("base = \"{file}\"")),
        "inet ok\nunix EDOM\nioctl ENOTTY\nkeyctl EOPNOTSUPP\n"
    );
    let podmans = "/usr/share/containers/seccomp.json";
    if Path::new(podmans).exists() {
        let seen = out(&format!("base = \"{podmans}\""));
        assert!(seen.starts_with("inet ok\nunix ok\n"), "{seen}");
    }
    assert_eq!(run("", &["32"]).status.code(), Some(159));
    run("compat32 = true", &["32"]).succeeds();
    for (text, words) in [
        ("allow = [\"@netwrok\"]", "there is no group named"),
        ("deny = [\"opne\"]", "hint: did you mean \"open\"?"),
        ("base = \"none\"\ndeny = [\"open\"]", "mean nothing"),
        ("base = \"./none.json\"", "read seccomp profile"),
    ] {
        let output = run(text, &[]).fails(125);
        assert!(output.err().contains(words), "{text}: {}", output.err());
    }
}

#[test]
fn filters_are_printed_in_four_forms() {
    let place = Place::new();
    place.profile("p", "[seccomp]\ndeny = [\"socket\"]");
    let show = |words: &[&str]| {
        place.casemate(&[&["seccomp", "show"], words].concat()).output().succeeds()
    };
    assert!(show(&[]).out().contains("\nread: allowed\n"));
    assert!(show(&["p"]).out().contains("\nsocket: EPERM\n"));
    let pseudo = show(&["--form", "pseudo", "p"]).out().lines().count();
    assert_eq!(show(&["--form", "raw", "p"]).stdout.len(), 8 * pseudo);
    let json: serde_json::Value = serde_json::from_str(&show(&["--form", "json"]).out()).unwrap();
    assert!(json["rules"]["read"].is_object());
    assert!(place.casemate(&["seccomp", "groups", "@network"]).text().contains("socketpair"));
    place.casemate(&["seccomp", "groups", "@none"]).output().fails(125);
}

#[test]
fn only_the_ports_that_are_named_can_be_used() {
    let place = Place::new();
    place.profile("ports", "[network]\ntcp-connect = [9]\ntcp-bind = [8080]");
    place.profile("closed", "[network]\ntcp-connect = []\ntcp-bind = []");
    let run = |profile: &str, script: &str| {
        place.casemate(&["run", "-p", profile, "bash", "-c", script]).output().err()
    };
    let connect = |port: u16| format!("echo >/dev/tcp/127.0.0.1/{port}");
    let listen = |port: u16| {
        format!(
            "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1:{port}\") or die $!'"
        )
    };
    // Nobody listens there, which only who may connect finds out.
    assert!(run("ports", &connect(9)).contains("Connection refused"));
    assert!(run("default", &connect(10)).contains("Connection refused"));
    for profile in ["ports", "closed"] {
        assert!(run(profile, &connect(10)).contains("Permission denied"), "{profile}");
    }
    assert_eq!(run("ports", &listen(8080)), "");
    assert_eq!(run("default", &listen(8081)), "");
    for profile in ["ports", "closed"] {
        assert!(run(profile, &listen(8081)).contains("Permission denied"), "{profile}");
    }
}
