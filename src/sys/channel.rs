//! Datagrams with descriptors between two processes: `SOCK_SEQPACKET` (unix(7)), as a pair, or by a
//! name in a directory.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, socket, socketpair,
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

    /// Connects to a [`Listener`] that has this name in a directory. `ENOENT` and `ECONNREFUSED` say
    /// that nobody listens.
    pub fn connect(directory: impl AsFd, name: &str) -> io::Result<Channel> {
        let own = seqpacket(SockFlag::empty())?;
        connect(own.as_raw_fd(), &address(directory, name)?)?;
        Ok(Channel(own))
    }

    /// The same end again, by another descriptor.
    pub fn try_clone(&self) -> io::Result<Channel> {
        self.0.try_clone().map(Channel)
    }

    /// The user at the other end, when it connected.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.0, PeerCredentials)?.uid())
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

/// Waits for those who connect, close-on-exec.
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes a name in a directory, which nothing may have yet. `backlog` connections may wait.
    pub fn bind(directory: impl AsFd, name: &str, backlog: i32) -> io::Result<Listener> {
        let own = seqpacket(SockFlag::SOCK_NONBLOCK)?;
        bind(own.as_raw_fd(), &address(directory, name)?)?;
        listen(&own, Backlog::new(backlog)?)?;
        Ok(Listener(own))
    }

    /// Whoever waits, or `None` if nobody does.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        match accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(raw) => Ok(Some(Channel(fs::adopt(raw)))),
            Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn seqpacket(flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | flags;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// A name in a directory that is open. An address has room for 107 bytes, which a path may exceed.
fn address(directory: impl AsFd, name: &str) -> io::Result<UnixAddr> {
    let path = format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd());
    Ok(UnixAddr::new(path.as_str())?)
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
