//! What the processes of a box tell the supervisor: one datagram a message, over a socket pair that
//! no program ever gets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Exit, Result};
use crate::sys::channel;

/// A message from the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The box's first process exists, in the namespace of a range; its pidfd comes along.
    Born {
        /// Its number.
        pid: i32,
    },
    /// The box's user namespace, whose ids are mapped; it comes along.
    Identity,
    /// The ids are mapped: go on.
    Mapped,
    /// The box is in its cgroup: go on.
    Placed,
    /// The box's own pseudo-terminal; its master side comes along.
    Terminal,
    /// The box's network namespace; it comes along.
    Network,
    /// The directory with the writable layer of an overlay whose server does that too: its `upper`
    /// and `work`; it comes along.
    Upper,
    /// The device of the overlay that was mounted in the box; it comes along.
    Device,
    /// A server is ready for the device.
    Ready,
    /// A clone of the mount of a shared server; it comes along.
    Merged,
    /// What hangs up when a shared server ends; it comes along.
    Life,
    /// The process of a shared server; its pidfd comes along.
    Server,
    /// The program's process exists; its pidfd comes along.
    Started,
    /// Something failed; nothing has run.
    Failed {
        /// 125, 126 or 127.
        exit: i32,
        /// What.
        message: String,
        /// What to change.
        hints: Vec<String>,
    },
    /// The program's process group stopped (Ctrl-Z).
    Stopped,
    /// The program ended by itself.
    Exited(i32),
    /// The program was ended by a signal.
    Killed(i32),
}

impl Message {
    /// An error on its way to the process that prints it.
    pub(super) fn failed(error: &Error) -> Message {
        Message::Failed {
            exit: error.exit_code(),
            message: error.to_string(),
            hints: error.hints().to_vec(),
        }
    }

    /// The error that was sent, if it was one.
    pub(super) fn into_error(self) -> Option<Error> {
        let Message::Failed { exit, message, hints } = self else { return None };
        let exit = match exit {
            126 => Exit::CannotExecute,
            127 => Exit::NotFound,
            _ => Exit::Failed,
        };
        Some(hints.into_iter().fold(Error::new(message).exit(exit), Error::hint))
    }
}

/// The longest message, in bytes; hints are a few lines.
const LIMIT: usize = 16384;

fn encode(message: &Message) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(message)
        .map_err(|error| Error::new(format!("encode a message: {error}")))?;
    if text.len() > LIMIT
        && let Message::Failed { exit, message, .. } = message
    {
        // Only an error can be long, by a name in it; its beginning says what matters. A
        // character takes six bytes of JSON at the most.
        let short = message.chars().take(LIMIT / 8).chain("…".chars()).collect();
        let short = Message::Failed { exit: *exit, message: short, hints: Vec::new() };
        text = serde_json::to_vec(&short)
            .map_err(|error| Error::new(format!("encode a message: {error}")))?;
    }
    Ok(text)
}

/// One end of the pair.
pub(super) struct Channel(channel::Channel);

impl Channel {
    /// Both ends: the supervisor's and the box's.
    pub(super) fn pair() -> Result<(Channel, Channel)> {
        let (ours, theirs) = channel::Channel::pair().during("make", "a socket pair")?;
        Ok((Channel(ours), Channel(theirs)))
    }

    /// The end at somebody whom others find by a name.
    pub(super) fn of(channel: channel::Channel) -> Channel {
        Channel(channel)
    }

    /// The same end again.
    pub(super) fn try_clone(&self) -> Result<Channel> {
        self.0.try_clone().map(Channel).during("duplicate", "a socket")
    }

    /// The descriptor, to poll.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends a message, with a descriptor where it carries one.
    pub(super) fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.0.send(&encode(message)?, fd.as_slice()).during("send to", "the supervisor")
    }

    /// As `send`, for a process whose filter knows no sendmsg(2).
    pub(super) fn write(&self, message: &Message) -> Result<()> {
        self.0.write(&encode(message)?).during("send to", "the supervisor")
    }

    /// Tells a failure and ends this process, which is one of the box's.
    pub(super) fn fail(&self, error: &Error) -> ! {
        // With the supervisor gone there is nobody left to tell.
        let _nobody_left = self.send(&Message::failed(error), None);
        crate::sys::clone::exit_now(error.exit_code())
    }

    /// Receives a message, or `None` when every holder of the other end is gone.
    pub(super) fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>> {
        let Some((bytes, fds)) = self.0.receive(LIMIT).during("receive from", "the box")? else {
            return Ok(None);
        };
        let message = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(format!("decode a message: {error}")))?;
        Ok(Some((message, fds.into_iter().next())))
    }
}

/// Whether nobody holds the other end of a socket or a pipe any more.
pub(super) fn hung_up(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn messages_and_descriptors_cross() {
        let (ours, theirs) = Channel::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        theirs.send(&Message::Started, Some(file.as_fd())).unwrap();
        let error = Error::new("x").hint("y").exit(Exit::NotFound);
        theirs.send(&Message::failed(&error), None).unwrap();
        let (message, fd) = ours.receive().unwrap().unwrap();
        assert_eq!(message, Message::Started);
        assert!(fd.is_some());
        let (message, fd) = ours.receive().unwrap().unwrap();
        assert!(fd.is_none());
        assert_eq!(message.into_error(), Some(error));
        drop(theirs);
        assert!(ours.receive().unwrap().is_none());
    }
}
