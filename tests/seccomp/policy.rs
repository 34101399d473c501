//! The default policy's rules on arguments, its switches, and that each rule is needed.

use casemate::confine::seccomp::{Action, Architecture, Policy, resolve, verify};
use casemate::sys::seccomp::Instruction;
use libc::{EAFNOSUPPORT, ENOSYS, EPERM};

use crate::interpreter::{ALLOW, Call, errno, run};

fn verdict(program: &[Instruction], arch: Architecture, name: &str, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    run(program, &Call::new(arch, resolve(name, arch).unwrap(), all)).0
}

fn each(test: impl Fn(&dyn Fn(&str, &[u64]) -> u32)) {
    for arch in Architecture::ALL {
        let program = Policy::default_for(arch).compile().unwrap();
        test(&|name, arguments| verdict(&program, arch, name, arguments));
    }
}

/// What an `int` argument may look like in a 64-bit register.
const HIGH: [u64; 4] = [0, 1 << 32, 0xdead << 48, 0xffff_ffff << 32];

#[test]
fn clone_makes_threads_but_no_namespaces() {
    each(|verdict| {
        for high in HIGH {
            // pthread_create, vfork, fork
            for flags in [0x003d_0f00, 0x4111, 0x0120_0011] {
                assert_eq!(verdict("clone", &[high | flags]), ALLOW);
            }
            for bit in [17, 25, 26, 27, 28, 29, 30] {
                assert_eq!(verdict("clone", &[high | 1 << bit]), errno(EPERM));
                assert_eq!(verdict("clone", &[high | 0x4111 | 1 << bit]), errno(EPERM));
            }
        }
        assert_eq!(verdict("clone3", &[0; 2]), errno(ENOSYS));
        assert_eq!(verdict("unshare", &[0]), errno(EPERM));
    });
}

#[test]
fn ioctl_refuses_four_requests() {
    each(|verdict| {
        for high in HIGH {
            for request in [0x5412, 0x541c, 0x541d, 0x5423] {
                assert_eq!(verdict("ioctl", &[0, high | request]), errno(EPERM));
                assert_eq!(verdict("ioctl", &[request, 0x5401]), ALLOW);
            }
            for request in [0x5401, 0x5411, 0x5413, 0x541b, 0x541e, 0x5422, 0x5424, 0x8000_5412] {
                assert_eq!(verdict("ioctl", &[0, high | request]), ALLOW);
            }
        }
    });
}

#[test]
fn sockets_of_four_families() {
    each(|verdict| {
        for high in HIGH {
            for call in ["socket", "socketpair"] {
                for family in 0..=50 {
                    let expected = match family {
                        1 | 2 | 10 | 16 => ALLOW,
                        _ => errno(EAFNOSUPPORT),
                    };
                    assert_eq!(verdict(call, &[high | family, 1, high]), expected, "{family}");
                }
                for protocol in 1..=25 {
                    let netlink = verdict(call, &[high | 16, 3, high | protocol]);
                    assert_eq!(netlink, errno(EAFNOSUPPORT));
                    assert_eq!(verdict(call, &[high | 2, 3, high | protocol]), ALLOW);
                }
            }
        }
    });
}

#[test]
fn personalities_that_keep_address_randomisation() {
    each(|verdict| {
        for high in HIGH {
            for allowed in [0, 8, 0x20000, 0x20008, 0xffff_ffff] {
                assert_eq!(verdict("personality", &[high | allowed]), ALLOW);
            }
            for refused in [1, 0x0004_0000, 0x0040_0000, 0x0010_0000, 0xffff_fffe] {
                assert_eq!(verdict("personality", &[high | refused]), errno(EPERM));
            }
        }
    });
}

#[test]
fn socketcall_is_not_there_on_i386() {
    let policy = Policy::default_for(Architecture::X86_64).with_compat32();
    let program = policy.compile().unwrap();
    let on = |name| verdict(&program, Architecture::I386, name, &[2]);
    assert_eq!(on("socketcall"), errno(ENOSYS));
    assert_eq!([on("socket"), on("ipc"), on("semget")], [ALLOW; 3]);
    assert_eq!(on("vm86"), errno(EPERM));
}

#[test]
fn the_switches_give_back_what_they_say() {
    for arch in Architecture::ALL {
        let nesting = Policy::default_for(arch).with_nesting().compile().unwrap();
        for name in ["unshare", "setns", "clone3", "mount", "fsopen", "open_tree_attr", "chroot"] {
            assert_eq!(verdict(&nesting, arch, name, &[]), ALLOW);
        }
        assert_eq!(verdict(&nesting, arch, "clone", &[1 << 28]), ALLOW);
        assert_eq!(verdict(&nesting, arch, "ptrace", &[]), errno(EPERM));
        let debug = Policy::default_for(arch).with_debug().compile().unwrap();
        for name in ["ptrace", "process_vm_readv", "kcmp", "pidfd_getfd"] {
            assert_eq!(verdict(&debug, arch, name, &[]), ALLOW);
        }
        assert_eq!(verdict(&debug, arch, "mount", &[]), errno(EPERM));
    }
}

#[test]
fn names_are_checked() {
    let mut policy = Policy::default_for(Architecture::X86_64);
    policy.allow("ptrace").unwrap();
    policy.deny("read", nix::errno::Errno::EIO).unwrap();
    policy.allow("riscv_hwprobe").unwrap();
    assert_eq!(policy.allow("ptrase").unwrap_err().hints(), ["did you mean \"ptrace\"?"]);
    let program = policy.compile().unwrap();
    assert_eq!(verdict(&program, Architecture::X86_64, "ptrace", &[]), ALLOW);
    assert_eq!(verdict(&program, Architecture::X86_64, "read", &[]), errno(libc::EIO));
}

#[test]
fn two_names_of_one_call_must_agree() {
    let mut policy = Policy::default_for(Architecture::Arm);
    policy.compile().unwrap();
    policy.deny("sync_file_range2", nix::errno::Errno::EPERM).unwrap();
    let error = policy.compile().unwrap_err();
    assert!(error.to_string().contains("another name of call 341 on arm"), "{error}");
}

/// What a program answers to every number, with arguments that each conditional rule tells apart.
fn answers(policy: &Policy) -> Vec<u32> {
    let program = policy.compile().unwrap();
    assert!(verify(&program));
    let mut answers = Vec::new();
    for arch in &policy.architectures {
        // The private calls of arm stand far above the others.
        for number in (0..600).chain(0xf_0000..0xf_0010) {
            for value in [0, 1, 16, 0x1000_0000, 0x5412] {
                let call = Call::new(*arch, number, [value; 6]);
                answers.push(run(&program, &call).0);
            }
        }
    }
    answers
}

#[test]
fn no_rule_is_dead() {
    // A rule that says what the default says anyway is there for the other default: the one that
    // records what would be refused.
    let audit = |mut policy: Policy| {
        policy.default = Action::Log;
        policy
    };
    let policies: Vec<_> = Architecture::ALL
        .into_iter()
        .flat_map(|arch| [Policy::default_for(arch), audit(Policy::default_for(arch))])
        .map(|policy| (answers(&policy), policy))
        .collect();
    for name in policies[0].1.rules.keys() {
        let matters = policies.iter().any(|(with, policy)| {
            let mut policy = policy.clone();
            // Two names of one call: only together do they matter.
            policy.rules.remove(name);
            if name == "sync_file_range2" {
                policy.rules.remove("arm_sync_file_range");
            } else if name == "arm_sync_file_range" {
                policy.rules.remove("sync_file_range2");
            }
            answers(&policy) != *with
        });
        assert!(matters, "{name}");
    }
}
