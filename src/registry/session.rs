//! Dealings with one place: over TLS or not, authorized as it demands, and again when it fails.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{Method, Uri, header};

use super::address::{address, authority};
use super::challenge::{self, Challenge};
use super::credentials::Credential;
use super::failure::{Failure, MAX_RETRIES};
use super::http::{Ask, Payload, Response, Trust};
use super::refusal::refusal;
use super::{Location, Notice, Shared};
use crate::error::{Error, Result};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const MAX_TOKEN: u64 = 1 << 20;
/// What a token lasts when its server does not say (the token specification).
const TOKEN_LIFE: u64 = 60;
/// A token is not used in the last seconds of its life.
const TOKEN_MARGIN: Duration = Duration::from_secs(5);

/// Where at a registry a request goes.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// A path of its API.
    Path(String),
    /// An address that it gave us itself.
    Address(Uri),
}

/// How often a request that fails is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As often as the failure deserves.
    Usual,
    /// Not at all: there is another place to ask.
    None,
}

/// What is known of one place.
pub(super) struct Session {
    pub(super) location: Location,
    scheme: Mutex<Option<&'static str>>,
    credential: Mutex<Option<Option<Credential>>>,
    authorizations: Mutex<BTreeMap<String, Authorization>>,
    renewing: Mutex<()>,
    /// Set when it could not be reached, so that further requests pass over it.
    dead: AtomicBool,
}

#[derive(Clone)]
struct Authorization {
    value: String,
    until: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole values are put in and taken out: what a panic left is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub(super) fn new(location: Location) -> Self {
        Session {
            location,
            scheme: Mutex::default(),
            credential: Mutex::default(),
            authorizations: Mutex::default(),
            renewing: Mutex::default(),
            dead: AtomicBool::new(false),
        }
    }

    /// One with this credential and no other, for a login.
    pub(super) fn with_credential(location: Location, credential: Credential) -> Self {
        let session = Session::new(location);
        *lock(&session.credential) = Some(Some(credential));
        session
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(super) fn give_up(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Sends a request and returns the answer, whatever its status unless that may pass. `scopes`
    /// are what a token must allow.
    pub(super) fn send(
        &self,
        shared: &Shared,
        target: &Target,
        ask: &mut Ask<'_>,
        scopes: &[String],
        patience: Patience,
    ) -> Result<Response, Failure> {
        let mut tries = 0;
        loop {
            let failure = match self.send_once(shared, target, ask, scopes) {
                Ok(response) if !matches!(response.status, 408 | 429 | 500 | 502..=504) => {
                    return Ok(response);
                }
                Ok(response) => refusal(response, &self.location.host),
                Err(failure) => failure,
            };
            let allowed = if patience == Patience::None { 0 } else { failure.retries };
            if tries >= allowed.min(MAX_RETRIES) || !ask.is_whole() {
                return Err(failure);
            }
            pause(shared, tries, &failure);
            tries += 1;
        }
    }

    fn send_once(
        &self,
        shared: &Shared,
        target: &Target,
        ask: &mut Ask<'_>,
        scopes: &[String],
    ) -> Result<Response, Failure> {
        let known = self.authorization(scopes);
        let mut response = self.speak(shared, target, ask, known.as_deref())?;
        if response.status != 401 || !self.is_own(&response.uri) {
            return Ok(response);
        }
        let headers = response.headers.get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<_> = headers
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let authorization = self.authorize(shared, &challenges, scopes, known.as_deref())?;
        match authorization {
            Some(authorization) if ask.is_whole() => {
                response.drain();
                self.speak(shared, target, ask, Some(&authorization))
            }
            _ => Ok(response),
        }
    }

    /// Over https; or, with an insecure place, over what it turns out to speak.
    fn speak(
        &self,
        shared: &Shared,
        target: &Target,
        ask: &mut Ask<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, Failure> {
        let path = match target {
            Target::Path(path) => path,
            Target::Address(uri) => {
                // It may be somebody else's, who is shown nothing of ours.
                let authorization = authorization.filter(|_| self.is_own(uri));
                return shared.http.send(uri, ask, authorization, self.location.trust());
            }
        };
        let trust = self.location.trust();
        let over = |scheme: &str, ask: &mut Ask<'_>| {
            let uri = address(scheme, &self.location.host, path).map_err(Failure::lasting)?;
            shared.http.send(&uri, ask, authorization, trust)
        };
        let known = *lock(&self.scheme);
        match known {
            Some(scheme) => over(scheme, ask),
            None if trust == Trust::Verified => over("https", ask),
            None => {
                let (scheme, outcome) = match over("https", ask) {
                    Err(failure) if failure.without_tls && ask.is_whole() => {
                        ("http", over("http", ask))
                    }
                    outcome => ("https", outcome),
                };
                if outcome.is_ok() {
                    *lock(&self.scheme) = Some(scheme);
                }
                outcome
            }
        }
    }

    /// Whether an address is at this registry, which alone sees its credentials.
    fn is_own(&self, uri: &Uri) -> bool {
        let scheme = uri.scheme_str().unwrap_or_default();
        // Without TLS only what was itself spoken to without.
        let is_as_safe = scheme == "https" || *lock(&self.scheme) == Some("http");
        is_as_safe
            && address(scheme, &self.location.host, "/")
                .is_ok_and(|own| authority(&own) == authority(uri))
    }

    /// What is known to be accepted, if it is still good.
    fn authorization(&self, scopes: &[String]) -> Option<String> {
        let authorizations = lock(&self.authorizations);
        let found = authorizations.get("").or_else(|| authorizations.get(&scopes.join(" ")))?;
        let is_good = found.until.is_none_or(|until| until > Instant::now() + TOKEN_MARGIN);
        is_good.then(|| found.value.clone())
    }

    /// What answers a challenge; `None` where nothing does, or what did has just failed.
    fn authorize(
        &self,
        shared: &Shared,
        challenges: &[Challenge],
        scopes: &[String],
        failed: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let _one_at_a_time = lock(&self.renewing);
        // Another thread may have been here first.
        if let Some(value) = self.authorization(scopes).filter(|v| Some(v.as_str()) != failed) {
            return Ok(Some(value));
        }
        let credential = self.credential(shared).map_err(Failure::lasting)?;
        let keep = |key: String, value: String, until| {
            let authorization = Authorization { value: value.clone(), until };
            lock(&self.authorizations).insert(key, authorization);
            Ok((Some(value.as_str()) != failed).then_some(value))
        };
        if let Some(Credential::Bearer(token)) = &credential {
            return keep(String::new(), format!("Bearer {}", checked(token)?), None);
        }
        for challenge in challenges {
            match (challenge, &credential) {
                (Challenge::Basic, Some(Credential::Password { user, password })) => {
                    return keep(String::new(), Credential::basic(user, password), None);
                }
                (Challenge::Bearer { realm, service, scope }, credential) => {
                    let mut wanted = scopes.to_vec();
                    // A registry that is known by other names than its own says which it means.
                    wanted.extend(scope.clone().filter(|scope| {
                        scope.starts_with("repository:") && !covers(scopes, scope)
                    }));
                    let service = service.as_deref();
                    let token = self.token(shared, realm, service, &wanted, credential.as_ref())?;
                    let life = token.expires_in.unwrap_or(TOKEN_LIFE).clamp(TOKEN_LIFE, 86400);
                    let until = Instant::now() + Duration::from_secs(life);
                    let value = format!("Bearer {}", checked(&token.either())?);
                    return keep(scopes.join(" "), value, Some(until));
                }
                (Challenge::Basic, _) => {}
            }
        }
        Ok(None)
    }

    fn credential(&self, shared: &Shared) -> Result<Option<Credential>> {
        let mut known = lock(&self.credential);
        if let Some(credential) = &*known {
            return Ok(credential.clone());
        }
        let found = shared.credentials.find(&self.location)?;
        if let Some((_, Some(path))) = &found {
            shared.notify(&Notice::Exposed { path });
        }
        let credential = found.map(|(credential, _)| credential);
        *known = Some(credential.clone());
        Ok(credential)
    }

    /// Asks a token server, as the distribution project's specification says.
    fn token(
        &self,
        shared: &Shared,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        credential: Option<&Credential>,
    ) -> Result<Token, Failure> {
        let named = &self.location.host;
        let wrong = |why: &str| Failure::lasting(Error::new(format!("{named}: {why}")));
        let uri: Uri = realm.parse().map_err(|_| wrong("its token server has no address"))?;
        let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        match uri.scheme_str() {
            Some("https") if is_plain => {}
            Some("http") if is_plain && self.location.insecure => {}
            Some("http") if is_plain => {
                return Err(Failure::lasting(
                    Error::new(format!(
                        "{named}: its token server at {} is without TLS",
                        authority(&uri)
                    ))
                    .hint("nothing is sent there unless the registry is named insecure"),
                ));
            }
            _ => return Err(wrong("its token server has no address")),
        }
        let own = address("https", named, "/").map_err(Failure::lasting)?;
        let trust = match self.location.insecure && uri.host() == own.host() {
            true => Trust::Insecure,
            false => Trust::Verified,
        };
        let mut fields: Vec<(&str, &str)> = Vec::new();
        fields.extend(service.map(|service| ("service", service)));
        let joined = scopes.join(" ");
        let mut response = if let Some(Credential::Identity(token)) = credential {
            fields.extend([("grant_type", "refresh_token"), ("client_id", "casemate")]);
            fields.extend([("refresh_token", token.as_str()), ("scope", joined.as_str())]);
            let form = encode(&fields);
            let mut ask = Ask::new(Method::POST)
                .header("content-type", "application/x-www-form-urlencoded")
                .payload(Payload::Bytes(form.as_bytes()));
            shared.http.send(&uri, &mut ask, None, trust)
        } else {
            fields.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            let mut basic = None;
            if let Some(Credential::Password { user, password }) = credential {
                fields.push(("account", user));
                basic = Some(Credential::basic(user, password));
            }
            let separator = if uri.query().is_some() { '&' } else { '?' };
            let address = match fields.is_empty() {
                true => uri.to_string(),
                false => format!("{uri}{separator}{}", encode(&fields)),
            };
            let address: Uri =
                address.parse().map_err(|_| wrong("its token server has no address"))?;
            shared.http.send(&address, &mut Ask::new(Method::GET), basic.as_deref(), trust)
        }
        .map_err(|failure| failure.within("get a token"))?;
        if response.status != 200 {
            return Err(refusal(response, named).within("get a token"));
        }
        let host = authority(&response.uri);
        let json = response
            .document(MAX_TOKEN)
            .map_err(|error| super::failure::of_io(&host, &error).within("get a token"))?;
        let token: Token = serde_json::from_slice(&json).unwrap_or_default();
        match token.either().is_empty() {
            true => Err(wrong("its token server answers without a token")),
            false => Ok(token),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Token {
    fn either(&self) -> String {
        self.token.clone().or_else(|| self.access_token.clone()).unwrap_or_default()
    }
}

/// Whether what a registry asks for is part of what is asked for anyway.
fn covers(scopes: &[String], scope: &str) -> bool {
    let name = |scope: &str| scope.rsplit_once(':').map(|(name, _)| name.to_owned());
    scopes.iter().any(|ours| name(ours) == name(scope))
}

/// A token goes into a header as it is.
fn checked(token: &str) -> Result<&str, Failure> {
    match token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(token),
        false => Err(Failure::lasting(Error::new("get a token: it has characters of no token"))),
    }
}

/// `application/x-www-form-urlencoded`
fn encode(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(byte.into());
                }
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

/// Waits before another try: twice as long each time, and not in step with others who wait.
pub(super) fn pause(shared: &Shared, tries: u32, failure: &Failure) {
    let random = RandomState::new().build_hasher().finish();
    let full = FIRST_WAIT * 2u32.saturating_pow(tries.min(10));
    let jitter = full.mul_f64(0.25 * (random % 1000) as f64 / 1000.0);
    let wait = failure.wait.unwrap_or(full + jitter);
    shared.notify(&Notice::Retrying { wait, error: &failure.error });
    std::thread::sleep(wait);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded() {
        let scope = "repository:a/b:pull,push";
        assert_eq!(
            encode(&[("service", "a b&c"), ("scope", scope)]),
            "service=a%20b%26c&scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
    }

    #[test]
    fn a_wider_scope_covers_a_narrower() {
        let ours = ["repository:a/b:pull,push".to_owned()];
        assert!(covers(&ours, "repository:a/b:pull"));
        assert!(!covers(&ours, "repository:prefix/a/b:pull"));
    }
}
