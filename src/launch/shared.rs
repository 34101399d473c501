//! One server for all boxes of a user over the same layers, in hybrid mode: the layers are mapped, the
//! names looked up and the pages read once for all of them.
//!
//! The first box starts it: a process that serves, as a box's own server does, and its child, the
//! keeper, which has the mount in a user and a mount namespace of its own and gives each box a clone of
//! it (what the kernel wants is in [`overlay::mount`]). Boxes find the keeper by a socket in the user's
//! runtime directory. Each holds its connection as long as it runs. With the last connection the keeper
//! ends, with it the mount, and with that the server; there is no daemon.
//!
//! What all do with the socket's name is done under one lock, which nobody holds for long.

use std::convert::Infallible;
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::stat::fstatat;
use nix::unistd::{UnlinkatFlags, geteuid, pipe2, setsid, unlinkat};

use super::message::{Channel, Message};
use super::overlay::{self, Layers};
use super::{child, maker};
use crate::confine::landlock::{self, Access};
use crate::confine::seccomp::{Architecture, Policy};
use crate::error::{During, Error, Result};
use crate::overlay::{Lowers, Mounting, Owners, ReadOnly};
use crate::sandbox::Sandbox;
use crate::sys::channel::{self, Listener};
use crate::sys::clone::{self, Child, Forked};
use crate::sys::fs::{self, Resolve};
use crate::sys::{fuse, mount, process, seccomp};

/// The lock's name. It stays, so that all mean the same file.
const LOCK: &str = "lock";

/// How long the lock may be held by another: a few system calls are made with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many boxes may wait to be answered.
const BACKLOG: i32 = 512;

/// Where the boxes of a user meet.
pub struct Sharing {
    directory: OwnedFd,
    /// What they have in common: the socket's name.
    name: String,
}

impl Sharing {
    /// The place for a key, which names the layers, below the user's runtime directory. `None` where
    /// there is no such directory of the user's own, or the user's limits on time and memory would
    /// hit a server that others use as well: a box has a server of its own then.
    pub fn at(runtime: &Path, key: &str) -> Option<Sharing> {
        let is_free = |limit| getrlimit(limit).is_ok_and(|(_, hard)| hard == RLIM_INFINITY);
        if !(is_free(Resource::RLIMIT_CPU) && is_free(Resource::RLIMIT_AS)) {
            return None;
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let path = runtime.join("casemate/overlay");
        let open = || fs::openat2(fs::cwd(), &path, flags, 0, Resolve::NoSymlinks).ok();
        let directory = match open() {
            Some(directory) => directory,
            None => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).ok()?;
                open()?
            }
        };
        let stat = nix::sys::stat::fstat(&directory).ok()?;
        let is_own = stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0;
        is_own.then(|| Sharing { directory, name: key.to_owned() })
    }

    /// Connects with the server, or, where there is none, prepares one, which is to be started with
    /// [`Start::start`] at once: others wait for it meanwhile.
    pub(super) fn join(self) -> Result<(Channel, Option<Start>)> {
        let lock = self.lock()?;
        match channel::Channel::connect(&self.directory, &self.name) {
            Ok(connection) => Ok((Channel::of(connection), None)),
            // What is there was left behind by a keeper that was killed.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ECONNREFUSED)) =>
            {
                let (ours, first) = Channel::pair()?;
                Ok((ours, Some(Start { sharing: self, lock, first })))
            }
            Err(error) => Err(Error::os("connect to", "the overlay's shared server", &error)
                .hint("`--overlay kernel` does without it")),
        }
    }

    fn open_lock(&self) -> Result<File> {
        let flags = libc::O_RDWR | libc::O_CREAT;
        fs::openat2(self.directory.as_fd(), LOCK, flags, 0o600, Resolve::BeneathNoSymlinks)
            .map(File::from)
            .during("open", "the lock of shared servers")
    }

    /// Held until all copies of the descriptor are closed, those of forked processes too.
    fn lock(&self) -> Result<File> {
        let file = self.open_lock()?;
        self.wait_for(&file)?;
        Ok(file)
    }

    fn wait_for(&self, lock: &File) -> Result<()> {
        let since = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if since.elapsed() < PATIENCE => {}
                Err(error) => {
                    let error = std::io::Error::from(error);
                    return Err(Error::os("lock", "the place of shared servers", &error)
                        .hint("another casemate was stopped in the middle of its start")
                        .hint("`--overlay kernel` does without a server"));
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// What has the socket's name.
    fn found(&self) -> Option<(u64, u64)> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let stat = fstatat(&self.directory, self.name.as_str(), flags).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    fn remove(&self) {
        // Missing already, or it will be replaced by who finds nobody at it.
        let _gone = unlinkat(&self.directory, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}

/// A server that is to be started.
pub(super) struct Start {
    sharing: Sharing,
    lock: File,
    first: Channel,
}

impl Start {
    /// Forks the server, which forks the keeper. It outlives its parent, where others need it then.
    pub(super) fn start(
        self,
        layers: impl FnOnce() -> Result<Layers>,
        sandbox: &Sandbox,
    ) -> Result<Child> {
        match clone::clone3(0).during("start", "the overlay's shared server")? {
            Forked::Parent(child) => Ok(child),
            Forked::Child => clone::exit_now(i32::from(self.serve(layers, sandbox).is_err())),
        }
    }

    fn serve(
        self,
        layers: impl FnOnce() -> Result<Layers>,
        sandbox: &Sandbox,
    ) -> Result<Infallible> {
        // Outside of the box's namespaces the user is who they are.
        let (uid, gid) = (sandbox.identity.host_uid, sandbox.identity.host_gid);
        // Neither the terminal's signals nor its end are for a process that others use.
        setsid().during("leave", "the terminal")?;
        let Start { sharing, lock, first } = self;
        sharing.remove();
        let listener = Listener::bind(&sharing.directory, &sharing.name, BACKLOG)
            .during("listen for", "other boxes")?;
        let own_lock = sharing.open_lock()?;
        let (life, theirs) = pipe2(OFlag::O_CLOEXEC).during("make", "a pipe")?;
        let (to_keeper, to_server) = Channel::pair()?;
        let namespaces = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS).cast_unsigned().into();
        match clone::clone3(namespaces).during("make", "the namespaces of shared layers")? {
            Forked::Child => {
                drop((theirs, to_keeper, lock));
                let mut keeper = Keeper {
                    socket: sharing.found(),
                    sharing,
                    lock: own_lock,
                    listener,
                    server: to_server,
                    life,
                    process: None,
                    boxes: vec![first],
                };
                if let Err(error) = keeper.run(uid, gid) {
                    keeper.fail(&Message::failed(&error));
                }
                keeper.leave();
                clone::exit_now(0)
            }
            // It is not waited for: it ends before this process, or sees its end.
            Forked::Parent(_) => {
                drop((listener, life, to_server, first, lock, own_lock, sharing));
                let served = serve(layers, Owners::All(uid, gid), &to_keeper, theirs);
                if let Err(error) = &served {
                    // Without a keeper there is nobody left to tell.
                    let _nobody_left = to_keeper.write(&Message::failed(error));
                }
                // What it still owned is closed already.
                clone::exit_now(i32::from(served.is_err()))
            }
        }
    }
}

/// The server's part.
fn serve(
    layers: impl FnOnce() -> Result<Layers>,
    owners: Owners,
    keeper: &Channel,
    life: OwnedFd,
) -> Result<()> {
    process::set_name(c"casemate-layers").during("name", "the overlay's shared server")?;
    overlay::allow_files().during("raise", "the limit on open files")?;
    let file_system = ReadOnly::new(Lowers::new(layers()?)?, owners);
    crate::overlay::serve(&file_system, &[keeper.fd()], Some(life), || {
        keeper.send(&Message::Ready, None)?;
        overlay::device(keeper)
    })
}

/// Who has the mount.
struct Keeper {
    sharing: Sharing,
    /// Its own opening of the lock, which is not the starter's.
    lock: File,
    listener: Listener,
    /// What has the name as long as it is this keeper's.
    socket: Option<(u64, u64)>,
    server: Channel,
    /// Hangs up when the server ends.
    life: OwnedFd,
    /// The server, once it is known.
    process: Option<OwnedFd>,
    /// The connections of the boxes.
    boxes: Vec<Channel>,
}

impl Keeper {
    /// Runs until no box is left, or no server.
    fn run(&mut self, uid: u32, gid: u32) -> Result<()> {
        process::set_name(c"casemate-keeper").during("name", "the keeper of shared layers")?;
        let process = clone::parent().during("find", "the overlay's shared server")?;
        if hung_up(self.life.as_fd()) {
            return Err(no_server("ended"));
        }
        self.process = Some(process);
        child::write_id_maps(&format!("{uid} {uid} 1\n"), &format!("{gid} {gid} 1\n"))?;
        let mounted = self.mount(uid, gid)?;
        self.confine(&mounted)?;
        match self.server.receive()? {
            Some((Message::Ready, _)) => {}
            Some((message, _)) => {
                return Err(message.into_error().unwrap_or_else(|| no_server("said nothing")));
            }
            None => return Err(no_server("ended")),
        }
        if let Some(first) = self.boxes.first() {
            self.answer(first, &mounted)?;
        }
        loop {
            self.wait()?;
            let is_over = hung_up(self.server.fd());
            while let Some(next) = self.listener.accept().during("accept", "a box")? {
                if !is_over {
                    self.admit(next, uid, &mounted);
                }
            }
            self.boxes.retain(|held| !is_over && !hung_up(held.fd()));
            // Nobody connects while the lock is held, so that nobody is left without an answer.
            if self.boxes.is_empty() && self.lock.try_lock().is_ok() {
                match self.listener.accept().during("accept", "a box")? {
                    Some(next) if !is_over => self.admit(next, uid, &mounted),
                    _ => return Ok(()),
                }
                self.lock.unlock().during("unlock", "the place of shared servers")?;
            }
        }
    }

    /// Ends the server, and gives the name up, unless another keeper has taken it since this one did
    /// not answer.
    fn leave(&self) {
        let is_own = || self.sharing.found() == self.socket;
        // What nobody listens at is replaced by the next, too.
        if self.sharing.wait_for(&self.lock).is_ok() && is_own() {
            self.sharing.remove();
        }
        // It would end by itself with the last mount, unless it was stopped.
        if let Some(process) = &self.process {
            // ESRCH says that it has ended.
            let _ended_already = clone::send_signal(process, libc::SIGKILL);
        }
    }

    /// Mounts what the server shows, where clones can be made of it, and gives the server the device.
    fn mount(&self, uid: u32, gid: u32) -> Result<OwnedFd> {
        let device = fuse::open_device().at("open", "/dev/fuse")?;
        let how = Mounting { uid, gid, for_all: false, read_only: true };
        let mounted = crate::overlay::mount(&device, &how).during("mount", "the merged layers")?;
        self.server.send(&Message::Device, Some(device.as_fd()))?;
        mount::attach(&mounted, maker::any_directory()?).during("attach", "the merged layers")?;
        Ok(mounted)
    }

    fn confine(&self, mounted: &OwnedFd) -> Result<()> {
        let boxes = self.boxes.iter().map(Channel::fd);
        let process = self.process.iter().map(AsFd::as_fd);
        let own = [
            self.sharing.directory.as_fd(),
            self.listener.as_fd(),
            self.server.fd(),
            self.life.as_fd(),
            mounted.as_fd(),
            self.lock.as_fd(),
        ];
        crate::overlay::give_up(own.into_iter().chain(boxes).chain(process), None)?;
        landlock::restrict_files_to([(self.sharing.directory.as_fd(), Access::Write)])?;
        let filter = Policy::for_keeper(Architecture::native()).compile()?;
        seccomp::load(&filter).during("load", "the keeper's seccomp filter")
    }

    /// Waits for anything; not long where no box is left and the lock was another's.
    fn wait(&self) -> Result<()> {
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.server.fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.boxes.iter().map(|held| PollFd::new(held.fd(), PollFlags::empty())));
        let timeout =
            if self.boxes.is_empty() { PollTimeout::from(1u8) } else { PollTimeout::NONE };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::os("wait for", "boxes", errno)),
        }
    }

    /// Whoever can get to the socket is the user, by the directory's mode; this is the second look.
    fn admit(&mut self, next: channel::Channel, uid: u32, mounted: &OwnedFd) {
        let is_own = next.peer_uid().is_ok_and(|peer| peer == uid);
        let next = Channel::of(next);
        // Whoever is gone already needs no answer, and whoever gets none is told by the end of the
        // connection.
        if is_own && self.answer(&next, mounted).is_ok() {
            self.boxes.push(next);
        }
    }

    fn answer(&self, to: &Channel, mounted: &OwnedFd) -> Result<()> {
        match mount::clone_tree(mounted.as_fd(), c"", false) {
            Ok(clone) => {
                to.send(&Message::Life, Some(self.life.as_fd()))?;
                to.send(&Message::Server, self.process.as_ref().map(AsFd::as_fd))?;
                to.send(&Message::Merged, Some(clone.as_fd()))
            }
            Err(error) => {
                let error = Error::os("clone the mount of", "the merged layers", &error);
                to.send(&Message::failed(&error), None)
            }
        }
    }

    /// Tells those that wait.
    fn fail(&self, message: &Message) {
        for waiting in &self.boxes {
            // Whoever is gone need not know.
            let _gone = waiting.send(message, None);
        }
    }
}

fn no_server(what: &str) -> Error {
    Error::new(format!("start the overlay's shared server: it {what}"))
}

fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}
