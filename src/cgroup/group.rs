//! One cgroup of the unified hierarchy: its directory, and what its files say and take
//! (Documentation/admin-guide/cgroup-v2.rst).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::limits::Controller;
use crate::error::{During, Error, Result};
use crate::sys::fs::{self, Resolve};

/// More than any file of a cgroup has that is read here.
const LIMIT: usize = 65536;

/// Where the unified hierarchy is mounted: at the usual place, or beside the old one.
pub fn mount() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|path| fs::is_cgroup2(path))
        .map(PathBuf::from)
}

/// The cgroup of this process, as a path below the mount (cgroups(7), "/proc/pid/cgroup").
pub(super) fn own() -> Result<PathBuf> {
    of("self")
}

/// The cgroup of a process, by its number or `self`.
pub(super) fn of(process: &str) -> Result<PathBuf> {
    let path = format!("/proc/{process}/cgroup");
    let text = std::fs::read(&path).at("read", &path)?;
    let own = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::/"));
    let own = own.ok_or_else(|| {
        Error::new("find the cgroup: this system has no unified hierarchy (cgroup v2)")
    })?;
    let own = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(own));
    // A process outside of the cgroup namespace shows as "/../…".
    if own.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Error::new(format!(
            "find the cgroup: {} is not below this cgroup namespace",
            own.display()
        )));
    }
    Ok(own)
}

/// An open cgroup.
#[derive(Debug)]
pub struct Group {
    directory: OwnedFd,
    /// For messages, and for those who look for it later.
    path: PathBuf,
}

/// What stands in `cgroup.events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Events {
    populated: bool,
    frozen: bool,
}

impl Group {
    /// Opens the cgroup at a path, which must be one of the unified hierarchy.
    pub fn open(path: &Path) -> Result<Group> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let directory =
            fs::openat2(fs::cwd(), path, flags, 0, Resolve::NoSymlinks).at("open cgroup", path)?;
        if !fs::is_cgroup2(path) {
            return Err(Error::new(format!("open cgroup {}: it is none", path.display())));
        }
        Ok(Group { directory, path: path.to_owned() })
    }

    /// Makes one below this one; one that is there is taken.
    pub fn child(&self, name: &str) -> Result<Group> {
        let path = self.path.join(name);
        match mkdirat(&self.directory, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(Error::os("make cgroup", path.display(), error)),
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let directory = fs::openat2(self.fd(), name, flags, 0, Resolve::BeneathNoSymlinks)
            .at("open cgroup", &path)?;
        Ok(Group { directory, path })
    }

    /// Its directory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a file of it says, without the line's end.
    pub fn read(&self, name: &str) -> Result<String> {
        let at = || self.path.join(name);
        let fd = fs::openat2(self.fd(), name, libc::O_RDONLY, 0, Resolve::BeneathNoSymlinks)
            .at("read", at())?;
        let mut bytes = vec![0; LIMIT];
        let mut length = 0;
        while length < bytes.len() {
            match nix::unistd::read(&fd, &mut bytes[length..]).at("read", at())? {
                0 => break,
                count => length += count,
            }
        }
        let text = str::from_utf8(&bytes[..length])
            .map_err(|_| Error::new(format!("read {}: not UTF-8", at().display())))?;
        Ok(text.trim_end().to_owned())
    }

    /// What a file says, where this kernel has it and its controller is here.
    pub fn read_if_there(&self, name: &str) -> Result<Option<String>> {
        match self.read(name) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a file of it, in one call as the kernel wants it.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let at = || self.path.join(name);
        let fd = fs::openat2(self.fd(), name, libc::O_WRONLY, 0, Resolve::BeneathNoSymlinks)
            .at("write", at())?;
        nix::unistd::write(&fd, text.as_bytes()).at("write", at()).map(drop)
    }

    /// The controllers that it has.
    pub fn controllers(&self) -> Result<Vec<Controller>> {
        Ok(Controller::list(&self.read("cgroup.controllers")?))
    }

    /// Gives controllers to those below it. `EBUSY` where processes are in it itself.
    pub fn enable_below(&self, controllers: &[Controller]) -> Result<()> {
        if controllers.is_empty() {
            return Ok(());
        }
        let words: Vec<String> =
            controllers.iter().map(|controller| format!("+{}", controller.name())).collect();
        self.write("cgroup.subtree_control", &words.join(" "))
    }

    /// Moves this process here.
    pub fn enter(&self) -> Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Moves a process here.
    pub fn add(&self, pid: i32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    fn events(&self) -> Result<Events> {
        let text = self.read("cgroup.events")?;
        let is = |line: &str| text.lines().any(|found| found == line);
        Ok(Events { populated: is("populated 1"), frozen: is("frozen 1") })
    }

    /// Whether a process is in it, or below it.
    pub fn is_populated(&self) -> Result<bool> {
        Ok(self.events()?.populated)
    }

    /// Whether it stands still.
    pub fn is_frozen(&self) -> Result<bool> {
        Ok(self.events()?.frozen)
    }

    /// Stops all its processes, or lets them go on, and waits until that is so.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        /// A process in an uninterruptible wait is not frozen before it returns.
        const PATIENCE: Duration = Duration::from_secs(5);
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        if self.wait(PATIENCE, |events| events.frozen == frozen)? {
            return Ok(());
        }
        if frozen {
            self.write("cgroup.freeze", "0")?;
        }
        let what = if frozen { "freeze" } else { "thaw" };
        Err(Error::new(format!("{what} {}: not done in time", self.path.display()))
            .hint("a process in it waits for a disk or a network file system"))
    }

    /// Ends every process in it, frozen ones too (Linux 5.14), and waits until they are gone. False
    /// where some are not.
    fn kill(&self) -> Result<bool> {
        const PATIENCE: Duration = Duration::from_secs(2);
        match self.write("cgroup.kill", "1") {
            Err(error) if error.errno() == Some(Errno::ENOENT) => self.kill_each()?,
            done => done?,
        }
        self.wait(PATIENCE, |events| !events.populated)
    }

    /// The same, where one that is left is an error.
    pub fn end(&self) -> Result<()> {
        if self.kill()? {
            return Ok(());
        }
        Err(Error::new(format!("end the box: processes in {} do not die", self.path.display()))
            .hint("they wait for a disk or a network file system, and end with that"))
    }

    /// As `cgroup.kill`, on kernels before it: frozen, so that none can fork meanwhile.
    fn kill_each(&self) -> Result<()> {
        self.write("cgroup.freeze", "1")?;
        for pid in self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()) {
            if pid > 0 {
                // Ended by itself.
                let _gone = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        self.write("cgroup.freeze", "0")
    }

    /// Waits until the events are as wanted: the kernel tells changes by POLLPRI.
    fn wait(&self, patience: Duration, wanted: impl Fn(Events) -> bool) -> Result<bool> {
        let deadline = Instant::now() + patience;
        let name = "cgroup.events";
        loop {
            let fd = fs::openat2(self.fd(), name, libc::O_RDONLY, 0, Resolve::BeneathNoSymlinks)
                .at("open", self.path.join(name))?;
            let mut byte = [0; 128];
            nix::unistd::read(&fd, &mut byte).at("read", self.path.join(name))?;
            if wanted(self.events()?) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // A change between the two reads is seen again soon.
            let timeout = PollTimeout::try_from(left.min(Duration::from_millis(50)))
                .unwrap_or(PollTimeout::ZERO);
            match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLPRI)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(Error::os("wait for", self.path.display(), error)),
            }
        }
    }

    /// Removes the one of this name below it, if it is there and empty.
    pub fn remove(&self, name: &str) -> Result<()> {
        match unlinkat(&self.directory, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(Error::os("remove cgroup", self.path.join(name).display(), error)),
        }
    }

    /// A number in a file; `max` is `None`, as is a file that is not there.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.read_if_there(name)?.and_then(|text| text.parse().ok()))
    }

    /// The number behind a word in a file of lines with a word and a number each.
    pub fn field(&self, name: &str, field: &str) -> Result<Option<u64>> {
        Ok(self.read_if_there(name)?.and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix(field)?.trim_start().parse().ok())
        }))
    }
}
