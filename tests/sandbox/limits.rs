//! Limits.

use crate::common::{boxed_probe, casemate};

#[test]
fn a_limit_that_was_asked_for_holds() {
    assert_eq!(boxed_probe(&["--ulimit", "nofile=40"], &["nofile"]), "40");
    let text =
        casemate(["run", "--ulimit", "nofile=64:128", "--", "sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    assert_eq!(text.text(), "64\n128");
    let text = casemate(["run", "--ulimit", "fsize=1024", "--", "sh", "-c"])
        .arg("dd if=/dev/zero of=/tmp/x bs=4096 count=1 2>/dev/null; stat -c %s /tmp/x")
        .text();
    assert_eq!(text, "1024");
}

#[test]
fn a_limit_that_does_not_exist_is_refused() {
    casemate(["run", "--ulimit", "nonsense=1", "--", "true"]).output().refuses(125, &["nonsense"]);
}

/// A user may have 200 keyrings (/proc/sys/kernel/keys/maxkeys), and more boxes than that.
#[test]
fn boxes_share_one_session_keyring() {
    let script = "for i in 1 2 3; do \"$casemate\" run -- sleep 2 & done; sleep 1; \
                  grep -c ' casemate: ' /proc/keys; wait";
    assert_eq!(crate::common::Run::bash(script).text(), "1");
}
