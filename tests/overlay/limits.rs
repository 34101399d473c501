//! Limits that whoever starts a box has: a server inherits them, and must not end or fail by them.

use std::ffi::OsString;

use crate::checks::probe;
use crate::common::probe::INSIDE;
use crate::common::{Run, user};
use crate::layers;

/// Some checks in a box with a server for all, started under a limit; what they say.
fn limited(limit: &str, names: &[&str]) -> String {
    let (program, checks) = probe();
    let image = layers::image(&program, &checks);
    let mut volume = OsString::from(&program);
    volume.push(format!(":{INSIDE}:ro,exec"));
    let run = Run::new("prlimit")
        .arg(limit)
        .arg(user().casemate())
        .args(["run", "--overlay", "fuse", "--image", &image, "-v"])
        .arg(volume)
        .args(["--", INSIDE, "run", "/t/checks"])
        .args(names)
        .with_fuse();
    let output = run.output();
    format!("{}{}", output.out(), output.err())
}

#[test]
fn few_open_files_are_enough_for_the_server() {
    let check = "more_files_than_may_be_open";
    assert_eq!(limited("--nofile=512:512", &[check]).trim(), format!("{check} ok"));
}

#[test]
fn a_limit_on_the_size_of_files_is_an_errno_to_who_meets_it() {
    // A file of the layers of 16 MiB would have to be copied up.
    let said = limited("--fsize=1048576", &["holes_survive_copy_up", "symbolic_links"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("holes_survive_copy_up EFBIG: chmod"), "{said}");
    assert_eq!(lines[1..], ["symbolic_links ok"], "{said}");
}
