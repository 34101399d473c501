//! systemd-nsresourced(8): 65536 ids for as long as a namespace lives, asked for over its socket by
//! varlink, which is one JSON object and a NUL byte for each message. No program is started. The
//! answers are foreign bytes: bounded in size and time.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, recv, sendmsg};
use serde::Deserialize;
use serde_json::json;

use super::namespace::Waiting;
use crate::error::{During, Error, Result};

const SOCKET: &str = "/run/systemd/io.systemd.NamespaceResource";
const METHOD: &str = "io.systemd.NamespaceResource.AllocateUserRange";

/// What it gives: this, or one id. Other sizes are refused (systemd 257 and 262).
const SIZE: u32 = 65536;

/// The first call after a start loads its BPF program, which was seen to take 19 s in an emulated
/// machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer.
const LIMIT: usize = 64 << 10;

#[derive(Deserialize)]
struct Reply {
    error: Option<String>,
    #[serde(default)]
    parameters: serde_json::Value,
}

/// Gives the namespace its ids.
pub(super) fn give(waiting: &Waiting) -> Result<()> {
    let socket = UnixStream::connect(SOCKET).map_err(|error| match error.raw_os_error() {
        // A socket that was closed leaves its name behind.
        Some(libc::ENOENT | libc::ECONNREFUSED) => {
            Error::new("systemd-nsresourced is not there, or its socket is off")
        }
        _ => Error::os("connect to", "systemd-nsresourced", &error),
    })?;
    // A socket of that name that is not root's is nobody to get ids from.
    let peer = getsockopt(&socket, PeerCredentials).during("look at", "systemd-nsresourced")?;
    if peer.uid() != 0 {
        return Err(Error::new("systemd-nsresourced: its socket is not root's"));
    }
    let name = name().during("make up", "a name")?;
    // No more fields than these: systemd 257 refuses those that it does not know.
    let request = json!({
        "method": METHOD,
        "parameters": { "name": name, "size": SIZE, "userNamespaceFileDescriptor": 0 },
    });
    let mut message = request.to_string().into_bytes();
    message.push(0);
    send(&socket, &message, waiting)?;
    let answer = receive(&socket)?;
    understand(&answer)
}

/// A name that no other namespace of the system has, short enough to be a user's.
fn name() -> std::io::Result<String> {
    let mut random = [0; 4];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    Ok(format!("casemate-{:08x}", u32::from_ne_bytes(random)))
}

fn send(socket: &UnixStream, message: &[u8], waiting: &Waiting) -> Result<()> {
    let descriptors = [waiting.namespace.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let parts = [IoSlice::new(message)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &parts, &rights, flags, None)
        .during("ask", "systemd-nsresourced")?;
    if sent != message.len() {
        return Err(Error::new("ask systemd-nsresourced: it does not listen"));
    }
    Ok(())
}

fn receive(socket: &UnixStream) -> Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(format!(
                "systemd-nsresourced did not answer within {} s",
                PATIENCE.as_secs()
            )));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            polled => polled.during("wait for", "systemd-nsresourced")?,
        };
        // Descriptors that might come along are not taken.
        let flags = MsgFlags::MSG_DONTWAIT;
        let count = match recv(socket.as_raw_fd(), &mut buffer, flags) {
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            received => received.during("read from", "systemd-nsresourced")?,
        };
        let part = &buffer[..count];
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            answer.extend_from_slice(&part[..end]);
            return Ok(answer);
        }
        answer.extend_from_slice(part);
        if count == 0 || answer.len() > LIMIT {
            return Err(Error::new("systemd-nsresourced: no answer that can be read"));
        }
    }
}

fn understand(answer: &[u8]) -> Result<()> {
    let reply: Reply = serde_json::from_slice(answer).map_err(|error| {
        Error::new(format!("systemd-nsresourced: no answer that can be read: {error}"))
    })?;
    let Some(error) = reply.error else { return Ok(()) };
    let hint = match error.rsplit('.').next().unwrap_or_default() {
        "UserNamespaceInterfaceNotSupported" => {
            "it has no libbpf (sudo apt install libbpf1), or the kernel has not \"bpf\" among its security modules (lsm= on its command line)"
        }
        "System" if reply.parameters["errno"] == libc::EUSERS => {
            "256 namespaces of yours are open already; end some boxes"
        }
        "NameExists" => "its name was taken; try again",
        "PermissionDenied" | "InteractiveAuthenticationRequired" => {
            "polkit does not allow you io.systemd.namespace-resource"
        }
        _ => "see the journal of systemd-nsresourced.service",
    };
    Err(Error::new(format!("systemd-nsresourced refuses: {error}")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        assert!(understand(b"{\"parameters\":{\"userNamespaceName\":\"x\"}}").is_ok());
        assert!(understand(b"{}").is_ok());
        let said = |answer: &str| understand(answer.as_bytes()).unwrap_err();
        let error = said("{\"error\":\"io.systemd.System\",\"parameters\":{\"errno\":87}}");
        assert!(error.hints()[0].contains("256 namespaces"), "{error:?}");
        let prefix = "io.systemd.NamespaceResource";
        let text = format!("{{\"error\":\"{prefix}.UserNamespaceInterfaceNotSupported\"}}");
        assert!(said(&text).hints()[0].contains("bpf"));
        for bad in ["", "[]", "x", "{\"error\":5}", "{\"error\":\"x\""] {
            assert!(said(bad).to_string().contains("no answer"), "{bad}");
        }
    }
}
