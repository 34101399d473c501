//! A box's cgroup from being asked for to being gone.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;

use super::delegated::{self, Delegated, Made};
use super::group::Group;
use super::limits::{Controller, Limits};
use super::manager::{self, Manager, Pending};
use super::plan::{Facts, Place};
use super::{PAYLOAD, SUPERVISOR};
use crate::error::{During, Error, Result};
use crate::profile::{Control, Profile};

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
pub fn look(profile: &Profile, named: bool) -> Result<(Facts, Look)> {
    let memory = machine_memory()?;
    let limits = Limits::of(&profile.limits, memory);
    let may_lose = profile.may_lose(Control::Limits);
    if limits.is_empty() && !named {
        return Ok((Facts { place: Place::NotAsked, memory }, Look(Way::Nowhere)));
    }
    let manager = Manager::find().and_then(|manager| Ok((manager.controllers()?, manager)));
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

/// A cgroup that is being made.
pub struct Begun {
    way: Option<Beginning>,
    limits: Limits,
}

enum Beginning {
    Scope(Box<Pending>),
    Delegated(Box<Made>),
}

impl Look {
    /// Begins to make the cgroup, in which this process is moved; the manager works meanwhile.
    pub fn begin(self, box_name: &str, limits: &Limits) -> Result<Begun> {
        let way = match self.0 {
            Way::Manager(manager) => {
                Some(Beginning::Scope(Box::new(manager.begin(box_name, limits)?)))
            }
            Way::Delegated(found) => Some(Beginning::Delegated(Box::new(found.make(box_name)?))),
            Way::Nowhere => None,
        };
        Ok(Begun { way, limits: limits.clone() })
    }
}

impl Begun {
    /// Waits for it, and reads back what was asked for. `None` where there is none.
    pub fn finish(self) -> Result<Option<Cgroup>> {
        let limits = self.limits;
        let (top, unit, made) = match self.way {
            None => return Ok(None),
            Some(Beginning::Scope(pending)) => {
                let (top, unit) = pending.finish()?;
                top.child(SUPERVISOR)?.enter()?;
                (top, Some(unit), None)
            }
            Some(Beginning::Delegated(made)) => {
                for (name, text) in limits.files() {
                    set(&made.top, name, &text)?;
                }
                let Made { top, .. } = &*made;
                (Group::open(top.path())?, None, Some(made))
            }
        };
        let controllers = top.controllers()?;
        if let Some((missing, key)) =
            limits.needs().into_iter().find(|(one, _)| !controllers.contains(one))
        {
            return Err(Error::new(format!(
                "limit {key}: the box's cgroup did not get the controller {}",
                missing.name()
            )));
        }
        top.enable_below(&controllers)?;
        let payload = top.child(PAYLOAD)?;
        if controllers.contains(&Controller::Memory) {
            // All of the box goes at once: what would be left of it is of no use to anyone.
            payload.write("memory.oom.group", "1")?;
        }
        for (name, text) in limits.box_files() {
            set(&payload, name, &text)?;
        }
        read_back(&top, &payload, &limits)?;
        Ok(Some(Cgroup { top, payload, unit, made }))
    }
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
    }
    Ok(())
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
    /// The limit in bytes; `None` where the machine's own memory was used up.
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
            None => "killed: the machine is out of memory".to_owned(),
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

    /// Whether the kernel killed the box for its memory.
    pub fn out_of_memory(&self) -> Result<Option<OutOfMemory>> {
        let killed = self.payload.field("memory.events", "oom_kill ")?.unwrap_or(0);
        if killed == 0 {
            return Ok(None);
        }
        let limit = self.payload.number("memory.max")?;
        let peak = self.payload.number("memory.peak")?;
        Ok(Some(OutOfMemory { limit, peak }))
    }

    /// Ends what is left in it, and takes down what is ours to. A scope goes with this process.
    pub fn end(&self) -> Result<()> {
        if !self.payload.kill()? {
            return Err(Error::new(format!(
                "end the box: processes in {} do not die",
                self.payload.path().display()
            ))
            .hint("they wait for a disk or a network file system, and end with that"));
        }
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

/// Changes the limits of a running box: by its unit where systemd set them, else by hand.
pub fn change(top: &Path, unit: Option<&str>, limits: &Limits) -> Result<()> {
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
    match unit {
        Some(unit) => {
            if !manager::is_scope(top) || top.file_name().is_none_or(|name| name != unit) {
                return Err(Error::new(format!(
                    "change {unit}: {} is not its cgroup",
                    top.display()
                )));
            }
            Manager::find()?.change(unit, limits)?;
        }
        None => {
            for (name, text) in limits.files() {
                set(&group, name, &text)?;
            }
        }
    }
    let payload = Group::open(&group.path().join(PAYLOAD))?;
    for (name, text) in limits.box_files() {
        set(&payload, name, &text)?;
    }
    read_back(&group, &payload, limits)
}
