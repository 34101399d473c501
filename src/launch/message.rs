//! What the processes of a box tell the supervisor: one datagram a message, over a socket pair that
//! no program ever gets.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Exit, Result};

/// A message from the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The box's own pseudo-terminal; its master side comes along.
    Terminal,
    /// The box's network namespace; it comes along.
    Network,
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

/// One end of the pair.
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Both ends: the supervisor's and the box's.
    pub(super) fn pair() -> Result<(Channel, Channel)> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .during("make", "a socket pair")?;
        Ok((Channel(ours), Channel(theirs)))
    }

    /// The descriptor, to poll.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.0.as_fd()
    }

    /// Sends a message, with a descriptor where it carries one.
    pub(super) fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<()> {
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
        let raw: Vec<i32> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(&text)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .during("send to", "the supervisor")?;
        Ok(())
    }

    /// Tells a failure and ends this process, which is one of the box's.
    pub(super) fn fail(&self, error: &Error) -> ! {
        // With the supervisor gone there is nobody left to tell.
        let _nobody_left = self.send(&Message::failed(error), None);
        crate::sys::clone::exit_now(error.exit_code())
    }

    /// Receives a message, or `None` when every holder of the other end is gone.
    pub(super) fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>> {
        let mut buffer = vec![0u8; LIMIT];
        let mut control = nix::cmsg_space!([i32; 1]);
        let (length, fd) = loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Ok(received) => {
                    let mut fd = None;
                    for message in received.cmsgs().during("receive", "a descriptor")? {
                        if let ControlMessageOwned::ScmRights(fds) = message {
                            fd = fds.first().map(|raw| crate::sys::fs::adopt(*raw));
                        }
                    }
                    break (received.bytes, fd);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                Err(error) => return Err(Error::os("receive from", "the box", error)),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(&buffer[..length])
            .map_err(|error| Error::new(format!("decode a message: {error}")))?;
        Ok(Some((message, fd)))
    }
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
