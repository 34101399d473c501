//! Registries: a blocking client of the OCI distribution specification.
//!
//! It speaks HTTP with `ureq`, which starts no threads and no runtime: casemate forks, and a program
//! that forks is better off alone in its process. Redirects, mirrors, retries, resumption and what a
//! credential may be shown to are decided here, each in one place, and not by a library.
//!
//! [`Registries`] is what the user has set up; [`Remote`] is one repository. Bytes that come from a
//! registry are bounded in size and time, and verified by their digests: documents here, blobs by
//! whoever reads them.

mod address;
mod blob;
mod challenge;
mod client;
mod config;
mod credentials;
mod environment;
mod failure;
mod helper;
mod http;
mod login;
mod names;
mod proxy;
mod refusal;
mod session;
mod tls;
mod upload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use blob::{Blob, broken};
pub use challenge::{Challenge, parse as parse_challenges};
pub use client::{Document, Remote};
pub use config::Configuration;
pub use credentials::{AuthFile, Credential};
pub use environment::Environment;
pub use login::{Kept, forget, forget_all, keep, login_file, registry_name};

use crate::error::{Error, Result};
use crate::image::Reference;
use credentials::Credentials;
use http::{Http, Trust};
use session::Session;

/// What a repository is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading; mirrors may serve it.
    Pull,
    /// Writing too.
    Push,
}

/// Something that happens along the way and that the user may want to know.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A request failed and will be sent again.
    Retrying {
        /// After this time.
        wait: Duration,
        /// What failed.
        error: &'a Error,
    },
    /// A mirror does not serve; the next place is asked.
    Passing {
        /// What failed.
        error: &'a Error,
    },
    /// A file with credentials can be read by others.
    Exposed {
        /// The file.
        path: &'a std::path::Path,
    },
}

/// Told of each [`Notice`], by whichever thread it happens in.
pub type Notify = Arc<dyn Fn(&Notice<'_>) + Send + Sync>;

/// How registries are to be spoken to.
#[derive(Clone, Default)]
pub struct Options {
    /// Where the user's settings are.
    pub environment: Environment,
    /// `--authfile`: the one file of credentials.
    pub auth_file: Option<PathBuf>,
    /// `--tls-verify`: what goes before all that registries.conf says.
    pub tls_verify: Option<bool>,
    /// Whom to tell of what happens.
    pub notify: Option<Notify>,
}

/// The user's registries: configuration, credentials, and the connections that are open.
pub struct Registries(Arc<Shared>);

struct Shared {
    configuration: Configuration,
    credentials: Credentials,
    http: Http,
    sessions: Mutex<BTreeMap<Location, Arc<Session>>>,
    options: Options,
}

impl Shared {
    fn notify(&self, notice: &Notice<'_>) {
        if let Some(notify) = &self.options.notify {
            notify(notice);
        }
    }

    /// One session for each place, so that a token is asked for once.
    fn session(&self, location: &Location) -> Arc<Session> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions
            .entry(location.clone())
            .or_insert_with(|| Arc::new(Session::new(location.clone())));
        Arc::clone(session)
    }
}

impl Registries {
    /// Reads registries.conf(5). Credentials and certificates are read when they are needed.
    pub fn load(options: Options) -> Result<Self> {
        let configuration = Configuration::load(&options.environment)?;
        let credentials = Credentials::new(
            &options.environment,
            options.auth_file.as_deref(),
            &configuration.helpers,
        );
        let http = Http::new(options.environment.clone());
        let sessions = Mutex::default();
        Ok(Registries(Arc::new(Shared { configuration, credentials, http, sessions, options })))
    }

    /// The full names that a name may stand for, in the order in which to try them: of a short name
    /// its alias, or itself at each of the search registries, or else at docker.io. At least one.
    pub fn candidates(&self, reference: &Reference) -> Result<Vec<Reference>> {
        self.0.configuration.candidates(reference)
    }

    /// Opens the repository of a full name. Nothing is asked of anybody yet.
    pub fn open(&self, reference: &Reference, access: Access) -> Result<Remote> {
        let (mut own, mut mirrors) = self.0.configuration.locations(reference, access)?;
        for location in mirrors.iter_mut().chain([&mut own]) {
            location.insecure = self.is_insecure(location.insecure);
        }
        let (host, path) = reference.registry();
        Ok(Remote::new(Arc::clone(&self.0), format!("{host}/{path}"), &own, &mirrors, access))
    }

    fn is_insecure(&self, configured: bool) -> bool {
        self.0.options.tls_verify.map_or(configured, |verify| !verify)
    }
}

/// A repository at a registry, or a registry where the repository is empty. `insecure` allows TLS
/// that is not verified, and none at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Location {
    host: String,
    repository: String,
    insecure: bool,
}

impl Location {
    fn parse(name: &str, insecure: bool) -> Result<Self> {
        let (host, repository) = name.split_once('/').unwrap_or((name, ""));
        let is_part = |part: &str| {
            let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(known)
        };
        if !is_authority(host) || !(repository.is_empty() || repository.split('/').all(is_part)) {
            return Err(Error::new(format!("registry {name:?}: expected HOST[:PORT][/PATH]"))
                .hint("for example quay.io or localhost:5000"));
        }
        let (host, repository) = (host.to_owned(), repository.to_owned());
        Ok(Location { host, repository, insecure })
    }

    fn trust(&self) -> Trust {
        if self.insecure { Trust::Insecure } else { Trust::Verified }
    }
}

/// Whether the text is HOST[:PORT].
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(inner)
    };
    // An IPv6 address in brackets has colons of its own.
    let is_address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    text.len() <= 255 && (is_address || host.split('.').all(is_label)) && port.is_none_or(is_port)
}
