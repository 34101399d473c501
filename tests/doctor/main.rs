//! `casemate doctor`: obstacles that can be made here are made, for the real binary; those of other
//! systems are records of what they say (tests/doctor/recorded), fed to what names the causes; those
//! of AppArmor are tried in the guest (tests/guest/apparmor.rs).

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod around;
mod home;
mod live;
mod recorded;

use std::collections::BTreeSet;

use casemate::host::IDS;
use common::{Run, Workspace, casemate, user};
use serde_json::Value;

/// What the doctor says, of the binary or of a record.
struct Report(Value);

impl Report {
    /// Runs `casemate doctor --json`, in what `run` makes of it.
    fn of(run: Run) -> Report {
        let output = run.output();
        let report: Value = serde_json::from_str(&output.out())
            .unwrap_or_else(|error| panic!("{error}\n{}\n{}", output.out(), output.err()));
        assert_eq!(report["exit"], output.code().unwrap(), "{report:#}");
        assert_eq!(report["works"], output.code() != Some(2), "{report:#}");
        assert_eq!(output.err(), "");
        Report(report)
    }

    fn ids(&self) -> BTreeSet<&str> {
        let findings = self.0["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["id"].as_str().unwrap()).collect()
    }

    #[track_caller]
    fn finding(&self, id: &str) -> &Value {
        let findings = self.0["findings"].as_array().unwrap();
        findings
            .iter()
            .find(|finding| finding["id"] == id)
            .unwrap_or_else(|| panic!("no {id} in {:#}", self.0))
    }

    /// Demands the finding, at this level, and from a failure of this step.
    #[track_caller]
    fn has(&self, id: &str, level: &str, step: &str) {
        let finding = self.finding(id);
        assert_eq!(finding["level"], level, "{finding:#}");
        assert_eq!(finding["step"], step, "{finding:#}");
        let failed = self.0["steps"].as_array().unwrap().iter().find(|one| one["step"] == step);
        let failed = failed.unwrap();
        assert!(failed["finding"] == id || id == "killed", "{failed:#}");
        let exit = self.0["exit"].as_i64().unwrap();
        match level {
            "fatal" => assert_eq!(exit, 2),
            "warning" => assert!(exit >= 1),
            _ => {}
        }
    }

    /// Whether nothing stands in the way of boxes, and nothing takes of what they can.
    #[track_caller]
    fn is_well(&self) {
        assert_eq!(self.0["exit"], 0, "{:#}", self.0);
    }
}

/// The doctor, for a report.
fn doctor() -> Run {
    casemate(["doctor", "--json"])
}

/// The doctor after what root does in a mount namespace of the test's own, as the suite's user again
/// and with an open /dev/fuse. `$dir` is a directory of the test's; what the script leaves in
/// `$chroot`, `$groups` and `$user` counts.
fn after(root_does: &str, space: &Workspace) -> Run {
    let script = format!(
        "set -e; uid=$1 gid=$2; shift 2\n\
         test -e $dir/fuse || mknod -m 666 $dir/fuse c 10 229\n\
         mount --bind $dir/fuse /dev/fuse\n\
         {root_does}\n\
         exec ${{chroot:+chroot $chroot}} setpriv --reuid ${{user:-$uid}} --regid $gid \
         $([ \"$groups\" ] && echo --groups $groups || echo --clear-groups) -- \"$@\""
    );
    let (uid, gid) = (user().uid.to_string(), user().gid.to_string());
    let words = ["--mount", "bash", "-c", &script, "bash", &uid, &gid];
    doctor().env("dir", space.path()).wrapped_in("unshare", &words).by_root()
}

#[test]
fn a_machine_for_boxes_is_found_to_be_one() {
    let report = Report::of(doctor().with_fuse());
    report.is_well();
    for step in report.0["steps"].as_array().unwrap() {
        assert_eq!(step["outcome"], "works", "{step}");
        assert_eq!(step["finding"], Value::Null);
    }
    let page = casemate(["doctor"]).with_fuse().output().succeeds();
    assert!(page.out().ends_with("boxes run here\n"), "{}", page.out());
    assert!(!page.out().contains("FAILED"), "{}", page.out());
}

#[test]
fn the_page_and_the_report_say_the_same() {
    let run = |words: &[&str]| casemate(words).without_env("XDG_RUNTIME_DIR").with_fuse();
    let page = run(&["doctor"]).output().fails(1);
    let report = Report::of(run(&["doctor", "--json"]));
    for finding in report.0["findings"].as_array().unwrap() {
        let word = |key: &str| finding[key].as_str().unwrap();
        let line = format!("{:<10} {} [{}]\n", word("level"), word("cause"), word("id"));
        assert!(page.out().contains(&line), "{line}\n{}", page.out());
        assert!(page.out().contains(&format!("fix: {}\n", word("fix"))));
        if let Some(command) = finding["command"].as_str() {
            assert!(page.out().contains(&format!("run: {command}\n")));
        }
    }
    assert!(page.out().ends_with("boxes run here, with less than all\n"), "{}", page.out());
}

#[test]
fn nothing_is_left_where_it_tried() {
    let space = Workspace::new();
    space.directory("data");
    let run = doctor().with_fuse().env("XDG_DATA_HOME", space.at("data"));
    Report::of(run.env("XDG_RUNTIME_DIR", space.at(""))).has(
        "runtime-dir",
        "warning",
        "runtime-directory",
    );
    assert_eq!(std::fs::read_dir(space.at("data")).unwrap().count(), 0);
}

/// The ids that a test of the real binary finds, here or in the guest. All others are recorded.
const LIVE: [&str; 27] = [
    "cgroups",
    "apparmor-confined",
    "apparmor-userns",
    "chrooted",
    "firejail",
    "fuse",
    "fuse-device",
    "fuse-module",
    "groups",
    "home-fs",
    "home-full",
    "home-noexec",
    "home-none",
    "home-overlay",
    "home-write",
    "keyring",
    "killed",
    "landlock",
    "max-userns",
    "nested",
    "no-new-privs",
    "no-newuidmap",
    "no-subuid",
    "proc-masked",
    "runtime-dir",
    "seccomp-docker",
    "unmapped",
];

#[test]
fn every_id_is_found_by_a_test() {
    let sources = [
        include_str!("around.rs"),
        include_str!("home.rs"),
        include_str!("live.rs"),
        include_str!("../guest/apparmor.rs"),
    ];
    for id in LIVE {
        let quoted = format!("\"{id}\"");
        assert!(sources.iter().any(|source| source.contains(&quoted)), "{id}");
    }
    let mut found = recorded::ids();
    found.extend(LIVE.map(str::to_owned));
    assert_eq!(found, IDS.map(str::to_owned).into());
}
