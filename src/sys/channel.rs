//! Datagrams with descriptors between two processes: a `SOCK_SEQPACKET` pair (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use super::fs;

/// The most descriptors that one datagram carries here.
const MAX_FDS: usize = 3;

/// One end of a pair, close-on-exec.
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Channel(one), Channel(other)))
    }

    /// Sends one datagram, with at most three descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let parts = [IoSlice::new(bytes)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &parts, control, flags, None)?;
        Ok(())
    }

    /// As [`Channel::send`] without descriptors, by write(2): for a process that has no other call
    /// left. With the other end gone, SIGPIPE ends it.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.0, bytes)?;
        Ok(())
    }

    /// Receives one datagram of at most `limit` bytes and its descriptors, or `None` when every
    /// holder of the other end is gone.
    pub fn receive(&self, limit: usize) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut buffer = vec![0u8; limit];
        let mut control = nix::cmsg_space!([i32; MAX_FDS]);
        let (length, fds) = loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Ok(received) => {
                    let mut fds = Vec::new();
                    for message in received.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(raw) = message {
                            fds.extend(raw.into_iter().map(fs::adopt));
                        }
                    }
                    break (received.bytes, fds);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        buffer.truncate(length);
        Ok(Some((buffer, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
