//! One repository: manifests and small documents. `blob` and `upload` have the rest.

use std::sync::Arc;

use serde::Deserialize;
use ureq::http::Method;

use super::address::authority;
use super::failure::{Failure, of_io};
use super::http::{Ask, Response};
use super::refusal::{no_registry, refusal};
use super::session::{Patience, Session, Target};
use super::{Access, Location, Notice, Shared};
use crate::error::{Error, Result};
use crate::image::{Digest, Reference};

/// The largest manifest, index or config that is read; registries refuse manifests of 4 MiB.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DIGEST_HEADER: &str = "docker-content-digest";

/// A manifest or index as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// One of the four media types of manifests and indexes.
    pub media_type: String,
    /// The digest of the bytes, verified.
    pub digest: Digest,
}

/// A repository. Cheap to clone; threads may share it.
#[derive(Clone)]
pub struct Remote(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    /// As the image is named, for messages.
    pub(super) name: String,
    pub(super) own: Arc<Session>,
    mirrors: Vec<Arc<Session>>,
    access: Access,
}

impl Remote {
    pub(super) fn new(
        shared: Arc<Shared>,
        name: String,
        own: &Location,
        mirrors: &[Location],
        access: Access,
    ) -> Self {
        let mirrors = mirrors.iter().map(|location| shared.session(location)).collect();
        let own = shared.session(own);
        Remote(Arc::new(Inner { shared, name, own, mirrors, access }))
    }

    /// The digest of what a name stands for, by one small request. `None` where the registry does
    /// not say it: the manifest must be read then.
    pub fn head(&self, reference: &Reference) -> Result<Option<Digest>> {
        let ask = || accepting(Ask::new(Method::HEAD));
        let said = |response: Response| {
            Ok(response.header(DIGEST_HEADER).and_then(|text| Digest::parse(text).ok()))
        };
        let found = self.ask(&manifest_path(reference), ask, said);
        found.map_err(|failure| missing(failure, "look up", reference))
    }

    /// The manifest or index that a name stands for.
    pub fn manifest(&self, reference: &Reference) -> Result<Document> {
        let ask = || accepting(Ask::new(Method::GET));
        let read = |mut response: Response| {
            let bytes = body(&mut response)?;
            document(&response, bytes, reference.digest()).map_err(Failure::lasting)
        };
        let found = self.ask(&manifest_path(reference), ask, read);
        found.map_err(|failure| missing(failure, "read the manifest of", reference))
    }

    /// The manifest or index of this digest, as an index names it.
    pub fn manifest_at(&self, digest: Digest) -> Result<Document> {
        self.manifest(&Reference::parse(&format!("{}@{digest}", self.0.name))?)
    }

    /// Asks each place in turn, mirrors first, for what can be asked of any of them. `take` makes
    /// something of the answer.
    pub(super) fn ask<'a, T>(
        &self,
        target: &Target,
        mut ask: impl FnMut() -> Ask<'a>,
        mut take: impl FnMut(Response) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut asking = |session: &Session, patience| {
            self.ask_one(session, target, &mut ask(), patience).and_then(&mut take)
        };
        let (own, mirrors) = self.places();
        for mirror in mirrors.iter().filter(|mirror| !mirror.is_dead()) {
            match asking(mirror, Patience::None) {
                Ok(taken) => return Ok(taken),
                Err(failure) => self.pass_over(mirror, &failure),
            }
        }
        asking(own, Patience::Usual)
    }

    /// The place itself, and its mirrors.
    pub(super) fn places(&self) -> (&Session, &[Arc<Session>]) {
        (&self.0.own, &self.0.mirrors)
    }

    /// Goes on without a mirror: for this request, or for good if it cannot be reached.
    pub(super) fn pass_over(&self, mirror: &Session, failure: &Failure) {
        if failure.status.is_none() {
            mirror.give_up();
        }
        self.0.shared.notify(&Notice::Passing { error: &failure.error });
    }

    /// Asks one place, and takes success only.
    pub(super) fn ask_one(
        &self,
        session: &Session,
        target: &Target,
        ask: &mut Ask<'_>,
        patience: Patience,
    ) -> Result<Response, Failure> {
        let target = match target {
            Target::Path(path) => {
                Target::Path(format!("/v2/{}/{path}", session.location.repository))
            }
            address => address.clone(),
        };
        let scopes = [self.scope(&session.location.repository)];
        let response = session.send(&self.0.shared, &target, ask, &scopes, patience)?;
        match response.status {
            200..=299 => Ok(response),
            _ => Err(refusal(response, &session.location.host)),
        }
    }

    /// What a token must allow.
    pub(super) fn scope(&self, repository: &str) -> String {
        let actions = if self.0.access == Access::Push { "pull,push" } else { "pull" };
        format!("repository:{repository}:{actions}")
    }
}

/// A manifest that could not be had.
fn missing(failure: Failure, operation: &str, reference: &Reference) -> Error {
    let error = failure.error.within(format_args!("{operation} {reference}"));
    // Registries also refuse, by 401 or 403, what does not exist.
    let error = match failure.status {
        Some(401 | 403 | 404) => error.kind(nix::errno::Errno::ENOENT),
        _ => error,
    };
    match failure.status {
        Some(404) if reference.digest().is_none() && reference.tag() == "latest" => error
            .hint("check the name; the tag is latest where none is named, and may not be there"),
        Some(404) => error.hint("check the name and the tag; a registry may have it no more"),
        _ => error,
    }
}

fn accepting(ask: Ask<'_>) -> Ask<'_> {
    ask.header("accept", [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", "))
}

pub(super) fn manifest_path(reference: &Reference) -> Target {
    Target::Path(match reference.digest() {
        Some(digest) => format!("manifests/{digest}"),
        None => format!("manifests/{}", reference.tag()),
    })
}

fn body(response: &mut Response) -> Result<Vec<u8>, Failure> {
    let host = authority(&response.uri);
    response.document(MAX_DOCUMENT).map_err(|error| match error.raw_os_error() {
        Some(libc::EFBIG) => Failure::lasting(Error::new(format!(
            "{host}: the document has more than {MAX_DOCUMENT} bytes"
        ))),
        _ => of_io(&host, &error),
    })
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Kind {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// Verifies a manifest and tells what kind it is.
fn document(response: &Response, bytes: Vec<u8>, asked: Option<Digest>) -> Result<Document> {
    let host = authority(&response.uri);
    let digest = Digest::of(&bytes);
    let said = response.header(DIGEST_HEADER).and_then(|text| Digest::parse(text).ok());
    if let Some(other) = asked.or(said).filter(|other| *other != digest) {
        return Err(Error::new(format!("{host}: {other} was promised, {digest} came")));
    }
    let media_type = response.media_type();
    if media_type == "text/html" || bytes.trim_ascii_start().starts_with(b"<") {
        return Err(no_registry(&host));
    }
    let kind: Kind = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(format!("{host}: the manifest is no JSON: {error}")))?;
    let is_old = |text: &str| text.starts_with("application/vnd.docker.distribution.manifest.v1+");
    if kind.schema_version == Some(1) || is_old(media_type) {
        return Err(Error::new(format!(
            "{host}: the image has a manifest of docker's schema 1, which is not supported"
        ))
        .hint("it is from before 2017: push it again with a tool of today"));
    }
    let is_known = |text: &&str| [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(text);
    // Registries that keep files as they are may say application/json; the document knows better.
    let own = kind.media_type.as_deref().filter(is_known);
    let media_type = Some(media_type).filter(is_known).or(own);
    let media_type = media_type.unwrap_or(match kind.manifests {
        Some(_) => INDEX,
        None => MANIFEST,
    });
    Ok(Document { media_type: media_type.to_owned(), bytes, digest })
}

/// Whether a registry said that it does not have something.
pub(super) fn is_absent(failure: &Failure) -> bool {
    failure.status == Some(404)
}
