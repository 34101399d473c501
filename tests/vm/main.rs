//! `make test-vm`: the suite on another kernel and under a real systemd, in the guest that
//! `tests/vm/run` boots.
//!
//! One boot serves all. The guest runs the compiled test programs as an ordinary user in a session,
//! and their results stand here under the programs' names, in the form of any other test program, so
//! that `cargo test --test vm -- WORD` takes what cargo's own tests take; with `CASEMATE_TEST_TIMES=1` it
//! lists at the end how long each test took. `payload.rs` is what the
//! guest is given, `report.rs` how its lines become results.

// A test program of its own kind prints its results, and ends where its surroundings fail it.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod payload;
mod report;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use report::Report;

/// What the guest may take, in seconds, on a machine that does other work too. Beyond, it hangs.
const LIMIT: &str = "2400";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("0 tests, 0 benchmarks");
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let staging =
        tempfile::Builder::new().prefix("casemate-payload.").tempdir_in("/var/tmp").unwrap();
    payload::gather(staging.path(), &arguments);
    println!("\nrunning the guest's tests");

    let console = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-console");
    let errors = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-errors");
    let mut guest = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/run"))
        .args(["--limit", LIMIT, "--console"])
        .arg(&console)
        .arg("--files")
        .arg(staging.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors).unwrap())
        .spawn()
        .expect("bash starts");
    let mut report = Report::default();
    for line in BufReader::new(guest.stdout.take().unwrap()).split(b'\n') {
        report.line(&String::from_utf8_lossy(&line.unwrap()));
    }
    let status = guest.wait().unwrap();
    let whole = report.end(status.success());
    // Failed tests are exit code 1; with any other the guest itself is the matter.
    if !status.success() && status.code() != Some(1) {
        println!("\nthe guest: {status}\n{}", std::fs::read_to_string(errors).unwrap_or_default());
        println!("the whole console is {}", console.display());
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if whole { "ok" } else { "FAILED" },
        report.passed,
        report.failed,
        report.ignored,
        report.filtered,
        begin.elapsed().as_secs_f64()
    );
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
