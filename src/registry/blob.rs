//! A blob as a stream that survives broken connections.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::BodyReader;
use ureq::http::{Method, Uri, header};

use super::address::authority;
use super::client::{MAX_DOCUMENT, Remote, is_absent};
use super::failure::{Failure, MAX_RETRIES, of_io};
use super::http::{Ask, Response, STALL};
use super::refusal::refusal;
use super::session::{Target, pause};
use crate::error::{Error, Result};
use crate::image::Digest;

/// What must come between two breaks for the count of them to start anew: a server that gives a few
/// bytes for each connection gives up sooner than we do otherwise.
const PROGRESS: u64 = 1 << 20;
/// What must come in the time that is allowed to pass without anything. Only the time spent waiting
/// for the server counts.
const LEAST: u64 = 16 << 10;
const MAX_URLS: usize = 8;
const SKIPPED: usize = 64 << 10;

/// A blob that is being read. It ends after just as many bytes as its descriptor says.
pub struct Blob {
    remote: Remote,
    digest: Digest,
    size: u64,
    position: u64,
    urls: Vec<String>,
    /// The urls are asked, since the registry has not got it.
    foreign: bool,
    body: Option<BodyReader<'static>>,
    host: String,
    /// Whether the server announced the size that is expected.
    announced: bool,
    breaks: u32,
    last_break: u64,
    waited: Duration,
    arrived: u64,
}

/// The words of a failed read of a [`Blob`].
pub fn broken(error: io::Error) -> Error {
    Error::carried(&error).unwrap_or_else(|| Error::os("read", "a blob", error))
}

impl Remote {
    /// A small blob, such as a config, verified. More than 4 MiB are refused.
    pub fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        let within = |error: Error| error.within(format_args!("read {digest} of {}", self.0.name));
        if size > MAX_DOCUMENT {
            return Err(within(Error::new(format!(
                "it has {size} bytes, too many for a document"
            ))));
        }
        let mut content = Vec::new();
        let mut blob = self.blob(digest, size, &[])?;
        std::io::Read::read_to_end(&mut blob, &mut content).map_err(super::broken)?;
        match Digest::of(&content) {
            actual if actual == *digest => Ok(content),
            actual => Err(within(Error::new(format!("the content has the digest {actual}")))),
        }
    }

    /// Opens a blob. `urls` are where a manifest says that a foreign layer is to be had; they are
    /// asked, without any credential, only when the registry does not have it.
    ///
    /// It ends after just `size` bytes, over as many connections as that takes. Whoever reads it
    /// compares the digest. [`broken`](super::broken) gives the words of a failed read.
    pub fn blob(&self, digest: &Digest, size: u64, urls: &[String]) -> Result<Blob> {
        Blob::open(self.clone(), *digest, size, urls)
    }
}

impl Blob {
    pub(super) fn open(remote: Remote, digest: Digest, size: u64, urls: &[String]) -> Result<Self> {
        let is_web = |url: &&String| url.starts_with("https://") || url.starts_with("http://");
        let mut blob = Blob {
            remote,
            digest,
            size,
            position: 0,
            urls: urls.iter().filter(is_web).take(MAX_URLS).cloned().collect(),
            foreign: false,
            body: None,
            host: String::new(),
            announced: false,
            breaks: 0,
            last_break: 0,
            waited: Duration::ZERO,
            arrived: 0,
        };
        blob.connect().map_err(|failure| blob.context(failure))?;
        Ok(blob)
    }

    fn context(&self, failure: Failure) -> Error {
        let size =
            if self.position == 0 { String::new() } else { format!(" from {}", self.position) };
        let name = &self.remote.0.name;
        failure.within(format_args!("read {}{size} of {name}", self.digest)).into()
    }

    /// Asks for what is still missing.
    fn connect(&mut self) -> Result<(), Failure> {
        let response = if self.foreign { self.ask_urls() } else { self.ask_registry() }?;
        self.host = authority(&response.uri);
        let said = |why: String| Failure::lasting(Error::new(format!("{}: {why}", self.host)));
        let length = response.body.content_length();
        let expected = match response.status {
            206 => {
                let range = response.header(header::CONTENT_RANGE).unwrap_or_default();
                if !continues(range, self.position, self.size) {
                    return Err(said(format!("answers with the range {range:?}")));
                }
                self.size - self.position
            }
            200 => self.size,
            other => return Err(said(format!("answers {other}"))),
        };
        if let Some(length) = length.filter(|length| *length != expected) {
            return Err(said(format!(
                "it has {length} bytes there, its descriptor says {expected}"
            )));
        }
        self.announced = length.is_some();
        let is_whole = response.status == 200;
        self.body = Some(response.body.into_reader());
        (self.waited, self.arrived) = (Duration::ZERO, 0);
        if is_whole { self.read_over() } else { Ok(()) }
    }

    /// After a break at a server that cannot give a part: what is there already comes once more.
    fn read_over(&mut self) -> Result<(), Failure> {
        let mut buffer = vec![0; SKIPPED];
        let mut left = self.position;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(SKIPPED);
            left -= self.receive(&mut buffer[..most])? as u64;
        }
        Ok(())
    }

    fn request(&self) -> Ask<'static> {
        let ask = Ask::new(Method::GET);
        match self.position {
            0 => ask,
            position => ask.header("range", format!("bytes={position}-")),
        }
    }

    fn ask_registry(&mut self) -> Result<Response, Failure> {
        let target = Target::Path(format!("blobs/{}", self.digest));
        match self.remote.ask(&target, || self.request(), Ok) {
            Err(failure) if is_absent(&failure) && !self.urls.is_empty() => {
                self.foreign = true;
                self.ask_urls()
            }
            asked => asked,
        }
    }

    /// Asks the addresses in the manifest. They are whatever its author wrote: no credential goes
    /// there (CVE-2020-15157).
    fn ask_urls(&self) -> Result<Response, Failure> {
        let own = &self.remote.0.own.location;
        let mut first = None;
        for url in &self.urls {
            let outcome = match url.parse::<Uri>() {
                Ok(uri) if uri.scheme_str() == Some("https") || own.insecure => {
                    let http = &self.remote.0.shared.http;
                    http.send(&uri, &mut self.request(), None, super::http::Trust::Verified)
                }
                Ok(uri) => Err(Failure::lasting(
                    Error::new(format!("{}: a foreign layer without TLS", authority(&uri)))
                        .hint("it is read only if the registry is named insecure"),
                )),
                Err(_) => Err(Failure::lasting(Error::new("a foreign layer has no address"))),
            };
            match outcome {
                Ok(response) if matches!(response.status, 200 | 206) => return Ok(response),
                Ok(response) => first = first.or(Some(refusal(response, &own.host))),
                Err(failure) => first = first.or(Some(failure)),
            }
        }
        Err(first.unwrap_or_else(|| Failure::lasting(Error::new("not found"))))
    }

    /// One read from the connection that there is.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let Some(body) = &mut self.body else {
            return Err(Failure::passing(Error::new(ended(&self.host))));
        };
        let started = Instant::now();
        match body.read(buffer) {
            Ok(0) => Err(Failure::passing(Error::new(ended(&self.host)))),
            Ok(count) => {
                self.waited += started.elapsed();
                self.arrived += count as u64;
                if self.waited >= STALL {
                    if self.arrived < LEAST {
                        let slow = format!("{}: less than {LEAST} bytes a minute", self.host);
                        return Err(Failure::passing(Error::new(slow)));
                    }
                    (self.waited, self.arrived) = (Duration::ZERO, 0);
                }
                Ok(count)
            }
            Err(error) => Err(of_io(&self.host, &error)),
        }
    }

    /// After a break: waits and connects again, unless that has happened too often.
    fn mend(&mut self, failure: Failure) -> Result<(), Failure> {
        self.body = None;
        if self.position - self.last_break >= PROGRESS {
            self.breaks = 0;
        }
        self.last_break = self.position;
        if failure.retries == 0 || self.breaks >= MAX_RETRIES {
            return Err(failure);
        }
        pause(&self.remote.0.shared, self.breaks, &failure);
        self.breaks += 1;
        match self.connect() {
            // It broke while what is there was read over.
            Err(again) if again.retries > 0 && self.breaks < MAX_RETRIES => self.mend(again),
            connected => connected,
        }
    }

    /// There must be no more than was said.
    fn finish(&mut self) -> Result<(), Failure> {
        let Some(mut body) = self.body.take() else { return Ok(()) };
        // Where the size was announced this finds the end, and the connection can serve again. A
        // break here is nothing to us: all has come.
        let more = body.read(&mut [0]);
        if !self.announced && matches!(more, Ok(1)) {
            return Err(Failure::lasting(Error::new(format!(
                "{}: it has more than the {} bytes that its descriptor says",
                self.host, self.size
            ))));
        }
        Ok(())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let room = left.min(buffer.len());
        loop {
            let failure = if left == 0 {
                match self.finish() {
                    Ok(()) => return Ok(0),
                    Err(failure) => failure,
                }
            } else if room == 0 {
                return Ok(0);
            } else {
                match self.receive(&mut buffer[..room]) {
                    Ok(count) => {
                        self.position += count as u64;
                        return Ok(count);
                    }
                    Err(failure) => match self.mend(failure) {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    },
                }
            };
            return Err(io::Error::other(self.context(failure)));
        }
    }
}

fn ended(host: &str) -> String {
    format!("{host}: the connection was closed early")
}

/// Whether `bytes START-END/TOTAL` is the rest of the blob.
fn continues(range: &str, position: u64, size: u64) -> bool {
    let parse = || {
        let (span, total) = range.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let (start, end) = span.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        Some((number(start)?, number(end)?, if total == "*" { size } else { number(total)? }))
    };
    parse().is_some_and(|found| {
        size.checked_sub(1).is_some_and(|last| found == (position, last, size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rest_continues() {
        assert!(continues("bytes 5-9/10", 5, 10));
        assert!(continues("bytes 5-9/*", 5, 10));
        for wrong in ["", "bytes 0-9/10", "bytes 5-8/10", "bytes 5-9/11", "bytes */10", "5-9/10"] {
            assert!(!continues(wrong, 5, 10), "{wrong}");
        }
        assert!(!continues("bytes 0-0/0", 0, 0));
    }
}
