//! Other sandboxes around casemate, and its own.

use std::path::PathBuf;

use crate::common::{Run, casemate, control, user};
use crate::{Report, doctor};

#[test]
fn a_box_of_its_own() {
    let own = user().casemate();
    let volume = format!("{}:/run/casemate:ro,exec", own.display());
    let run = casemate(["run", "-v", &volume, "--", "/run/casemate", "doctor", "--json"]);
    let report = Report::of(run);
    report.has("nested", "fatal", "user-namespace");
    // What would lift it for a container is no advice.
    assert!(report.finding("nested")["command"].is_null());
}

/// A copy of casemate that goes with the value.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn firejail() {
    let plain = Run::new("firejail").args(["--quiet", "--noprofile", "true"]).output();
    if !control("firejail", plain.code() == Some(0), &format!("firejail does not run: {plain:?}")) {
        return;
    }
    // It has a /var/tmp of its own, where this suite's files are not.
    let copy = Copy(user().home.join(format!(".casemate-{}", std::process::id())));
    std::fs::copy(user().casemate(), &copy.0).unwrap();
    let inside = |options: &[&str]| {
        let words = [&["--quiet", "--noprofile"], options].concat();
        Report::of(Run::new("firejail").args(words).arg(&copy.0).args(["doctor", "--json"]))
    };
    inside(&["--seccomp"]).has("firejail", "fatal", "tmpfs");
    let strict = ["--seccomp", "--restrict-namespaces"];
    inside(&strict).has("firejail", "fatal", "user-namespace");
    inside(&[]).has("firejail", "fatal", "proc");
}

#[test]
fn limits_that_only_each_process_has_are_told() {
    let away = ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"];
    let report = Report::of(away.iter().fold(doctor(), |run, name| run.without_env(name)));
    assert_eq!(report.finding("cgroups")["level"], "note");
    assert_eq!(report.0["limits"][0]["works"], false);
}
