//! Trying a credential, keeping it, and forgetting it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::credentials::{self, Credential, LEGACY_HUB, encode, names};
use super::environment::read;
use super::http::Ask;
use super::refusal::refusal;
use super::session::{Patience, Session, Target};
use super::{Location, Options, Registries};
use crate::error::{During, Error, Result};

const MAX_FILE: u64 = 1 << 20;

/// Where a credential was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this file.
    File(PathBuf),
    /// With a credential helper of this name.
    Helper(String),
}

impl Registries {
    /// Asks a registry (`HOST[:PORT][/PATH]`) whether it takes a credential.
    pub fn verify(&self, registry: &str, credential: &Credential) -> Result<()> {
        let mut location = Location::parse(registry, false)?;
        location.insecure = self.is_insecure(self.0.configuration.is_insecure(&location.host));
        let host = location.host.clone();
        let session = Session::with_credential(location, credential.clone());
        let root = Target::Path("/v2/".to_owned());
        let mut ask = Ask::new(Method::GET);
        // A failure names the host itself.
        let within = |error: Error| match registry == host {
            true => error.within("log in"),
            false => error.within(format_args!("log in to {registry}")),
        };
        let response =
            session.send(&self.0, &root, &mut ask, &[], Patience::Usual).map_err(|failure| {
                match failure.status {
                    Some(401 | 403) => wrong_password(registry),
                    _ => within(failure.into()),
                }
            })?;
        match response.status {
            // A registry says which protocol it speaks, a web server gives its start page.
            200 if response.media_type() == "text/html" => {
                Err(within(super::refusal::no_registry(&host)))
            }
            200 => Ok(()),
            401 | 403 => Err(wrong_password(registry)),
            _ => Err(within(refusal(response, &host).into())),
        }
    }
}

fn wrong_password(registry: &str) -> Error {
    Error::new(format!("log in to {registry}: the user name or the password is wrong"))
        .hint("some registries want an access token in place of the password")
}

/// The registry of a word on the command line: `https://` before it and a slash after it are left
/// out, as podman does.
pub fn registry_name(text: &str) -> Result<String> {
    let bare = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
    let bare = bare.trim_end_matches('/');
    Location::parse(bare, false)?;
    Ok(bare.to_owned())
}

/// The file that a login writes.
pub fn login_file(options: &Options) -> Result<PathBuf> {
    let environment = &options.environment;
    let named = options.auth_file.clone().or_else(|| environment.auth_file.clone());
    let below = |base: &Option<PathBuf>| base.as_ref().map(|dir| dir.join("containers/auth.json"));
    let found =
        named.or_else(|| below(&environment.runtime).or_else(|| below(&environment.config)));
    found.ok_or_else(|| {
        Error::new("credentials: no place for them, as no home directory is known")
            .hint("name a file: --authfile, or REGISTRY_AUTH_FILE")
    })
}

/// Keeps a user name and password for a registry, by the helper that the file names for it, or in
/// the file itself.
pub fn keep(options: &Options, registry: &str, user: &str, password: &str) -> Result<Kept> {
    let path = login_file(options)?;
    if let Some(helper) = own_helper(&path, registry)? {
        credentials::store(&helper, registry, user, password)?;
        return Ok(Kept::Helper(helper));
    }
    let mut document = document(&path)?;
    let auths = auths(&mut document, &path)?;
    auths.insert(registry.to_owned(), json!({ "auth": encode(user, password) }));
    write(&path, &document)?;
    Ok(Kept::File(path))
}

/// Forgets the credential of a registry. False where there was none.
pub fn forget(options: &Options, registry: &str) -> Result<bool> {
    let path = login_file(options)?;
    if let Some(helper) = own_helper(&path, registry)? {
        credentials::erase(&helper, registry)?;
        return Ok(true);
    }
    let mut document = document(&path)?;
    let auths = auths(&mut document, &path)?;
    let mut known = auths.remove(registry).is_some();
    if registry == "docker.io" {
        known |= auths.remove(LEGACY_HUB).is_some();
    }
    if known {
        write(&path, &document)?;
    }
    Ok(known)
}

/// Forgets all of the file, and what its helpers keep. How many there were is returned.
pub fn forget_all(options: &Options) -> Result<usize> {
    let path = login_file(options)?;
    let mut document = document(&path)?;
    let helpers = document.get("credHelpers").and_then(Value::as_object).cloned();
    let mut count = 0;
    for (registry, helper) in helpers.into_iter().flatten() {
        if let Some(helper) = helper.as_str() {
            credentials::erase(helper, &registry)?;
            count += 1;
        }
    }
    let auths = auths(&mut document, &path)?;
    count += auths.len();
    if !auths.is_empty() {
        auths.clear();
        write(&path, &document)?;
    }
    Ok(count)
}

fn own_helper(path: &Path, registry: &str) -> Result<Option<String>> {
    let Some(file) = credentials::read_file(path)? else { return Ok(None) };
    let names = names(&Location::parse(registry, false)?);
    Ok(file.helper(&names).map(|(helper, _)| helper.to_owned()))
}

/// The file as it is, with what only other tools know.
fn document(path: &Path) -> Result<Map<String, Value>> {
    let json = read(path, MAX_FILE)?.unwrap_or_default();
    if json.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::new(format!(
            "read {}: line {line}, column {column}: not a file of credentials",
            path.display()
        ))
    })
}

fn auths<'a>(
    document: &'a mut Map<String, Value>,
    path: &Path,
) -> Result<&'a mut Map<String, Value>> {
    let auths = document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    if auths.is_null() {
        *auths = Value::Object(Map::new());
    }
    auths
        .as_object_mut()
        .ok_or_else(|| Error::new(format!("read {}: auths is no object", path.display())))
}

/// Replaces the file whole; nobody else may read it.
fn write(path: &Path, document: &Map<String, Value>) -> Result<()> {
    // A link is kept, and what it points to replaced.
    let path = match fs::canonicalize(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => path.to_owned(),
        found => found.at("find", path)?,
    };
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    make.at("make the directory", directory)?;
    let mut text = serde_json::to_vec_pretty(document)
        .map_err(|error| Error::new(format!("write JSON: {error}")))?;
    text.push(b'\n');
    let name = path.file_name().unwrap_or_default();
    for number in 0.. {
        let mut fresh = std::ffi::OsString::from(".");
        fresh.push(name);
        fresh.push(format!(".{}-{number}", std::process::id()));
        let fresh = directory.join(fresh);
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => continue,
            opened => opened.at("create", &fresh)?,
        };
        let written = file
            .write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&fresh, &path));
        if written.is_err() {
            // Half a file of credentials is of no use to anybody.
            let _left_behind = fs::remove_file(&fresh);
        }
        return written.at("write", &path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_else_is_in_the_file_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/auth.json");
        let options = Options { auth_file: Some(path.clone()), ..Options::default() };
        assert_eq!(keep(&options, "a.io", "u", "p:q").unwrap(), Kept::File(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, br#"{"auths":{"a.io":{"auth":"x"}},"other":{"b":[1]}}"#).unwrap();
        keep(&options, "b.io/team", "u", "p").unwrap();
        let read =
            |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let expected = json!({
            "auths": { "a.io": { "auth": "x" }, "b.io/team": { "auth": "dTpw" } },
            "other": { "b": [1] },
        });
        assert_eq!(read(&path), expected);
        assert!(forget(&options, "b.io/team").unwrap() && !forget(&options, "b.io/team").unwrap());
        assert_eq!(forget_all(&options).unwrap(), 1);
        assert_eq!(read(&path), json!({ "auths": {}, "other": { "b": [1] } }));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_registry_is_a_host_and_no_more_than_a_path() {
        assert_eq!(registry_name("https://a.io:5000/").unwrap(), "a.io:5000");
        assert_eq!(registry_name("a.io/team").unwrap(), "a.io/team");
        for wrong in ["", "a b", "-x", "a.io:99999", "a.io/../x", "a.io/X", "ftp://a.io"] {
            assert!(registry_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
