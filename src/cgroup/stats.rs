//! What a box uses now, from the files of its cgroup.

use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use super::PAYLOAD;
use super::group::Group;
use crate::error::Result;

/// One look. What has no controller, or is newer than the kernel, is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Bytes of memory in use.
    pub memory: Option<u64>,
    /// The most that there were.
    pub memory_peak: Option<u64>,
    /// How many there may be.
    pub memory_limit: Option<u64>,
    /// Bytes of swap in use.
    pub swap: Option<u64>,
    /// Processes and threads, without the box's PID 1.
    pub processes: Option<u64>,
    /// How many there may be.
    pub processes_limit: Option<u64>,
    /// Processor time, in microseconds.
    pub cpu: Option<u64>,
    /// Bytes read from disks.
    pub read: Option<u64>,
    /// Bytes written to disks.
    pub written: Option<u64>,
    /// Processes that were killed for memory.
    pub oom_kills: Option<u64>,
    /// Whether the box stands still.
    pub paused: bool,
}

impl Sample {
    /// Looks at the box whose limits stand on this cgroup.
    pub fn take(top: &Path) -> Result<Sample> {
        let top = Group::open(top)?;
        let payload = Group::open(&top.path().join(PAYLOAD))?;
        let io = payload.read_if_there("io.stat")?;
        let sum = |key: &str| {
            let words = io.as_deref()?.split_whitespace();
            let numbers = words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
            Some(numbers.fold(0, u64::saturating_add))
        };
        let processes = payload.number("pids.current")?;
        Ok(Sample {
            memory: payload.number("memory.current")?,
            memory_peak: payload.number("memory.peak")?,
            memory_limit: payload.number("memory.max")?,
            swap: payload.number("memory.swap.current")?,
            processes: processes.map(|count| count.saturating_sub(1)),
            processes_limit: payload.number("pids.max")?.map(|count| count.saturating_sub(1)),
            cpu: payload.field("cpu.stat", "usage_usec ")?,
            read: sum("rbytes="),
            written: sum("wbytes="),
            oom_kills: payload.field("memory.events", "oom_kill ")?,
            paused: payload.is_frozen()?,
        })
    }
}

/// Stops a box, or lets it go on.
pub fn pause(top: &Path, paused: bool) -> Result<()> {
    Group::open(&top.join(PAYLOAD))?.freeze(paused)
}

/// Lets a box go on, without waiting; one that is gone needs nothing.
pub fn thaw(top: &Path) -> Result<()> {
    let path = top.join(PAYLOAD);
    let thawed = Group::open(&path).and_then(|payload| payload.write("cgroup.freeze", "0"));
    match thawed {
        Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => Ok(()),
        done => done,
    }
}

/// Ends every process of a box.
pub fn kill(top: &Path) -> Result<()> {
    Group::open(&top.join(PAYLOAD))?.end()
}
