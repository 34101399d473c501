//! `casemate ps`, `kill`, `pause`, `resume` and `update`: the boxes that run.

use serde::Serialize;

use crate::cgroup::{self, Limits, Sample, runtime_directory};
use crate::cli::{KillArgs, PauseArgs, PsArgs, UpdateArgs};
use crate::error::{Error, Exit, Result};
use crate::running::{self, Place, Registry, Running};
use crate::ui;

/// The directory of the boxes that run, where there is one.
pub(super) fn registry() -> Result<Option<Registry>> {
    runtime_directory().map_or(Ok(None), |runtime| Registry::find(&runtime))
}

fn found(name: &str) -> Result<(Registry, Running)> {
    let registry = registry()?.ok_or_else(|| running::none(name))?;
    let running = registry.get(name)?;
    Ok((registry, running))
}

/// The cgroup of a box, or the words for one that has none.
fn place<'a>(running: &'a Running, what: &str) -> Result<&'a Place> {
    running.record.place.as_ref().ok_or_else(|| {
        Error::new(format!("{what} {}: the box has no cgroup of its own", running.record.name))
            .hint(
                "a box has one where it is started with a limit or a --name, and your systemd runs",
            )
    })
}

/// A line of `ps`.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    status: &'static str,
    profile: &'a str,
    image: Option<&'a str>,
    /// The supervisor's.
    pid: i32,
    started: u64,
    unit: Option<&'a str>,
    command: &'a [String],
}

pub(super) fn ps(args: &PsArgs) -> Result<()> {
    let running = registry()?.map_or(Ok(Vec::new()), |registry| registry.list())?;
    let lines: Vec<Line<'_>> = running.iter().map(line).collect();
    if args.json {
        return ui::json(&lines);
    }
    if args.quiet {
        return ui::output(
            &lines.iter().map(|line| format!("{}\n", line.name)).collect::<String>(),
        );
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                line.name.to_owned(),
                line.status.to_owned(),
                line.image.unwrap_or(line.profile).to_owned(),
                line.pid.to_string(),
                age(line.started),
                line.command.join(" "),
            ]
        })
        .collect();
    ui::output(&ui::table(&["NAME", "STATUS", "FROM", "PID", "FOR", "COMMAND"], &rows))
}

fn line(running: &Running) -> Line<'_> {
    let record = &running.record;
    // One that ends just now is told as running, which it was.
    let paused = record
        .place
        .as_ref()
        .is_some_and(|place| Sample::take(&place.path).is_ok_and(|sample| sample.paused));
    let status = match (paused, running.program) {
        (true, _) => "paused",
        (false, Some(_)) => "running",
        (false, None) => "starting",
    };
    Line {
        name: &record.name,
        status,
        profile: &record.profile,
        image: record.image.as_deref(),
        pid: running.supervisor,
        started: record.started,
        unit: record.place.as_ref().and_then(|place| place.unit.as_deref()),
        command: &record.command,
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn age(started: u64) -> String {
    let seconds = now().saturating_sub(started);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// Does it to each; the exit code tells whether one failed.
fn each(names: &[String], mut act: impl FnMut(&str) -> Result<()>) -> Result<i32> {
    let mut failed = false;
    for name in names {
        if let Err(error) = act(name) {
            ui::error(&error);
            failed = true;
        }
    }
    Ok(if failed { Exit::Failed.code() } else { 0 })
}

pub(super) fn kill(args: &KillArgs) -> Result<i32> {
    each(&args.names, |name| {
        let (registry, running) = found(name)?;
        if args.signal.0 == libc::SIGKILL && running.program.is_none() {
            // It starts yet, and there is nobody else to be told.
            return running.end_supervisor(&registry);
        }
        match running.signal(args.signal.0) {
            // With ids of a range the program is another user to us, but its cgroup is ours.
            Err(error) if running::is_refused(&error) && args.signal.0 == libc::SIGKILL => {
                match &running.record.place {
                    Some(place) => cgroup::kill(&place.path),
                    None => running.end_supervisor(&registry),
                }
            }
            done => done,
        }?;
        // A paused box has been killed only when its PID 1 can tell it.
        match &running.record.place {
            Some(place) if args.signal.0 == libc::SIGKILL => cgroup::thaw(&place.path),
            _ => Ok(()),
        }
    })
}

pub(super) fn pause(args: &PauseArgs, paused: bool) -> Result<i32> {
    let what = if paused { "pause" } else { "resume" };
    each(&args.names, |name| {
        let (_, running) = found(name)?;
        cgroup::pause(&place(&running, what)?.path, paused)
    })
}

pub(super) fn update(args: &UpdateArgs) -> Result<()> {
    let said = args.limits.limits()?;
    let limits = Limits::change(&said, cgroup::machine_memory()?);
    if limits.is_empty() {
        return Err(Error::new(format!("update {}: nothing to change", args.name))
            .hint("say a limit, such as --memory 1g"));
    }
    let (_, running) = found(&args.name)?;
    let place = place(&running, "update")?;
    cgroup::change(&place.path, place.unit.as_deref(), &limits)
}
