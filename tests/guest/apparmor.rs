//! AppArmor, which only the guest's kernel has: profiles that refuse casemate what it needs, the one
//! that allows it, and one that a box is put into.

use serde_json::Value;

use crate::common::{Run, Workspace, casemate, user};
use crate::{as_root, in_session};

/// Everything but user namespaces, which have to be allowed by name (AppArmor 4).
const ALL_BUT: &str = "file, network, unix, signal, ptrace, capability, mount, umount, pivot_root, \
    mqueue, io_uring, change_profile, dbus,";

/// Loads a profile that is attached to no program, in place of an older one of the name.
fn load(name: &str, rules: &str) {
    let text = format!(
        "abi <abi/4.0>,\nprofile {name} flags=(attach_disconnected,mediate_deleted) {{\n{rules}\n}}\n"
    );
    as_root("apparmor_parser --replace").stdin(text).output().succeeds();
}

/// What the doctor finds in a profile: its exit code, and the ids of what is fatal, with their steps.
fn doctor_in(profile: &str) -> (i32, Vec<(String, String)>) {
    let output =
        in_session(casemate(["doctor", "--json"])).wrapped_in("aa-exec", &["-p", profile, "--"]);
    let output = output.output();
    let report: Value = serde_json::from_str(&output.out()).unwrap();
    let fatal = |finding: &&Value| finding["level"] == "fatal";
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter().filter(fatal);
    (output.code().unwrap(), findings.map(|one| (word(one, "id"), word(one, "step"))).collect())
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn a_profile_without_user_namespaces_is_named() {
    load("casemate-test-all", &format!("userns, {ALL_BUT}"));
    assert_eq!(doctor_in("casemate-test-all"), (0, vec![]));
    load("casemate-test-no-userns", ALL_BUT);
    let found = ("apparmor-confined".to_owned(), "user-namespace".to_owned());
    assert_eq!(doctor_in("casemate-test-no-userns"), (2, vec![found]));
}

/// What Ubuntu puts a program without a profile into when it makes a user namespace. Debian has it as
/// well, as one that complains only, and no program is put into it.
#[test]
#[ignore = "in the guest of tests/vm"]
fn the_profile_that_takes_the_capabilities_from_namespaces_is_named() {
    load(
        "unprivileged_userns",
        "audit deny capability, audit deny change_profile, allow network, allow signal, allow dbus,
         allow file rwlkm /**, allow unix, allow mqueue, allow ptrace, allow userns,
         allow pix /** -> &unprivileged_userns,",
    );
    let (exit, found) = doctor_in("unprivileged_userns");
    as_root("apparmor_parser --replace /etc/apparmor.d/unprivileged_userns").output().succeeds();
    assert_eq!(exit, 2);
    assert_eq!(found[0].0, "apparmor-userns", "{found:?}");
    assert_eq!(found[0].1, "setgroups", "{found:?}");
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn the_profile_that_the_doctor_prints_is_loaded_and_is_casemates() {
    let printed = in_session(casemate(["doctor", "--apparmor"])).output().succeeds();
    // It lies in the user's own directory here, and a warning says what that means.
    let base = user().casemate().canonicalize().unwrap();
    let warned = printed.err().contains("others than root can change it");
    let is_safe = base.starts_with("/payload");
    assert_eq!(warned, !is_safe, "{}", printed.err());
    let label = || {
        let text = in_session(casemate(["run", "--", "cat", "/proc/self/attr/current"])).text();
        text.trim_end_matches('\0').to_owned()
    };
    assert_eq!(label(), "unconfined");
    let place = "/etc/apparmor.d/casemate";
    as_root(&format!("tee {place} >/dev/null && apparmor_parser --replace {place}"))
        .stdin(printed.out())
        .output()
        .succeeds();
    let inside = label();
    let doctor = in_session(casemate(["doctor"])).output();
    as_root(&format!("apparmor_parser --remove {place} && rm {place}")).output().succeeds();
    assert_eq!(inside, "casemate (unconfined)");
    assert_eq!(doctor.code(), Some(0), "{}", doctor.out());
    assert_eq!(label(), "unconfined");
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn a_profile_that_is_stacked_on_a_box_takes_from_what_was_granted() {
    load("casemate-test-box", &format!("userns, {ALL_BUT}\ndeny /place/secret rwklx,"));
    let space = Workspace::new();
    space.file("place/open", "open\n");
    space.file("place/secret", "secret\n");
    let profile = space.file("box.toml", "[lsm]\napparmor = \"casemate-test-box\"\n");
    let volume = format!("{}:/place", space.at("place"));
    let script = "cat /place/open; cat /place/secret; cat /proc/self/attr/current";
    let run = |options: &[&str]| {
        let words = [&["run", "-v", &volume], options, &["--", "sh", "-c", script]].concat();
        in_session(casemate(words)).output()
    };
    let plain = run(&[]).succeeds();
    assert_eq!(plain.out().trim_end_matches('\0'), "open\nsecret\nunconfined\n");
    let boxed = run(&["-p", &profile]);
    assert!(boxed.out().starts_with("open\ncasemate-test-box//&unconfined (enforce)"), "{boxed:?}");
    assert_eq!(boxed.err(), "cat: /place/secret: Permission denied\n");
    // The user's own programs outside read it still.
    assert_eq!(Run::new("cat").arg(space.at("place/secret")).text(), "secret");
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn a_profile_that_is_not_loaded_stops_the_box() {
    let space = Workspace::new();
    let profile = space.file("box.toml", "[lsm]\napparmor = \"casemate-test-none\"\n");
    let output = in_session(casemate(["run", "-p", &profile, "--", "true"])).output();
    let words = ["stack AppArmor profile casemate-test-none", "aa-status"];
    output.refuses(125, &words);
}
