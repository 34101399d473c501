//! Names to numbers: libseccomp's tables, and the calls that are newer than they.

use std::collections::BTreeSet;

use libseccomp::ScmpSyscall;

use super::Architecture;
use crate::error::Error;

/// Calls that libseccomp 2.5.4 (Debian 12, Ubuntu 24.04) may not know. Linux 5.1 made the numbers
/// from 424 on the same for every architecture (scripts/syscall.tbl).
const COMMON: [(&str, u32); 21] = [
    ("cachestat", 451),         // 6.5
    ("fchmodat2", 452),         // 6.6
    ("map_shadow_stack", 453),  // 6.6
    ("futex_wake", 454),        // 6.7
    ("futex_wait", 455),        // 6.7
    ("futex_requeue", 456),     // 6.7
    ("statmount", 457),         // 6.8
    ("listmount", 458),         // 6.8
    ("lsm_get_self_attr", 459), // 6.8
    ("lsm_set_self_attr", 460), // 6.8
    ("lsm_list_modules", 461),  // 6.8
    ("mseal", 462),             // 6.10
    ("setxattrat", 463),        // 6.13
    ("getxattrat", 464),        // 6.13
    ("listxattrat", 465),       // 6.13
    ("removexattrat", 466),     // 6.13
    ("open_tree_attr", 467),    // 6.15
    ("file_getattr", 468),      // 6.17
    ("file_setattr", 469),      // 6.17
    ("listns", 470),            // 6.19
    ("rseq_slice_yield", 471),  // 7.0
];

/// As [`COMMON`], for one architecture each.
const OWN: [(&str, Architecture, u32); 4] = [
    ("uretprobe", Architecture::X86_64, 335),      // 6.11
    ("uprobe", Architecture::X86_64, 336),         // 6.18
    ("riscv_hwprobe", Architecture::Riscv64, 258), // 6.4
    ("sync_file_range2", Architecture::Arm, 341),  // the newer name of arm_sync_file_range
];

/// i386 numbers of the calls that are also in socketcall(2) (recvmmsg and sendmmsg; the others since
/// Linux 4.3) and in ipc(2) (5.1). libseccomp answers these names with a negative number, its mark
/// for both ways at once.
const I386_DIRECT: [std::ops::RangeInclusive<i32>; 4] =
    [337..=337, 345..=345, 359..=373, 393..=402];

/// The number of a call, `None` where the architecture does not have it or nobody knows it.
pub fn resolve(name: &str, arch: Architecture) -> Option<u32> {
    if let Some(&(_, number)) = COMMON.iter().find(|(known, _)| *known == name) {
        return Some(number);
    }
    if let Some(&(.., number)) = OWN.iter().find(|(known, on, _)| *known == name && *on == arch) {
        return Some(number);
    }
    let call = ScmpSyscall::from_name_by_arch(name, arch.scmp()).ok()?;
    // Negative: libseccomp knows the name from another architecture.
    if let Ok(number) = u32::try_from(i32::from(call)) {
        return Some(number);
    }
    if arch != Architecture::I386 {
        return None;
    }
    I386_DIRECT
        .into_iter()
        .flatten()
        .find(|number| name_of(*number, arch).as_deref() == Some(name))
        .and_then(|number| u32::try_from(number).ok())
}

/// Fails for a name that no architecture has, with the nearest that one has.
pub(super) fn check(name: &str) -> Result<(), Error> {
    let known = COMMON.iter().any(|(known, _)| *known == name)
        || OWN.iter().any(|(known, ..)| *known == name)
        || ScmpSyscall::from_name_by_arch(name, Architecture::X86_64.scmp()).is_ok();
    if known {
        return Ok(());
    }
    let error = Error::new(format!("seccomp: there is no system call named {name:?}"));
    Err(match nearest(name) {
        Some(near) => error.hint(format!("did you mean {near:?}?")),
        None => error.hint("names are those of syscalls(2), without a prefix"),
    })
}

/// The number of an errno by its name (errno(3)).
pub fn errno(name: &str) -> Option<u16> {
    let name = match name {
        "EWOULDBLOCK" => "EAGAIN",
        "ENOTSUP" => "EOPNOTSUPP",
        "EDEADLOCK" => "EDEADLK",
        name => name,
    };
    // EHWPOISON is the last one of asm-generic/errno.h.
    (1..=133)
        .find(|number| format!("{:?}", nix::errno::Errno::from_raw(*number)) == name)
        .and_then(|number| u16::try_from(number).ok())
}

fn nearest(name: &str) -> Option<String> {
    all()
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, &known), known))
        .min()
        .filter(|(distance, known)| *distance <= 1.max(name.len().min(known.len()) / 3))
        .map(|(_, known)| known)
}

fn all() -> BTreeSet<String> {
    let listed = Architecture::ALL
        .into_iter()
        .flat_map(|arch| (0..512).filter_map(move |number| name_of(number, arch)));
    let supplement = COMMON.iter().map(|(name, _)| *name).chain(OWN.iter().map(|(name, ..)| *name));
    listed.chain(supplement.map(str::to_owned)).collect()
}

fn name_of(number: i32, arch: Architecture) -> Option<String> {
    ScmpSyscall::from(number).get_name_by_arch(arch.scmp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Architecture::*;

    #[test]
    fn numbers_differ_by_architecture_and_absent_is_none() {
        assert_eq!(
            Architecture::ALL.map(|arch| resolve("open", arch)),
            [Some(2), Some(5), None, Some(5), None]
        );
        assert_eq!(resolve("socketcall", X86_64), None);
        assert_eq!(resolve("socketcall", I386), Some(102));
        assert_eq!(resolve("nonsense", X86_64), None);
    }

    #[test]
    fn calls_that_libseccomp_multiplexes_have_their_direct_number() {
        assert_eq!(resolve("socket", I386), Some(359));
        assert_eq!(resolve("shutdown", I386), Some(373));
        assert_eq!(resolve("recvmmsg", I386), Some(337));
        assert_eq!(resolve("sendmmsg", I386), Some(345));
        assert_eq!(resolve("semget", I386), Some(393));
        assert_eq!(resolve("msgctl", I386), Some(402));
        // i386 never got a direct semop: glibc uses semtimedop_time64.
        assert_eq!(resolve("semop", I386), None);
    }

    #[test]
    fn newer_calls_come_from_the_supplement() {
        for arch in Architecture::ALL {
            assert_eq!(resolve("listns", arch), Some(470));
        }
        assert_eq!(resolve("uretprobe", X86_64), Some(335));
        assert_eq!(resolve("uretprobe", I386), None);
        assert_eq!(resolve("riscv_hwprobe", Riscv64), Some(258));
        assert_eq!(resolve("riscv_hwprobe", Aarch64), None);
    }

    #[test]
    fn the_supplement_agrees_with_libseccomp_where_both_know() {
        for arch in Architecture::ALL {
            for (name, number) in COMMON {
                if let Ok(theirs) = ScmpSyscall::from_name_by_arch(name, arch.scmp()) {
                    let theirs = i32::from(theirs);
                    assert!(theirs < 0 || u32::try_from(theirs) == Ok(number), "{name} on {arch}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_a_suggestion() {
        let error = check("opnat").unwrap_err();
        assert_eq!(error.to_string(), "seccomp: there is no system call named \"opnat\"");
        assert_eq!(error.hints(), ["did you mean \"openat\"?"]);
        assert_eq!(check("zzzzzzzz").unwrap_err().hints().len(), 1);
        assert!(check("a\0b").is_err());
    }

    #[test]
    fn a_name_of_another_architecture_is_no_error() {
        for name in ["socketcall", "riscv_hwprobe", "arm_fadvise64_64", "breakpoint", "vm86"] {
            assert!(check(name).is_ok(), "{name}");
        }
    }
}
