//! Addresses of registries, and where they lead.

use ureq::http::Uri;

use crate::error::{Error, Result};

/// The registry of names that say none, and the host that serves it: docker.io itself does not.
pub(super) const HUB: &str = "docker.io";
pub(super) const HUB_HOST: &str = "registry-1.docker.io";

/// The address of a registry's API.
pub(super) fn address(scheme: &str, host: &str, path: &str) -> Result<Uri> {
    let host = if host == HUB { HUB_HOST } else { host };
    format!("{scheme}://{host}{path}")
        .parse()
        .map_err(|error| Error::new(format!("{host}{path}: not an address: {error}")))
}

/// Host and port of an address, in the one form that can be compared: a default port is left out.
pub(super) fn authority(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    match (uri.port_u16(), uri.scheme_str()) {
        (None, _) | (Some(443), Some("https")) | (Some(80), Some("http")) => host,
        (Some(port), _) => format!("{host}:{port}"),
    }
}

/// Where a Location header leads from an address (RFC 3986, section 5, as far as servers use it).
pub(super) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or(location);
    let scheme = base.scheme_str()?;
    let host = base.authority()?.as_str();
    let text = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{host}{}{location}", base.path())
    } else {
        let (directory, _) = base.path().rsplit_once('/')?;
        format!("{scheme}://{host}{directory}/{location}")
    };
    let uri: Uri = text.parse().ok()?;
    let is_plain = !uri.authority()?.as_str().contains('@');
    (matches!(uri.scheme_str(), Some("https" | "http")) && is_plain).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined_as_the_rfc_says() {
        let base: Uri = "https://a.io:5000/v2/x/blobs/uploads/1?s=2".parse().unwrap();
        for (location, address) in [
            ("https://b.io/y?z", Some("https://b.io/y?z")),
            ("//b.io/y", Some("https://b.io/y")),
            ("/v2/y#part", Some("https://a.io:5000/v2/y")),
            ("?s=3", Some("https://a.io:5000/v2/x/blobs/uploads/1?s=3")),
            ("2?q", Some("https://a.io:5000/v2/x/blobs/uploads/2?q")),
            ("file:///etc/passwd", None),
            ("https://user:pass@b.io/", None),
            ("https://", None),
            ("https://b io/", None),
        ] {
            let joined = join(&base, location).map(|uri| uri.to_string());
            assert_eq!(joined.as_deref(), address, "{location}");
        }
    }

    #[test]
    fn a_default_port_makes_no_other_host() {
        let of = |text: &str| authority(&text.parse().unwrap());
        assert_eq!(of("https://A.io:443/x"), of("https://a.io/"));
        assert_ne!(of("http://a.io:443/x"), of("https://a.io/"));
        assert_ne!(of("https://a.io:444"), of("https://a.io"));
    }
}
