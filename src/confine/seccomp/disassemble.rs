//! A compiled filter in words, an instruction a line.

use crate::sys::seccomp::Instruction;

/// What a filter does, step by step, numbered from 0.
pub fn disassemble(program: &[Instruction]) -> Vec<String> {
    let line = |(at, instruction): (usize, &Instruction)| {
        format!("{at:4}  {}", statement(at, instruction))
    };
    program.iter().enumerate().map(line).collect()
}

// linux/bpf_common.h, as far as filters of seccomp(2) have it.
fn statement(at: usize, instruction: &Instruction) -> String {
    let Instruction { code, jt, jf, k } = *instruction;
    let to = |distance: u32| at + 1 + usize::try_from(distance).unwrap_or(usize::MAX / 2);
    let jump =
        |sign: &str| format!("if A {sign} {k:#x} goto {} else {}", to(jt.into()), to(jf.into()));
    match code {
        0x20 => format!("A = {}", word(k)),
        0x54 => format!("A &= {k:#x}"),
        0x05 => format!("goto {}", to(k)),
        0x15 => jump("=="),
        0x25 => jump(">"),
        0x35 => jump(">="),
        0x45 => jump("&"),
        0x06 => format!("return {}", verdict(k)),
        _ => format!("code {code:#x} {jt} {jf} {k:#x}"),
    }
}

/// A word of `struct seccomp_data`.
fn word(offset: u32) -> String {
    match offset {
        0 => "number".to_owned(),
        4 => "arch".to_owned(),
        8 | 12 => "instruction pointer".to_owned(),
        16..64 => {
            let half = if offset.is_multiple_of(8) { "low" } else { "high" };
            format!("arg{} {half}", (offset - 16) / 8)
        }
        _ => format!("[{offset}]"),
    }
}

/// `SECCOMP_RET_*` of linux/seccomp.h.
fn verdict(value: u32) -> String {
    match (value & 0xffff_0000, value & 0xffff) {
        (0x7fff_0000, _) => "allow".to_owned(),
        (0x7ffc_0000, _) => "log".to_owned(),
        (0x0005_0000, errno) => {
            let errno = i32::try_from(errno).unwrap_or_default();
            format!("{:?}", nix::errno::Errno::from_raw(errno))
        }
        (0x0003_0000, _) => "trap".to_owned(),
        (0x8000_0000, _) => "kill the process".to_owned(),
        (0, _) => "kill the thread".to_owned(),
        _ => format!("{value:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Architecture, Policy};
    use super::*;

    #[test]
    fn every_instruction_has_words() {
        let program = Policy::default_for(Architecture::X86_64).compile().unwrap();
        let lines = disassemble(&program);
        assert_eq!(lines.len(), program.len());
        assert_eq!(lines[0], "   0  A = arch");
        assert!(lines.iter().all(|line| !line.contains("code ")), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with("return ENOSYS")));
    }
}
