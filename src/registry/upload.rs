//! Putting blobs and manifests into a repository.

use std::io::Read;

use ureq::http::{Method, Uri, header};

use super::address::{authority, join};
use super::client::{Remote, is_absent, manifest_path};
use super::failure::Failure;
use super::http::{Ask, Content, Payload, Response, refuse_downgrade};
use super::refusal::refusal;
use super::session::{Patience, Target, pause};
use crate::error::{Error, Result};
use crate::image::{Digest, Reference};

impl Remote {
    /// Whether the repository has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let target = Target::Path(format!("blobs/{digest}"));
        match self.ask_own(&target, &mut Ask::new(Method::HEAD)) {
            Ok(_) => Ok(true),
            Err(failure) if is_absent(&failure) => Ok(false),
            Err(failure) => Err(self.blob_error("look for", digest, failure)),
        }
    }

    /// Takes a blob over from another repository of the same registry, `from` without the host.
    /// False where the registry does not do that, or has it not.
    pub fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        let session = &self.0.own;
        let path = format!(
            "/v2/{}/blobs/uploads/?mount={digest}&from={from}",
            session.location.repository
        );
        let scopes = [self.scope(&session.location.repository), format!("repository:{from}:pull")];
        let mut ask = Ask::new(Method::POST);
        let sent =
            session.send(&self.0.shared, &Target::Path(path), &mut ask, &scopes, Patience::Usual);
        let response = sent.map_err(|failure| self.blob_error("mount", digest, failure))?;
        match response.status {
            201 => Ok(true),
            // It opened an upload in place of that, which is not needed.
            202 => {
                if let Some(uri) =
                    response.header(header::LOCATION).and_then(|to| join(&response.uri, to))
                {
                    let cancelled = Ask::new(Method::DELETE);
                    // It expires by itself where this fails.
                    drop(self.ask_own_once(&Target::Address(uri), cancelled));
                }
                Ok(false)
            }
            // No right to the other repository, or no such thing: it can still be uploaded.
            400..=499 => Ok(false),
            _ => {
                let failure = refusal(response, &session.location.host);
                Err(self.blob_error("mount", digest, failure))
            }
        }
    }

    /// Whether the repository has this manifest under this name.
    pub fn has_manifest(&self, reference: &Reference, digest: &Digest) -> Result<bool> {
        let target = manifest_path(reference);
        let kinds = "application/vnd.oci.image.manifest.v1+json, \
            application/vnd.docker.distribution.manifest.v2+json";
        match self.ask_own(&target, &mut Ask::new(Method::HEAD).header("accept", kinds)) {
            Ok(response) => Ok(said_digest(&response) == Some(*digest)),
            Err(failure) if is_absent(&failure) => Ok(false),
            Err(failure) => Err(failure.within("look up the image").into()),
        }
    }

    /// Uploads a blob as [`Remote::upload`] does, and again from its start where the connection
    /// breaks: `content` is asked for it each time.
    pub fn upload_from<R: Read>(
        &self,
        size: u64,
        digest: &Digest,
        mut content: impl FnMut() -> Result<R>,
    ) -> Result<()> {
        let mut tries = 0;
        loop {
            let mut content = Begun { inner: content()?, begun: false };
            match self.send_blob(Some(size), digest, &mut content) {
                // Whatever failed before the content was asked for has been tried again already.
                Err(failure) if content.begun && failure.retries > tries => {
                    pause(&self.0.shared, tries, &failure);
                    tries += 1;
                }
                sent => return sent.map_err(|failure| self.blob_error("upload", digest, failure)),
            }
        }
    }

    /// Uploads a blob: in one request where its size is known, else as a stream of chunks. The
    /// registry compares the digest; a `content` of another size is an error.
    ///
    /// A broken upload cannot be mended here, since the content is gone: it must be called again
    /// with the content from its start.
    pub fn upload(&self, size: Option<u64>, digest: &Digest, content: impl Read) -> Result<()> {
        self.send_blob(size, digest, content)
            .map_err(|failure| self.blob_error("upload", digest, failure))
    }

    fn send_blob(
        &self,
        size: Option<u64>,
        digest: &Digest,
        mut content: impl Read,
    ) -> Result<(), Failure> {
        let start = Target::Path("blobs/uploads/".to_owned());
        let started = self.ask_own(&start, &mut Ask::new(Method::POST))?;
        let mut place = place(&started)?;
        let mut stream = Content::new(&mut content, size);
        if size.is_none() {
            let mut ask = Ask::new(Method::PATCH)
                .header("content-type", "application/octet-stream")
                .payload(Payload::Stream(&mut stream));
            let sent = self.ask_own(&Target::Address(place), &mut ask)?;
            place = self::place(&sent)?;
            self.ask_own(&Target::Address(finishing(&place, digest)?), &mut Ask::new(Method::PUT))?;
        } else {
            let mut ask = Ask::new(Method::PUT)
                .header("content-type", "application/octet-stream")
                .payload(Payload::Stream(&mut stream));
            self.ask_own(&Target::Address(finishing(&place, digest)?), &mut ask)?;
        }
        match content.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::lasting(Error::new("the content goes on after its size"))),
            Err(error) => Err(super::failure::of_io("the content", &error)),
        }
    }

    /// Puts a manifest or index under a tag, or under its digest. Its digest is returned.
    pub fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest> {
        let within = |error: Error| error.within("write the manifest");
        let digest = Digest::of(bytes);
        if reference.digest().is_some_and(|named| named != digest) {
            return Err(within(
                Error::new(format!("its digest is {digest}"))
                    .hint("name the destination without a digest; the image's own is printed"),
            ));
        }
        let mut ask =
            Ask::new(Method::PUT).header("content-type", media_type).payload(Payload::Bytes(bytes));
        let response = self.ask_own(&manifest_path(reference), &mut ask);
        let response = response.map_err(|failure| within(failure.into()))?;
        match said_digest(&response) {
            Some(other) if other != digest => Err(within(Error::new(format!(
                "{}: it was kept with the digest {other} in place of {digest}",
                authority(&response.uri)
            )))),
            _ => Ok(digest),
        }
    }

    fn ask_own(&self, target: &Target, ask: &mut Ask<'_>) -> Result<Response, Failure> {
        let (own, _) = self.places();
        self.ask_one(own, target, ask, Patience::Usual)
    }

    fn ask_own_once(&self, target: &Target, mut ask: Ask<'_>) -> Result<Response, Failure> {
        let (own, _) = self.places();
        self.ask_one(own, target, &mut ask, Patience::None)
    }

    fn blob_error(&self, operation: &str, digest: &Digest, failure: Failure) -> Error {
        failure.within(format_args!("{operation} {digest} at {}", self.0.name)).into()
    }
}

/// Knows whether it was read from.
struct Begun<R> {
    inner: R,
    begun: bool,
}

impl<R: Read> Read for Begun<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.begun = true;
        self.inner.read(buffer)
    }
}

/// The digest that an answer names.
fn said_digest(response: &Response) -> Option<Digest> {
    response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok())
}

/// Where an upload goes on.
fn place(response: &Response) -> Result<Uri, Failure> {
    let location = response.header(header::LOCATION);
    let uri = location.and_then(|to| join(&response.uri, to)).ok_or_else(|| {
        let host = authority(&response.uri);
        Failure::lasting(Error::new(format!("{host}: does not say where to upload to")))
    })?;
    refuse_downgrade(&response.uri, &uri)?;
    Ok(uri)
}

/// The address that ends an upload.
fn finishing(place: &Uri, digest: &Digest) -> Result<Uri, Failure> {
    let separator = if place.query().is_some() { '&' } else { '?' };
    format!("{place}{separator}digest={digest}")
        .parse()
        .map_err(|_| Failure::lasting(Error::new("the address to upload to is too long")))
}
