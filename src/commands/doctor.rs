//! `casemate doctor`

use std::fmt::Write as _;

use serde::Serialize;

use super::plan;
use crate::cgroup;
use crate::cli::DoctorArgs;
use crate::error::{Error, Result};
use crate::host::Directories;
use crate::host::doctor::{Finding, Outcome, examine};
use crate::identity::{Backend, find_group};
use crate::profile::Profile;
use crate::ui;

/// Groups that are as good as root, or open other people's files: with one mapped id a program
/// keeps them (setgroups(2) is denied).
const DANGEROUS: [&str; 12] = [
    "adm",
    "disk",
    "docker",
    "incus-admin",
    "kmem",
    "kvm",
    "libvirt",
    "lxd",
    "shadow",
    "sudo",
    "video",
    "wheel",
];

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
    /// Where a range of ids can come from.
    ids: Vec<IdSource>,
    warnings: Vec<String>,
    works: bool,
}

/// One of those who may give a range of ids, asked for one.
#[derive(Serialize)]
struct IdSource {
    id: String,
    works: bool,
    /// What it gives, or why it does not.
    detail: String,
}

/// 0: everything works; 1: boxes run, with less or differently; 2: they do not run.
pub(super) fn doctor(args: &DoctorArgs, directories: &Directories) -> Result<i32> {
    let findings = examine()?;
    let fatal = |finding: &Finding| match (&finding.outcome, &finding.diagnosis) {
        (Outcome::Fails(_), Some(diagnosis)) => !diagnosis.survivable,
        (Outcome::NotTried, _) => true,
        _ => false,
    };
    let works = !findings.iter().any(fatal);
    let failed = findings.iter().any(|finding| finding.outcome != Outcome::Works);
    let report = Report { works, ids: id_sources(directories)?, warnings: warnings(), findings };
    let text = if args.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Error::new(format!("encode the findings: {error}")))?;
        format!("{json}\n")
    } else {
        page(&report)
    };
    ui::output(&text)?;
    Ok(match (works, failed) {
        (false, _) => 2,
        (true, true) => 1,
        (true, false) => 0,
    })
}

fn page(report: &Report) -> String {
    let mut page = String::new();
    for finding in &report.findings {
        let (mark, detail) = match finding.outcome {
            Outcome::Works => ("ok", String::new()),
            Outcome::Fails(errno) => {
                ("FAILED", format!(": {}", nix::errno::Errno::from_raw(errno).desc()))
            }
            Outcome::NotTried => ("not tried", String::new()),
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(page, "{mark:<10} {}{detail}", finding.step.title());
        if let Some(diagnosis) = &finding.diagnosis {
            let _infallible = writeln!(page, "           {} [{}]", diagnosis.cause, diagnosis.id);
            let _infallible = writeln!(page, "           fix: {}", diagnosis.fix);
        }
    }
    page.push_str("\nranges of ids, for boxes with --userns=many; one of these is enough\n");
    for source in &report.ids {
        let mark = if source.works { "ok" } else { "no" };
        let detail = ui::escape(&source.detail);
        let _infallible = writeln!(page, "{mark:<10} {detail} [{}]", source.id);
    }
    page.push('\n');
    for warning in &report.warnings {
        let _infallible = writeln!(page, "note       {}", ui::escape(warning));
    }
    let failed = report.findings.iter().any(|finding| finding.outcome != Outcome::Works);
    page.push_str(match (report.works, failed) {
        (true, false) => "boxes run here\n",
        (true, true) => "boxes run here, with less than all\n",
        (false, _) => "boxes do not run here\n",
    });
    page
}

/// Asks each of them, whatever the others say, and keeps nothing.
fn id_sources(directories: &Directories) -> Result<Vec<IdSource>> {
    let search = plan::search(directories, false)?;
    let ask = |backend: Backend| {
        let given = search.attempt(backend);
        let works = given.is_ok();
        let detail = match given {
            Ok(range) => {
                let ids: u64 = range.facts.uids.iter().map(|ids| u64::from(ids.count)).sum();
                format!("{backend}: {ids} ids")
            }
            Err(error) => {
                let hints = error.hints().iter().map(|hint| format!("; {hint}"));
                format!("{backend}: {error}{}", hints.collect::<String>())
            }
        };
        IdSource { id: format!("ids-{backend}"), works, detail }
    };
    Ok(Backend::ALL.map(ask).into())
}

fn warnings() -> Vec<String> {
    let mut warnings = Vec::new();
    // A machine whose cgroups cannot be looked at has told the steps above why.
    let profile = Profile::default();
    if let Ok((facts, _)) = cgroup::look(&profile, cgroup::inquire(&profile, true)) {
        let (text, fixes) = facts.survey();
        let fixes: String = fixes.iter().map(|fix| format!("; fix: {fix}")).collect();
        warnings.push(format!("{text}{fixes} [cgroups]"));
    }
    // Unreadable is as good as empty: then no group has a name that is known.
    let names = std::fs::read("/etc/group").unwrap_or_default();
    let mine = nix::unistd::getgroups().unwrap_or_default();
    let held: Vec<String> = mine
        .iter()
        .filter_map(|gid| find_group(&names, |group| group.gid == gid.as_raw()))
        .map(|group| group.name)
        .filter(|name| DANGEROUS.contains(&name.as_str()))
        .collect();
    if !held.is_empty() {
        warnings.push(format!(
            "you are in {}: programs in a box keep these groups, and can use files that are mounted and open to them [groups]",
            held.join(", ")
        ));
    }
    let tiocsti = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    if tiocsti.is_ok_and(|value| value.trim() == "1") {
        warnings.push(
            "dev.tty.legacy_tiocsti is 1: programs outside of boxes can type into your terminal; boxes cannot [tiocsti]"
                .to_owned(),
        );
    }
    warnings
}
