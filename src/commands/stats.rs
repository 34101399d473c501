//! `casemate stats`: what running boxes use, once or again each second.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::boxes;
use crate::cgroup::Sample;
use crate::cli::StatsArgs;
use crate::error::Result;
use crate::running::{self, Running};
use crate::ui;

#[derive(Serialize)]
struct Line {
    name: String,
    /// Hundredths of one processor since the last look, or since the box began.
    cpu_percent: Option<f64>,
    #[serde(flatten)]
    sample: Option<Sample>,
}

pub(super) fn stats(args: &StatsArgs) -> Result<()> {
    let live = std::io::stdout().is_terminal() && !args.no_stream && !args.json;
    let mut last: BTreeMap<String, (Instant, u64)> = BTreeMap::new();
    loop {
        let boxes = find(&args.names)?;
        let lines: Vec<Line> = boxes.iter().map(|running| look(running, &mut last)).collect();
        if args.json {
            return ui::json(&lines);
        }
        let table = table(&lines);
        if !live {
            return ui::output(&table);
        }
        // Home, the table with the rest of each line cleared, and what is below it.
        let table = table.replace('\n', "\x1b[K\n");
        ui::output(&format!("\x1b[H{table}\x1b[J"))?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn find(names: &[String]) -> Result<Vec<Running>> {
    let registry = boxes::registry()?;
    if names.is_empty() {
        return registry.map_or(Ok(Vec::new()), |registry| registry.list());
    }
    let get = |name: &String| match &registry {
        Some(registry) => registry.get(name),
        None => Err(running::none(name)),
    };
    names.iter().map(get).collect()
}

fn look(running: &Running, last: &mut BTreeMap<String, (Instant, u64)>) -> Line {
    let record = &running.record;
    // One that ends meanwhile has nothing to show.
    let sample = record.place.as_ref().and_then(|place| Sample::take(&place.path).ok());
    let used = sample.as_ref().and_then(|sample| sample.cpu);
    let cpu_percent = used.and_then(|used| {
        let now = Instant::now();
        let (seconds, spent) = match last.insert(record.name.clone(), (now, used)) {
            Some((then, before)) => ((now - then).as_secs_f64(), used.saturating_sub(before)),
            None => (boxes::now().saturating_sub(record.started).max(1) as f64, used),
        };
        (seconds > 0.0).then(|| (spent as f64 / seconds / 1000.0).round() / 10.0)
    });
    Line { name: record.name.clone(), cpu_percent, sample }
}

fn table(lines: &[Line]) -> String {
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    let heading = ["NAME", "CPU", "MEMORY", "PEAK", "LIMIT", "PROCESSES", "READ", "WRITTEN"];
    ui::table(&heading, &rows)
}

fn row(line: &Line) -> Vec<String> {
    let none = Sample::default();
    let sample = line.sample.as_ref().unwrap_or(&none);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let bytes = |count: Option<u64>| or_dash(count.map(ui::bytes));
    let processes = match (sample.processes, sample.processes_limit) {
        (Some(count), Some(limit)) => format!("{count} of {limit}"),
        (count, _) => or_dash(count.map(|count| count.to_string())),
    };
    vec![
        line.name.clone(),
        or_dash(line.cpu_percent.map(|percent| format!("{percent:.1} %"))),
        bytes(sample.memory),
        bytes(sample.memory_peak),
        bytes(sample.memory_limit),
        processes,
        bytes(sample.read),
        bytes(sample.written),
    ]
}
