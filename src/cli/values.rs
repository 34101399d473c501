//! The option values that have a syntax of their own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{TypedValueParser, ValueParserFactory};

use crate::image::Location;
use crate::profile::{EnvName, EnvValue, Pattern, ResourceLimit, ResourceName, Size};

/// `--volume SRC[:DST[:OPTIONS]]`, with paths of any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On the host.
    pub source: PathBuf,
    /// In the box.
    pub target: Option<PathBuf>,
    /// Whether it may be changed.
    pub write: bool,
    /// Whether programs in it may be executed.
    pub exec: bool,
}

impl Volume {
    fn parse(text: &OsStr) -> Result<Volume, String> {
        let mut parts = text.as_bytes().splitn(3, |byte| *byte == b':');
        let path = |part: &[u8]| PathBuf::from(OsStr::from_bytes(part));
        let source = parts.next().unwrap_or_default();
        if source.is_empty() {
            return Err("the source is empty".to_owned());
        }
        if !source.contains(&b'/') && !matches!(source, b"." | b".." | b"~") {
            return Err(format!(
                "named volumes do not exist here; for the directory write ./{}",
                source.escape_ascii()
            ));
        }
        let target = parts.next();
        if target.is_some_and(|target| !target.starts_with(b"/")) {
            return Err("the place in the box must be an absolute path".to_owned());
        }
        let mut volume =
            Volume { source: path(source), target: target.map(path), write: true, exec: true };
        let options = parts.next().unwrap_or_default();
        for option in options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
            match option {
                b"ro" => volume.write = false,
                b"rw" => volume.write = true,
                b"exec" => volume.exec = true,
                b"noexec" => volume.exec = false,
                // Every mount of a box is these.
                b"nosuid" | b"nodev" | b"rprivate" | b"private" | b"rbind" => {}
                _ => {
                    return Err(format!(
                        "unknown option {}, expected ro, rw, exec, noexec",
                        option.escape_ascii()
                    ));
                }
            }
        }
        Ok(volume)
    }
}

/// `--env NAME=VALUE`, `--env NAME`, `--env PREFIX*`, with values of any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvArg {
    /// One variable.
    Set(EnvName, EnvValue),
    /// All of the caller's that begin so.
    Keep(Pattern),
}

impl EnvArg {
    fn parse(text: &OsStr) -> Result<EnvArg, String> {
        let bytes = text.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
            None => (bytes, None),
        };
        let name = str::from_utf8(name).map_err(|_| "the name is not UTF-8".to_owned())?;
        match value {
            Some(value) => {
                let value = OsStr::from_bytes(value).to_owned();
                Ok(EnvArg::Set(name.parse()?, EnvValue::Is(value)))
            }
            None if name.ends_with('*') => Ok(EnvArg::Keep(name.parse()?)),
            None => Ok(EnvArg::Set(name.parse()?, EnvValue::FromCaller)),
        }
    }
}

/// `--ulimit NAME=SOFT[:HARD]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UlimitArg {
    /// Of what.
    pub name: ResourceName,
    /// How much.
    pub limit: ResourceLimit,
}

impl FromStr for UlimitArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, limit) =
            text.split_once('=').ok_or_else(|| "expected NAME=SOFT[:HARD]".to_owned())?;
        Ok(UlimitArg { name: name.parse()?, limit: limit.parse()? })
    }
}

/// A number of bytes, with an optional unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteCount(pub u64);

impl FromStr for ByteCount {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            Size::Bytes(bytes) => Ok(ByteCount(bytes)),
            Size::Percent(_) => Err("a percentage has no meaning here".to_owned()),
        }
    }
}

/// Lets clap hand over bytes that need not be UTF-8.
#[derive(Clone)]
pub struct BytesParser<T>(fn(&OsStr) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for BytesParser<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        (self.0)(value).map_err(|reason| {
            // clap's own words around a reason, as for the values that are plain text.
            let parser = clap::builder::StringValueParser::new()
                .try_map(move |_| Err::<String, String>(reason.clone()));
            let shown = OsString::from(value.as_bytes().escape_ascii().to_string());
            match parser.parse_ref(command, argument, &shown) {
                Err(error) => error,
                Ok(_) => clap::Error::new(clap::error::ErrorKind::ValueValidation),
            }
        })
    }
}

impl ValueParserFactory for Volume {
    type Parser = BytesParser<Volume>;
    fn value_parser() -> Self::Parser {
        BytesParser(Volume::parse)
    }
}

impl ValueParserFactory for Location {
    type Parser = BytesParser<Location>;
    fn value_parser() -> Self::Parser {
        BytesParser(Location::parse)
    }
}

impl ValueParserFactory for EnvArg {
    type Parser = BytesParser<EnvArg>;
    fn value_parser() -> Self::Parser {
        BytesParser(EnvArg::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_read_as_podmans() {
        let parse = |text: &str| Volume::parse(OsStr::new(text));
        let volume = parse("./a:/b:ro,noexec").unwrap();
        assert_eq!((volume.write, volume.exec), (false, false));
        assert_eq!(parse(".").unwrap().target, None);
        for bad in ["", ":/b", "data:/b", "/a:b", "/a:/b:suid", "/a:/b:z"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let odd = Volume::parse(OsStr::from_bytes(b"/\xff:/x")).unwrap();
        assert_eq!(odd.source.as_os_str().as_bytes(), b"/\xff");
    }

    #[test]
    fn variables_are_set_copied_or_matched() {
        let parse = |text: &str| EnvArg::parse(OsStr::new(text)).unwrap();
        let name = |name: &str| EnvName(name.into());
        assert_eq!(parse("A=b=c"), EnvArg::Set(name("A"), EnvValue::Is("b=c".into())));
        assert_eq!(parse("A="), EnvArg::Set(name("A"), EnvValue::Is("".into())));
        assert_eq!(parse("A"), EnvArg::Set(name("A"), EnvValue::FromCaller));
        assert_eq!(parse("LC_*"), EnvArg::Keep(Pattern::Prefix("LC_".into())));
        assert!(EnvArg::parse(OsStr::new("=x")).is_err());
        assert!(EnvArg::parse(OsStr::new("*")).is_err());
    }
}
