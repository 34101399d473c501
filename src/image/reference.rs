//! Image names.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::Digest;
use crate::error::{Error, Result};

/// The registry of names that say none, and where its own images are.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// An image name as the user gives it: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`. No tag means `latest`,
/// so that `debian` and `debian:latest` are equal, and both are `docker.io/library/debian`: a name
/// is kept in its shortest form. The grammar is that of the OCI distribution specification and of
/// docker's references; what it allows never needs escaping.
#[derive(Debug, Clone)]
pub struct Reference {
    name: String,
    tag: String,
    digest: Option<Digest>,
    // Whether a registry was named. It says how to look for the image, and not which it is.
    qualified: bool,
}

impl Reference {
    /// Reads a name. A tag beside a digest says nothing more than the digest does, and is dropped.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(format!("image name {text:?}: {why}")).hint(
                "a name is [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST], for example debian or \
                 ghcr.io/owner/tool:1.2",
            )
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(Digest::parse(digest).map_err(|_| {
                    wrong("has a digest that is not sha256: and 64 hexadecimal digits")
                })?),
            ),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (rest, DEFAULT_TAG),
        };
        if name.is_empty() {
            return Err(wrong("is empty"));
        }
        if name.len() > 255 {
            return Err(wrong("is longer than 255 characters"));
        }
        let (host, path) = split_host(name);
        if host.is_some_and(|host| !is_host(host)) {
            return Err(wrong("starts with what is not a host name"));
        }
        if !path.split('/').all(is_component) {
            return Err(wrong(
                "may have lower-case letters and digits, with single separators . _ - between",
            ));
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let tag_bytes = tag.as_bytes();
        if tag.is_empty() || tag.len() > 128 || !word(tag_bytes[0]) {
            return Err(wrong("has a tag that is empty, too long or starts with a separator"));
        }
        if !tag_bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-') {
            return Err(wrong("has a tag with other than letters, digits and . _ -"));
        }
        let qualified = host.is_some();
        let name = shortest(host, path);
        let tag = if digest.is_some() { DEFAULT_TAG } else { tag };
        Ok(Reference { name, tag: tag.to_owned(), digest, qualified })
    }

    /// The name without tag and digest, in its shortest form.
    pub fn repository(&self) -> &str {
        &self.name
    }

    /// The tag, `latest` where none was given. Without meaning where there is a digest.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The digest of the manifest or index that is meant, whatever the tag says today.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether no registry was named: the user's configuration may then say which is meant. It has
    /// no say in what was named `docker.io/…`, also where the name is kept without that.
    pub fn is_short(&self) -> bool {
        !self.qualified
    }

    /// The host, with its port where it has one, and the repository there.
    pub fn registry(&self) -> (&str, String) {
        match split_host(&self.name) {
            (Some(host), path) => (host, path.to_owned()),
            (None, path) if path.contains('/') => (DEFAULT_REGISTRY, path.to_owned()),
            (None, path) => (DEFAULT_REGISTRY, format!("{DEFAULT_NAMESPACE}/{path}")),
        }
    }

    /// The same tag or digest of another repository.
    pub fn in_repository(&self, repository: &str) -> Result<Self> {
        let mut other = Reference::parse(repository)?;
        other.tag.clone_from(&self.tag);
        other.digest = self.digest;
        Ok(other)
    }

    /// The name with its tag, or its digest: the form that the store keeps.
    pub fn full(&self) -> String {
        match self.digest {
            Some(digest) => format!("{}@{digest}", self.name),
            None => format!("{}:{}", self.name, self.tag),
        }
    }
}

impl Reference {
    fn key(&self) -> (&str, &str, Option<Digest>) {
        (&self.name, &self.tag, self.digest)
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Reference {}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// As the user would type it: `:latest` is left out.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None if self.tag == DEFAULT_TAG => Ok(()),
            None => write!(f, ":{}", self.tag),
        }
    }
}

/// The first component is a host where it looks like one, as docker and podman tell it.
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn shortest(host: Option<&str>, path: &str) -> String {
    match host {
        Some(host) if host != DEFAULT_REGISTRY && host != "index.docker.io" => {
            format!("{host}/{path}")
        }
        // Without its host this one would be read as another's.
        _ if split_host(path).0.is_some() => format!("{DEFAULT_REGISTRY}/{path}"),
        _ => match path.strip_prefix("library/") {
            Some(official) if !official.contains('/') => official.to_owned(),
            _ => path.to_owned(),
        },
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label)
        && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tag_is_latest() {
        assert_eq!(Reference::parse("debian").unwrap(), Reference::parse("debian:latest").unwrap());
        assert_eq!(Reference::parse("debian:latest").unwrap().to_string(), "debian");
        assert_eq!(Reference::parse("debian").unwrap().full(), "debian:latest");
        assert_eq!(Reference::parse("debian:12-slim").unwrap().to_string(), "debian:12-slim");
    }

    #[test]
    fn a_port_is_no_tag() {
        let reference = Reference::parse("localhost:5000/a/b").unwrap();
        assert_eq!((reference.repository(), reference.tag()), ("localhost:5000/a/b", "latest"));
        let reference = Reference::parse("Registry.example:5000/a__b/c--d:T_1.x").unwrap();
        assert_eq!(reference.tag(), "T_1.x");
    }

    #[test]
    fn the_default_registry_goes_without_saying() {
        let parse = |text: &str| Reference::parse(text).unwrap();
        for same in ["docker.io/library/debian", "index.docker.io/library/debian", "library/debian"]
        {
            assert_eq!(parse(same), parse("debian"), "{same}");
        }
        assert_eq!(parse("debian").registry(), ("docker.io", "library/debian".to_owned()));
        assert_eq!(parse("docker.io/a/b").registry(), ("docker.io", "a/b".to_owned()));
        assert_eq!(parse("docker.io/a/b").to_string(), "a/b");
        assert_eq!(parse("quay.io/a/b").registry(), ("quay.io", "a/b".to_owned()));
        assert_eq!(parse("docker.io/a.b/c").registry(), ("docker.io", "a.b/c".to_owned()));
        assert!(parse("a/b").is_short() && !parse("localhost/b").is_short());
        assert!(parse("debian").is_short() && !parse("docker.io/library/debian").is_short());
        let moved = parse("debian:12").in_repository("mirror.example/x/debian").unwrap();
        assert_eq!(moved.full(), "mirror.example/x/debian:12");
    }

    #[test]
    fn a_digest_stands_for_the_tag() {
        let digest = Digest::of(b"");
        let reference = Reference::parse(&format!("a.example/b:1@{digest}")).unwrap();
        assert_eq!(reference.digest(), Some(digest));
        assert_eq!(reference.full(), format!("a.example/b@{digest}"));
        assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for wrong in [
            "",
            ":",
            ":tag",
            "a:",
            "A",
            "a/",
            "/a",
            "a//b",
            "a b",
            "../a",
            "a/../b",
            ".a",
            "a.",
            "a..b",
            "a___b",
            "a:b:c",
            "a:-x",
            "a\n",
            "a\u{1b}[m",
            "ä",
            "a@sha256:00",
            "a@md5:00",
            "a@",
            "-h.x:1/a",
            "h.x:p/a",
            "h..x/a",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Reference::parse(&"a".repeat(256)).is_err());
    }
}
