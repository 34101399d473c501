//! A connection to a D-Bus peer over a UNIX socket: the user's systemd itself, or the session bus.
//! Every wait has an end, and the peer must be the user's own: an environment variable that leads to
//! another user's bus would hand that user the box.

use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, getsockopt,
    sendmsg, socket, sockopt,
};

use super::wire::{self, Call, Kind, Message};
use crate::error::{During, Error, Result};

/// Where a peer listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// At a path.
    Path(std::path::PathBuf),
    /// By an abstract name.
    Abstract(Vec<u8>),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Path(path) => write!(f, "{}", path.display()),
            Address::Abstract(name) => write!(f, "@{}", crate::text::plain(name)),
        }
    }
}

/// The addresses in `$DBUS_SESSION_BUS_ADDRESS` that are UNIX sockets (D-Bus Specification, "Server
/// Addresses"); others are passed over.
pub(super) fn addresses(text: &OsStr) -> Vec<Address> {
    let entries = text.as_bytes().split(|byte| *byte == b';');
    let unix = entries.filter_map(|entry| entry.strip_prefix(b"unix:"));
    unix.filter_map(|keys| {
        keys.split(|byte| *byte == b',').find_map(|pair| {
            if let Some(path) = pair.strip_prefix(b"path=") {
                return Some(Address::Path(OsStr::from_bytes(&unescape(path)?).into()));
            }
            Some(Address::Abstract(unescape(pair.strip_prefix(b"abstract=")?)?))
        })
    })
    .collect()
}

/// `%` and two hexadecimal digits are a byte.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push(u8::try_from(16 * high + low).ok()?);
    }
    (!bytes.contains(&0)).then_some(bytes)
}

/// A connection.
pub(super) struct Bus {
    socket: OwnedFd,
    /// What was read and is not yet a whole message.
    buffer: Vec<u8>,
    serial: u32,
    /// Whom calls are for, where a bus stands between.
    destination: &'static str,
    /// Who listens there.
    peer: i32,
}

impl Bus {
    /// Connects, and sends the greeting. Before anything else is sent, [`Bus::greeted`] is called.
    pub(super) fn open(address: &Address, deadline: Instant) -> Result<Bus> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .during("make", "a socket")?;
        let to = match address {
            Address::Path(path) => UnixAddr::new(path.as_path()),
            Address::Abstract(name) => UnixAddr::new_abstract(name),
        }
        .during("connect to", address)?;
        // A full backlog is EAGAIN here, where a blocking socket would wait without an end.
        connect(socket.as_raw_fd(), &to).during("connect to", address)?;
        let peer = getsockopt(&socket, sockopt::PeerCredentials)
            .during("ask for the owner of", address)?;
        let uid = nix::unistd::geteuid().as_raw();
        if peer.uid() != uid {
            return Err(Error::new(format!(
                "connect to {address}: it belongs to user {}, not to you ({uid})",
                peer.uid()
            )));
        }
        let peer = peer.pid();
        let mut bus = Bus { socket, buffer: Vec::new(), serial: 0, destination: "", peer };
        // EXTERNAL with the user's id, and the passing of descriptors; the peer answers each line.
        let id: String = uid.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        let lines = format!("\0AUTH EXTERNAL {id}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n");
        bus.send(lines.as_bytes(), &[], deadline).map_err(|error| error.within(address))?;
        Ok(bus)
    }

    /// Waits for the answer to the greeting.
    pub(super) fn greeted(&mut self, deadline: Instant) -> Result<()> {
        for expected in ["OK ", "AGREE_UNIX_FD"] {
            let line = self.line(deadline)?;
            if !line.starts_with(expected.as_bytes()) {
                return Err(Error::new(format!(
                    "greet: the answer is \"{}\" where \"{}\" belongs",
                    crate::text::plain(&line),
                    expected.trim_end()
                )));
            }
        }
        Ok(())
    }

    /// As a client of a message bus, with the manager behind it.
    pub(super) fn hello(&mut self, destination: &'static str, deadline: Instant) -> Result<()> {
        let bus = "org.freedesktop.DBus";
        let call = Call {
            destination: bus,
            path: "/org/freedesktop/DBus",
            interface: bus,
            member: "Hello",
            signature: "",
            body: wire::Writer::default(),
            descriptors: 0,
        };
        self.call(call, deadline)?;
        self.destination = destination;
        Ok(())
    }

    /// Whom calls are for: empty on a direct connection.
    pub(super) fn destination(&self) -> &'static str {
        self.destination
    }

    /// The process that listens at the other end; 0 where it is not seen from here.
    pub(super) fn peer(&self) -> i32 {
        self.peer
    }

    /// What is readable once something has come.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn line(&mut self, deadline: Instant) -> Result<Vec<u8>> {
        /// dbus-daemon's own limit is 16 KiB; its lines have some 40 bytes.
        const LINE: usize = 512;
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(line);
            }
            if self.buffer.len() > LINE {
                return Err(Error::new("greet: a line does not end"));
            }
            self.fill(deadline)?;
        }
    }

    /// Sends a call with the descriptors that it carries; its answer has the serial number that is
    /// returned.
    pub(super) fn begin(
        &mut self,
        call: Call<'_>,
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<u32> {
        self.serial += 1;
        let bytes = call.encode(self.serial);
        self.send(&bytes, fds, deadline)?;
        Ok(self.serial)
    }

    /// Sends a call and waits for its answer; signals meanwhile are passed over.
    pub(super) fn call(&mut self, call: Call<'_>, deadline: Instant) -> Result<Message> {
        let what = call.member.to_owned();
        let serial = self.begin(call, &[], deadline)?;
        loop {
            let message = self.receive(deadline)?;
            if message.reply_to != Some(serial) {
                // Who says other things without an end never lets it come to waiting.
                in_time(deadline)?;
                continue;
            }
            match message.kind {
                Kind::Return => return Ok(message),
                _ => return Err(Error::new(format!("call {what}: {}", message.complaint()))),
            }
        }
    }

    /// The next message.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Message> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.fill(deadline)?;
        }
    }

    /// The next message, if it is here by now.
    pub(super) fn receive_if_there(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// The next message of those that were read.
    fn take(&mut self) -> Result<Option<Message>> {
        let Some(start) = self.buffer.first_chunk() else { return Ok(None) };
        let length = wire::length(start)?;
        if self.buffer.len() < length {
            return Ok(None);
        }
        let message = Message::decode(&self.buffer[..length]);
        self.buffer.drain(..length);
        message.map(Some)
    }

    fn fill(&mut self, deadline: Instant) -> Result<()> {
        while !self.read()? {
            self.wait(PollFlags::POLLIN, deadline)?;
        }
        Ok(())
    }

    /// Reads what is there; false where that is nothing.
    fn read(&mut self) -> Result<bool> {
        let mut part = [0u8; 4096];
        loop {
            // Not recvmsg(2): descriptors that are sent to us are closed by the kernel.
            match nix::unistd::read(&self.socket, &mut part) {
                Ok(0) => return Err(Error::new("the connection was closed")),
                Ok(count) => {
                    self.buffer.extend(&part[..count]);
                    return Ok(true);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(error) => return Err(Error::os("read from", "the connection", error)),
            }
        }
    }

    fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<()> {
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let mut rest = bytes;
        let mut rights = !raw.is_empty();
        while !rest.is_empty() {
            let control = [ControlMessage::ScmRights(&raw)];
            let control = if rights { &control[..] } else { &[] };
            let parts = [IoSlice::new(rest)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.socket.as_raw_fd(), &parts, control, flags, None) {
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    rights = false;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT, deadline)?,
                Err(error) => return Err(Error::os("write to", "the connection", error)),
            }
        }
        Ok(())
    }

    fn wait(&self, what: PollFlags, deadline: Instant) -> Result<()> {
        let left = in_time(deadline)?;
        let timeout =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.socket.as_fd(), what)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(Error::os("wait for", "the connection", error)),
        }
    }
}

/// What is left until then.
fn in_time(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::new("no answer in time").kind(Errno::ETIMEDOUT));
    }
    Ok(left)
}

/// Whether the directory is the user's own and closed to others, as the XDG specification demands
/// of `$XDG_RUNTIME_DIR`.
pub(super) fn is_private(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(directory).is_ok_and(|found| {
        found.is_dir()
            && found.uid() == nix::unistd::geteuid().as_raw()
            && found.mode() & 0o077 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses_of_the_session_bus() {
        let read = |text: &str| addresses(OsStr::new(text));
        assert_eq!(
            read("unix:path=/run/user/1000/bus,guid=12;tcp:host=x;unix:abstract=/tmp/a%20b"),
            [Address::Path("/run/user/1000/bus".into()), Address::Abstract(b"/tmp/a b".to_vec())]
        );
        for none in ["", "unix:", "unix:tmpdir=/tmp", "unix:path=/a%zz", "unix:path=/a%0", ";;,="] {
            assert!(read(none).is_empty(), "{none}");
        }
    }

    /// A peer that accepts and says what the test has it say.
    fn peer(says: Vec<Vec<u8>>) -> (tempfile::TempDir, Address) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = [0; 4096];
            for words in says {
                let _count = stream.read(&mut heard);
                let _gone = stream.write_all(&words);
            }
            std::thread::sleep(Duration::from_secs(2));
        });
        (place, Address::Path(path))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    #[test]
    fn a_peer_that_never_answers_is_given_up() {
        let (_place, address) = peer(Vec::new());
        let start = Instant::now();
        let mut bus = Bus::open(&address, soon()).unwrap();
        let error = bus.greeted(soon()).err().unwrap();
        assert!(error.to_string().ends_with("no answer in time"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_peer_that_says_other_things_without_an_end_is_given_up() {
        let signals = [&b"l\x04\0\x01\0\0\0\0\x01\0\0\0"[..], &[0; 4]].concat().repeat(1 << 20);
        let (_place, address) = peer(vec![b"OK 1234\r\nAGREE_UNIX_FD\r\n".to_vec(), signals]);
        let mut bus = Bus::open(&address, soon()).unwrap();
        bus.greeted(soon()).unwrap();
        let error = bus.hello("org.example", soon()).err().unwrap();
        assert!(error.to_string().ends_with("no answer in time"), "{error}");
    }

    #[test]
    fn a_peer_that_refuses_or_babbles_is_an_error() {
        for says in [
            &b"REJECTED EXTERNAL\r\n"[..],
            b"OK 1\r\nERROR\r\n",
            b"\r\n\r\n",
            &[b'a'; 4096],
            b"OK \x1b[31m\r\nnothing\r\n",
        ] {
            let (_place, address) = peer(vec![says.to_vec()]);
            let mut bus = Bus::open(&address, soon()).unwrap();
            assert!(bus.greeted(soon()).is_err(), "{says:?}");
        }
    }

    #[test]
    fn messages_of_a_peer_are_not_believed() {
        let greeting = b"OK 1234\r\nAGREE_UNIX_FD\r\n".to_vec();
        let endless = [&b"l\x04\0\x01"[..], &[0xff; 12]].concat();
        for message in [endless, vec![0; 64], b"l\x02\0\x01\0\0\0\0\x01\0\0\0\x07\0\0\0".to_vec()] {
            let (_place, address) = peer(vec![greeting.clone(), message.clone()]);
            let mut bus = Bus::open(&address, soon()).unwrap();
            bus.greeted(soon()).unwrap();
            assert!(bus.hello("org.example", soon()).is_err(), "{message:?}");
        }
    }
}
