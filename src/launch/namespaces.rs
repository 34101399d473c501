//! Which namespaces a box has of its own, and why it cannot have them.

use crate::error::Error;
use crate::sandbox::Sandbox;

/// All but the network's, which is made beside. The kernel makes the user namespace first, so that
/// it owns the others (clone(2)).
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS)
    .cast_unsigned() as u64;

/// Those of a box. The one of cgroups is made where its root is to be: by the box in a scope, once it
/// is there.
pub(super) fn namespaces(sandbox: &Sandbox) -> u64 {
    match sandbox.has_scope() {
        true => NAMESPACES,
        false => NAMESPACES | u64::from(libc::CLONE_NEWCGROUP.cast_unsigned()),
    }
}

pub(super) fn no_namespaces(error: &std::io::Error) -> Error {
    let failed = Error::os("make", "the box's namespaces", error);
    let cause = match error.raw_os_error() {
        // strerror's "No space left on device" would send people to their disks.
        Some(libc::ENOSPC | libc::EUSERS) => {
            "user namespaces are used up or forbidden: see /proc/sys/user/max_user_namespaces"
        }
        Some(libc::EPERM | libc::EACCES) => "the system forbids unprivileged user namespaces",
        Some(libc::EAGAIN) => "too many processes: see `ulimit -u`",
        _ => return failed,
    };
    failed.hint(cause).hint("`casemate doctor` tries each step and names what to change")
}
