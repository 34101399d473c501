//! The root's own server, where the plan has one: a process that the supervisor forks while the box
//! is being made. It stays in the host's namespaces and never sees the box; what the box hands over
//! is all that it has of it. The supervisor itself must never touch what is served, or it could wait
//! for the process that it has to watch.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{getgid, getuid, pipe2};

use super::maker::tmpfs;
use super::message::{Channel, Message, hung_up};
use crate::error::{During, Error, Result};
use crate::index::LayerIndex;
use crate::overlay::{self, Lowers, Mounting, Owners, ReadOnly, Upper, Writable};
use crate::profile::Size;
use crate::rootfs::Overlay;
use crate::sandbox::Sandbox;
use crate::sys::clone::{self, Change, Child, Forked};
use crate::sys::fs::{self, Resolve};
use crate::sys::fuse;
use crate::sys::mount::Attributes;
use crate::sys::process::{self, CapSets};

/// How long a server that is ending may take for it.
const GRACE: Duration = Duration::from_secs(1);

/// How long a shared server may take to give a box its mount.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process, and what it says.
pub(super) struct Server {
    whose: Whose,
    /// Hangs up when it ends.
    life: Option<OwnedFd>,
    /// How it ended, once it has.
    ended: Option<Result<()>>,
}

/// Whether other boxes use it too.
enum Whose {
    Own {
        child: Child,
        channel: Channel,
        was_killed: bool,
    },
    /// As long as the connection is held, it serves.
    Shared {
        _connection: Channel,
        process: Option<OwnedFd>,
    },
}

/// Layers as a server takes them, the topmost first: each one's tree, and its index.
pub type Layers = Vec<(OwnedFd, LayerIndex)>;

/// How many files a server may have open, where it is allowed that many: it keeps those that were
/// used last.
const MOST_FILES: u64 = 16384;

/// Forks the server of these layers. What it needs of the box comes through `from`, whose other end
/// is the box's.
pub(super) fn serve_beside(
    layers: impl FnOnce() -> Result<Layers>,
    sandbox: &Sandbox,
    overlay: Overlay,
    from: Channel,
    scratch: Option<&Path>,
) -> Result<Server> {
    let (channel, theirs) = Channel::pair()?;
    let (life, its_life) = pipe2(OFlag::O_CLOEXEC).during("make", "a pipe")?;
    match clone::clone3(0).during("start", "the overlay's server")? {
        Forked::Parent(child) => {
            let whose = Whose::Own { child, channel, was_killed: false };
            Ok(Server { whose, life: Some(life), ended: None })
        }
        Forked::Child => {
            drop((channel, life));
            let served = serve(layers, sandbox, overlay, &from, &theirs, scratch, its_life);
            if let Err(error) = &served {
                // Without a supervisor there is nobody left to tell.
                let _nobody_left = theirs.write(&Message::failed(error));
            }
            clone::exit_now(i32::from(served.is_err()))
        }
    }
}

fn serve(
    layers: impl FnOnce() -> Result<Layers>,
    sandbox: &Sandbox,
    overlay: Overlay,
    from: &Channel,
    to: &Channel,
    scratch: Option<&Path>,
    life: OwnedFd,
) -> Result<()> {
    process::set_parent_death_signal(libc::SIGKILL).during("set", "the parent death signal")?;
    let lowers = begin(layers)?;
    let has_many = sandbox.identity.has_many();
    let owners = match has_many {
        true => Owners::Image,
        false => Owners::All(sandbox.identity.uid, sandbox.identity.gid),
    };
    let kept = [from.fd(), to.fd()];
    if overlay != Overlay::Fuse {
        let file_system = ReadOnly::new(lowers, owners);
        return overlay::serve(&file_system, &kept, Some(life), || device(from));
    }
    let both = match has_many {
        true => own_writable(scratch, sandbox.memory)?,
        false => match from.receive()? {
            Some((Message::Upper, Some(both))) => both,
            _ => return Err(Error::new("wait for the overlay's writable layer: none came")),
        },
    };
    let open = |name: &str| {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        fs::openat2(both.as_fd(), name, flags, 0, Resolve::BeneathNoSymlinks)
            .during("open directory", name)
    };
    // A writable layer is thrown away with its box.
    let upper = Upper {
        directory: open("upper")?,
        work: open("work")?,
        is_volatile: true,
        has_xattrs: sandbox.root.has_xattrs(),
    };
    drop(both);
    overlay::serve(&Writable::new(lowers, owners, upper)?, &kept, Some(life), || device(from))
}

/// The writable layer of a box with many ids: this process's own, which is the user and none of the
/// box's ids. On disk its files are the user's, whoever they belong to in the box; in memory it takes
/// a namespace of this process's own to have some.
fn own_writable(scratch: Option<&Path>, size: Size) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let both = match scratch {
        Some(path) => {
            fs::openat2(fs::cwd(), path, flags, 0, Resolve::NoSymlinks).at("open", path)?
        }
        None => {
            let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
                .during("make", "the namespace of the overlay's server")?;
            let write = |path: &str, text: String| std::fs::write(path, text).at("write", path);
            write("/proc/self/setgroups", "deny".to_owned())?;
            write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))?;
            write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))?;
            let memory = tmpfs(&size.to_string(), 0o700, Attributes::SAFE)?;
            process::set_capabilities(CapSets::default()).during("drop", "all capabilities")?;
            memory
        }
    };
    for name in ["upper", "work"] {
        mkdirat(&both, name, Mode::S_IRWXU | Mode::from_bits_truncate(0o055))
            .during("make directory", name)
            .map_err(|error| error.within("writable layer"))?;
    }
    Ok(both)
}

/// The device of a mount that exists by then.
pub(super) fn device(from: &Channel) -> Result<OwnedFd> {
    match from.receive()? {
        Some((Message::Device, Some(device))) => Ok(device),
        _ => Err(Error::new("wait for the overlay's device: none came")),
    }
}

/// What a server begins with, in its own process: its name, many open files, its layers.
pub(super) fn begin(layers: impl FnOnce() -> Result<Layers>) -> Result<Lowers> {
    process::set_name(c"casemate-layers").during("name", "the overlay's server")?;
    allow_files().during("raise", "the limit on open files")?;
    Lowers::new(layers()?)
}

fn allow_files() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(MOST_FILES).max(soft), hard)
}

/// Opens the device, in the user namespace of the mount.
pub(super) fn open_device() -> Result<OwnedFd> {
    fuse::open_device().at("open", "/dev/fuse").map_err(|error| {
        error.hint(
            "the overlay needs the device; in a box with one id `--overlay kernel` does without",
        )
    })
}

/// Mounts what the server shows: in the box, attached nowhere yet.
pub(super) fn mount(
    sandbox: &Sandbox,
    overlay: Overlay,
    device: Option<OwnedFd>,
    to: &Channel,
) -> Result<OwnedFd> {
    let device = match device {
        Some(device) => device,
        None => open_device()?,
    };
    let id = &sandbox.identity;
    // Root of the range mounts, for all of its ids.
    let (uid, gid) = if id.has_many() { (0, 0) } else { (id.uid, id.gid) };
    let how = Mounting { uid, gid, for_all: id.has_many(), read_only: overlay == Overlay::Hybrid };
    let mounted = overlay::mount(&device, &how).during("mount", "the FUSE overlay")?;
    // Nobody else may have it open: what waits for an answer is told when the server is gone.
    to.send(&Message::Device, Some(device.as_fd()))?;
    Ok(mounted)
}

/// Receives what a shared server shows: a mount of this box's own, attached nowhere yet. The
/// supervisor is told how to see the server's end.
pub(super) fn mount_shared(server: &Channel, supervisor: &Channel) -> Result<OwnedFd> {
    loop {
        let mut fds = [PollFd::new(server.fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout).is_ok_and(|count| count == 0) {
            return Err(Error::new("join the overlay's shared server: it does not answer")
                .hint("end it: pkill casemate-keeper; `--overlay kernel` does without it"));
        }
        match server.receive()? {
            Some((message @ (Message::Life | Message::Server), Some(fd))) => {
                supervisor.send(&message, Some(fd.as_fd()))?;
            }
            Some((Message::Merged, Some(mounted))) => return Ok(mounted),
            Some((message, _)) => {
                let other = || Error::new("join the overlay's shared server: it said nothing");
                return Err(message.into_error().unwrap_or_else(other).within("overlay server"));
            }
            None => {
                return Err(Error::new("join the overlay's shared server: it ended")
                    .hint("try again; `--overlay kernel` does without it"));
            }
        }
    }
}

impl Server {
    /// One that others use too, from the connection with it.
    pub(super) fn shared(connection: Channel) -> Server {
        Server {
            whose: Whose::Shared { _connection: connection, process: None },
            life: None,
            ended: None,
        }
    }

    /// The process, where it is the box's own.
    pub(super) fn own(&self) -> Option<i32> {
        match &self.whose {
            Whose::Own { child, .. } => Some(child.pid.as_raw()),
            Whose::Shared { .. } => None,
        }
    }

    /// What hangs up when it ends, where that is known only now.
    pub(super) fn watch(&mut self, life: OwnedFd) {
        self.life = Some(life);
    }

    /// The process, where it is another's and known only now.
    pub(super) fn know(&mut self, found: OwnedFd) {
        if let Whose::Shared { process, .. } = &mut self.whose {
            *process = Some(found);
        }
    }

    /// What hangs up, or is readable, once it has ended.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match (&self.ended, &self.whose) {
            (Some(_), _) => None,
            (None, Whose::Own { child, .. }) => Some(child.pidfd.as_fd()),
            (None, Whose::Shared { .. }) => self.life.as_ref().map(AsFd::as_fd),
        }
    }

    /// Ends it, where the box is to end: a process of the box that waits for an answer cannot even
    /// be killed before it has it, or the server is gone. One that others use answers.
    pub(super) fn kill(&mut self) {
        if let Whose::Own { child, was_killed, .. } = &mut self.whose {
            *was_killed = true;
            // ESRCH says that it has ended by itself.
            let _ended_already = clone::send_signal(&child.pidfd, libc::SIGKILL);
        }
    }

    /// Ends one that others use too, after all: it does not answer a box that was killed, nor them.
    pub(super) fn kill_hung(&self) {
        if let Whose::Shared { process: Some(process), .. } = &self.whose {
            // ESRCH says that it has ended by itself.
            let _ended_already = clone::send_signal(process, libc::SIGKILL);
        }
    }

    /// Whether it is another's to end.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.whose, Whose::Shared { .. })
    }

    /// Takes note of its end, which has come.
    pub(super) fn reap(&mut self) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        let Whose::Own { child, channel, was_killed } = &self.whose else {
            self.ended =
                Some(Err(Error::new("the overlay's shared server ended before its boxes")
                    .hint("out of memory, or killed from outside; the box lost its files by it")));
            return Ok(());
        };
        let change =
            clone::wait_for_end(&child.pidfd).during("wait for", "the overlay's server")?;
        let said = match change {
            // Its only holders were the server and those that were forked beside it.
            Change::Exited(code) if code != 0 => channel.receive()?,
            _ => None,
        };
        self.ended = Some(match (change, said.and_then(|(message, _)| message.into_error())) {
            (_, Some(error)) => Err(error.within("overlay server")),
            (Change::Exited(0), _) => Ok(()),
            (Change::Killed(_), _) if *was_killed => Ok(()),
            (Change::Killed(signal), _) => {
                Err(Error::new(format!("the overlay's server was ended by signal {signal}"))
                    .hint("out of memory, or killed from outside; the box lost its files by it"))
            }
            (Change::Exited(code), _) => {
                Err(Error::new(format!("the overlay's server ended with {code}")))
            }
            (Change::Stopped, _) => return Ok(()),
        });
        Ok(())
    }

    /// Ends it where it still serves: the program has ended, and nobody asks for files any more. It
    /// would end by itself with the last mount, but later.
    pub(super) fn release(&mut self) {
        if self.ended.is_some() || !self.is_alive() {
            return;
        }
        match self.whose {
            Whose::Own { .. } => self.kill(),
            // Where this was its last box, it ends from now on as it should.
            Whose::Shared { .. } => self.ended = Some(Ok(())),
        }
    }

    /// Whether it serves. A program that ended since its files were gone did so after this was false.
    fn is_alive(&self) -> bool {
        let Some(life) = &self.life else { return true };
        hung_up(life.as_fd()) == Ok(false)
    }

    /// Waits for its end, where it is the box's own, and says whether it came too early.
    pub(super) fn finish(mut self) -> Result<()> {
        self.release();
        if let (None, Whose::Own { child, .. }) = (&self.ended, &self.whose) {
            let mut fds = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::MAX);
            let ended = poll(&mut fds, timeout).is_ok_and(|count| count > 0);
            if !ended {
                self.kill();
            }
            self.reap()?;
        }
        self.ended.unwrap_or(Ok(()))
    }
}
