//! Which overlays can be had here, found out by trying, as containers/storage does it: settings and
//! versions of a kernel do not tell.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::doctor::{Outcome, maps, private_mounts, tmpfs, write};
use crate::sys::clone::{self, Change, Forked};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Context};
use crate::sys::{fuse, process};

/// Whether /dev/fuse opens.
pub fn fuse_device() -> Outcome {
    outcome(fuse::open_device().map(drop))
}

fn outcome(result: io::Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Works,
        Err(error) => Outcome::Fails(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// What makes a trial's result hold: this kernel, this file system of the store, and where the
/// writable layer is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    path: PathBuf,
    text: String,
}

impl Note {
    /// The note for the store below `data_home`. It lies in casemate's own directory, which no box
    /// may write to, whatever it was granted; a cache directory could be granted.
    pub fn of(data_home: &Path, in_memory: bool) -> io::Result<Note> {
        let home = data_home.join("casemate");
        let identity = fs::identity(fs::open_path(home.join("store"))?)?;
        let kernel = nix::sys::utsname::uname()?;
        let mut text = String::new();
        for part in [kernel.release(), kernel.version()] {
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "{}", crate::text::plain(part.as_bytes()));
        }
        let place = if in_memory { "memory" } else { "disk" };
        let _infallible = writeln!(text, "store {:x}, writes to {place}", identity.dev);
        Ok(Note { path: home.join("overlayfs-works"), text })
    }

    /// Whether overlayfs worked before, with all else as it is now. That it did not is never noted:
    /// whoever mends it shall not have to find a note.
    pub fn is_there(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|text| text == self.text.as_bytes())
    }

    /// Writes it. Without it the next run tries again.
    pub fn leave(&self) {
        let _tried_again = std::fs::write(&self.path, &self.text);
    }
}

/// Mounts an overlay of two layers in `place`, an empty directory of the store's file system, in
/// namespaces of its own. The writable layer is there too, or in memory.
pub fn try_overlayfs(place: &Path, in_memory: bool) -> io::Result<Outcome> {
    /// The exit code of a trial that did not come as far as the overlay; no errno is as large.
    const NOT_TRIED: i32 = 200;
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let namespaces = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS).cast_unsigned();
    let child = match clone::clone3(namespaces.into()) {
        // A box cannot be made either, and says more about it.
        Err(_) => return Ok(Outcome::NotTried),
        Ok(Forked::Parent(child)) => child,
        Ok(Forked::Child) => {
            let prepared = || {
                process::set_parent_death_signal(libc::SIGKILL)?;
                write("/proc/self/setgroups", "deny")?;
                maps(uid, gid)?;
                private_mounts()?;
                // Opened here: a layer has to be in a mount of this namespace. And before anything
                // covers it.
                let place = fs::open_path(place)?;
                if in_memory {
                    tmpfs().map(|memory| (place, Some(memory)))
                } else {
                    Ok((place, None))
                }
            };
            let code = match prepared() {
                Err(_) => NOT_TRIED,
                Ok((layers, memory)) => match assemble(&layers, memory.as_ref().unwrap_or(&layers))
                {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
                },
            };
            clone::exit_now(code)
        }
    };
    Ok(match clone::wait_for_end(&child.pidfd)? {
        Change::Exited(0) => Outcome::Works,
        Change::Exited(errno) if errno != NOT_TRIED => Outcome::Fails(errno),
        _ => Outcome::NotTried,
    })
}

/// Makes two layers and an overlay of them, and does what programs do that an overlay may fail at:
/// a whiteout hides, an entry of a layer is removed, a directory is made anew over a removed one,
/// which has to be marked as opaque by an attribute.
pub(super) fn assemble(layers: &OwnedFd, writable: &OwnedFd) -> io::Result<()> {
    let all = Mode::from_bits_truncate(0o755);
    for name in ["first", "second", "first/d", "first/d/below"] {
        mkdirat(layers, name, all)?;
    }
    for name in ["upper", "work", "merged"] {
        mkdirat(writable, name, all)?;
    }
    mkdirat(layers, "first/hidden", all)?;
    mknodat(layers, "second/hidden", SFlag::S_IFCHR, Mode::empty(), 0)?;
    let merged = match by_fsconfig(layers, writable) {
        // Before Linux 6.8, fsconfig(2) takes no layers one by one.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => by_mount(layers, writable)?,
        made => made?,
    };
    let is_absent = |path: &str| match open_below(&merged, path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::from(Errno::ENOTSUP)),
    };
    is_absent("hidden")?;
    unlinkat(&merged, "d/below", UnlinkatFlags::RemoveDir)?;
    unlinkat(&merged, "d", UnlinkatFlags::RemoveDir)?;
    mkdirat(&merged, "d", all)?;
    is_absent("d/below")
}

fn open_below(directory: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    fs::openat2(directory.as_fd(), name, libc::O_PATH, 0, Resolve::BeneathNoSymlinks)
}

fn by_fsconfig(layers: &OwnedFd, writable: &OwnedFd) -> io::Result<OwnedFd> {
    let context = Context::open(c"overlay")?;
    for (key, base, name) in [
        (c"lowerdir+", layers, "second"),
        (c"lowerdir+", layers, "first"),
        (c"upperdir", writable, "upper"),
        (c"workdir", writable, "work"),
    ] {
        // Named by its number, so it must stay open until it has been looked up.
        let directory = open_below(base, name)?;
        context.set(key, &mount::descriptor_path(&directory))?;
    }
    context.flag(c"userxattr")?;
    context.mount(Attributes::SAFE)
}

fn by_mount(layers: &OwnedFd, writable: &OwnedFd) -> io::Result<OwnedFd> {
    let at = |base: &OwnedFd, name: &str| {
        let base = mount::descriptor_path(base);
        Path::new(OsStr::from_bytes(base.as_bytes())).join(name).display().to_string()
    };
    let data = format!(
        "lowerdir={}:{},upperdir={},workdir={},userxattr",
        at(layers, "second"),
        at(layers, "first"),
        at(writable, "upper"),
        at(writable, "work")
    );
    mount::mount_overlay(&fs::c_path(at(writable, "merged"))?, &fs::c_path(&data)?)?;
    open_below(writable, "merged")
}
