//! What goes wrong with a registry, in words, and whether trying again can help.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use ureq::http::Uri;

use super::address::authority;
use crate::error::Error;

/// How often a request is tried again at most.
pub(super) const MAX_RETRIES: u32 = 5;
/// A port where nothing listens is no passing trouble as a rule.
const RETRIES_REFUSED: u32 = 2;
/// How much of an error's own words is shown.
pub(super) const SHOWN_CHARACTERS: usize = 300;

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// How often it may be tried again.
    pub(super) retries: u32,
    /// How long the server asks to be left alone.
    pub(super) wait: Option<Duration>,
    /// Whether the other side may be one that speaks no TLS.
    pub(super) without_tls: bool,
    /// What was answered, if anything was.
    pub(super) status: Option<u16>,
}

impl Failure {
    /// One that trying again does not mend.
    pub(super) fn lasting(error: Error) -> Self {
        Failure { error, retries: 0, wait: None, without_tls: false, status: None }
    }

    /// One that may pass.
    pub(super) fn passing(error: Error) -> Self {
        Failure { retries: MAX_RETRIES, ..Failure::lasting(error) }
    }

    /// Puts `context: ` before the message.
    pub(super) fn within(mut self, context: impl std::fmt::Display) -> Self {
        self.error = self.error.within(context);
        self
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.error
    }
}

/// A request that got no answer.
pub(super) fn unreachable(uri: &Uri, error: ureq::Error) -> Failure {
    let host = authority(uri);
    let said = |why: &dyn std::fmt::Display| Error::new(format!("{host}: {why}"));
    match error {
        ureq::Error::HostNotFound => Failure::lasting(
            said(&"no such host is known").hint("check the name, and that this machine is online"),
        ),
        ureq::Error::Io(error) => of_io(&host, &error),
        ureq::Error::Rustls(error) => of_tls(&host, &error),
        ureq::Error::Timeout(_) => Failure::passing(said(&"no answer in time")),
        ureq::Error::ConnectProxyFailed(why) => {
            Failure::passing(said(&format_args!("the proxy refuses: {}", shown(&why))))
        }
        // What is neither HTTP nor cut off, and headers without end.
        error => Failure::lasting(said(&shown(&error.to_string()))),
    }
}

/// A connection that broke, or was not made.
pub(super) fn of_io(host: &str, error: &io::Error) -> Failure {
    let said = |why: &str| Error::new(format!("{host}: {why}"));
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(host, error);
    }
    // Our own, from a reader of content.
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return Failure::lasting(error.clone());
    }
    if let Some(ureq::Error::Timeout(_)) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return Failure::passing(said("nothing came for too long"));
    }
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::ConnectionRefused, _) => Failure {
            retries: RETRIES_REFUSED,
            without_tls: true,
            ..Failure::lasting(
                said("connection refused").hint("check the port, and that a registry runs there"),
            )
        },
        (io::ErrorKind::UnexpectedEof, None) => {
            Failure { without_tls: true, ..Failure::passing(said("the connection was closed")) }
        }
        (kind, Some(errno)) => Failure {
            without_tls: kind == io::ErrorKind::ConnectionReset,
            ..Failure::passing(said(nix::errno::Errno::from_raw(errno).desc()))
        },
        _ => Failure::passing(said(&shown(&error.to_string()))),
    }
}

fn of_tls(host: &str, error: &rustls::Error) -> Failure {
    let said = |why: &dyn std::fmt::Display| Error::new(format!("{host}: {why}"));
    let trust = format!(
        "put the certificate of its authority into ~/.config/containers/certs.d/{host}/ca.crt"
    );
    let failure = |error| Failure::lasting(error);
    match error {
        rustls::Error::InvalidCertificate(reason) => failure(match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                said(&"its certificate is not signed by an authority that is trusted here")
                    .hint(trust)
                    .hint("or, without any protection: --tls-verify=false")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                said(&"its certificate is for another name")
                    .hint("use the name that the certificate has")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                said(&"its certificate has expired")
                    .hint("the registry's owner must renew it; or this machine's clock is wrong")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                said(&"its certificate is not valid yet").hint("check this machine's clock")
            }
            other => said(&format_args!("its certificate is not accepted: {other}")).hint(trust),
        }),
        // What begins unlike TLS is HTTP, nearly always.
        rustls::Error::InvalidMessage(_) => Failure {
            without_tls: true,
            ..failure(said(&"does not speak TLS").hint(format!(
                "if it is meant to be without, say so: --tls-verify=false, or insecure = true for \
                 {host} in registries.conf"
            )))
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::HandshakeFailure,
        ) => failure(said(&format_args!("TLS: {error}")).hint(format!(
            "it may want a certificate of yours: ~/.config/containers/certs.d/{host}/client.cert \
             and client.key"
        ))),
        other => failure(said(&format_args!("TLS: {other}"))),
    }
}

/// Foreign words, cut to a length that can be read.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
