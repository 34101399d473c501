//! What the user should know of a machine although nothing failed.

use super::clues::{Around, Clues};
use super::diagnosis::{Finding, note};

/// A hole of the kernel that user namespaces lead to, by the releases that mend it, as they
/// were reported up to May 2026; never a proof that a kernel has no hole.
struct Hole {
    name: &'static str,
    /// The first release with the correction, of each branch that is known.
    mended: &'static [[u32; 3]],
}

const HOLES: [Hole; 3] = [
    Hole { name: "CVE-2026-31431 (Copy Fail)", mended: &[[6, 12, 85], [6, 18, 22]] },
    Hole { name: "CVE-2026-43284 (Dirty Frag)", mended: &[[6, 6, 138], [6, 12, 87], [6, 18, 28]] },
    Hole { name: "CVE-2023-0386 (overlayfs)", mended: &[[5, 15, 91], [6, 1, 9]] },
];

/// The notes.
pub(super) fn notes(clues: &Clues) -> Vec<Finding> {
    let mut notes = Vec::new();
    if !clues.groups.is_empty() {
        notes.push(note(
            "groups",
            format!(
                "you are in {}: programs in a box keep these groups, and can use files that are mounted and open to them",
                clues.groups.join(", ")
            ),
            "grant nothing that only such a group can read; with --userns=many the groups are gone",
        ));
    }
    if clues.tiocsti {
        notes.push(note(
            "tiocsti",
            "dev.tty.legacy_tiocsti is 1: programs outside of boxes can type into your terminal; boxes cannot",
            "switch it off, unless a program needs it",
        ).with("echo dev.tty.legacy_tiocsti=0 | sudo tee /etc/sysctl.d/60-tiocsti.conf && sudo sysctl --system"));
    }
    if let Some(scope @ 2..) = clues.ptrace_scope {
        notes.push(
            note(
                "yama",
                format!("kernel.yama.ptrace_scope is {scope}: no debugger works, in boxes neither"),
                "for debuggers: 1, which lets them trace what they started",
            )
            .with("sudo sysctl kernel.yama.ptrace_scope=1"),
        );
    }
    if clues.apparmor_restricts_unconfined {
        notes.push(note(
            "apparmor-unconfined",
            "kernel.apparmor_restrict_unprivileged_unconfined is 1: a profile is not left by changing to another that is less strict",
            "nothing; casemate does not need that",
        ));
    }
    if clues.around == Some(Around::Wsl2) && !clues.has_systemd {
        notes.push(note(
            "wsl2",
            "this is WSL 2 without systemd: there is no login session and no manager for limits of a box in total",
            "switch systemd on, then run wsl.exe --shutdown from Windows",
        ).with("printf '[boot]\\nsystemd=true\\n' | sudo tee -a /etc/wsl.conf"));
    }
    notes.extend(holes(&clues.release));
    notes
}

fn holes(release: &str) -> Option<Finding> {
    let version = version(release)?;
    let open = |hole: &&Hole| {
        hole.mended.iter().any(|first| version[..2] == first[..2] && version < *first)
    };
    let names: Vec<&str> = HOLES.iter().filter(open).map(|hole| hole.name).collect();
    if names.is_empty() {
        return None;
    }
    Some(note(
        "kernel-bugs",
        format!(
            "Linux {release} has a lower number than kernel.org's first release without {}. Distributions mend theirs without a higher number: ask yours",
            names.join(", ")
        ),
        "update the kernel, if your distribution has none of these mended in this one",
    ))
}

/// The three numbers of a release such as `6.12.38+deb13-amd64`.
fn version(release: &str) -> Option<[u32; 3]> {
    let mut parts = release.split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    });
    Some([parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_compared_with_its_own_branch() {
        assert_eq!(version("6.12.38+deb13-amd64"), Some([6, 12, 38]));
        assert_eq!(version("7.2-rc1"), Some([7, 2, 0]));
        assert_eq!(version("linux"), None);
        let named = |release| holes(release).map(|found| found.cause).unwrap_or_default();
        assert!(named("6.12.86").contains("Dirty Frag") && !named("6.12.86").contains("Copy"));
        assert!(named("6.1.8").contains("overlayfs"));
        for release in ["6.12.87", "6.13.0", "5.15.91-1", "7.2.0", "6.1.9"] {
            assert_eq!(named(release), "", "{release}");
        }
    }
}
