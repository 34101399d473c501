//! A box's cgroup from being asked for to being gone.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::delegated::{self, Delegated, Made};
use super::group::Group;
use super::limits::{Controller, Limits};
use super::manager::{self, Manager, Pending, Ways};
use super::plan::{Facts, Place};
use super::{PAYLOAD, SUPERVISOR};
use crate::error::{During, Error, Exit, Result};
use crate::profile::{Control, CpuSet, Profile};

/// The question whether a manager is there, on its way: the answer comes while something else is
/// done.
pub struct Inquiry(Option<Ways>);

/// Asks for a manager, where a box with these limits, or with a name, wants one.
pub fn inquire(profile: &Profile, named: bool) -> Inquiry {
    let asks = named || !Limits::of(&profile.limits, u64::MAX).is_empty();
    Inquiry(asks.then(Ways::call))
}

/// What was found, to be used once.
pub struct Look(Way);

enum Way {
    Manager(Box<Manager>),
    Delegated(Delegated),
    Nowhere,
}

/// Looks where the cgroup of a box with these limits can be. A box without limits has one if it has
/// a name, and somewhere to have it. A manager that is there and does not answer is an error, unless
/// the limits may be lost: there is none weaker that was meant.
pub fn look(profile: &Profile, inquiry: Inquiry) -> Result<(Facts, Look)> {
    let memory = machine_memory()?;
    let limits = Limits::of(&profile.limits, memory);
    let may_lose = profile.may_lose(Control::Limits);
    let Some(ways) = inquiry.0 else {
        return Ok((Facts { place: Place::NotAsked, memory }, Look(Way::Nowhere)));
    };
    let manager = ways.manager().and_then(|manager| Ok((manager.controllers()?, manager)));
    let reason = match manager {
        Ok((controllers, manager)) => {
            let place = Place::Manager { via: manager.via, controllers };
            return Ok((Facts { place, memory }, Look(Way::Manager(Box::new(manager)))));
        }
        Err(hangs)
            if hangs.errno() == Some(Errno::ETIMEDOUT) && !limits.is_empty() && !may_lose =>
        {
            return Err(hangs.hint(
                "to run with weaker limits, say --may-degrade limits, or may-degrade = [\"limits\"] in the profile",
            ));
        }
        Err(reason) => reason,
    };
    let needed: Vec<Controller> = limits.needs().into_iter().map(|(one, _)| one).collect();
    match delegated::find(&needed) {
        // A directory without the controllers gives less than limits of each process.
        Ok(found)
            if needed.iter().any(|one| found.controllers.contains(one)) || needed.is_empty() =>
        {
            let place = Place::Delegated {
                path: found.group.path().to_owned(),
                controllers: found.controllers.clone(),
            };
            Ok((Facts { place, memory }, Look(Way::Delegated(found))))
        }
        _ => {
            let hints = reason.hints().to_vec();
            let place = Place::Nowhere { reason: reason.to_string(), hints };
            Ok((Facts { place, memory }, Look(Way::Nowhere)))
        }
    }
}

/// The machine's memory in bytes.
pub fn machine_memory() -> Result<u64> {
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).at("read", path)?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes
        .map(|number| number << 10)
        .ok_or_else(|| Error::new(format!("read {path}: it does not say how much memory there is")))
}

/// A box's cgroup before the box is made.
pub enum Begun {
    /// There is none.
    Nowhere,
    /// It is there, for the box to be born in.
    Made(Cgroup),
    /// The manager is asked for it when the processes of the box exist.
    Wanted(Wanted),
}

impl Look {
    /// Makes the cgroup, where that is this process's to do.
    pub fn begin(self, box_name: &str, limits: &Limits) -> Result<Begun> {
        match self.0 {
            Way::Manager(manager) => Ok(Begun::Wanted(Wanted {
                manager,
                box_name: box_name.to_owned(),
                limits: limits.clone(),
            })),
            Way::Delegated(found) => {
                let made = found.make(box_name)?;
                for (name, text) in limits.files() {
                    set(&made.top, name, &text)?;
                }
                let top = Group::open(made.top.path())?;
                let payload = furnish(&top, limits, |_| Ok(()))?;
                let made = Some(Box::new(made));
                Ok(Begun::Made(Cgroup { top, payload, unit: None, made }))
            }
            Way::Nowhere => Ok(Begun::Nowhere),
        }
    }
}

/// A scope that will be asked for.
pub struct Wanted {
    manager: Box<Manager>,
    box_name: String,
    limits: Limits,
}

impl Wanted {
    /// Asks for it, with this process, the box's first and the box's own server in it. What the
    /// server uses counts: what the box writes is in its memory where the writable layer is in
    /// memory. Servers that others use as well are nobody's, and what they have read is the kernel's
    /// to drop.
    pub fn ask(self, first: i32, server: Option<i32>) -> Result<Coming> {
        let others = std::iter::once(first).chain(server).collect();
        let pending = self.manager.begin(&self.box_name, &self.limits, others)?;
        Ok(Coming { pending, limits: self.limits, first, server })
    }
}

/// A scope that was asked for.
pub struct Coming {
    pending: Pending,
    limits: Limits,
    first: i32,
    server: Option<i32>,
}

impl Coming {
    /// What is readable when there is something to hear.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pending.fd()
    }

    /// When [`Coming::advance`] is to be called at the latest.
    pub fn deadline(&self) -> Instant {
        self.pending.deadline()
    }

    /// Hears what came. Once the scope stands, the box is in its cgroup there, under its limits,
    /// which were read back.
    pub fn advance(&mut self) -> Result<Option<Cgroup>> {
        let Some((top, unit)) = self.pending.advance()? else { return Ok(None) };
        let beside = top.child(SUPERVISOR)?;
        beside.enter()?;
        if let Some(server) = self.server {
            beside.add(server)?;
        }
        let payload = furnish(&top, &self.limits, |payload| payload.add(self.first))?;
        Ok(Some(Cgroup { top, payload, unit: Some(unit), made: None }))
    }
}

/// Makes the box's cgroup below the one that has its limits; `fill` moves there what is to be in it,
/// before a controller is given that keeps processes from the one above.
fn furnish(top: &Group, limits: &Limits, fill: impl FnOnce(&Group) -> Result<()>) -> Result<Group> {
    let controllers = top.controllers()?;
    if let Some((missing, key)) =
        limits.needs().into_iter().find(|(one, _)| !controllers.contains(one))
    {
        return Err(Error::new(format!(
            "limit {key}: the box's cgroup did not get the controller {}",
            missing.name()
        )));
    }
    let payload = top.child(PAYLOAD)?;
    fill(&payload)?;
    top.enable_below(&controllers)?;
    if controllers.contains(&Controller::Memory) {
        // All of the box goes at once: what would be left of it is of no use to anyone.
        payload.write("memory.oom.group", "1")?;
    }
    for (name, text) in limits.box_files() {
        set(&payload, name, &text)?;
    }
    read_back(top, &payload, limits)?;
    Ok(payload)
}

/// Writes a limit. A kernel without swap has no file for it, and no swap to be limited.
fn set(group: &Group, name: &str, text: &str) -> Result<()> {
    match group.write(name, text) {
        Err(error)
            if error.errno() == Some(Errno::ENOENT) && name == "memory.swap.max" && text == "0" =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Compares what the kernel says with what was asked for.
fn read_back(top: &Group, payload: &Group, limits: &Limits) -> Result<()> {
    let wrong = |key: &str, found: &str| {
        Error::new(format!("limit {key}: the kernel has {found} in the box's cgroup"))
            .hint("another program may have changed it; journalctl --user -e may tell")
    };
    for (key, file, asked) in [
        ("memory", "memory.max", limits.memory),
        ("memory-high", "memory.high", limits.memory_high),
    ] {
        let Some(asked) = asked else { continue };
        let found = payload.read(file)?;
        // In whole pages, rounded down; the largest are 64 KiB.
        let near = match found.parse::<u64>() {
            Ok(found) => found <= asked && asked - found < 65536,
            Err(_) => asked == u64::MAX && found == "max",
        };
        if !near {
            return Err(wrong(key, &found));
        }
    }
    if limits.cpus.is_some_and(|cpus| cpus != u64::MAX) {
        let found = top.read("cpu.max")?;
        if found.starts_with("max") {
            return Err(wrong("cpus", &found));
        }
    }
    if let Some(cpus) = &limits.cpuset {
        let found = top.read("cpuset.cpus")?;
        if found != cpus.to_string() {
            return Err(wrong("cpuset", &found));
        }
        // Where none of those asked for is to be had, the kernel takes all of the cgroup above.
        let found = top.read("cpuset.cpus.effective")?;
        if !is_within(&found, cpus) {
            return Err(Error::new(format!(
                "limit cpuset: of the processors {cpus} the box gets none: it would run on {}",
                if found.is_empty() { "none" } else { &found }
            ))
            .hint("ask for processors that are online, and that the cgroup above may use: its cpuset.cpus.effective lists them"));
        }
    }
    if let Some(weight) = limits.cpu_weight {
        let found = top.read("cpu.weight")?;
        if found != weight.to_string() {
            return Err(wrong("cpu-weight", &found));
        }
    }
    if let Some(weight) = limits.io_weight {
        // Each is a kernel's own way to share a disk, which it may not have.
        let found = top.read_if_there("io.weight")?;
        let default = found.as_deref().and_then(|text| text.lines().next());
        if default.is_none() && top.read_if_there("io.bfq.weight")?.is_none() {
            return Err(Error::new("limit io-weight: this kernel cannot share a disk by weight")
                .hint("it has neither blk-iocost (io.weight) nor the scheduler bfq; leave io-weight away"));
        }
        if let Some(found) = default.filter(|found| *found != format!("default {weight}")) {
            return Err(wrong("io-weight", found));
        }
    }
    Ok(())
}

/// Whether the kernel's list has processors, and none but those asked for.
fn is_within(found: &str, asked: &CpuSet) -> bool {
    found.parse::<CpuSet>().is_ok_and(|found| found.is_within(asked))
}

/// The cgroup of a box that runs.
#[derive(Debug)]
pub struct Cgroup {
    top: Group,
    payload: Group,
    unit: Option<String>,
    made: Option<Box<Made>>,
}

/// What the kernel says of a box that it ended for its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The limit in bytes; `None` where the box was not at its limit: the machine's memory was used
    /// up, or that of a cgroup above.
    pub limit: Option<u64>,
    /// The most that was used, in bytes, where the kernel tells (Linux 5.19).
    pub peak: Option<u64>,
}

impl OutOfMemory {
    /// In words.
    pub fn describe(self) -> String {
        let peak = self.peak.map(|peak| format!(", peak {}", crate::ui::bytes(peak)));
        match self.limit {
            Some(limit) => format!(
                "killed: memory limit {}{}",
                crate::ui::bytes(limit),
                peak.unwrap_or_default()
            ),
            None => "killed: memory ran out above the box".to_owned(),
        }
    }

    /// As the reason for the box's end.
    pub fn into_error(self) -> Error {
        let error = Error::new(self.describe()).exit(Exit::OutOfMemory);
        match self.limit {
            Some(_) => error.hint("raise it: [limits] memory in the profile, or --memory"),
            None => error.hint("the machine, or a cgroup above the box, is out of memory"),
        }
    }
}

impl Cgroup {
    /// Where the box is born.
    pub fn payload(&self) -> BorrowedFd<'_> {
        self.payload.fd()
    }

    /// The path of the cgroup that has the limits.
    pub fn path(&self) -> &Path {
        self.top.path()
    }

    /// The unit, where systemd made it.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// Whether what this process starts is in it too, and may not outlive the box therefore.
    pub fn holds_all(&self) -> bool {
        self.made.as_ref().is_some_and(|made| made.has_supervisor)
    }

    /// Whether the kernel killed the box for its memory.
    pub fn out_of_memory(&self) -> Result<Option<OutOfMemory>> {
        let killed = self.payload.field("memory.events", "oom_kill ")?.unwrap_or(0);
        if killed == 0 {
            return Ok(None);
        }
        // Counted where the limit was met; the deaths, where the processes are. In a cgroup of its own
        // only, where the kernel tells them apart (Linux 5.2).
        let own = match self.payload.field("memory.events.local", "oom ")? {
            Some(own) => Some(own),
            None => self.payload.field("memory.events", "oom ")?,
        };
        let limit = match own {
            Some(1..) => self.payload.number("memory.max")?,
            _ => None,
        };
        let peak = self.payload.number("memory.peak")?;
        Ok(Some(OutOfMemory { limit, peak }))
    }

    /// Ends what is left in it, and takes down what is ours to. A scope goes with this process.
    pub fn end(&self) -> Result<()> {
        self.payload.end()?;
        self.top.remove(PAYLOAD)?;
        if let Some(made) = &self.made {
            match made.parent.remove(&made.name) {
                // This process is in it still; the next box sweeps.
                Err(error) if error.errno() == Some(Errno::EBUSY) => {}
                done => done?,
            }
        }
        Ok(())
    }
}

/// How long a manager may take to write limits that it has taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Changes the limits of a running box: by its unit where systemd set them, else by hand.
pub fn change(top: &Path, unit: Option<&str>, limits: &Limits) -> Result<()> {
    limits.suffice()?;
    let group = Group::open(top)?;
    let controllers = group.controllers()?;
    if let Some((missing, key)) =
        limits.needs().into_iter().find(|(one, _)| !controllers.contains(one))
    {
        return Err(Error::new(format!(
            "limit {key}: the box's cgroup does not have the controller {}",
            missing.name()
        ))
        .hint("it is not delegated to you; `casemate doctor` names what to change"));
    }
    let payload = Group::open(&group.path().join(PAYLOAD))?;
    let limits = &limits.after(payload.number("memory.max")?);
    match unit {
        Some(unit) => {
            if !manager::is_scope(top) || top.file_name().is_none_or(|name| name != unit) {
                return Err(Error::new(format!(
                    "change {unit}: {} is not its cgroup",
                    top.display()
                )));
            }
            Ways::call().manager()?.change(unit, limits)?;
        }
        None => {
            for (name, text) in limits.files() {
                set(&group, name, &text)?;
            }
        }
    }
    for (name, text) in limits.box_files() {
        set(&payload, name, &text)?;
    }
    // The manager answers before it has written them.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match read_back(&group, &payload, limits) {
            Err(_) if unit.is_some() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_none_but_those_asked_for() {
        let asked = "0,2-3".parse().unwrap();
        for fewer in ["0", "2-3", "0,2-3"] {
            assert!(is_within(fewer, &asked), "{fewer}");
        }
        for other in ["", "1", "0-3", "0,4"] {
            assert!(!is_within(other, &asked), "{other}");
        }
    }
}
