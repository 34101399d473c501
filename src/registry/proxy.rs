//! Proxies, by the environment variables that curl(1) and the other tools read.

use std::net::IpAddr;

use super::environment::Environment;
use crate::error::{Error, Result};

/// The proxy for a host that is asked over this scheme, if there is one.
pub(super) fn proxy(
    environment: &Environment,
    scheme: &str,
    host: &str,
    port: u16,
) -> Result<Option<ureq::Proxy>> {
    let (name, own) = match scheme {
        "https" => ("HTTPS_PROXY", &environment.https_proxy),
        _ => ("HTTP_PROXY", &environment.http_proxy),
    };
    let (name, text) = match (own, &environment.all_proxy) {
        (Some(text), _) => (name, text),
        (None, Some(text)) => ("ALL_PROXY", text),
        (None, None) => return Ok(None),
    };
    if is_direct(environment.no_proxy.as_deref().unwrap_or_default(), host, port) {
        return Ok(None);
    }
    // The address may hold a password: it is not repeated.
    ureq::Proxy::new(text).map(Some).map_err(|_| {
        Error::new(format!("{name}: not the address of a proxy"))
            .hint("it is http://[USER:PASSWORD@]HOST:PORT, or https:// or socks5://")
    })
}

/// Whether NO_PROXY names the host: by name, by a domain above it, by address or network. This
/// machine itself needs no proxy.
fn is_direct(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let Some(address) = address {
            if let Some((network, length)) = entry.split_once('/') {
                return network.parse().is_ok_and(|network: IpAddr| {
                    length.parse().is_ok_and(|length| contains(network, length, address))
                });
            }
            if entry.parse::<IpAddr>().is_ok_and(|named| named == address) {
                return true;
            }
        }
        let name = match entry.rsplit_once(':') {
            Some((name, named)) if named.parse() == Ok(port) => name,
            Some((_, named)) if named.parse::<u16>().is_ok() => return false,
            _ => entry.as_str(),
        };
        let domain = name.trim_start_matches("*.").trim_start_matches('.');
        let is_below = host.strip_suffix(domain).is_some_and(|sub| sub.ends_with('.'));
        !domain.is_empty() && (is_below || (host == name))
    })
}

fn contains(network: IpAddr, length: u32, address: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        length <= bits && (length == 0 || (a ^ b) >> (bits - length) == 0)
    };
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_names_hosts_domains_and_networks() {
        let list = "a.io,.b.io *.c.io,10.0.0.0/8,192.0.2.7,d.io:5000";
        for (host, port, direct) in [
            ("a.io", 443, true),
            ("x.a.io", 443, true),
            ("xa.io", 443, false),
            ("b.io", 443, false),
            ("x.b.io", 443, true),
            ("x.c.io", 443, true),
            ("10.255.0.1", 5000, true),
            ("11.0.0.1", 5000, false),
            ("192.0.2.7", 80, true),
            ("d.io", 5000, true),
            ("d.io", 443, false),
            ("127.0.0.1", 5000, true),
            ("localhost", 5000, true),
            ("[::1]", 5000, true),
        ] {
            assert_eq!(is_direct(list, host, port), direct, "{host}:{port}");
        }
        assert!(is_direct("*", "a.io", 1) && !is_direct("", "a.io", 1));
    }

    #[test]
    fn the_scheme_has_a_proxy_of_its_own() {
        let environment = Environment {
            https_proxy: Some("http://p.io:3128".into()),
            all_proxy: Some("socks5://s.io".into()),
            ..Environment::default()
        };
        let host = |scheme| {
            let found = proxy(&environment, scheme, "a.io", 443).unwrap().unwrap();
            found.host().to_owned()
        };
        assert_eq!((host("https").as_str(), host("http").as_str()), ("p.io", "s.io"));
        assert!(proxy(&environment, "https", "127.0.0.1", 443).unwrap().is_none());
        let wrong =
            Environment { all_proxy: Some("u:hunter2@ x".into()), ..Environment::default() };
        let error = proxy(&wrong, "http", "a.io", 80).unwrap_err().to_string();
        assert!(error.starts_with("ALL_PROXY") && !error.contains("hunter2"), "{error}");
    }
}
