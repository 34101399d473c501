//! The attack probe, compiled once, and the two ways to run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::command::{Run, casemate};
use super::user::{lock, user};

/// Where the probe is seen in a box.
pub const INSIDE: &str = "/run/probe";

/// The path of the static probe.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| compile("probe", "tests/probe/probe.c"))
}

/// Compiles a C file of the repository to a static program that the user can run.
pub fn compile(name: &str, source: &str) -> PathBuf {
    compile_all(name, &[source.into()], &[])
}

/// The same of several files, which include others.
pub fn compile_all(name: &str, sources: &[String], included: &[String]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = user().base.join("bin").join(name);
    let _lock = lock("compile");
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let newest =
        sources.iter().chain(included).map(|file| modified(&root.join(file)).unwrap()).max();
    if modified(&program).is_ok_and(|built| Some(built) > newest) {
        return program;
    }
    let compiled = Command::new("cc")
        .args(["-static", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .args(sources)
        .current_dir(root)
        .status()
        .expect("the C compiler starts");
    assert!(compiled.success(), "cc {} failed", sources.join(" "));
    program
}

/// The attempt outside of any box: what it prints.
pub fn plain_probe(arguments: &[&str]) -> String {
    Run::new(probe()).args(arguments).text()
}

/// The attempt in a box with the host's own system, under these options: what it prints.
pub fn boxed_probe(options: &[&str], arguments: &[&str]) -> String {
    boxed(options).args(arguments).text()
}

/// The command for an attempt in a box, to which the probe's arguments are still to be added.
pub fn boxed(options: &[&str]) -> Run {
    casemate(["run"]).args(options).arg("-v").arg(volume()).args(["--", INSIDE])
}

/// The volume that brings the probe into a box.
pub fn volume() -> String {
    format!("{}:{INSIDE}:ro,exec", probe().display())
}
