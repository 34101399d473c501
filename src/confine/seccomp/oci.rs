//! The profiles that podman, docker and OCI runtimes read (runtime-spec, "seccomp"; containers/common
//! adds `archMap`, `includes` and `excludes`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Action, Architecture, Clause, Condition, Operator, Policy, Rule, names};
use crate::error::{Error, Result};

/// What the conditions of a profile are about.
pub struct Given<'a> {
    /// The architecture.
    pub arch: Architecture,
    /// Whether the program keeps a capability, by its name with `CAP_`.
    pub has_capability: &'a dyn Fn(&str) -> bool,
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
}

/// Reads a profile. Which architectures it lists does not matter: a box has its own, and 32-bit calls
/// only where the profile of the box says so.
pub fn from_oci(text: &str, given: &Given<'_>) -> Result<Policy> {
    let file: File = serde_json::from_str(text)
        .map_err(|error| Error::new(format!("not a seccomp profile: {error}")))?;
    if file.listener_path.is_some() {
        return Err(Error::new("a listener for notifications is not supported"));
    }
    let default =
        action(&file.default_action, file.default_errno_ret, file.default_errno.as_deref())?;
    let mut collected: BTreeMap<String, Vec<Clause>> = BTreeMap::new();
    for entry in &file.syscalls {
        if !entry.includes.holds(given, true)? || !entry.excludes.holds(given, false)? {
            continue;
        }
        let action = action(&entry.action, entry.errno_ret, entry.errno.as_deref())?;
        let clauses: Vec<Clause> = entry
            .alternatives()?
            .into_iter()
            .map(|conditions| Clause { conditions, action })
            .collect();
        for name in entry.names.iter().chain(&entry.name) {
            if let Err(error) = names::check(name) {
                // Runtimes pass over what they do not know. That is harmless for a call that gets
                // the default anyway, and a hole for one that should be refused.
                if refuses(action) && !refuses(default) {
                    return Err(error);
                }
                continue;
            }
            collected.entry(name.clone()).or_default().extend(clauses.iter().cloned());
        }
    }
    let mut policy = Policy::new(given.arch, default);
    policy.rules = collected
        .into_iter()
        .map(|(name, clauses)| (Cow::Owned(name), rule(clauses, default)))
        .collect();
    Ok(policy)
}

/// Several rules for one call: one without conditions is what the call gets otherwise; of several
/// that match, the one that refuses most counts.
fn rule(clauses: Vec<Clause>, default: Action) -> Rule {
    let (mut with, without): (Vec<Clause>, Vec<Clause>) =
        clauses.into_iter().partition(|clause| !clause.conditions.is_empty());
    let otherwise = without.iter().map(|clause| clause.action).max().unwrap_or(default);
    with.sort_by_key(|clause| std::cmp::Reverse(clause.action));
    with.dedup();
    if with.iter().all(|clause| clause.action == otherwise) {
        with.clear();
    }
    Rule { clauses: with, otherwise }
}

fn refuses(action: Action) -> bool {
    !matches!(action, Action::Allow | Action::Log)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u16>,
    #[serde(default)]
    default_errno: Option<String>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    /// The older form, of one.
    #[serde(default)]
    name: Option<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u16>,
    #[serde(default)]
    errno: Option<String>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Selection,
    #[serde(default)]
    excludes: Selection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

impl Selection {
    /// What includes must hold wholly; what excludes must not hold in any part.
    fn holds(&self, given: &Given<'_>, includes: bool) -> Result<bool> {
        let mut parts = Vec::new();
        if let Some(arches) = self.arches.as_deref().filter(|list| !list.is_empty()) {
            parts.push(arches.iter().any(|arch| arch == go_name(given.arch)));
        }
        if let Some(caps) = self.caps.as_deref().filter(|list| !list.is_empty()) {
            parts.push(match includes {
                true => caps.iter().all(|cap| (given.has_capability)(cap)),
                false => caps.iter().any(|cap| (given.has_capability)(cap)),
            });
        }
        if let Some(version) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) {
            let wanted = version.split_once('.').and_then(|(major, minor)| {
                Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
            });
            let wanted = wanted
                .ok_or_else(|| Error::new(format!("minKernel {version:?} is not a version")))?;
            parts.push(given.kernel >= wanted);
        }
        Ok(parts.into_iter().all(|part| part == includes))
    }
}

impl Entry {
    /// The conditions; each list is enough. Runtimes take two conditions on one argument as an
    /// alternative (runc, libcontainer/seccomp).
    fn alternatives(&self) -> Result<Vec<Vec<Condition>>> {
        let arguments = self.args.as_deref().unwrap_or_default();
        let conditions = arguments.iter().map(Argument::condition).collect::<Result<Vec<_>>>()?;
        let twice = conditions
            .iter()
            .enumerate()
            .any(|(at, one)| conditions[..at].iter().any(|other| other.argument == one.argument));
        Ok(match twice {
            true => conditions.into_iter().map(|condition| vec![condition]).collect(),
            false => vec![conditions],
        })
    }
}

impl Argument {
    fn condition(&self) -> Result<Condition> {
        let (mask, operator, value) = match self.op.as_str() {
            "SCMP_CMP_NE" => (u64::MAX, Operator::NotEqual, self.value),
            "SCMP_CMP_LT" => (u64::MAX, Operator::Less, self.value),
            "SCMP_CMP_LE" => (u64::MAX, Operator::LessOrEqual, self.value),
            "SCMP_CMP_EQ" => (u64::MAX, Operator::Equal, self.value),
            "SCMP_CMP_GE" => (u64::MAX, Operator::GreaterOrEqual, self.value),
            "SCMP_CMP_GT" => (u64::MAX, Operator::Greater, self.value),
            "SCMP_CMP_MASKED_EQ" => (self.value, Operator::Equal, self.value_two),
            other => return Err(Error::new(format!("unknown comparison {other:?}"))),
        };
        if self.index > 5 {
            return Err(Error::new(format!("a system call has no argument {}", self.index)));
        }
        Ok(Condition { argument: self.index, mask, operator, value })
    }
}

fn action(name: &str, errno: Option<u16>, word: Option<&str>) -> Result<Action> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_ERRNO" => {
            // The word counts more, as in containers/common; without either it is EPERM.
            let by_word = match word.filter(|word| !word.is_empty()) {
                Some(word) => Some(
                    super::errno(word)
                        .ok_or_else(|| Error::new(format!("unknown errno {word:?}")))?,
                ),
                None => None,
            };
            Action::Errno(by_word.or(errno).unwrap_or(libc::EPERM as u16))
        }
        // A tracer or a listener would be needed, and without one each call would fail.
        other => return Err(Error::new(format!("action {other:?} is not supported"))),
    })
}

/// The names of Go, which the profiles use.
fn go_name(arch: Architecture) -> &'static str {
    match arch {
        Architecture::X86_64 => "amd64",
        Architecture::I386 => "x86",
        Architecture::Aarch64 => "arm64",
        Architecture::Arm => "arm",
        Architecture::Riscv64 => "riscv64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "ENOSYS",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read", "unheard_of"], "action": "SCMP_ACT_ALLOW", "args": null},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}
        ]
    }"#;

    fn policy(arch: Architecture, kernel: (u32, u32), cap: &str) -> Policy {
        let has = |name: &str| name == cap;
        from_oci(PROFILE, &Given { arch, has_capability: &has, kernel }).unwrap()
    }

    #[test]
    fn conditions_select_what_applies() {
        let all = policy(Architecture::X86_64, (6, 1), "CAP_SYS_CHROOT");
        let none = [0; 6];
        let what = |policy: &Policy, name: &str, arguments: &[u64; 6]| {
            policy.rules.get(name).map_or(policy.default, |rule| rule.evaluate(arguments))
        };
        assert_eq!(all.default, Action::Errno(38));
        assert_eq!(what(&all, "read", &none), Action::Allow);
        assert_eq!(what(&all, "chroot", &none), Action::Allow);
        assert_eq!(what(&all, "ptrace", &none), Action::Allow);
        assert_eq!(what(&all, "clone", &[0x11, 0, 0, 0, 0, 0]), Action::Allow);
        assert_eq!(what(&all, "clone", &[0x1000_0000, 0, 0, 0, 0, 0]), Action::Errno(38));
        // Two conditions on one argument are alternatives.
        assert_eq!(what(&all, "personality", &[8, 0, 0, 0, 0, 0]), Action::Allow);
        assert_eq!(what(&all, "personality", &[9, 0, 0, 0, 0, 0]), Action::Errno(38));
        let less = policy(Architecture::Aarch64, (4, 7), "");
        assert_eq!(what(&less, "chroot", &none), Action::Errno(13));
        assert_eq!(what(&less, "arch_prctl", &none), Action::Errno(38));
        assert_eq!(what(&less, "ptrace", &none), Action::Errno(38));
        assert!(all.compile().is_ok() && less.compile().is_ok());
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let given =
            Given { arch: Architecture::X86_64, has_capability: &|_| false, kernel: (6, 1) };
        for text in [
            "",
            "{}",
            r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["unheard_of"], "action": "SCMP_ACT_ERRNO"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRACE"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"moon": "full"}}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(from_oci(text, &given).is_err(), "{text}");
        }
    }
}
