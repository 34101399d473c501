//! /proc: the processes of the box's own PID namespace, and of the host what programs need. What
//! speaks of the host or changes it is masked or read-only, as the OCI runtimes do it.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::maker::{Maker, attach_clone};
use super::place::{self, Last};
use crate::error::{During, Error, Result};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Context};

/// Covered by an empty file or directory (runtime-spec's and containers/common's lists).
const MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// Readable and no more.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

pub(super) fn make(maker: &mut Maker<'_>, target: &Path) -> Result<()> {
    // An image may have anything here, links among it; it is covered, or the run is refused
    // (CVE-2019-16884, CVE-2025-52881).
    let place = place::directory(maker.root()?, target, 0o555, Last::Refuse)?;
    let context = Context::open(c"proc").during("open", "proc")?;
    // PID 1 and whatever else may not be traced is not even listed.
    context.set(c"hidepid", c"invisible").during("set proc option", "hidepid")?;
    let attributes = Attributes::SAFE.and(Attributes::NOEXEC);
    let proc = context.mount(attributes).at("mount proc at", target).map_err(|error| {
        error.hint("a container that masks its /proc forbids a fresh one: docker's --security-opt systempaths=unconfined, podman's unmask=ALL; `casemate doctor` tells more")
    })?;
    mount::attach(&proc, &place).at("mount proc at", target)?;

    let empty_dir = maker.new_directory(0o555)?.fd;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDONLY;
    let empty_file =
        fs::openat2(maker.memory()?, "empty", flags, 0o444, Resolve::BeneathNoSymlinks)
            .during("make", "an empty file")?;
    for name in MASKED {
        let Some(found) = find(proc.as_fd(), name, target)? else { continue };
        let is_dir = fs::identity(&found).at("stat", target.join(name))?.is_dir();
        let cover = if is_dir { empty_dir.as_fd() } else { empty_file.as_fd() };
        let attributes = attributes.and(Attributes::RDONLY);
        attach_clone(cover, found.as_fd(), attributes, &target.join(name))?;
    }
    Ok(())
}

/// Forbids user namespaces below the box's own: `ENOSPC`, whatever the filter says. Then closes
/// the tree of settings to all that comes after.
pub(super) fn lock_user_namespaces(root: BorrowedFd<'_>) -> Result<()> {
    let path = "proc/sys/user/max_user_namespaces";
    let fd = fs::openat2(root, path, libc::O_WRONLY, 0, Resolve::InRoot)
        .at("open", Path::new("/").join(path))?;
    nix::unistd::write(&fd, b"0").at("write", Path::new("/").join(path)).map(drop)
}

/// Makes read-only what of /proc changes the host or the box's own namespaces.
pub(super) fn close_settings(root: BorrowedFd<'_>) -> Result<()> {
    let target = Path::new("/proc");
    let proc = fs::openat2(root, "proc", libc::O_PATH, 0, Resolve::InRoot).at("open", target)?;
    for name in READ_ONLY {
        let Some(found) = find(proc.as_fd(), name, target)? else { continue };
        let attributes = Attributes::SAFE.and(Attributes::NOEXEC).and(Attributes::RDONLY);
        attach_clone(found.as_fd(), found.as_fd(), attributes, &target.join(name))?;
    }
    Ok(())
}

fn find(proc: BorrowedFd<'_>, name: &str, target: &Path) -> Result<Option<std::os::fd::OwnedFd>> {
    match fs::openat2(proc, name, libc::O_PATH, 0, Resolve::BeneathNoSymlinks) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(Error::os("open", target.join(name).display(), &error)),
    }
}
