//! /dev: a directory of the box's own with six device nodes of the host, a devpts instance of its
//! own and shared memory of its own. What an image has at this name is covered, never used
//! (CVE-2025-31133, CVE-2025-52565).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat};
use nix::unistd::symlinkat;

use super::maker::{Maker, attach_clone};
use super::place::{self, Last};
use crate::error::{During, Error, Result};
use crate::sys::fs;
use crate::sys::mount::{self, Attributes, Context};

/// The nodes with their device numbers (the kernel's devices.txt).
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// How many pseudo-terminals a box can have; the host's total is /proc/sys/kernel/pty/max.
const PTY_LIMIT: &std::ffi::CStr = c"512";

pub(super) fn make(maker: &mut Maker<'_>, target: &Path) -> Result<()> {
    let dev = maker.new_directory(0o755)?.fd;
    for (name, to) in LINKS {
        symlinkat(to, &dev, name).at("make link", target.join(name))?;
    }
    for name in ["pts", "shm"] {
        mkdirat(&dev, name, Mode::from_bits_truncate(0o755)).at("make", target.join(name))?;
    }
    for (name, ..) in NODES {
        mknodat(&dev, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)
            .at("make", target.join(name))?;
    }
    let place = place::directory(maker.root()?, target, 0o755, Last::Refuse)?;
    // Read-only as a directory: nodes, terminals and shared memory are mounts of their own.
    let attributes = Attributes::SAFE.and(Attributes::RDONLY).and(Attributes::NOEXEC);
    attach_clone(dev.as_fd(), place.as_fd(), attributes, target)?;
    // The place is covered now: go on in what covers it.
    let dev = place::directory(maker.root()?, target, 0o755, Last::Refuse)?;

    for (name, major, minor) in NODES {
        let node = node(name, makedev(major, minor))?;
        mount::attach_at(&node, &dev, &c_name(name)?).at("mount at", target.join(name))?;
    }
    let pts = Context::open(c"devpts").during("open", "devpts")?;
    for (key, value) in [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"max", PTY_LIMIT)] {
        pts.set(key, value).during("set devpts option", key.to_str().unwrap_or("?"))?;
    }
    let pts = pts.mount(Attributes::NOSUID.and(Attributes::NOEXEC)).during("make", "a devpts")?;
    mount::attach_at(pts, &dev, c"pts").at("mount at", target.join("pts"))?;

    let shm = maker.new_directory(0o1777)?.fd;
    let shm = mount::clone_tree(shm.as_fd(), c"", false).at("clone for", target.join("shm"))?;
    mount::set_attributes(shm.as_fd(), Attributes::SAFE.and(Attributes::NOEXEC), false, false)
        .at("set attributes for", target.join("shm"))?;
    mount::attach_at(shm, &dev, c"shm").at("mount at", target.join("shm"))
}

/// A mount of a device of the host, which must be the very device of that name.
fn node(name: &str, rdev: u64) -> Result<OwnedFd> {
    let path = Path::new("/dev").join(name);
    let node = mount::clone_tree(fs::cwd(), &c_name(&path)?, false).at("open", &path)?;
    mount::set_attributes(node.as_fd(), Attributes::NOSUID.and(Attributes::NOEXEC), false, false)
        .at("set the attributes of", &path)?;
    let identity = fs::identity(&node).at("stat", &path)?;
    if identity.kind != libc::S_IFCHR || identity.rdev != rdev {
        return Err(Error::new(format!("{} is not the device of that name", path.display())));
    }
    Ok(node)
}

fn c_name(name: impl AsRef<Path>) -> Result<std::ffi::CString> {
    fs::c_path(name.as_ref()).at("name", name)
}
