//! A policy into a program: a search over the call's number, then the conditions of its rule.

use std::collections::{BTreeMap, HashMap};

use super::assemble::{Assembler, Entry, Word};
use super::verify::{JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, MAX_INSTRUCTIONS, verify};
use super::{Action, Architecture, Condition, Operator, Policy, Rule, resolve};
use crate::error::{Error, Result};
use crate::sys::seccomp::Instruction;

/// `offsetof(struct seccomp_data, nr)`.
const NUMBER: Word = Word::whole(0);
/// `offsetof(struct seccomp_data, arch)`.
const ARCH: Word = Word::whole(4);
/// `offsetof(struct seccomp_data, args)`.
const ARGS: u32 = 16;

/// `__X32_SYSCALL_BIT` of asm/unistd.h: x32 calls carry the token of x86_64.
pub(super) const X32: u32 = 0x4000_0000;
/// What an x32 call gets, whatever the default: the ABI is to look as if it were not built in.
pub(super) const X32_ACTION: Action = Action::Errno(libc::ENOSYS as u16);
/// What a call through an ABI gets that the policy does not list.
pub(super) const FOREIGN_ACTION: Action = Action::KillProcess;

/// How many single numbers are told apart one after another before the search halves again. Each
/// saves an instruction against two bounds and costs a step. The default policy of x86_64 has 115
/// instructions and loads in 32 µs with 0, 96 and 28 with 1, 91 and 27 with 2 to 4, 89 and 28 with
/// more.
const EXCEPTIONS: usize = 3;

impl Policy {
    /// The BPF program for seccomp(2).
    ///
    /// It decides by the architecture, then by the number, then by the arguments, in this order and
    /// with no arithmetic before the arguments: since Linux 5.11 the kernel replays a program for
    /// every number when it loads it, and never runs it again for those that it allows without
    /// looking at an argument (`seccomp_cache_prepare`).
    pub fn compile(&self) -> Result<Vec<Instruction>> {
        let mut assembler = Assembler::default();
        let mut entry = assembler.give(FOREIGN_ACTION.value()?);
        for arch in self.architectures.iter().rev() {
            let section = self.section(*arch, &mut assembler)?;
            entry = assembler.branch(ARCH, JUMP_EQUAL, arch.token(), section, entry);
        }
        let program = assembler.finish(entry);
        if program.len() > MAX_INSTRUCTIONS {
            return Err(Error::new(format!(
                "seccomp: the filter has {} instructions, the kernel takes {MAX_INSTRUCTIONS}",
                program.len()
            ))
            .hint("use fewer rules with conditions on arguments"));
        }
        if !verify(&program) {
            return Err(Error::new("seccomp: the compiled filter is malformed"));
        }
        Ok(program)
    }

    /// The rule of each number that has one.
    pub fn numbered(&self, arch: Architecture) -> Result<BTreeMap<u32, &Rule>> {
        let mut rules = BTreeMap::new();
        for (name, rule) in &self.rules {
            let Some(number) = resolve(name, arch) else { continue };
            if rules.insert(number, rule).is_some_and(|other| other != rule) {
                return Err(Error::new(format!(
                    "seccomp: {name} is another name of call {number} on {arch}, with another rule"
                ))
                .hint("give both names the same rule, or leave one out"));
            }
        }
        Ok(rules)
    }

    fn section(&self, arch: Architecture, assembler: &mut Assembler) -> Result<Entry> {
        let default = Rule::always(self.default);
        let foreign = Rule::always(X32_ACTION);
        let rules = self.numbered(arch)?;
        let mut entries = HashMap::new();
        let mut spans: Vec<Span> = Vec::new();
        let mut next = 0;
        let mut add = |spans: &mut Vec<Span>, start, rule| -> Result<()> {
            let entry = match entries.get(rule) {
                Some(entry) => *entry,
                None => {
                    let entry = block(rule, assembler)?;
                    entries.insert(rule, entry);
                    entry
                }
            };
            if spans.last().is_none_or(|last| last.entry != entry) {
                spans.push(Span { start, entry });
            }
            Ok(())
        };
        for (number, rule) in rules {
            if number > next {
                add(&mut spans, next, &default)?;
            }
            add(&mut spans, number, rule)?;
            next = number + 1;
        }
        add(&mut spans, next, &default)?;
        if arch == Architecture::X86_64 {
            add(&mut spans, X32, &foreign)?;
        }
        Ok(search(&pieces(&spans), assembler))
    }
}

/// Consecutive numbers with the same verdict, up to the start of the next span.
struct Span {
    start: u32,
    entry: Entry,
}

/// Consecutive numbers with the same verdict but for a few single ones.
struct Piece {
    start: u32,
    entry: Entry,
    exceptions: Vec<(u32, Entry)>,
}

fn pieces(spans: &[Span]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = spans;
    while let [first, ..] = rest {
        let mut exceptions = Vec::new();
        while let [outer, single, again, ..] = rest
            && exceptions.len() < EXCEPTIONS
            && outer.entry == again.entry
            && again.start == single.start + 1
        {
            exceptions.push((single.start, single.entry));
            rest = &rest[2..];
        }
        rest = &rest[1..];
        pieces.push(Piece { start: first.start, entry: first.entry, exceptions });
    }
    pieces
}

fn search(pieces: &[Piece], assembler: &mut Assembler) -> Entry {
    if let [piece] = pieces {
        let mut entry = piece.entry;
        for (number, exception) in piece.exceptions.iter().rev() {
            entry = assembler.branch(NUMBER, JUMP_EQUAL, *number, *exception, entry);
        }
        return entry;
    }
    let (low, high) = pieces.split_at(pieces.len() / 2);
    let bound = high[0].start;
    let high = search(high, assembler);
    let low = search(low, assembler);
    assembler.branch(NUMBER, JUMP_GREATER_OR_EQUAL, bound, high, low)
}

fn block(rule: &Rule, assembler: &mut Assembler) -> Result<Entry> {
    let mut entry = assembler.give(rule.otherwise.value()?);
    for clause in rule.clauses.iter().rev() {
        let no = entry;
        entry = assembler.give(clause.action.value()?);
        for condition in clause.conditions.iter().rev() {
            entry = compare(condition, entry, no, assembler)?;
        }
    }
    Ok(entry)
}

fn compare(condition: &Condition, yes: Entry, no: Entry, to: &mut Assembler) -> Result<Entry> {
    if condition.argument > 5 {
        return Err(Error::new(format!(
            "seccomp: a condition on argument {}: there are six, from 0",
            condition.argument
        )));
    }
    let offset = ARGS + 8 * u32::from(condition.argument);
    let (mask_high, mask_low) = halves(condition.mask);
    let high = Word { offset: offset + 4, mask: mask_high };
    let low = Word { offset, mask: mask_low };
    let (value_high, value_low) = halves(condition.value);
    let (code, yes, no) = match condition.operator {
        Operator::Equal => (JUMP_EQUAL, yes, no),
        Operator::NotEqual => (JUMP_EQUAL, no, yes),
        Operator::Greater => (JUMP_GREATER, yes, no),
        Operator::LessOrEqual => (JUMP_GREATER, no, yes),
        Operator::GreaterOrEqual => (JUMP_GREATER_OR_EQUAL, yes, no),
        Operator::Less => (JUMP_GREATER_OR_EQUAL, no, yes),
    };
    if code == JUMP_EQUAL {
        let entry = to.equal(low, value_low, yes, no);
        return Ok(to.equal(high, value_high, entry, no));
    }
    let by_low = match (mask_low, code, value_low) {
        (0, JUMP_GREATER_OR_EQUAL, 0) => yes,
        (0, ..) => no,
        _ => to.branch(low, code, value_low, yes, no),
    };
    Ok(match (mask_high, value_high) {
        (0, 0) => by_low,
        (0, _) => no,
        _ => {
            let same = to.branch(high, JUMP_EQUAL, value_high, by_low, no);
            to.branch(high, JUMP_GREATER, value_high, yes, same)
        }
    })
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
