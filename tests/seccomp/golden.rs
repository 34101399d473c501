//! What the default policy says to every number, as tables in the repository: a change of the
//! policy, of the compiler or of libseccomp shows as a diff. `CASEMATE_BLESS=1` rewrites them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use casemate::confine::seccomp::{Architecture, Policy, resolve};
use libseccomp::ScmpSyscall;

use crate::interpreter::{Call, run, word};

fn names(arch: Architecture, policy: &Policy) -> BTreeMap<u32, String> {
    let scmp = match arch {
        Architecture::X86_64 => libseccomp::ScmpArch::X8664,
        Architecture::I386 => libseccomp::ScmpArch::X86,
        Architecture::Aarch64 => libseccomp::ScmpArch::Aarch64,
        Architecture::Arm => libseccomp::ScmpArch::Arm,
        Architecture::Riscv64 => libseccomp::ScmpArch::Riscv64,
    };
    let listed = (0..=600).filter_map(|number: i32| {
        Some((number as u32, ScmpSyscall::from(number).get_name_by_arch(scmp).ok()?))
    });
    let own = policy.rules.keys().filter_map(|name| Some((resolve(name, arch)?, name.to_string())));
    listed.chain(own).collect()
}

/// One line a number with a name or a verdict of its own; zero for every argument.
fn table(policy: &Policy, arch: Architecture) -> String {
    let program = policy.compile().unwrap();
    let names = names(arch, policy);
    let default = word(run(&program, &Call::new(arch, 0x4000_0000 - 1, [0; 6])).0);
    let mut text = String::new();
    for number in 0..=600 {
        let verdict = word(run(&program, &Call::new(arch, number, [0; 6])).0);
        match names.get(&number) {
            Some(name) => writeln!(text, "{number} {name} {verdict}").unwrap(),
            None if verdict != default => writeln!(text, "{number} - {verdict}").unwrap(),
            None => {}
        }
    }
    for number in (0..=600).map(|number| 0x4000_0000 | number) {
        let verdict = word(run(&program, &Call::new(arch, number, [0; 6])).0);
        let expected = if arch == Architecture::X86_64 { "ENOSYS" } else { &default };
        assert_eq!(verdict, expected, "x32 bit with {number:#x} on {arch}");
    }
    text
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/seccomp").join(name);
    if std::env::var_os("CASEMATE_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (ours, theirs) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, theirs, "{name}");
    }
    assert_eq!(text.len(), golden.len(), "{name}");
}

#[test]
fn the_default_policy_on_every_architecture() {
    for arch in Architecture::ALL {
        compare(arch.name(), &table(&Policy::default_for(arch), arch));
    }
}

#[test]
fn beside_64_bits_the_32_bit_table_is_its_own() {
    let policy = Policy::default_for(Architecture::X86_64).with_compat32();
    compare("i386", &table(&policy, Architecture::I386));
    compare("x86_64", &table(&policy, Architecture::X86_64));
}

#[test]
fn an_abi_that_is_not_listed_kills() {
    let program = Policy::default_for(Architecture::X86_64).compile().unwrap();
    for number in 0..=600 {
        for token in [Architecture::I386.token(), Architecture::Aarch64.token(), 0, u32::MAX] {
            let call = Call { token, number, arguments: [0; 6] };
            assert_eq!(word(run(&program, &call).0), "kill");
        }
    }
}

#[test]
fn the_filter_of_init() {
    for arch in Architecture::ALL {
        let text = table(&Policy::for_init(arch), arch);
        assert!(!text.contains("execve allow") && text.contains("execve kill"));
    }
}
