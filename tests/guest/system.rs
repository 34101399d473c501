//! The guest itself: that it is what its tests take it for.

use std::fs;

use crate::common::{Image, Run, casemate, image};
use crate::{as_root, in_session};

#[test]
#[ignore = "in the guest of tests/vm"]
fn the_user_has_a_session_and_a_manager() {
    let state = in_session(Run::new("systemctl").args(["--user", "is-system-running"])).text();
    assert_eq!(state, "running");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(own.starts_with("0::/user.slice/user-1000.slice/session-"), "{own}");
    let scope = ["--user", "--scope", "--quiet", "--", "cat", "/proc/self/cgroup"];
    let scope = in_session(Run::new("systemd-run").args(scope)).text();
    assert!(scope.contains("/user@1000.service/"), "{scope}");
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn apparmor_is_enabled_and_has_profiles() {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap();
    assert_eq!(enabled.trim(), "Y");
    let profiles = as_root("cat /sys/kernel/security/apparmor/profiles").text();
    assert!(profiles.contains("unprivileged_userns"), "{profiles}");
    assert_eq!(Run::new("cat").arg("/proc/self/attr/current").text(), "unconfined");
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn the_doctor_finds_a_machine_for_boxes() {
    let doctor = in_session(casemate(["doctor"])).output();
    assert_eq!(doctor.code(), Some(0), "{}\n{}", doctor.out(), doctor.err());
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn a_box_in_a_session_has_the_sessions_kernel_and_nothing_of_its_bus() {
    let name = image(Image::Small);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let words = ["run", "--image", &name, "--", "sh", "-c", "uname -r; ls /run; env | grep -c BUS"];
    let seen = in_session(casemate(words)).output();
    assert_eq!(seen.out().lines().next(), Some(release.trim()), "{}", seen.err());
    assert_eq!(seen.out().lines().last(), Some("0"), "{}", seen.out());
    assert!(!seen.out().contains("user"), "{}", seen.out());
}
