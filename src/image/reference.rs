//! Image names.

use std::fmt;

use crate::error::{Error, Result};

/// An image name as the user gives it: `[host[:port]/]path[:tag]`. No tag means `latest`, so that
/// `debian` and `debian:latest` are equal. The grammar is that of the OCI distribution
/// specification; what it allows never needs escaping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    name: String,
    tag: String,
}

impl Reference {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(format!("image name {text:?}: {why}"))
                .hint("a name is [HOST[:PORT]/]NAME[:TAG], for example debian or debian:trixie")
        };
        if text.contains('@') {
            return Err(wrong("names with a digest are not supported"));
        }
        // A colon before the last slash belongs to a port.
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (text, "latest"),
        };
        if name.is_empty() {
            return Err(wrong("is empty"));
        }
        if name.len() > 255 {
            return Err(wrong("is longer than 255 characters"));
        }
        let mut path = name;
        if let Some((first, rest)) = name.split_once('/')
            && (first == "localhost" || first.contains(['.', ':']))
        {
            if !is_host(first) {
                return Err(wrong("starts with what is not a host name"));
            }
            path = rest;
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
        Ok(Reference { name: name.to_owned(), tag: tag.to_owned() })
    }

    /// The name without its tag.
    pub fn repository(&self) -> &str {
        &self.name
    }

    /// The tag, `latest` where none was given.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Name and tag, the tag always there: the form that the store keeps.
    pub fn full(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }
}

/// As the user would type it: `:latest` is left out.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.tag == "latest" { Ok(()) } else { write!(f, ":{}", self.tag) }
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
            "-h.x:1/a",
            "h.x:p/a",
            "h..x/a",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Reference::parse(&"a".repeat(256)).is_err());
    }
}
