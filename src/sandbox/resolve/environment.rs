//! The program's environment: made new, never inherited. From weakest to strongest: what every box
//! has, what is kept of the caller's, the image's, files of variables, what is set.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::locate;
use crate::error::{During, Error, Result};
use crate::host::{Host, World};
use crate::identity::Identity;
use crate::image;
use crate::profile::{EnvValue, Pattern, Profile};

/// Where a box finds programs by name, unless an image or a profile says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// More than any file of variables has.
const LIMIT: u64 = 1 << 20;

pub(super) fn collect(
    profile: &Profile,
    host: &Host,
    identity: &Identity,
    image: Option<&image::Config>,
    hostname: &str,
    terminal: &[bool; 3],
    world: &mut dyn World,
) -> Result<Vec<(OsString, OsString)>> {
    let mut all: BTreeMap<OsString, OsString> = BTreeMap::new();
    let mut set = |name: &str, value: &OsStr| all.insert(name.into(), value.to_owned());
    set("PATH", DEFAULT_PATH.as_ref());
    set("HOME", identity.home.as_os_str());
    set("USER", identity.name.as_ref());
    set("LOGNAME", identity.name.as_ref());
    set("HOSTNAME", hostname.as_ref());
    // As podman and systemd-nspawn, so that programs can tell (systemd.io/CONTAINER_INTERFACE).
    set("container", "casemate".as_ref());
    if terminal.contains(&true) && !host.environment.contains_key(OsStr::new("TERM")) {
        set("TERM", "xterm".as_ref());
    }
    for (name, value) in &host.environment {
        // An image brings its own locales; the host's may not be among them.
        let host_only = image.is_some() && is_locale(name);
        if !host_only && profile.environment.keep.iter().any(|pattern| matches(pattern, name)) {
            all.insert(name.clone(), value.clone());
        }
    }
    for entry in image.map(|image| image.env.as_slice()).unwrap_or_default() {
        if let Some((name, value)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) {
            all.insert(name.into(), value.into());
        }
    }
    for path in &profile.environment.from_file {
        let path = locate::on_host(path, host, world)?;
        let content = world.read(&path, LIMIT).at("read", &path)?;
        from_file(&content, &path, host, &mut all)?;
    }
    for (name, value) in &host.environment {
        if profile.environment.pass.iter().any(|pattern| matches(pattern, name)) {
            all.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in &profile.environment.set {
        match value {
            EnvValue::Is(value) => {
                all.insert(name.0.clone().into(), value.clone());
            }
            EnvValue::FromCaller => {
                if let Some(value) = host.environment.get(OsStr::new(&name.0)) {
                    all.insert(name.0.clone().into(), value.clone());
                }
            }
        }
    }
    Ok(all.into_iter().collect())
}

fn is_locale(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name == b"LANG" || name == b"LANGUAGE" || name.starts_with(b"LC_")
}

fn matches(pattern: &Pattern, name: &OsStr) -> bool {
    match pattern {
        Pattern::Name(wanted) => name == OsStr::new(&wanted.0),
        Pattern::Prefix(prefix) => name.as_bytes().starts_with(prefix.as_bytes()),
    }
}

/// podman's `--env-file`: a line each, `#` comments, no quoting; a name alone is the caller's.
fn from_file(
    content: &[u8],
    path: &Path,
    host: &Host,
    all: &mut BTreeMap<OsString, OsString>,
) -> Result<()> {
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (line.trim_ascii_end(), None),
        };
        let spaced = name.iter().any(|byte| byte.is_ascii_whitespace());
        if name.is_empty() || spaced || line.contains(&0) {
            return Err(Error::new(format!(
                "{}:{}: not a line of the form NAME=value",
                path.display(),
                index + 1
            )));
        }
        let name = OsString::from_vec(name.to_vec());
        let value = value.map(|value| OsString::from_vec(value.to_vec()));
        if let Some(value) = value.or_else(|| host.environment.get(&name).cloned()) {
            all.insert(name, value);
        }
    }
    Ok(())
}
