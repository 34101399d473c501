//! Instructions with forward jumps, written from the last to the first.
//!
//! Classic BPF only jumps forward, so that in this direction every target is already in place when
//! a jump to it is written: no labels to patch, and a target that turns out to be further away than
//! the 255 instructions a conditional jump spans gets its stepping stone at once.

use std::collections::BTreeMap;

use super::verify::{AND, JUMP, JUMP_BITS, LOAD, RETURN};
use crate::sys::seccomp::Instruction;

/// What the accumulator holds: a masked word of `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) offset: u32,
    pub(super) mask: u32,
}

impl Word {
    pub(super) const fn whole(offset: u32) -> Self {
        Word { offset, mask: u32::MAX }
    }
}

/// A place to jump to, counted from the end of the program, and what the accumulator must hold
/// there. The load is written only for those who come with something else: a chain of comparisons
/// of one argument loads it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    at: usize,
    needs: Option<Word>,
}

#[derive(Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The place of each return value.
    returns: BTreeMap<u32, usize>,
    /// The last stepping stone to a place.
    stones: BTreeMap<usize, usize>,
    /// Where an entry's load was written, by the entry's place.
    loaded: BTreeMap<usize, usize>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> usize {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// `return value`.
    pub(super) fn give(&mut self, value: u32) -> Entry {
        let at = match self.returns.get(&value) {
            Some(at) => *at,
            None => {
                let at = self.push(RETURN, 0, 0, value);
                self.returns.insert(value, at);
                at
            }
        };
        Entry { at, needs: None }
    }

    /// `if word <code> k then yes else no`.
    pub(super) fn branch(&mut self, word: Word, code: u16, k: u32, yes: Entry, no: Entry) -> Entry {
        if yes == no {
            return yes;
        }
        let mut jt = self.place(yes, Some(word));
        let mut jf = self.place(no, Some(word));
        loop {
            match (u8::try_from(self.distance(jt)), u8::try_from(self.distance(jf))) {
                (Ok(jt), Ok(jf)) => {
                    return Entry { at: self.push(code, jt, jf, k), needs: Some(word) };
                }
                (Err(_), _) => jt = self.stepping_stone(jt),
                (_, Err(_)) => jf = self.stepping_stone(jf),
            }
        }
    }

    /// `if half == value`, where `half` is a masked word.
    pub(super) fn equal(&mut self, word: Word, value: u32, yes: Entry, no: Entry) -> Entry {
        if value & !word.mask != 0 {
            return no;
        }
        match (word.mask, value) {
            (0, _) => yes,
            // One instruction instead of AND and JEQ, and the accumulator stays whole for the next.
            (mask, 0) if mask != u32::MAX => {
                self.branch(Word::whole(word.offset), JUMP_BITS, mask, no, yes)
            }
            _ => self.branch(word, super::verify::JUMP_EQUAL, value, yes, no),
        }
    }

    /// The program, which starts at `entry`.
    pub(super) fn finish(mut self, entry: Entry) -> Vec<Instruction> {
        let start = self.place(entry, None);
        if start + 1 != self.reversed.len() {
            self.jump(start);
        }
        self.reversed.reverse();
        self.reversed
    }

    /// How far the instruction that comes next would jump.
    fn distance(&self, at: usize) -> usize {
        self.reversed.len() - 1 - at
    }

    /// Where to jump with `held` in the accumulator.
    fn place(&mut self, entry: Entry, held: Option<Word>) -> usize {
        let Some(word) = entry.needs.filter(|needed| Some(*needed) != held) else {
            return entry.at;
        };
        if let Some(at) = self.loaded.get(&entry.at) {
            return *at;
        }
        if entry.at + 1 != self.reversed.len() {
            self.jump(entry.at);
        }
        if word.mask != u32::MAX {
            self.push(AND, 0, 0, word.mask);
        }
        let at = self.push(LOAD, 0, 0, word.offset);
        self.loaded.insert(entry.at, at);
        at
    }

    /// A place that leads to `at` and is near enough for the branch that comes next.
    fn stepping_stone(&mut self, at: usize) -> usize {
        if let Some(stone) = self.stones.get(&at).filter(|stone| self.distance(**stone) <= 255) {
            return *stone;
        }
        let target = self.reversed[at];
        let stone =
            if target.code == RETURN { self.push(RETURN, 0, 0, target.k) } else { self.jump(at) };
        self.stones.insert(at, stone);
        stone
    }

    fn jump(&mut self, at: usize) -> usize {
        let distance = u32::try_from(self.distance(at)).unwrap_or(u32::MAX);
        self.push(JUMP, 0, 0, distance)
    }
}
