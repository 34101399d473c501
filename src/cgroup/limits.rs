//! The limits of a box in total, as numbers, and what of the kernel each of them needs.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};

use super::wire::Value;
use crate::error::{Error, Result};
use crate::profile::{self, Amount, CpuSet, Size};

/// A controller of the unified hierarchy that limits need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Which processors.
    Cpuset,
    /// The disks.
    Io,
    /// Memory and swap.
    Memory,
    /// Processes and threads.
    Pids,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 5] =
        [Controller::Cpu, Controller::Cpuset, Controller::Io, Controller::Memory, Controller::Pids];

    /// Its name in `cgroup.controllers`.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuset => "cpuset",
            Controller::Io => "io",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
        }
    }

    /// Those in the text of a `cgroup.controllers`; the kernel has others.
    pub(super) fn list(text: &str) -> Vec<Controller> {
        let words: BTreeSet<&str> = text.split_whitespace().collect();
        Controller::ALL.into_iter().filter(|one| words.contains(one.name())).collect()
    }
}

/// What a box may use in total. `None` is without a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes above which the box is slowed down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<u64>,
    /// Bytes of swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Processes and threads of the program, casemate's own not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Thousandths of a processor's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// Share of the processors, of 100 for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u16>,
    /// Share of the disks, of 100 for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u16>,
    /// Which processors.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "cpus_as_text")]
    pub cpuset: Option<CpuSet>,
}

fn cpus_as_text<S: Serializer>(cpus: &Option<CpuSet>, serializer: S) -> Result<S::Ok, S::Error> {
    match cpus {
        Some(cpus) => serializer.collect_str(cpus),
        None => serializer.serialize_none(),
    }
}

/// The box's PID 1 counts as one of its processes, and is not the program's.
const FIRST: u64 = 1;
/// How many processes and threads casemate itself may have beside a box: the supervisor, and the
/// server of an overlay with its crew.
const BESIDE: u64 = 64;
/// How much memory these may have. Were their limit that of the box, the kernel could choose the
/// supervisor where a box of small processes fills a file system in memory.
const MEMORY_BESIDE: u64 = 64 << 20;
/// The length of time over which the kernel divides processor time, in microseconds: its default.
const PERIOD: u64 = 100_000;

/// The least memory that a box may be limited to: less is used up by what makes the box, and the
/// kernel would end casemate itself.
pub const LEAST_MEMORY: u64 = 6 << 20;

/// As the kernel writes it.
fn number(value: u64) -> String {
    if value == u64::MAX { "max".to_owned() } else { value.to_string() }
}

fn beside(bytes: u64) -> u64 {
    bytes.saturating_add(MEMORY_BESIDE)
}

fn with_beside(count: u64) -> u64 {
    count.saturating_add(FIRST + BESIDE)
}

impl Limits {
    /// What a profile says, on a machine with this much memory.
    pub fn of(said: &profile::Limits, machine: u64) -> Limits {
        let bytes = |amount: Option<Amount>| match amount? {
            Amount::Unlimited => None,
            Amount::Size(Size::Bytes(bytes)) => Some(bytes),
            Amount::Size(Size::Percent(percent)) => Some(machine / 100 * u64::from(percent)),
        };
        // As podman's: no memory at all would be no limit anyone wants.
        let memory = bytes(said.memory).filter(|bytes| *bytes > 0);
        // With swap beside it, a limit of memory is a limit of speed.
        let swap = match said.swap {
            None => memory.map(|_| 0),
            said => bytes(said),
        };
        Limits {
            memory,
            memory_high: bytes(said.memory_high).filter(|bytes| *bytes > 0),
            swap,
            processes: said.processes.and_then(|count| count.0),
            cpus: said.cpus.map(|cpus| cpus.0).filter(|cpus| *cpus > 0),
            cpu_weight: said.cpu_weight.map(|weight| weight.0),
            io_weight: said.io_weight.map(|weight| weight.0),
            cpuset: said.cpuset.clone(),
        }
    }

    /// What `casemate update` is told: `unlimited` lifts a limit there, which is the largest number.
    pub fn change(said: &profile::Limits, machine: u64) -> Limits {
        let lifted = |asked: bool, value: Option<u64>| asked.then(|| value.unwrap_or(u64::MAX));
        let limits = Limits::of(said, machine);
        Limits {
            memory: lifted(said.memory.is_some(), limits.memory),
            memory_high: lifted(said.memory_high.is_some(), limits.memory_high),
            swap: lifted(said.swap.is_some(), limits.swap),
            processes: lifted(said.processes.is_some(), limits.processes),
            cpus: lifted(said.cpus.is_some(), limits.cpus),
            ..limits
        }
    }

    /// Refuses what no box can live with.
    pub(super) fn suffice(&self) -> Result<()> {
        match self.memory {
            Some(memory) if memory < LEAST_MEMORY => Err(Error::new(format!(
                "limit memory: {} is less than any box needs",
                crate::ui::bytes(memory)
            ))
            .hint(format!("ask for at least {}", crate::ui::bytes(LEAST_MEMORY)))),
            _ => Ok(()),
        }
    }

    /// These as a change of a box whose limit of memory is `before`: where that is none, the change
    /// is the box's first, and leaves it no swap, as at its start.
    pub(super) fn after(&self, before: Option<u64>) -> Limits {
        let is_first = before.is_none() && self.memory.is_some_and(|memory| memory != u64::MAX);
        Limits { swap: self.swap.or(is_first.then_some(0)), ..self.clone() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// The controllers that they need, each with the key that needs it.
    pub fn needs(&self) -> Vec<(Controller, &'static str)> {
        let all = [
            (Controller::Memory, "memory", self.memory.is_some()),
            (Controller::Memory, "memory-high", self.memory_high.is_some()),
            (Controller::Memory, "swap", self.swap.is_some() && self.memory.is_none()),
            (Controller::Pids, "processes", self.processes.is_some()),
            (Controller::Cpu, "cpus", self.cpus.is_some()),
            (Controller::Cpu, "cpu-weight", self.cpu_weight.is_some()),
            (Controller::Io, "io-weight", self.io_weight.is_some()),
            (Controller::Cpuset, "cpuset", self.cpuset.is_some()),
        ];
        all.into_iter().filter(|one| one.2).map(|(controller, key, _)| (controller, key)).collect()
    }

    /// These without what needs a controller that is not there.
    #[must_use]
    pub fn without(mut self, missing: &[Controller]) -> Limits {
        for controller in missing {
            match controller {
                Controller::Memory => {
                    (self.memory, self.memory_high, self.swap) = (None, None, None);
                }
                Controller::Pids => self.processes = None,
                Controller::Cpu => (self.cpus, self.cpu_weight) = (None, None),
                Controller::Io => self.io_weight = None,
                Controller::Cpuset => self.cpuset = None,
            }
        }
        self
    }

    /// These, changed where `over` says something.
    #[must_use]
    pub fn overlaid(self, over: &Limits) -> Limits {
        Limits {
            memory: over.memory.or(self.memory),
            memory_high: over.memory_high.or(self.memory_high),
            swap: over.swap.or(self.swap),
            processes: over.processes.or(self.processes),
            cpus: over.cpus.or(self.cpus),
            cpu_weight: over.cpu_weight.or(self.cpu_weight),
            io_weight: over.io_weight.or(self.io_weight),
            cpuset: over.cpuset.clone().or(self.cpuset),
        }
    }

    /// As properties of a scope (systemd.resource-control(5)), which holds casemate's own processes
    /// as well: the exact limits of memory and processes stand on the box's cgroup within it.
    pub(super) fn properties(&self) -> Vec<(&'static str, Value)> {
        let numbers = [
            ("MemoryMax", self.memory.map(beside)),
            ("MemoryHigh", self.memory_high.map(beside)),
            ("MemorySwapMax", self.swap),
            ("TasksMax", self.processes.map(with_beside)),
            // Microseconds of each second.
            ("CPUQuotaPerSecUSec", self.cpus.map(|cpus| cpus.saturating_mul(1000))),
            ("CPUWeight", self.cpu_weight.map(u64::from)),
            ("IOWeight", self.io_weight.map(u64::from)),
        ];
        let numbers = numbers.into_iter();
        let mut properties: Vec<_> =
            numbers.filter_map(|(name, number)| Some((name, Value::Number(number?)))).collect();
        if let Some(cpus) = &self.cpuset {
            properties.push(("AllowedCPUs", Value::Bytes(cpus.mask())));
        }
        properties
    }

    /// As files of a cgroup that is ours, where no systemd sets them (cgroup-v2, "Controllers").
    pub(super) fn files(&self) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        let mut file = |name, text: Option<String>| files.extend(text.map(|text| (name, text)));
        file("memory.high", self.memory_high.map(beside).map(number));
        file("memory.swap.max", self.swap.map(number));
        file("memory.max", self.memory.map(beside).map(number));
        file("pids.max", self.processes.map(with_beside).map(number));
        let quota = |cpus: u64| match cpus {
            u64::MAX => number(cpus),
            cpus => number((cpus.saturating_mul(PERIOD) / 1000).max(1000)),
        };
        file("cpu.max", self.cpus.map(|cpus| format!("{} {PERIOD}", quota(cpus))));
        file("cpu.weight", self.cpu_weight.map(|weight| weight.to_string()));
        file("io.weight", self.io_weight.map(|weight| format!("default {weight}")));
        file("cpuset.cpus", self.cpuset.as_ref().map(|cpus| cpus.to_string()));
        files
    }

    /// As files of the cgroup that has the box and nothing else.
    pub(super) fn box_files(&self) -> Vec<(&'static str, String)> {
        let processes = self.processes.map(|count| count.saturating_add(FIRST));
        [
            ("memory.high", self.memory_high),
            ("memory.swap.max", self.swap),
            ("memory.max", self.memory),
            ("pids.max", processes),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, number(value?))))
        .collect()
    }

    /// A line for each, for people: the key and the value.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let bytes = |bytes: u64| match bytes {
            u64::MAX => "unlimited".to_owned(),
            0 => "none".to_owned(),
            bytes => crate::ui::bytes(bytes),
        };
        let mut lines = Vec::new();
        let mut line = |key, value: Option<String>| lines.extend(value.map(|value| (key, value)));
        line("memory", self.memory.map(bytes));
        line("memory-high", self.memory_high.map(bytes));
        line("swap", self.swap.map(bytes));
        line("processes", self.processes.map(|count| count.to_string()));
        line("cpus", self.cpus.map(|cpus| profile::Cpus(cpus).to_string()));
        line("cpu-weight", self.cpu_weight.map(|weight| weight.to_string()));
        line("io-weight", self.io_weight.map(|weight| weight.to_string()));
        line("cpuset", self.cpuset.as_ref().map(CpuSet::to_string));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Limits {
        let named = profile::parse("p", &format!("[limits]\n{text}")).unwrap();
        Limits::of(&named.profile.limits, 1000 << 20)
    }

    #[test]
    fn a_limit_of_memory_leaves_no_swap_unless_it_is_said() {
        let limits_of = |text| {
            let limits = limits(text);
            (limits.memory, limits.swap)
        };
        assert_eq!(limits_of("memory = \"64m\""), (Some(64 << 20), Some(0)));
        assert_eq!(limits_of("memory = \"10%\""), (Some(100 << 20), Some(0)));
        assert_eq!(limits_of("memory = \"64m\"\nswap = \"1m\""), (Some(64 << 20), Some(1 << 20)));
        assert_eq!(limits_of("memory = \"64m\"\nswap = \"unlimited\""), (Some(64 << 20), None));
        assert_eq!(limits_of("memory = 0"), (None, None));
        assert_eq!(limits_of(""), (None, None));
        assert!(limits("processes = \"unlimited\"\ncpus = 0").is_empty());
    }

    #[test]
    fn a_change_means_what_it_means_at_the_start() {
        let change = |text: &str| {
            let named = profile::parse("p", &format!("[limits]\n{text}")).unwrap();
            Limits::change(&named.profile.limits, 1000 << 20)
        };
        assert!(change("memory = 512").suffice().is_err());
        assert!(change("memory = \"6m\"").suffice().is_ok());
        assert!(change("memory = 0").suffice().is_ok());
        assert!(change("processes = 1").suffice().is_ok());
        let swap_after = |text: &str, before| change(text).after(before).swap;
        assert_eq!(swap_after("memory = \"64m\"", None), Some(0));
        assert_eq!(swap_after("memory = \"64m\"\nswap = \"1m\"", None), Some(1 << 20));
        assert_eq!(swap_after("memory = \"64m\"", Some(1 << 20)), None);
        assert_eq!(swap_after("memory = 0", None), None);
        assert_eq!(swap_after("processes = 1", None), None);
    }

    #[test]
    fn what_systemd_is_told_and_what_the_files_say_agree() {
        let all = limits(
            "memory = \"64m\"\nmemory-high = \"32m\"\nprocesses = 10\ncpus = 1.5\ncpu-weight = 50\nio-weight = 200\ncpuset = \"0,2-3\"",
        );
        assert_eq!(
            all.properties(),
            [
                ("MemoryMax", Value::Number(128 << 20)),
                ("MemoryHigh", Value::Number(96 << 20)),
                ("MemorySwapMax", Value::Number(0)),
                ("TasksMax", Value::Number(75)),
                ("CPUQuotaPerSecUSec", Value::Number(1_500_000)),
                ("CPUWeight", Value::Number(50)),
                ("IOWeight", Value::Number(200)),
                ("AllowedCPUs", Value::Bytes(vec![0b1101])),
            ]
        );
        let files: Vec<String> =
            all.files().into_iter().map(|(name, text)| format!("{name}={text}")).collect();
        assert_eq!(
            files,
            [
                "memory.high=100663296",
                "memory.swap.max=0",
                "memory.max=134217728",
                "pids.max=75",
                "cpu.max=150000 100000",
                "cpu.weight=50",
                "io.weight=default 200",
                "cpuset.cpus=0,2-3",
            ]
        );
        let inner: Vec<String> =
            all.box_files().into_iter().map(|(name, text)| format!("{name}={text}")).collect();
        assert_eq!(
            inner,
            ["memory.high=33554432", "memory.swap.max=0", "memory.max=67108864", "pids.max=11"]
        );
        let needed: BTreeSet<Controller> = all.needs().into_iter().map(|one| one.0).collect();
        assert_eq!(needed.len(), 5);
        assert!(all.without(&Controller::ALL).is_empty());
    }
}
