//! Records of other systems: what failed there, and the files that tell why, as their documentation,
//! source or bug reports have them. None of these is a run of casemate on such a system; each file
//! says in `source` where it is from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use casemate::host::doctor::{Outcome, Tried, conclude};
use casemate::host::{Clues, Level, Look, Step};
use serde::Deserialize;

/// One file of tests/doctor/recorded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Record {
    /// Where it is from.
    source: String,
    /// What casemate runs in: files, and variables of the environment.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Files that are there and that only root may read.
    #[serde(default)]
    unreadable: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// The place of the store.
    #[serde(default)]
    store: Option<String>,
    #[serde(default = "yes")]
    tmpfs_xattrs: bool,
    /// The steps that failed, and how.
    #[serde(default)]
    fails: BTreeMap<String, String>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Expect {
    /// Of what is found.
    level: Level,
    /// The ids, in order.
    ids: Vec<String>,
    /// What stands in the first one's words.
    #[serde(default)]
    cause: String,
    /// What its command begins with; none has none.
    #[serde(default)]
    command: Option<String>,
}

fn yes() -> bool {
    true
}

impl Look for Record {
    fn read(&self, path: &str) -> Option<String> {
        self.files.get(path).cloned().or_else(|| usual(path).map(str::to_owned))
    }

    fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path)
            || self.unreadable.iter().any(|one| one == path)
            || path == "/proc/self/ns/user" && !self.files.contains_key("no user namespaces")
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }
}

/// What every system says that does not say otherwise.
fn usual(path: &str) -> Option<&'static str> {
    Some(match path {
        "/proc/self/status" => "Name:\tcasemate\nGroups:\t1000\nNoNewPrivs:\t0\nSeccomp:\t0\n",
        "/proc/self/mountinfo" => {
            "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n23 22 0:5 / /proc rw - proc proc rw\n\
             24 23 0:6 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n"
        }
        "/proc/self/uid_map" | "/proc/self/gid_map" => "         0          0 4294967295\n",
        "/proc/filesystems" => "nodev\ttmpfs\n\text4\nnodev\toverlay\n",
        "/proc/sys/user/max_user_namespaces" => "127000\n",
        "/proc/sys/kernel/osrelease" => "6.12.90\n",
        "/etc/group" => "root:x:0:\ndocker:x:998:ann\nann:x:1000:\n",
        _ => return None,
    })
}

/// The records, by name.
fn records() -> Vec<(String, Record)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor/recorded");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let record = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        all.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), record));
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// The ids that the records are found to have.
pub(super) fn ids() -> BTreeSet<String> {
    records().into_iter().flat_map(|(_, record)| record.expect.ids).collect()
}

/// The steps after one that others build on are not tried.
fn steps(record: &Record) -> Vec<Tried> {
    let named: BTreeMap<Step, i32> = record
        .fails
        .iter()
        .map(|(step, errno)| {
            let step: Step = serde_json::from_value(step.as_str().into()).unwrap();
            let errno: nix::errno::Errno = (1..134)
                .map(nix::errno::Errno::from_raw)
                .find(|one| format!("{one:?}") == *errno)
                .unwrap();
            (step, errno as i32)
        })
        .collect();
    let ends =
        [Step::UserNamespace, Step::Setgroups, Step::IdMaps, Step::MountNamespace, Step::Tmpfs];
    let mut ended = false;
    Step::ALL
        .into_iter()
        .map(|step| {
            // What needs no namespace is tried all the same.
            let outcome = match named.get(&step) {
                Some(errno) => Outcome::Fails(*errno),
                None if ended && step < Step::Landlock => Outcome::NotTried,
                None => Outcome::Works,
            };
            ended |= ends.contains(&step) && outcome != Outcome::Works;
            Tried { step, outcome, finding: None }
        })
        .collect()
}

#[test]
fn obstacles_of_other_systems_are_named() {
    let records = records();
    assert!(records.len() >= 20);
    for (name, record) in records {
        assert!(!record.source.is_empty(), "{name}");
        let clues = Clues::gather(&record, record.store.as_deref(), record.tmpfs_xattrs);
        let mut steps = steps(&record);
        let findings = conclude(&mut steps, &clues);
        let ids: Vec<&str> = findings.iter().map(|found| found.id).collect();
        assert_eq!(ids, record.expect.ids, "{name}");
        if record.expect.ids.is_empty() {
            continue;
        }
        let first = &findings[0];
        assert_eq!(first.level, record.expect.level, "{name}");
        assert!(first.cause.contains(&record.expect.cause), "{name}: {}", first.cause);
        assert!(!first.fix.is_empty(), "{name}");
        match (&first.command, &record.expect.command) {
            (None, None) => {}
            (Some(command), Some(start)) => {
                assert!(command.starts_with(start), "{name}: {command}")
            }
            (command, wanted) => panic!("{name}: {command:?}, not {wanted:?}"),
        }
        // Every failure has its cause.
        for tried in steps {
            assert_eq!(
                tried.finding.is_some(),
                matches!(tried.outcome, Outcome::Fails(_)),
                "{name}"
            );
        }
    }
}
