//! Classic BPF as seccomp runs it, so that the filters of every architecture can be tried on one.

use casemate::confine::seccomp::Architecture;
use casemate::sys::seccomp::Instruction;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) token: u32,
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    pub(crate) fn new(arch: Architecture, number: u32, arguments: [u64; 6]) -> Self {
        Call { token: arch.token(), number, arguments }
    }

    /// The word at a byte offset, little-endian; the instruction pointer is zero.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.token,
            8 | 12 => 0,
            _ => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
            }
        }
    }
}

/// The program's return value, and how many instructions it took.
pub(crate) fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut at, mut steps) = (0usize, 0usize);
    let (mut a, mut x) = (0u32, 0u32);
    let mut memory = [0u32; 16];
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        steps += 1;
        let mut jump = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            0x20 => a = call.word(k),
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x45 => jump(a & k != 0),
            0x06 => return (k, steps),
            // Beyond what casemate writes, libseccomp may use the scratch memory.
            0x02 => memory[k as usize] = a,
            0x60 => a = memory[k as usize],
            0x61 => x = memory[k as usize],
            0x07 => x = a,
            0x87 => a = x,
            0x00 => a = k,
            0x01 => x = k,
            _ => panic!("instruction {code:#x} at {}", at - 1),
        }
    }
}

pub(crate) const ALLOW: u32 = 0x7fff_0000;
pub(crate) const KILL: u32 = 0x8000_0000;

pub(crate) const fn errno(errno: i32) -> u32 {
    0x0005_0000 | errno as u32
}

/// A return value in words.
pub(crate) fn word(value: u32) -> String {
    match value {
        ALLOW => "allow".into(),
        KILL => "kill".into(),
        0x7ffc_0000 => "log".into(),
        value if value & 0xffff_0000 == 0x0005_0000 => {
            format!("{:?}", nix::errno::Errno::from_raw((value & 0xffff) as i32))
        }
        value => format!("{value:#x}"),
    }
}

/// A reproducible stream of numbers (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
