//! What the file of a box says: a line of JSON when it begins, another when it has its cgroup, if that
//! was not there yet, and another when its program runs.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{During, Error, Result};

/// A box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What it is called.
    pub name: String,
    /// The profile that was named, or `default`.
    pub profile: String,
    /// The image, where it has one.
    pub image: Option<String>,
    /// The command, as text.
    pub command: Vec<String>,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// Its cgroup, where it has one of its own.
    pub place: Option<Place>,
}

/// The cgroup of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The one that has the limits.
    pub path: PathBuf,
    /// The unit of the user's systemd.
    pub unit: Option<String>,
}

/// A process with the time of its birth, which no later one of the same number has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it was made, in clock ticks since the machine started (proc_pid_stat(5), field 22).
    pub birth: u64,
}

/// What became of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Later {
    Program(Process),
    Place(Place),
}

impl Place {
    /// That of a box's cgroup.
    pub fn of(cgroup: &Cgroup) -> Place {
        Place { path: cgroup.path().to_owned(), unit: cgroup.unit().map(str::to_owned) }
    }
}

/// A box whose supervisor lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// What it says of itself.
    pub record: Record,
    /// The process that keeps it.
    pub supervisor: i32,
    /// Its program, once that exists.
    pub program: Option<Process>,
}

/// How much of a command is kept.
const WORDS: usize = 16;
const WORD: usize = 256;

/// Whether a box may be called so: letters, digits, `_`, `.` and `-`, the first a letter or a digit.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && text.len() <= 64
}

impl Record {
    /// As it stands in the file.
    pub(super) fn line(&self) -> Result<Vec<u8>> {
        let short = |word: &String| word.chars().take(WORD).collect();
        let command = self.command.iter().take(WORDS).map(short).collect();
        line(&Record { command, ..self.clone() })
    }
}

fn line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)
        .map_err(|error| Error::new(format!("write the record of a box: {error}")))?;
    line.push(b'\n');
    Ok(line)
}

/// The line for a program; `None` where it has ended already.
pub(super) fn program_line(pidfd: impl AsFd) -> Result<Option<Vec<u8>>> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).at("read", &path)?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    // -1 is a process that has ended.
    let Some(pid) = pid.filter(|pid: &i32| *pid > 0) else { return Ok(None) };
    match birth(pid)? {
        Some(birth) => line(&Later::Program(Process { pid, birth })).map(Some),
        None => Ok(None),
    }
}

/// The line for a cgroup.
pub(super) fn place_line(place: &Place) -> Result<Vec<u8>> {
    line(&Later::Place(place.clone()))
}

/// When a process was made; `None` where there is none of the number.
pub(super) fn birth(pid: i32) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::os("read", path, &error)),
    };
    // The name, the second field, may hold spaces and brackets; the last bracket ends it.
    let end = text.iter().rposition(|byte| *byte == b')').unwrap_or(0);
    let rest = String::from_utf8_lossy(text.get(end + 1..).unwrap_or_default());
    Ok(rest.split_whitespace().nth(19).and_then(|field| field.parse().ok()))
}

impl Running {
    /// Reads the file of a box whose lock `supervisor` holds.
    pub(super) fn parse(text: &[u8], supervisor: i32) -> Result<Running> {
        let broken = || Error::new("not the record of a box");
        let mut lines = text.split_inclusive(|byte| *byte == b'\n');
        let first = lines.next().and_then(|line| line.strip_suffix(b"\n")).ok_or_else(broken)?;
        let mut record: Record = serde_json::from_slice(first).map_err(|_| broken())?;
        if !is_name(&record.name) {
            return Err(broken());
        }
        let mut program = None;
        // What has no end yet is being written.
        for line in lines.filter_map(|line| line.strip_suffix(b"\n")) {
            match serde_json::from_slice(line).map_err(|_| broken())? {
                Later::Program(process) => program = Some(process),
                Later::Place(place) => record.place = Some(place),
            }
        }
        Ok(Running { record, supervisor, program })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_need_no_quotes() {
        for good in ["a", "web-1", "0x", "A_b.c"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "ä", ".draft", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn birth_is_read_behind_any_name() {
        let own = birth(std::process::id().cast_signed()).unwrap();
        assert!(own.is_some_and(|ticks| ticks > 0));
        assert_eq!(birth(i32::MAX).unwrap(), None);
    }
}
