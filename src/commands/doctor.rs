//! `casemate doctor`

use std::fmt::Write as _;

use serde::Serialize;

use super::plan;
use crate::cgroup;
use crate::cli::DoctorArgs;
use crate::error::{Error, Result};
use crate::host::doctor::{Examination, Outcome, Tried, examine};
use crate::host::{Directories, Finding, Level, Step, apparmor, note};
use crate::identity::Backend;
use crate::identity::range::newuidmap::{self, Lack};
use crate::profile::Profile;
use crate::ui;

/// The form of the JSON object; a change that readers would stumble over makes it another.
const FORM: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    form: u32,
    /// Whether boxes run at all.
    works: bool,
    /// What the command exits with.
    exit: i32,
    steps: Vec<Row>,
    findings: &'a [Finding],
    /// Where a range of ids can come from.
    ids: &'a [Source],
    /// Where limits of a box in total can be applied.
    limits: &'a [Source],
}

/// A step as JSON has it.
#[derive(Serialize)]
struct Row {
    step: Step,
    title: &'static str,
    outcome: &'static str,
    errno: Option<i32>,
    error: Option<&'static str>,
    finding: Option<&'static str>,
}

/// One of those who may give something, asked for it.
#[derive(Serialize)]
struct Source {
    id: String,
    works: bool,
    /// What it gives, or why it does not.
    detail: String,
}

/// 0: everything works; 1: boxes run, with less or differently; 2: they do not run.
pub(super) fn doctor(args: &DoctorArgs, directories: &Directories) -> Result<i32> {
    if args.apparmor {
        return print_profile().map(|()| 0);
    }
    let Examination { steps, mut findings } = examine(directories)?;
    let ids = id_sources(directories)?;
    if ids.iter().all(|source| !source.works) {
        findings.extend(lacks(directories));
    }
    let limits: Vec<Source> = limits(&mut findings).into_iter().collect();
    let has = |level: Level| findings.iter().any(|finding| finding.level == level);
    let exit = match (has(Level::Fatal), has(Level::Warning)) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    };
    if args.json {
        let steps = steps.iter().map(row).collect();
        let (works, findings) = (exit != 2, &findings);
        let report =
            Report { form: FORM, works, exit, steps, findings, ids: &ids, limits: &limits };
        ui::json(&report)?;
    } else {
        ui::output(&page(&steps, &findings, &ids, &limits, exit))?;
    }
    Ok(exit)
}

fn row(tried: &Tried) -> Row {
    let (outcome, errno) = match tried.outcome {
        Outcome::Works => ("works", None),
        Outcome::Fails(errno) => ("fails", Some(errno)),
        Outcome::NotTried => ("not-tried", None),
    };
    Row {
        step: tried.step,
        title: tried.step.title(),
        outcome,
        errno,
        error: errno.map(|errno| nix::errno::Errno::from_raw(errno).desc()),
        finding: tried.finding,
    }
}

fn page(
    steps: &[Tried],
    findings: &[Finding],
    ids: &[Source],
    limits: &[Source],
    exit: i32,
) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    for tried in steps {
        let (mark, detail) = match tried.outcome {
            Outcome::Works => ("ok", String::new()),
            Outcome::Fails(errno) => {
                ("FAILED", format!(": {}", nix::errno::Errno::from_raw(errno).desc()))
            }
            Outcome::NotTried => ("not tried", String::new()),
        };
        let name = tried.finding.map(|id| format!(" [{id}]")).unwrap_or_default();
        let _infallible = writeln!(page, "{mark:<10} {}{detail}{name}", tried.step.title());
    }
    page.push_str("\nranges of ids, for boxes with --userns=many; one of these is enough\n");
    ids.iter().for_each(|source| line(&mut page, source));
    if !limits.is_empty() {
        page.push_str("\nlimits of a box in total: memory, processes, processors\n");
    }
    limits.iter().for_each(|source| line(&mut page, source));
    if !findings.is_empty() {
        page.push('\n');
    }
    for finding in findings {
        let mark = match finding.level {
            Level::Fatal => "fatal",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let cause = ui::escape(&finding.cause);
        let _infallible = writeln!(page, "{mark:<10} {cause} [{}]", finding.id);
        let _infallible = writeln!(page, "           fix: {}", ui::escape(&finding.fix));
        if let Some(command) = &finding.command {
            let _infallible = writeln!(page, "           run: {}", ui::escape(command));
        }
    }
    page.push_str(match exit {
        0 => "boxes run here\n",
        1 => "boxes run here, with less than all\n",
        _ => "boxes do not run here\n",
    });
    page
}

fn line(page: &mut String, source: &Source) {
    let mark = if source.works { "ok" } else { "no" };
    let detail = ui::escape(&source.detail);
    // Writing to a String cannot fail.
    let _infallible = writeln!(page, "{mark:<10} {detail} [{}]", source.id);
}

/// Where such limits can be applied, and what is missing for it. A machine whose cgroups cannot be
/// looked at has told the steps why.
fn limits(findings: &mut Vec<Finding>) -> Option<Source> {
    let profile = Profile::default();
    let (facts, _) = cgroup::look(&profile, cgroup::inquire(&profile, true)).ok()?;
    let (detail, fixes) = facts.survey();
    if !fixes.is_empty() {
        findings.push(note("cgroups", detail.clone(), fixes.join("; ")));
    }
    Some(Source { id: "cgroups".to_owned(), works: facts.is_total(), detail })
}

/// Asks each of them, whatever the others say, and keeps nothing.
fn id_sources(directories: &Directories) -> Result<Vec<Source>> {
    let search = plan::search(directories, false)?;
    let ask = |backend: Backend| {
        let given = search.attempt(backend);
        let works = given.is_ok();
        let detail = match given {
            Ok(range) => {
                let ids: u64 = range.facts.uids.iter().map(|ids| u64::from(ids.count)).sum();
                format!("{backend}: {ids} ids")
            }
            Err(error) => format!("{backend}: {}", words(&error)),
        };
        Source { id: format!("ids-{backend}"), works, detail }
    };
    Ok(Backend::ALL.map(ask).into())
}

/// An error in one line.
fn words(error: &Error) -> String {
    let hints = error.hints().iter().map(|hint| format!("; {hint}"));
    format!("{error}{}", hints.collect::<String>())
}

/// What is missing for newuidmap(1), which the user may yet allow: nothing is started for it.
fn lacks(directories: &Directories) -> Vec<Finding> {
    let mut found = Vec::new();
    match newuidmap::lack(&directories.caller) {
        Some(Lack::Programs(error)) => {
            let lack = note(
                "no-newuidmap",
                error.to_string(),
                "install it, for a range of ids from /etc/subuid",
            );
            // Those that are there and another could have changed are for root to look at.
            found.push(match error.hints().first() {
                Some(command) => lack.with(command),
                None => lack,
            });
        }
        Some(Lack::Range(error)) => found.push(
            // No command: which ids are nobody's is for root to see, and those of somebody else would
            // open that user's files.
            note("no-subuid", error.to_string(), error.hints().join("; ")),
        ),
        None => {}
    }
    if crate::sys::process::has_no_new_privs() {
        found.push(note(
            "no-new-privs",
            "this process may gain no privileges (no_new_privs): newuidmap, which is setuid, can give no ids",
            "start casemate outside of what set that (a sandbox, NoNewPrivileges= of a service, setpriv)",
        ));
    }
    found
}

/// The profile on standard output, so that it can go into a file, and what is dangerous about it on
/// standard error.
fn print_profile() -> Result<()> {
    let profile = apparmor::profile()?;
    if let Some(danger) = &profile.danger {
        ui::warning(danger);
    }
    ui::output(&profile.text)
}
