//! From names to addresses.
//!
//! A static glibc would load the host's NSS modules into this program, of whatever version they are;
//! so a static casemate asks getent(1), which is the host's own. Neither way starts a thread.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::helper::ask;

const PATIENCE: Duration = Duration::from_secs(30);
/// As many as the client can hold.
const MAX_ADDRESSES: usize = 16;

/// Asks the host's own resolver.
#[derive(Debug)]
pub(super) struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or_else(|| ureq::Error::BadUri("no host".to_owned()))?;
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            _ => return Err(ureq::Error::BadUri("no port".to_owned())),
        });
        let mut addresses = self.empty();
        for address in look_up(host)?.into_iter().take(MAX_ADDRESSES) {
            addresses.push(SocketAddr::new(address, port));
        }
        match addresses.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(addresses),
        }
    }
}

fn look_up(host: &str) -> Result<Vec<IpAddr>, ureq::Error> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![address]);
    }
    // RFC 6761: never a question to anybody else.
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    if cfg!(target_feature = "crt-static") { by_getent(host) } else { by_libc(host) }
}

fn by_libc(host: &str) -> Result<Vec<IpAddr>, ureq::Error> {
    match (host, 0).to_socket_addrs() {
        Ok(found) => Ok(found.map(|address| address.ip()).collect()),
        // std has no kind for gai_strerror(3); the text of EAI_AGAIN is the one that may pass.
        Err(error) if error.to_string().contains("Temporary failure") => {
            Err(ureq::Error::Io(io::Error::new(io::ErrorKind::TimedOut, error)))
        }
        Err(_) => Err(ureq::Error::HostNotFound),
    }
}

fn by_getent(host: &str) -> Result<Vec<IpAddr>, ureq::Error> {
    // A host name has no such start; getent would take it for an option.
    if host.starts_with('-') {
        return Err(ureq::Error::HostNotFound);
    }
    let answer = ask(OsStr::new("getent"), &["ahosts", host], b"", PATIENCE).map_err(|error| {
        let text = format!("getent ahosts {host}: {error}");
        ureq::Error::Io(io::Error::new(error.kind(), text))
    })?;
    match answer.code {
        Some(0) => Ok(parse_getent(&answer.output)),
        // getent(1): 2 is a key that could not be found.
        _ => Err(ureq::Error::HostNotFound),
    }
}

/// Lines of an address, a socket type, and in the first the canonical name.
fn parse_getent(output: &[u8]) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for line in String::from_utf8_lossy(output).lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        // A scope (`fe80::1%eth0`) is of no use without its interface's number.
        if let Ok(address) = word.parse()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getents_answer_is_read() {
        let output = b"::1             STREAM localhost\n::1             DGRAM\n127.0.0.1 STREAM\nfe80::1%eth0 RAW\n";
        let ips: Vec<IpAddr> = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        assert_eq!(parse_getent(output), ips);
    }

    #[test]
    fn both_ways_find_this_machine() {
        for way in [by_libc, by_getent] {
            assert!(way("localhost").unwrap().iter().all(IpAddr::is_loopback));
        }
        assert_eq!(look_up("[::1]").unwrap(), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
        assert!(matches!(by_getent("--help"), Err(ureq::Error::HostNotFound)));
    }
}
