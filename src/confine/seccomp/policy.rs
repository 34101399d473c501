//! The policy as data: what each call gets.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::compile::{FOREIGN_ACTION, X32, X32_ACTION};
use super::{Architecture, names};
use crate::error::{Error, Result};

/// The name of a system call, as syscalls(2) has it.
pub type Name = Cow<'static, str>;

/// What happens to a call (seccomp(2), "return values").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The call is made.
    Allow,
    /// The call is made and the kernel logs it (Linux 4.14).
    Log,
    /// The call is not made and fails with this errno.
    Errno(u16),
    /// The thread gets SIGSYS, which it may handle.
    Trap,
    /// The thread ends. Leaves the others running, which is seldom what is wanted.
    KillThread,
    /// The process ends as if by SIGSYS (Linux 4.14).
    KillProcess,
}

impl Action {
    /// The program's return value, `SECCOMP_RET_*` of linux/seccomp.h.
    pub(super) fn value(self) -> Result<u32> {
        // MAX_ERRNO of linux/err.h; the kernel would quietly lower anything above it.
        const MAX_ERRNO: u16 = 4095;
        Ok(match self {
            Action::Allow => 0x7fff_0000,
            Action::Log => 0x7ffc_0000,
            Action::Errno(errno) if errno <= MAX_ERRNO => 0x0005_0000 | u32::from(errno),
            Action::Errno(errno) => {
                return Err(Error::new(format!("seccomp: {errno} is no errno"))
                    .hint(format!("the largest is {MAX_ERRNO}")));
            }
            Action::Trap => 0x0003_0000,
            Action::KillThread => 0,
            Action::KillProcess => 0x8000_0000,
        })
    }
}

/// How an argument is compared; unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// `(argument & mask) operator value`.
///
/// The kernel hands all 64 bits of a register to the filter, also for an argument that it reads as
/// an `int`. Such a one wants a mask of 32 bits, or a value with high bits set passes by the
/// comparison and still means the same to the kernel (CVE-2019-10063).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    /// Applied to the argument, not to the value.
    pub mask: u64,
    /// The comparison.
    pub operator: Operator,
    /// What it is compared with.
    pub value: u64,
}

impl Condition {
    /// The low 32 bits of an argument equal `value`.
    pub const fn int(argument: u8, value: u32) -> Self {
        Condition {
            argument,
            mask: u32::MAX as u64,
            operator: Operator::Equal,
            value: value as u64,
        }
    }

    /// Whether the arguments satisfy it.
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let Some(argument) = arguments.get(usize::from(self.argument)) else { return false };
        let argument = argument & self.mask;
        match self.operator {
            Operator::Equal => argument == self.value,
            Operator::NotEqual => argument != self.value,
            Operator::Less => argument < self.value,
            Operator::LessOrEqual => argument <= self.value,
            Operator::Greater => argument > self.value,
            Operator::GreaterOrEqual => argument >= self.value,
        }
    }
}

/// An action for when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Clause {
    /// All of them; none means always.
    pub conditions: Vec<Condition>,
    /// What the call gets then.
    pub action: Action,
}

/// What one call gets: the first clause that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Rule {
    /// Tried first to last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clauses: Vec<Clause>,
    /// When none matched.
    pub otherwise: Action,
}

impl Rule {
    /// The same action whatever the arguments.
    pub const fn always(action: Action) -> Self {
        Rule { clauses: Vec::new(), otherwise: action }
    }

    /// What the rule says to these arguments.
    pub fn evaluate(&self, arguments: &[u64; 6]) -> Action {
        self.clauses
            .iter()
            .find(|clause| clause.conditions.iter().all(|condition| condition.holds(arguments)))
            .map_or(self.otherwise, |clause| clause.action)
    }
}

/// Which system calls a box may make.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Policy {
    /// The ABIs it speaks of, the native one first. A call through any other kills the process.
    pub architectures: Vec<Architecture>,
    /// What a call without a rule gets.
    pub default: Action,
    /// The rules. A name that an architecture does not have says nothing about it.
    pub rules: BTreeMap<Name, Rule>,
}

impl Policy {
    /// A policy with no rules.
    pub fn new(arch: Architecture, default: Action) -> Self {
        Policy { architectures: vec![arch], default, rules: BTreeMap::new() }
    }

    /// Allows a call, whatever its arguments.
    pub fn allow(&mut self, name: &str) -> Result<()> {
        self.set(name, Rule::always(Action::Allow))
    }

    /// Makes a call fail with `errno`, whatever its arguments.
    pub fn deny(&mut self, name: &str, errno: nix::errno::Errno) -> Result<()> {
        let errno = u16::try_from(errno as i32).unwrap_or(libc::EPERM as u16);
        self.set(name, Rule::always(Action::Errno(errno)))
    }

    /// Replaces the rule of a call. A name that no architecture has is an error; one that only
    /// another architecture has is not, so that one profile serves every machine.
    pub fn set(&mut self, name: &str, rule: Rule) -> Result<()> {
        names::check(name)?;
        self.rules.insert(Cow::Owned(name.to_owned()), rule);
        Ok(())
    }

    /// Puts conditions before what a call gets so far; without any, replaces it.
    pub fn refine(&mut self, name: &str, conditions: Vec<Condition>, action: Action) -> Result<()> {
        names::check(name)?;
        let default = self.default;
        let rule =
            self.rules.entry(Cow::Owned(name.to_owned())).or_insert_with(|| Rule::always(default));
        if conditions.is_empty() {
            *rule = Rule::always(action);
        } else {
            rule.clauses.insert(0, Clause { conditions, action });
        }
        Ok(())
    }

    /// Adds the 32-bit ABI of the native architecture, where it has one.
    #[must_use]
    pub fn with_compat32(mut self) -> Self {
        let compat = self.architectures.first().and_then(|native| native.compat32());
        if let Some(compat) = compat.filter(|compat| !self.architectures.contains(compat)) {
            self.architectures.push(compat);
        }
        self
    }

    /// What the policy says to a call, without a program: `token` is `seccomp_data.arch`.
    pub fn evaluate(&self, token: u32, number: u32, arguments: &[u64; 6]) -> Result<Action> {
        let Some(arch) = self.architectures.iter().find(|arch| arch.token() == token) else {
            return Ok(FOREIGN_ACTION);
        };
        if *arch == Architecture::X86_64 && number >= X32 {
            return Ok(X32_ACTION);
        }
        let rules = self.numbered(*arch)?;
        Ok(rules.get(&number).map_or(self.default, |rule| rule.evaluate(arguments)))
    }

    /// Puts in rules whose names are known to exist.
    pub(super) fn put(&mut self, names: &[&'static str], action: Action) {
        self.rules.extend(names.iter().map(|name| (Cow::Borrowed(*name), Rule::always(action))));
    }
}
