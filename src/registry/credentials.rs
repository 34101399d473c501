//! containers-auth.json(5) and docker's config.json: who the user is to a registry.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::Location;
use super::environment::{Environment, read};
use super::helper::ask;
use crate::error::{Error, Result};

const MAX_FILE: u64 = 1 << 20;
/// A helper may ask the user for a pass phrase.
const HELPER_PATIENCE: Duration = Duration::from_secs(120);
/// The word in `credential-helpers` of registries.conf that stands for the files.
const FILES: &str = "containers-auth.json";
/// What docker has called its own registry since its first version.
pub(super) const LEGACY_HUB: &str = "https://index.docker.io/v1/";

/// What proves who one is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password (or an access token in its place).
    Password {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token of OAuth 2, to be changed for others.
    Identity(String),
    /// A bearer token that the registry takes as it is.
    Bearer(String),
}

/// Secrets are not for messages.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Password { .. } => "Password",
            Credential::Identity(_) => "Identity",
            Credential::Bearer(_) => "Bearer",
        })
    }
}

impl Credential {
    /// The value of the Authorization header for a user name and password.
    pub(super) fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", encode(user, password))
    }
}

pub(super) fn encode(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// A file of credentials as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthFile {
    auths: Option<BTreeMap<String, Entry>>,
    /// A helper for one registry.
    cred_helpers: Option<BTreeMap<String, String>>,
    /// A helper for all, in docker's file.
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry")
    }
}

impl AuthFile {
    /// Reads the JSON.
    pub fn parse(json: &[u8]) -> Result<Self> {
        // The words of serde would repeat the value that is wrong, which may be a secret.
        serde_json::from_slice(json).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Error::new(format!("line {line}, column {column}: not a file of credentials"))
        })
    }

    /// The entry for the first of these names.
    pub fn find(&self, names: &[String]) -> Result<Option<Credential>> {
        let Some(auths) = &self.auths else { return Ok(None) };
        for name in names {
            // Docker's names may be addresses: https://HOST/v1/.
            let old = || {
                auths.iter().find(|(key, _)| key.contains("://") && host_of(key) == name.as_str())
            };
            let entry = auths.get_key_value(name).or_else(old);
            if let Some((key, entry)) = entry
                && let Some(credential) = entry.credential().map_err(|e| e.within(key))?
            {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// The helper that keeps the credential of a registry, and the name that it is to be asked for.
    pub(super) fn helper(&self, names: &[String]) -> Option<(&str, String)> {
        let own = self.cred_helpers.iter().flatten();
        let named = names.iter().find_map(|name| {
            own.clone().find(|(key, _)| *key == name).map(|(_, helper)| (helper.as_str(), name))
        });
        let all = || {
            let helper = self.creds_store.as_deref().filter(|name| !name.is_empty())?;
            // `docker login` gave it this name for its own registry.
            let legacy = names.iter().find(|name| *name == LEGACY_HUB);
            Some((helper, legacy.or(names.last())?))
        };
        named.or_else(all).map(|(helper, name)| (helper, name.clone()))
    }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>> {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = set(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let Some(token) = set(&self.registrytoken) {
            return Ok(Some(Credential::Bearer(token)));
        }
        if let Some(encoded) = set(&self.auth) {
            let wrong = || Error::new("auth is not USER:PASSWORD in base64");
            let encoded = encoded.trim();
            let bytes = STANDARD
                .decode(encoded)
                .or_else(|_| STANDARD_NO_PAD.decode(encoded))
                .map_err(|_| wrong())?;
            let text = String::from_utf8(bytes).map_err(|_| wrong())?;
            let (user, password) = text.split_once(':').ok_or_else(wrong)?;
            // Old versions of docker padded with zeros.
            let password = password.trim_matches('\0').to_owned();
            return Ok(Some(Credential::Password { user: user.to_owned(), password }));
        }
        let (Some(user), Some(password)) = (set(&self.username), set(&self.password)) else {
            return Ok(None);
        };
        Ok(Some(Credential::Password { user, password }))
    }
}

/// The host of a key that is an address.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The names under which the credential of a repository (or of a whole registry, where the
/// repository is empty) may be kept, the most specific first.
pub(super) fn names(location: &Location) -> Vec<String> {
    let mut names = Vec::new();
    let mut path = location.repository.as_str();
    while !path.is_empty() {
        names.push(format!("{}/{path}", location.host));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    names.push(location.host.clone());
    if location.host == "docker.io" {
        names.extend(["index.docker.io".to_owned(), LEGACY_HUB.to_owned()]);
    }
    names
}

/// Where credentials are looked for.
#[derive(Debug)]
pub(super) struct Credentials {
    files: Vec<PathBuf>,
    /// Whether the file was named for this command, so that it must be there.
    named: bool,
    helpers: Vec<String>,
}

impl Credentials {
    /// A file that was named is the only one. `helpers` is what registries.conf says.
    pub(super) fn new(environment: &Environment, named: Option<&Path>, helpers: &[String]) -> Self {
        let given = named.is_some();
        let files = match named.or(environment.auth_file.as_deref()) {
            Some(path) => vec![path.to_owned()],
            None => {
                let below = |dir: &Option<PathBuf>, name| dir.as_ref().map(|dir| dir.join(name));
                [
                    below(&environment.runtime, "containers/auth.json"),
                    below(&environment.config, "containers/auth.json"),
                    below(&environment.docker, "config.json"),
                ]
                .into_iter()
                .flatten()
                .collect()
            }
        };
        let helpers = if helpers.is_empty() { vec![FILES.to_owned()] } else { helpers.to_vec() };
        Credentials { files, named: given, helpers }
    }

    /// The user's credential for a repository, and the file with it if others may read that.
    pub(super) fn find(
        &self,
        location: &Location,
    ) -> Result<Option<(Credential, Option<PathBuf>)>> {
        let names = names(location);
        for helper in &self.helpers {
            if helper != FILES {
                // By default these keep what belongs to a registry as a whole.
                if let Some(credential) = get(helper, &location.host)? {
                    return Ok(Some((credential, None)));
                }
                continue;
            }
            for path in &self.files {
                let file = match read_file(path)? {
                    Some(file) => file,
                    None if self.named => {
                        return Err(Error::os("open", path.display(), nix::errno::Errno::ENOENT)
                            .hint("--authfile names a file of credentials that is there"));
                    }
                    None => continue,
                };
                if let Some((helper, name)) = file.helper(&names)
                    && let Some(credential) = get(helper, &name)?
                {
                    return Ok(Some((credential, None)));
                }
                let within = |error: Error| error.within(format_args!("read {}", path.display()));
                if let Some(credential) = file.find(&names).map_err(within)? {
                    let exposed = std::fs::metadata(path).is_ok_and(|m| m.mode() & 0o077 != 0);
                    return Ok(Some((credential, exposed.then(|| path.clone()))));
                }
            }
        }
        Ok(None)
    }
}

/// Reads a file of credentials; `None` where there is none.
pub(super) fn read_file(path: &Path) -> Result<Option<AuthFile>> {
    let Some(json) = read(path, MAX_FILE)? else { return Ok(None) };
    // `touch` makes one too.
    if json.trim_ascii().is_empty() {
        return Ok(Some(AuthFile::default()));
    }
    AuthFile::parse(&json)
        .map(Some)
        .map_err(|error| error.within(format_args!("read {}", path.display())))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    username: String,
    secret: String,
}

/// Asks a helper for a credential; `None` where it has none.
fn get(helper: &str, name: &str) -> Result<Option<Credential>> {
    let answer = talk(helper, "get", name.as_bytes())?;
    let said = String::from_utf8_lossy(&answer.output);
    if !answer.succeeded {
        // The one failure that the protocol has words for.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(refused(helper, "get", &said));
    }
    let kept: Kept = serde_json::from_slice(&answer.output)
        .map_err(|_| Error::new(format!("docker-credential-{helper} get: no answer in JSON")))?;
    Ok(match (kept.username.as_str(), kept.secret.is_empty()) {
        (_, true) => None,
        ("<token>", false) => Some(Credential::Identity(kept.secret)),
        (_, false) => Some(Credential::Password { user: kept.username, password: kept.secret }),
    })
}

/// Has a helper keep a credential.
pub(super) fn store(helper: &str, name: &str, user: &str, password: &str) -> Result<()> {
    let question =
        serde_json::json!({ "ServerURL": name, "Username": user, "Secret": password }).to_string();
    let answer = talk(helper, "store", question.as_bytes())?;
    if answer.succeeded {
        return Ok(());
    }
    Err(refused(helper, "store", &String::from_utf8_lossy(&answer.output)))
}

/// Has a helper forget one; whether it had it is not told apart by all of them.
pub(super) fn erase(helper: &str, name: &str) -> Result<()> {
    let answer = talk(helper, "erase", name.as_bytes())?;
    let said = String::from_utf8_lossy(&answer.output);
    if answer.succeeded || said.contains("credentials not found") {
        return Ok(());
    }
    Err(refused(helper, "erase", &said))
}

fn talk(helper: &str, verb: &str, question: &[u8]) -> Result<super::helper::Answer> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if helper.is_empty() || helper.len() > 64 || !helper.bytes().all(is_name) {
        return Err(Error::new(format!("credential helper {helper:?}: not a name of one"))
            .hint("credHelpers and credsStore hold X of a program docker-credential-X"));
    }
    if question.len() > 32 * 1024 {
        return Err(Error::new(format!("docker-credential-{helper} {verb}: too long a text")));
    }
    let program = OsString::from(format!("docker-credential-{helper}"));
    ask(&program, &[verb], question, HELPER_PATIENCE).map_err(|error| {
        Error::os("run", format_args!("docker-credential-{helper} {verb}"), &error).hint(
            "credHelpers, credsStore or credential-helpers names this helper; install it or take \
             it out",
        )
    })
}

fn refused(helper: &str, verb: &str, said: &str) -> Error {
    let said: String = said.trim().chars().take(200).collect();
    Error::new(format!("docker-credential-{helper} {verb}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, host: &str, repository: &str) -> Option<Credential> {
        let location = Location::parse(&format!("{host}/{repository}"), false).unwrap();
        AuthFile::parse(json.as_bytes()).unwrap().find(&names(&location)).unwrap()
    }

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn the_most_specific_name_wins() {
        let json = r#"{"auths":{"a.io":{"auth":"aDpw"},"a.io/team":{"auth":"dDpwOnE="},
            "https://b.io/v1/":{"username":"u","password":"p"}}}"#;
        assert_eq!(find(json, "a.io", "other/x"), password("h", "p"));
        assert_eq!(find(json, "a.io", "team/x"), password("t", "p:q"));
        assert_eq!(find(json, "a.io", "teams/x"), password("h", "p"));
        assert_eq!(find(json, "b.io", "x"), password("u", "p"));
        assert_eq!(find(json, "c.io", "x"), None);
    }

    #[test]
    fn dockers_old_name_is_its_registrys() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aDpw"}}}"#;
        assert_eq!(find(json, "docker.io", "library/debian"), password("h", "p"));
        let token = r#"{"auths":{"docker.io":{"auth":"aDpw","identitytoken":"t"}}}"#;
        assert_eq!(find(token, "docker.io", "x"), Some(Credential::Identity("t".into())));
    }

    #[test]
    fn helpers_are_named_for_one_or_for_all() {
        let location = Location::parse("docker.io/x", false).unwrap();
        let helper = |json: &str| {
            let file = AuthFile::parse(json.as_bytes()).unwrap();
            file.helper(&names(&location)).map(|(helper, name)| format!("{helper} {name}"))
        };
        let both = r#"{"credHelpers":{"docker.io":"one"},"credsStore":"all"}"#;
        assert_eq!(helper(both).as_deref(), Some("one docker.io"));
        let all = r#"{"auths":{"docker.io":{}},"credsStore":"all"}"#;
        assert_eq!(helper(all), Some(format!("all {LEGACY_HUB}")));
        assert_eq!(helper("{}"), None);
        assert!(get("../evil", "x").unwrap_err().to_string().contains("not a name"));
    }

    #[test]
    fn messages_never_hold_secrets() {
        for json in [r#"{"auths":{"a.io":"hunter2"}}"#, r#"{"auths":{"a.io":{"auth":5}}}"#] {
            let error = AuthFile::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("line 1") && !error.contains("hunter2"), "{error}");
        }
        let file = AuthFile::parse(br#"{"auths":{"a.io":{"auth":"aHVudGVyMg=="}}}"#).unwrap();
        let error = file.find(&["a.io".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "a.io: auth is not USER:PASSWORD in base64");
        assert!(!format!("{file:?}{:?}", password("u", "hunter2")).contains("hunter2"));
    }
}
