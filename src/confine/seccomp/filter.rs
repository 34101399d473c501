//! The filter of a box, and the programs that are compiled once: when casemate is built.
//!
//! A cache on disk would save the others some 60 µs, and be the most rewarding file to forge: a box
//! that once got a writable grant too many could leave a filter there that refuses nothing.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::{Action, Architecture, Policy};
use crate::error::{Error, Result};
use crate::sys::seccomp::Instruction;

/// Which filter a box has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// The default policy of this architecture.
    Default,
    /// A policy that a profile has changed.
    Changed(Box<Policy>),
}

impl Filter {
    /// The policy in full.
    pub fn policy(&self) -> Cow<'_, Policy> {
        match self {
            Filter::Default => Cow::Owned(Policy::default_for(Architecture::native())),
            Filter::Changed(policy) => Cow::Borrowed(policy),
        }
    }

    /// The program to load.
    pub fn program(&self) -> Result<Vec<Instruction>> {
        match self {
            Filter::Default => default_program(Architecture::native()),
            Filter::Changed(policy) => policy.compile(),
        }
    }

    /// Whether no call of these names can succeed, whatever its arguments.
    pub fn refuses(&self, names: &[&str]) -> bool {
        let policy = self.policy();
        let lets_through = |action: Action| matches!(action, Action::Allow | Action::Log);
        names.iter().all(|name| match policy.rules.get(*name) {
            None => !lets_through(policy.default),
            Some(rule) => {
                !lets_through(rule.otherwise)
                    && !rule.clauses.iter().any(|clause| lets_through(clause.action))
            }
        })
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.policy().serialize(serializer)
    }
}

/// Compiled programs, eight bytes an instruction in little-endian order; a test compiles them anew
/// and compares.
const COMPILED: [(Architecture, &[u8], &[u8]); 3] = [
    (
        Architecture::X86_64,
        include_bytes!("compiled/x86_64-default.bpf"),
        include_bytes!("compiled/x86_64-init.bpf"),
    ),
    (
        Architecture::Aarch64,
        include_bytes!("compiled/aarch64-default.bpf"),
        include_bytes!("compiled/aarch64-init.bpf"),
    ),
    (
        Architecture::Riscv64,
        include_bytes!("compiled/riscv64-default.bpf"),
        include_bytes!("compiled/riscv64-init.bpf"),
    ),
];

/// The program of the default policy.
pub fn default_program(arch: Architecture) -> Result<Vec<Instruction>> {
    match COMPILED.iter().find(|(of, ..)| *of == arch) {
        Some((_, default, _)) => decode(default),
        None => Policy::default_for(arch).compile(),
    }
}

/// The program of PID 1.
pub fn init_program(arch: Architecture) -> Result<Vec<Instruction>> {
    match COMPILED.iter().find(|(of, ..)| *of == arch) {
        Some((.., init)) => decode(init),
        None => Policy::for_init(arch).compile(),
    }
}

/// An instruction as it is kept.
pub fn encode(instruction: &Instruction) -> [u8; 8] {
    let [c0, c1] = instruction.code.to_le_bytes();
    let [k0, k1, k2, k3] = instruction.k.to_le_bytes();
    [c0, c1, instruction.jt, instruction.jf, k0, k1, k2, k3]
}

fn decode(bytes: &[u8]) -> Result<Vec<Instruction>> {
    let (instructions, rest) = bytes.as_chunks::<8>();
    if instructions.is_empty() || !rest.is_empty() {
        return Err(Error::new("read the compiled filter: not whole"));
    }
    Ok(instructions
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
            code: u16::from_le_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_le_bytes([k0, k1, k2, k3]),
        })
        .collect())
}
