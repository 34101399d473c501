//! Requests over HTTP: agents for hosts, redirects under our own rules, and failures in words.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Method, Request, Uri, header};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, SendBody};

use super::address::{HUB, HUB_HOST, authority, join};
use super::environment::Environment;
use super::failure::{Failure, unreachable};
use super::names::Names;
use super::proxy::proxy;
use super::tls::Roots;
use crate::error::{Error, Result};

const CONNECT: Duration = Duration::from_secs(30);
/// How long nothing may come, or go.
pub(super) const STALL: Duration = Duration::from_secs(60);
/// How long an answer may take to begin, with its headers; and a document to be whole.
const ANSWER: Duration = Duration::from_secs(120);
const MAX_REDIRECTS: usize = 10;
const MAX_HEADERS: usize = 64 * 1024;
const MAX_DRAINED: u64 = 16 * 1024;

/// Whether a host was named insecure: then nothing that it says of itself is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    Verified,
    Insecure,
}

/// What goes with a request.
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    Stream(&'a mut Content<'a>),
}

/// What is uploaded: a reader, held to the size that was announced.
pub(super) struct Content<'a> {
    inner: &'a mut dyn Read,
    size: Option<u64>,
    taken: u64,
}

impl<'a> Content<'a> {
    pub(super) fn new(inner: &'a mut dyn Read, size: Option<u64>) -> Self {
        Content { inner, size, taken: 0 }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.map_or(u64::MAX, |size| size - self.taken);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..room])?;
        // The client would wait for the rest for ever.
        if count == 0 && self.size.is_some() {
            let taken = self.taken;
            let error = Error::new(format!("the content ends after {taken} bytes, {left} early"));
            return Err(io::Error::other(error));
        }
        self.taken += count as u64;
        Ok(count)
    }
}

/// A request without its address.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload<'a>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method) -> Self {
        Ask { method, headers: Vec::new(), payload: Payload::None }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    /// Whether it can be sent again: a stream that was read from cannot.
    pub(super) fn is_whole(&self) -> bool {
        !matches!(&self.payload, Payload::Stream(content) if content.taken > 0)
    }
}

/// An answer, whatever its status.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// Who answered in the end.
    pub(super) uri: Uri,
}

impl Response {
    /// A header as text, if it is text.
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The media type, without its parameters.
    pub(super) fn media_type(&self) -> &str {
        let value = self.header(header::CONTENT_TYPE).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }

    /// The whole body, of at most `limit` bytes and in bounded time.
    pub(super) fn document(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + ANSWER;
        let mut reader = self.body.as_reader();
        let mut content = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = match reader.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if count == 0 {
                return Ok(content);
            }
            if (content.len() + count) as u64 > limit {
                return Err(io::Error::from_raw_os_error(libc::EFBIG));
            }
            if Instant::now() > deadline {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            content.extend_from_slice(&buffer[..count]);
        }
    }

    /// Reads what nobody wants, if it is little, so that the connection can serve again.
    pub(super) fn drain(&mut self) {
        let _is_closed_then = self.document(MAX_DRAINED);
    }
}

/// Speaks HTTP. One agent a host, since hosts have certificates and proxies of their own; an agent
/// keeps its connections for the next request.
pub(super) struct Http {
    environment: Environment,
    roots: Roots,
    agents: Mutex<BTreeMap<(String, Trust), Agent>>,
}

impl Http {
    pub(super) fn new(environment: Environment) -> Self {
        Http { environment, roots: Roots::default(), agents: Mutex::default() }
    }

    /// Sends a request and follows where it leads: never from https to http, and with the
    /// authorization to the first host only (CVE-2020-15157 was the other way).
    pub(super) fn send(
        &self,
        uri: &Uri,
        ask: &mut Ask<'_>,
        authorization: Option<&str>,
        trust: Trust,
    ) -> Result<Response, Failure> {
        let mut uri = uri.clone();
        let mut authorization = authorization;
        for _ in 0..=MAX_REDIRECTS {
            let mut response = self.send_once(&uri, ask, authorization, trust)?;
            let is_redirect = matches!(response.status, 301 | 302 | 303 | 307 | 308);
            // What changes something is asked of the one it was meant for.
            if !is_redirect || !matches!(ask.method, Method::GET | Method::HEAD) {
                return Ok(response);
            }
            let next = response.header(header::LOCATION).and_then(|to| join(&uri, to));
            let next = next.ok_or_else(|| {
                Failure::lasting(Error::new(format!(
                    "{}: a redirect that leads nowhere",
                    authority(&uri)
                )))
            })?;
            refuse_downgrade(&uri, &next)?;
            response.drain();
            if authority(&next) != authority(&uri) {
                authorization = None;
            }
            uri = next;
        }
        Err(Failure::lasting(Error::new(format!(
            "{}: more than {MAX_REDIRECTS} redirects",
            authority(&uri)
        ))))
    }

    fn send_once(
        &self,
        uri: &Uri,
        ask: &mut Ask<'_>,
        authorization: Option<&str>,
        trust: Trust,
    ) -> Result<Response, Failure> {
        let agent = self.agent(uri, trust).map_err(Failure::lasting)?;
        let mut request = Request::builder().method(&ask.method).uri(uri);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let bad = |error: ureq::http::Error| {
            Failure::lasting(Error::new(format!("{}: {error}", authority(uri))))
        };
        let answer = match &mut ask.payload {
            Payload::None if matches!(ask.method, Method::POST | Method::PUT | Method::PATCH) => {
                agent.run(request.body(&[][..]).map_err(bad)?)
            }
            Payload::None => agent.run(request.body(()).map_err(bad)?),
            Payload::Bytes(bytes) => agent.run(request.body(*bytes).map_err(bad)?),
            Payload::Stream(content) => {
                // A refusal then comes before the content has gone.
                request = request.header(header::EXPECT, "100-continue");
                if let Some(size) = content.size {
                    request = request.header(header::CONTENT_LENGTH, size);
                }
                agent.run(request.body(SendBody::from_reader(*content)).map_err(bad)?)
            }
        };
        let (parts, body) = answer
            .map_err(|error| {
                let mut failure = unreachable(uri, error);
                if let Some(proxy) = agent.config().proxy() {
                    // Without its user and password.
                    failure.error = failure.error.hint(format!(
                        "it was asked by way of the proxy {}:{}, which the environment names",
                        proxy.host(),
                        proxy.port()
                    ));
                }
                failure
            })?
            .into_parts();
        let response = Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            uri: uri.clone(),
        };
        match response.header(header::CONTENT_ENCODING) {
            None | Some("identity" | "") => Ok(response),
            Some(other) => Err(Failure::lasting(Error::new(format!(
                "{}: answers in the encoding {other:?}, which was not asked for",
                authority(uri)
            )))),
        }
    }

    fn agent(&self, uri: &Uri, trust: Trust) -> Result<Agent> {
        let scheme = uri.scheme_str().unwrap_or_default();
        let (host, port) = (uri.host().unwrap_or_default(), port(uri));
        let authority = authority(uri);
        let key = (format!("{scheme}://{authority}"), trust);
        if let Some(agent) = self.agents().get(&key) {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy(&self.environment, scheme, host, port)?)
            .user_agent(concat!("casemate/", env!("CARGO_PKG_VERSION")))
            // Blobs are wanted as their digests know them.
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .timeout_recv_response(Some(ANSWER))
            .max_response_header_size(MAX_HEADERS)
            .max_idle_connections_per_host(8);
        if scheme == "https" {
            let named = if authority == HUB_HOST { HUB } else { &authority };
            let verify = trust == Trust::Verified;
            config = config.tls_config(self.roots.config(&self.environment, named, verify)?);
        }
        let agent = Agent::with_parts(config.build(), DefaultConnector::default(), Names);
        Ok(self.agents().entry(key).or_insert(agent).clone())
    }

    fn agents(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, Trust), Agent>> {
        // A map of whole entries is as good after a panic as before.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn refuse_downgrade(from: &Uri, to: &Uri) -> Result<(), Failure> {
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        return Err(Failure::lasting(Error::new(format!(
            "{}: leads from https to http at {}",
            authority(from),
            authority(to)
        ))));
    }
    Ok(())
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}
