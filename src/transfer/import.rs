//! Import: an image comes from a file, or from another tool's store by way of skopeo.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{During, Error, Result};
use crate::image::{Form, Location, Platform, Reference, Transport};
use crate::store::{self, Import, Imported, Store};

/// How much of what skopeo says is kept, and how much is shown.
const MAX_WORDS: u64 = 64 << 10;
const SHOWN: usize = 600;

/// Imports an image or a root file system. Without a name it gets the one that it has there.
pub fn import(
    store: &Store,
    name: Option<&Reference>,
    location: &Location,
    platform: Option<&Platform>,
) -> Result<Imported> {
    let Location::Storage { transport, name: stored } = location else {
        return store::import_from(store, &Import { name, location, platform });
    };
    let own = own_name(*transport, stored);
    let name = name.or(own.as_ref()).ok_or_else(|| {
        Error::new(format!("import {location}: that is no name to keep"))
            .hint("name it: `casemate import NAME SOURCE`, NAME[:TAG] first")
    })?;
    let spool = store.spool();
    let copy = spool.path("copied")?;
    fetch(*transport, stored, &copy).map_err(|e| e.within(format_args!("import {location}")))?;
    let copied = Location::File { form: Form::Dir, path: copy, tag: None };
    store::import_from(store, &Import { name: Some(name), location: &copied, platform })
}

/// The name under which the image is kept, if nothing else is said. What podman made itself has
/// the host `localhost`, which is part of its name here too.
fn own_name(transport: Transport, stored: &OsStr) -> Option<Reference> {
    let text = stored.to_str()?;
    let text = match transport {
        // `[driver@root+run:options]` may stand before it.
        Transport::ContainersStorage => {
            text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(_, n)| n)
        }
        Transport::DockerDaemon => text,
    };
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    // `@ID`, and `sha256:ID` of docker's.
    if text.starts_with(['@', '/']) || text.starts_with("sha256:") || is_id(text) {
        return None;
    }
    Reference::parse(text).ok()
}

/// Has skopeo copy the image into a directory. Its layers come as they are kept: unpacked where
/// containers/storage has them, which is what is needed.
fn fetch(transport: Transport, stored: &OsStr, to: &Path) -> Result<()> {
    let mut from = OsString::from(transport.word());
    from.push(":");
    from.push(stored);
    // The daemon's names are never short of a tag.
    if transport == Transport::DockerDaemon
        && let Some(name) = stored.to_str()
        && !name.contains('@')
        && !name.rsplit('/').next().is_some_and(|last| last.contains(':'))
    {
        from.push(":latest");
    }
    let mut target = OsString::from("dir:");
    target.push(to);
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet"]).arg(&from).arg(&target);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new("needs skopeo, which is not installed").hint(
            "install the package skopeo; or save the image into a file there, and import that",
        ),
        _ => Error::os("start", "skopeo", error),
    })?;
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.by_ref().take(MAX_WORDS).read_to_end(&mut said).during("read from", "skopeo")?;
        std::io::copy(&mut stderr, &mut std::io::sink()).during("read from", "skopeo")?;
    }
    let status = child.wait().during("wait for", "skopeo")?;
    if status.success() {
        return Ok(());
    }
    let error = match words(&String::from_utf8_lossy(&said)) {
        words if words.is_empty() => Error::new(format!("skopeo: {status}")),
        words => Error::new(format!("skopeo: {words}")),
    };
    Err(match transport {
        Transport::ContainersStorage => {
            error.hint("`podman images` lists what is there, with names in full")
        }
        Transport::DockerDaemon => error
            .hint("`docker images` lists what is there; the daemon must run, and be yours to use"),
    })
}

/// The message of the last thing that skopeo logged, without the rest of the line.
fn words(said: &str) -> String {
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let text = match line.split_once("msg=\"") {
        Some((_, text)) => text.trim_end().trim_end_matches('"').replace("\\\"", "\""),
        None => line.trim().to_owned(),
    };
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_other_stores_are_names_here() {
        let name = |transport, text: &str| own_name(transport, OsStr::new(text));
        let podman = |text| name(Transport::ContainersStorage, text).map(|name| name.to_string());
        assert_eq!(podman("localhost/a:1").as_deref(), Some("localhost/a:1"));
        assert_eq!(podman("[overlay@/x+/y]localhost/a").as_deref(), Some("localhost/a"));
        let id = "0".repeat(64);
        assert_eq!(podman(&id), None);
        assert_eq!(podman(&format!("@{id}")), None);
        assert_eq!(name(Transport::DockerDaemon, &format!("sha256:{id}")), None);
    }

    #[test]
    fn of_what_skopeo_says_the_message_is_shown() {
        let said = "time=\"2026-01-01\" level=fatal msg=\"no \\\"x\\\" here\"\n";
        assert_eq!(words(said), "no \"x\" here");
        assert_eq!(words("one\ntwo\n\n"), "two");
        assert_eq!(words(""), "");
    }
}
