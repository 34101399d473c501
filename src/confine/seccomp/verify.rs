//! The shape that every program has, whether compiled now or when casemate was built.

use crate::sys::seccomp::Instruction;

/// `BPF_MAXINSNS` of linux/bpf_common.h: seccomp(2) answers EINVAL beyond it.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `BPF_LD | BPF_W | BPF_ABS`: a word of `struct seccomp_data` into the accumulator.
pub(super) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
pub(super) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(super) const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`.
pub(super) const JUMP_GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`.
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
/// `BPF_JMP | BPF_JSET | BPF_K`.
pub(super) const JUMP_BITS: u16 = 0x45;
/// `BPF_RET | BPF_K`.
pub(super) const RETURN: u16 = 0x06;

/// `sizeof(struct seccomp_data)`.
const DATA: u32 = 64;

/// Whether a program uses only the instructions of this compiler, stays inside `seccomp_data`,
/// jumps only forward and inside itself, and ends by returning. The kernel checks the same
/// (`seccomp_check_filter`, `bpf_check_classic`); here it is what the tests hold every program to.
pub fn verify(program: &[Instruction]) -> bool {
    let ends = program.last().is_some_and(|last| last.code == RETURN);
    ends && program.len() <= MAX_INSTRUCTIONS
        && program.iter().enumerate().all(|(at, instruction)| {
            let inside = |distance: usize| at + 1 + distance < program.len();
            match instruction.code {
                LOAD => instruction.k % 4 == 0 && instruction.k < DATA,
                AND | RETURN => true,
                JUMP => usize::try_from(instruction.k).is_ok_and(inside),
                JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL | JUMP_BITS => {
                    inside(instruction.jt.into()) && inside(instruction.jf.into())
                }
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn i(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    #[test]
    fn only_whole_programs_pass() {
        let ret = i(RETURN, 0, 0, 0);
        assert!(verify(&[ret]));
        assert!(verify(&[i(LOAD, 0, 0, 60), i(JUMP_EQUAL, 1, 0, 1), ret, ret]));
        for bad in [
            &[][..],
            &[i(LOAD, 0, 0, 0)],
            &[i(LOAD, 0, 0, 64), ret],
            &[i(LOAD, 0, 0, 2), ret],
            &[i(JUMP, 0, 0, 1), ret],
            &[i(JUMP, 0, 0, u32::MAX), ret],
            &[i(JUMP_BITS, 0, 1, 1), ret],
            &[i(0xffff, 0, 0, 1), ret],
            &[ret; MAX_INSTRUCTIONS + 1],
        ] {
            assert!(!verify(bad), "{bad:?}");
        }
    }
}
