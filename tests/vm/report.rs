//! The lines of the guest's test programs, and what they come to.

use std::collections::BTreeSet;

/// The line with which the guest's start announces the program whose results follow.
const PROGRAM: &str = "casemate-guest: program ";

/// The line with which it announces that those of its tests that failed are run once more.
const AGAIN: &str = "casemate-guest: again ";

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) ignored: u32,
    pub(super) filtered: u32,
    /// The tests that failed, until they have passed.
    unsettled: BTreeSet<String>,
    /// The program whose lines come, until its own result has come.
    open: Option<String>,
    /// How many programs gave a result.
    results: u32,
    /// How long each test took, where the programs tell.
    times: Vec<(f64, String)>,
}

impl Report {
    /// Takes one line, and prints it as a test program of this machine would.
    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim_end_matches('\r');
        if let Some(program) = line.strip_prefix(PROGRAM) {
            self.close();
            self.open = Some(program.to_string());
        } else if let Some(program) = line.strip_prefix(AGAIN) {
            println!("those of {program} that failed are run again, alone");
            self.open = Some(program.to_string());
        } else if let Some(test) = line.strip_prefix("test result: ") {
            self.filtered += number_before(test, " filtered out");
            self.ignored += number_before(test, " ignored");
            self.results += 1;
            self.open = None;
        } else if let (Some(program), Some(test)) = (&self.open, line.strip_prefix("test ")) {
            let (test, seconds) = timed(test);
            if let (Some(seconds), Some((name, _))) = (seconds, test.rsplit_once(" ... ")) {
                self.times.push((seconds, format!("{program}::{name}")));
            }
            match test.rsplit_once(" ... ") {
                Some((name, "FAILED")) => {
                    println!("test {program}::{name} has not passed");
                    self.unsettled.insert(format!("{program}::{name}"));
                }
                end => {
                    println!("test {program}::{test}");
                    if let Some((name, "ok")) = end {
                        self.passed += 1;
                        self.unsettled.remove(&format!("{program}::{name}"));
                    }
                }
            }
        } else if !line.starts_with("running ") && !line.is_empty() {
            println!("{line}");
        }
    }

    /// Whether all is well, once the guest is off; `ended` says whether it went off by itself.
    pub(super) fn end(&mut self, ended: bool) -> bool {
        self.close();
        self.times.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (seconds, test) in &self.times {
            println!("{seconds:8.2} s {test}");
        }
        for test in std::mem::take(&mut self.unsettled) {
            self.fail(&test);
        }
        if self.results == 0 {
            self.fail("the guest");
        }
        ended && self.failed == 0
    }

    /// A program that died has said nothing of the test that killed it.
    fn close(&mut self) {
        if let Some(program) = self.open.take() {
            self.fail(&format!("{program}, which ended before its result"));
        }
    }

    fn fail(&mut self, what: &str) {
        println!("test {what} ... FAILED");
        self.failed += 1;
    }
}

/// A test's line without the time that it took (`--report-time`), and that in seconds.
fn timed(line: &str) -> (&str, Option<f64>) {
    let parts = line
        .rsplit_once(" <")
        .and_then(|(line, rest)| Some((line, rest.strip_suffix("s>")?.parse().ok()?)));
    parts.map_or((line, None), |(line, seconds)| (line, Some(seconds)))
}

/// The number in front of these words.
fn number_before(line: &str, words: &str) -> u32 {
    let before = line.split(words).next().unwrap_or_default();
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}
