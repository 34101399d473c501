//! `casemate store check`: verifies the store, and mends it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::registries;
use crate::cli::{CheckArgs, RegistryArgs};
use crate::error::Result;
use crate::host::Directories;
use crate::image::{Digest, Platform, Reference};
use crate::registry::Registries;
use crate::store::{Fault, Origin, Place, Progress, Remedy, Report, State, Store, Wanted};
use crate::transfer::{self, Platforms, Unwatched};
use crate::ui;

/// Faults that were not mended. Failures of the check itself are 125.
const FAULTY: i32 = 1;

/// Verifies, mends if that is asked for, and tells; the exit code says whether a fault is left.
pub(super) fn check(args: &CheckArgs, directories: &Directories) -> Result<i32> {
    let data_home = directories.store()?;
    let wanted = args.images.iter().map(|name| Wanted::parse(name)).collect::<Result<Vec<_>>>()?;
    let Some(store) = Store::find(data_home)? else {
        if let Some(image) = wanted.first() {
            return Err(crate::store::missing(image.reference(), std::iter::empty()));
        }
        tell(args, &Report::default())?;
        return Ok(0);
    };
    let shown = Shown::new(args.quiet);
    let report = store.check(&wanted, &shown);
    shown.end();
    let mut report = report?;
    if args.repair && !report.faults.is_empty() {
        repair(args, directories, data_home, &mut report)?;
    }
    tell(args, &report)?;
    Ok(if report.faults.iter().all(Fault::is_mended) { 0 } else { FAULTY })
}

fn repair(
    args: &CheckArgs,
    directories: &Directories,
    data_home: &Path,
    report: &mut Report,
) -> Result<()> {
    let store = Store::open(data_home)?;
    store.repair(report, &|fault| {
        if !args.quiet {
            ui::note(&format!("mending {} {}", fault.place.kind(), fault.place));
        }
    })?;
    let lost = store.to_bring(report)?;
    let mut sources: BTreeSet<(String, Option<String>)> = BTreeSet::new();
    for Origin { from, platform, .. } in lost.into_values() {
        sources.extend(from.map(|from| (from, platform)));
    }
    for (from, platform) in &sources {
        if !args.quiet {
            ui::note(&format!("pulling {from}"));
        }
        // Each is tried; those that stay broken are told with all others.
        if let Err(error) = pull(&store, directories, from, platform.as_deref(), args.quiet) {
            ui::error(&error);
        }
    }
    store.confirm(report)
}

fn pull(
    store: &Store,
    directories: &Directories,
    from: &str,
    platform: Option<&str>,
    quiet: bool,
) -> Result<()> {
    let how = RegistryArgs { authfile: None, tls_verify: None };
    let registries = Registries::load(registries::options(&how, directories, quiet))?;
    let platforms = match platform.map(str::parse::<Platform>).transpose()? {
        Some(platform) if platform != Platform::host() => Platforms::Of(platform),
        _ => Platforms::Host,
    };
    let reference = Reference::parse(from)?;
    transfer::pull(store, &registries, &reference, &platforms, &Unwatched).map(drop)
}

/// What would mend a fault, or has to be done by hand.
fn way_out(fault: &Fault) -> Option<String> {
    let of_images = |what: &str| {
        let commands = fault.images.iter().map(|name| format!("`casemate rmi {name}`"));
        let commands: Vec<String> = commands.collect();
        format!("{what} with `casemate import` or `pull`, or {}", commands.join(", "))
    };
    match (&fault.state, fault.remedy) {
        (State::Mended, _) => None,
        (State::Stays(_), Remedy::Unpack | Remedy::Write)
            if matches!(fault.place, Place::Layer(_)) =>
        {
            Some("`casemate store check --repair` once it is free".to_owned())
        }
        (State::Found, Remedy::Bring) => Some(of_images(
            "`casemate store check --repair` removes it and pulls the image again if it was \
             pulled; otherwise bring it",
        )),
        (State::Missing | State::Stays(_), _) if !fault.images.is_empty() => {
            Some(of_images("bring the image again"))
        }
        (State::Found, Remedy::Nothing) => Some(
            "nothing that casemate can mend: see to what it says, or import the images again"
                .to_owned(),
        ),
        (State::Found, _) => Some("`casemate store check --repair`".to_owned()),
        _ => None,
    }
}

fn tell(args: &CheckArgs, report: &Report) -> Result<()> {
    if args.json {
        let faults: Vec<Value> = report.faults.iter().map(object).collect();
        return ui::json(&json!({
            "layers": report.layers,
            "documents": report.documents,
            "faults": faults,
        }));
    }
    let mut text = String::new();
    for fault in &report.faults {
        let place = ui::escape(&format!("{} {}", fault.place.kind(), fault.place));
        for line in &fault.what {
            text.push_str(&format!("{place}: {}\n", ui::escape(line)));
        }
        let mut more = |key: &str, value: &str| {
            text.push_str(&format!("    {key}: {}\n", ui::escape(value)));
        };
        if !fault.images.is_empty() {
            more("images", &fault.images.join(", "));
        }
        match &fault.state {
            State::Found => (),
            State::Stays(why) => more("stays", why),
            state => more("now", state.word()),
        }
        if let Some(way_out) = way_out(fault) {
            more("way out", &way_out);
        }
    }
    if !args.quiet {
        let of = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let mended = report.faults.iter().filter(|fault| fault.is_mended()).count();
        let mended = if mended > 0 { format!(", {mended} mended") } else { String::new() };
        text.push_str(&format!(
            "checked {} and {}: {}{mended}\n",
            of(report.layers, "layer", "layers"),
            of(report.documents, "document", "documents"),
            of(report.faults.len(), "fault", "faults"),
        ));
    }
    ui::output(&text)
}

fn object(fault: &Fault) -> Value {
    json!({
        "kind": fault.place.kind(),
        "object": fault.place.to_string(),
        "what": fault.what,
        "images": fault.images,
        "state": fault.state.word(),
        "reason": match &fault.state {
            State::Stays(why) => Some(why),
            _ => None,
        },
        "way_out": way_out(fault),
    })
}

/// How often a terminal is told how far it is.
const OFTEN: Duration = Duration::from_millis(100);

/// Shows how a check goes: on a terminal in one line, elsewhere in a line for each layer.
struct Shown {
    how: How,
    layers: Cell<usize>,
    bytes: Cell<u64>,
    number: Cell<usize>,
    read: Cell<u64>,
    last: Cell<Option<Instant>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Silent,
    Line,
    Lines,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        let how = match quiet {
            true => How::Silent,
            false if std::io::stderr().is_terminal() => How::Line,
            false => How::Lines,
        };
        Shown {
            how,
            layers: Cell::new(0),
            bytes: Cell::new(0),
            number: Cell::new(0),
            read: Cell::new(0),
            last: Cell::new(None),
        }
    }

    fn draw(&self) {
        if self.how != How::Line || self.last.get().is_some_and(|last| last.elapsed() < OFTEN) {
            return;
        }
        self.last.set(Some(Instant::now()));
        ui::status(&format!(
            "checking layer {} of {}, {} of {}",
            self.number.get(),
            self.layers.get(),
            ui::bytes(self.read.get()),
            ui::bytes(self.bytes.get()),
        ));
    }

    fn end(&self) {
        if self.how == How::Line {
            ui::status("");
        }
    }
}

impl Progress for Shown {
    fn begin(&self, layers: usize, bytes: u64) {
        self.layers.set(layers);
        self.bytes.set(bytes);
    }

    fn layer(&self, number: usize, layer: &Digest) {
        self.number.set(number);
        if self.how == How::Lines {
            let layers = self.layers.get();
            ui::note(&format!("checking layer {number} of {layers}: {layer}"));
        }
        self.draw();
    }

    fn read(&self, bytes: u64) {
        self.read.set(self.read.get() + bytes);
        self.draw();
    }
}
