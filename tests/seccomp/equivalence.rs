//! What libseccomp can express, both compilers must understand alike.

use casemate::confine::seccomp::{
    Action, Architecture, Clause, Condition, Operator, Policy, Rule, resolve,
};
use casemate::sys::seccomp::Instruction;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

use crate::interpreter::{Call, Numbers, errno, run};

/// A policy where every rule is "allow, always or if one argument compares so" under a refusing
/// default: the form that libseccomp has.
fn plain(arch: Architecture) -> Policy {
    let mut policy = Policy::default_for(arch);
    policy.rules.retain(|_, rule| *rule == Rule::always(Action::Allow));
    policy
}

fn conditional(arch: Architecture) -> Policy {
    let mut policy = plain(arch);
    let compare = |argument, mask, operator, value| Rule {
        clauses: vec![Clause {
            conditions: vec![Condition { argument, mask, operator, value }],
            action: Action::Allow,
        }],
        otherwise: policy.default,
    };
    let rules = [
        ("clone", compare(0, 0x7e02_0000, Operator::Equal, 0)),
        ("openat", compare(2, u64::MAX, Operator::Equal, 0x5412_0000_5412)),
        ("mmap", compare(2, u64::MAX, Operator::NotEqual, 7)),
        ("lseek", compare(1, u64::MAX, Operator::Less, 1 << 32)),
        ("pread64", compare(3, u64::MAX, Operator::LessOrEqual, 0xffff_ffff)),
        ("pwrite64", compare(3, u64::MAX, Operator::Greater, 0x1_0000_0001)),
        ("ioctl", compare(1, u64::MAX, Operator::GreaterOrEqual, 0x5412)),
        ("fcntl", compare(1, 0xffff_ffff, Operator::Equal, 2)),
    ];
    for (name, rule) in rules {
        policy.set(name, rule).unwrap();
    }
    policy
}

pub(crate) fn theirs(policy: &Policy) -> Vec<Instruction> {
    let arch = match policy.architectures[0] {
        Architecture::X86_64 => ScmpArch::X8664,
        Architecture::Aarch64 => ScmpArch::Aarch64,
        Architecture::Riscv64 => ScmpArch::Riscv64,
        other => panic!("{other}"),
    };
    let mut context = ScmpFilterContext::new(ScmpAction::Errno(libc::ENOSYS)).unwrap();
    context.set_ctl_optimize(2).unwrap();
    context.set_act_badarch(ScmpAction::KillProcess).unwrap();
    if arch != ScmpArch::native() {
        context.add_arch(arch).unwrap();
        context.remove_arch(ScmpArch::native()).unwrap();
    }
    for (name, rule) in &policy.rules {
        let Ok(call) = ScmpSyscall::from_name_by_arch(name, arch) else { continue };
        // In a context with foreign architectures libseccomp reads numbers as native ones.
        let call = if arch == ScmpArch::native() {
            call
        } else {
            match ScmpSyscall::from_name(name) {
                Ok(native) => native,
                Err(_) => continue,
            }
        };
        if resolve(name, policy.architectures[0]).is_none() {
            continue;
        }
        match rule.clauses.first() {
            None => context.add_rule(ScmpAction::Allow, call).unwrap(),
            Some(clause) => {
                let Condition { argument, mask, operator, value } = clause.conditions[0];
                let operator = match operator {
                    Operator::Equal if mask != u64::MAX => ScmpCompareOp::MaskedEqual(mask),
                    Operator::Equal => ScmpCompareOp::Equal,
                    Operator::NotEqual => ScmpCompareOp::NotEqual,
                    Operator::Less => ScmpCompareOp::Less,
                    Operator::LessOrEqual => ScmpCompareOp::LessOrEqual,
                    Operator::Greater => ScmpCompareOp::Greater,
                    Operator::GreaterOrEqual => ScmpCompareOp::GreaterEqual,
                };
                let compare = ScmpArgCompare::new(argument.into(), operator, value);
                context.add_rule_conditional(ScmpAction::Allow, call, &[compare]).unwrap()
            }
        };
    }
    let bytes = exported(&context);
    let (instructions, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    instructions
        .iter()
        .map(|&[a, b, jt, jf, k @ ..]| Instruction {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes(k),
        })
        .collect()
}

/// Before libseccomp 2.6 a program can only be exported to a file.
fn exported(context: &ScmpFilterContext) -> Vec<u8> {
    use std::io::{Read, Seek};
    let mut file = tempfile::tempfile().unwrap();
    context.export_bpf(&file).unwrap();
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Names that libseccomp does not know are left out of both.
fn common(mut policy: Policy) -> Policy {
    let arch = policy.architectures[0];
    let scmp = match arch {
        Architecture::X86_64 => ScmpArch::X8664,
        Architecture::Aarch64 => ScmpArch::Aarch64,
        _ => ScmpArch::Riscv64,
    };
    policy.rules.retain(|name, _| {
        ScmpSyscall::from_name_by_arch(name, scmp).is_ok_and(|call| i32::from(call) >= 0)
    });
    policy
}

#[test]
fn both_compilers_give_the_same_verdicts() {
    const VALUES: [u64; 12] = [
        0,
        1,
        2,
        7,
        0x5411,
        0x5412,
        0x1000_0000,
        0xffff_ffff,
        0x1_0000_0001,
        0x1_0000_0002,
        0x5412_0000_5412,
        u64::MAX,
    ];
    for arch in [Architecture::X86_64, Architecture::Aarch64, Architecture::Riscv64] {
        for policy in [common(plain(arch)), common(conditional(arch))] {
            let (ours, theirs) = (policy.compile().unwrap(), theirs(&policy));
            assert!(ours.len() < theirs.len(), "{} {}", ours.len(), theirs.len());
            let mut numbers = Numbers(3);
            for number in (0..=600).chain(0x4000_0000..0x4000_0258).chain([u32::MAX]) {
                for round in 0..60 {
                    let arguments = [(); 6].map(|()| match round % 4 {
                        0 => numbers.next(),
                        _ => numbers.pick(&VALUES),
                    });
                    for token in [arch.token(), Architecture::I386.token()] {
                        let call = Call { token, number, arguments };
                        let (our, their) = (run(&ours, &call).0, run(&theirs, &call).0);
                        // libseccomp takes x32 for a foreign ABI.
                        if arch == Architecture::X86_64
                            && token == arch.token()
                            && number >= 0x4000_0000
                        {
                            assert_eq!(our, errno(libc::ENOSYS));
                            continue;
                        }
                        assert_eq!(our, their, "{call:x?} on {arch}");
                    }
                }
            }
        }
    }
}
