//! Grants of files: what of the host a box sees, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use toml::Spanned;

use super::places;
use super::values::Size;

/// A file or directory of the host, and how the box sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Where it is on the host: absolute, below a directory that has a name (`~`, `$XDG_CACHE_HOME`,
    /// `xdg-download`), or relative to the working directory.
    pub path: PathBuf,
    /// Where the box has it; the same path where not said.
    pub at: Option<PathBuf>,
    /// Whether it may be missing.
    pub optional: bool,
    /// Whether programs in it may be executed.
    pub exec: bool,
    /// Where this grant was said, for messages.
    pub origin: Origin,
    /// How late it was said: of several grants at one place in the box the latest counts, and of
    /// several in one file the narrowest.
    pub rank: u32,
}

/// A name, and where it was said: whether there is something of this name (a system call, a profile)
/// is known later than the profile is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The name.
    pub name: String,
    /// Where it was said.
    pub origin: Origin,
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        let origin = Origin::Offset(spanned.span().start);
        Ok(Word { origin, name: spanned.into_inner() })
    }
}

/// Where something was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// At a byte of the profile that is being parsed; `parse` turns it into a place.
    Offset(usize),
    /// `file:line`, or the option's name.
    Place(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Offset(offset) => write!(f, "byte {offset}"),
            Origin::Place(place) => f.write_str(place),
        }
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Unplaced>::deserialize(deserializer)?;
        let offset = spanned.span().start;
        Ok(Grant { origin: Origin::Offset(offset), ..spanned.into_inner().0 })
    }
}

/// A grant before its place is known.
struct Unplaced(Grant);

impl<'de> Deserialize<'de> for Unplaced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Table {
            path: String,
            #[serde(default)]
            at: Option<String>,
            #[serde(default)]
            optional: bool,
            #[serde(default = "yes")]
            exec: bool,
        }
        fn yes() -> bool {
            true
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Unplaced;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a table with path, at, optional, exec")
            }
            fn visit_str<E: de::Error>(self, path: &str) -> Result<Unplaced, E> {
                checked_path(path).map_err(E::custom)?;
                Ok(Unplaced(Grant {
                    path: PathBuf::from(path),
                    at: None,
                    optional: false,
                    exec: true,
                    origin: Origin::Offset(0),
                    rank: 0,
                }))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Unplaced, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                checked_path(&table.path).map_err(de::Error::custom)?;
                if table.at.as_deref().is_some_and(|at| !at.starts_with('/')) {
                    return Err(de::Error::custom("`at` must be an absolute path in the box"));
                }
                Ok(Unplaced(Grant {
                    path: table.path.into(),
                    at: table.at.map(PathBuf::from),
                    optional: table.optional,
                    exec: table.exec,
                    origin: Origin::Offset(0),
                    rank: 0,
                }))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Refuses what is no path of the host, and names of directories that are none.
fn checked_path(path: &str) -> Result<(), String> {
    if path.is_empty() || path.contains('\0') {
        return Err("a path must not be empty or hold a NUL byte".to_owned());
    }
    places::start(Path::new(path)).map(drop)
}

/// A path of the host that is no grant: one to be hidden, or kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPath {
    /// As a grant's.
    pub path: PathBuf,
    /// Where it was said.
    pub origin: Origin,
    /// As a grant's.
    pub rank: u32,
}

impl<'de> Deserialize<'de> for HostPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = PathBuf;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path")
            }
            fn visit_str<E: de::Error>(self, path: &str) -> Result<PathBuf, E> {
                checked_path(path).map_err(E::custom)?;
                Ok(PathBuf::from(path))
            }
        }
        struct Checked(PathBuf);
        impl<'de> Deserialize<'de> for Checked {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Visitor).map(Checked)
            }
        }
        let spanned = Spanned::<Checked>::deserialize(deserializer)?;
        let origin = Origin::Offset(spanned.span().start);
        Ok(HostPath { path: spanned.into_inner().0, origin, rank: 0 })
    }
}

/// An empty file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TmpfsGrant {
    /// Where the box has it.
    pub at: PathBuf,
    /// How much it holds.
    pub size: Option<Size>,
    /// Whether programs in it may be executed.
    pub exec: bool,
    /// The mode of its top directory.
    pub mode: Option<u32>,
}

impl<'de> Deserialize<'de> for TmpfsGrant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Table {
            path: String,
            #[serde(default)]
            size: Option<Size>,
            #[serde(default)]
            exec: Option<bool>,
            #[serde(default)]
            mode: Option<String>,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = TmpfsGrant;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a table with path, size, exec, mode")
            }
            fn visit_str<E: de::Error>(self, path: &str) -> Result<TmpfsGrant, E> {
                path.parse().map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<TmpfsGrant, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let mut grant: TmpfsGrant = table.path.parse().map_err(de::Error::custom)?;
                grant.size = table.size;
                grant.exec = table.exec.unwrap_or(grant.exec);
                if let Some(mode) = table.mode {
                    grant.mode = Some(octal_mode(&mode).map_err(de::Error::custom)?);
                }
                Ok(grant)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn octal_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o1777)
        .ok_or_else(|| format!("{text:?} is not a mode (octal, \"1777\" at most)"))
}

impl FromStr for TmpfsGrant {
    type Err = String;
    /// podman's `--tmpfs` form: `PATH[:size=64m,mode=1777,noexec]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        if !path.starts_with('/') || path.contains('\0') {
            return Err(format!("{path:?} must be an absolute path in the box"));
        }
        let mut grant = TmpfsGrant { at: PathBuf::from(path), size: None, exec: true, mode: None };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) => grant.size = Some(size.parse()?),
                Some(("mode", mode)) => grant.mode = Some(octal_mode(mode)?),
                None if option == "exec" => grant.exec = true,
                None if option == "noexec" => grant.exec = false,
                // Every mount of a box has these; saying them asks for nothing more.
                None if matches!(option, "rw" | "nosuid" | "nodev") => {}
                _ => {
                    return Err(format!(
                        "unknown tmpfs option {option:?}, expected size=, mode=, exec, noexec"
                    ));
                }
            }
        }
        Ok(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_takes_podmans_form() {
        let grant: TmpfsGrant = "/scratch:size=64m,mode=1777,noexec".parse().unwrap();
        assert_eq!(grant.size, Some(Size::Bytes(64 << 20)));
        assert_eq!((grant.mode, grant.exec), (Some(0o1777), false));
        for bad in ["scratch", "/s:suid", "/s:size=x", "/s:mode=4755"] {
            assert!(bad.parse::<TmpfsGrant>().is_err(), "{bad:?}");
        }
    }
}
