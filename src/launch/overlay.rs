//! The root's own server, where the plan has one: a process that the supervisor forks while the box
//! is being made. It stays in the host's namespaces and never sees the box; what the box hands over
//! is all that it has of it. The supervisor itself must never touch what is served, or it could wait
//! for the process that it has to watch.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::maker::{Maker, out_of_order};
use super::message::{Channel, Message};
use crate::error::{During, Error, Result};
use crate::overlay::{self, Lowers, Mounting, Owners, ReadOnly};
use crate::rootfs::Overlay;
use crate::sandbox::Sandbox;
use crate::sys::clone::{self, Change, Child, Forked};
use crate::sys::fuse;

/// How long a server may take to notice that the box is gone. It is told by the kernel.
const GRACE: Duration = Duration::from_secs(1);

/// The process, and what it says.
pub(super) struct Server {
    child: Child,
    channel: Channel,
    /// How it ended, once it has.
    ended: Option<Result<()>>,
    was_killed: bool,
}

/// Forks the server of these layers. The device comes through `from`, whose other end is the box's.
pub(super) fn serve_beside(lowers: Lowers, sandbox: &Sandbox, from: Channel) -> Result<Server> {
    let (channel, theirs) = Channel::pair()?;
    match clone::clone3(0).during("start", "the overlay's server")? {
        Forked::Parent(child) => Ok(Server { child, channel, ended: None, was_killed: false }),
        Forked::Child => {
            drop(channel);
            let owners = Owners::All(sandbox.identity.uid, sandbox.identity.gid);
            let file_system = ReadOnly::new(lowers, owners);
            let kept = [from.fd(), theirs.fd()];
            let served = overlay::serve(&file_system, &kept, || receive(&from));
            if let Err(error) = &served {
                // Without a supervisor there is nobody left to tell.
                let _nobody_left = theirs.write(&Message::failed(error));
            }
            clone::exit_now(i32::from(served.is_err()))
        }
    }
}

fn receive(from: &Channel) -> Result<OwnedFd> {
    match from.receive()? {
        Some((Message::Device, Some(device))) => Ok(device),
        _ => Err(Error::new("wait for the overlay's device: none came")),
    }
}

/// Mounts what the server shows: in the box, attached nowhere yet.
pub(super) fn mount(sandbox: &Sandbox, overlay: Overlay, maker: &Maker<'_>) -> Result<OwnedFd> {
    let to = maker.overlay.ok_or_else(|| out_of_order("the overlay's server"))?;
    let device = fuse::open_device().at("open", "/dev/fuse").map_err(|error| {
        error.hint("the overlay needs the device; `--overlay kernel` does without")
    })?;
    let how = Mounting {
        uid: sandbox.identity.uid,
        gid: sandbox.identity.gid,
        for_all: false,
        read_only: overlay == Overlay::Hybrid,
    };
    let mounted = overlay::mount(&device, &how).during("mount", "the FUSE overlay")?;
    // Nobody else may have it open: what waits for an answer is told when the server is gone.
    to.send(&Message::Device, Some(device.as_fd()))?;
    Ok(mounted)
}

impl Server {
    /// Readable once it has ended.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// Whether its end was seen.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Ends it, where the box is to end: a process of the box that waits for an answer cannot even
    /// be killed before it has it, or the server is gone.
    pub(super) fn kill(&mut self) {
        self.was_killed = true;
        // ESRCH says that it has ended by itself.
        let _ended_already = clone::send_signal(&self.child.pidfd, libc::SIGKILL);
    }

    /// Takes note of its end, which has come.
    pub(super) fn reap(&mut self) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        let change =
            clone::wait_for_end(&self.child.pidfd).during("wait for", "the overlay's server")?;
        let said = match change {
            // Its only holders were the server and those that were forked beside it.
            Change::Exited(code) if code != 0 => self.channel.receive()?,
            _ => None,
        };
        self.ended = Some(match (change, said.and_then(|(message, _)| message.into_error())) {
            (_, Some(error)) => Err(error.within("overlay server")),
            (Change::Exited(0), _) => Ok(()),
            (Change::Killed(_), _) if self.was_killed => Ok(()),
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

    /// Waits for its end, which follows that of the box, and says whether it came too early.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.ended.is_none() {
            let mut fds = [PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
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
