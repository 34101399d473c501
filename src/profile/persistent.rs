//! Directories of the boxes' own that stay: caches and logins of programs, apart from the user's. No
//! program outside uses them. All boxes that name one share it, those of other projects too: what one
//! of them leaves there the next one reads, and whether it looks at it again is the program's matter.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer};
use toml::Spanned;

use super::Origin;

/// The longest name of a file, in bytes (NAME_MAX of most file systems).
const LONGEST: usize = 255;

/// The home of a box, or a directory below it, that is there again in the next box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persistent {
    /// Where it is below the home; empty for the home itself.
    pub below: PathBuf,
    /// Whose it is; without a name, all boxes' that ask for it.
    pub name: Option<String>,
    /// Where it was said.
    pub origin: Origin,
    /// As a grant's.
    pub rank: u32,
}

impl Persistent {
    /// The name of its directory on the host. All lie side by side: a box that has one of them cannot
    /// put a symbolic link where another is looked for.
    pub fn file_name(&self) -> OsString {
        let mut name =
            self.name.as_ref().map_or(String::new(), |name| format!("{name}:")).into_bytes();
        if self.below.as_os_str().is_empty() {
            name.push(b'~');
        }
        for byte in self.below.as_os_str().as_bytes() {
            match byte {
                b'/' | b'%' | b':' | b'~' => name.extend(format!("%{byte:02X}").bytes()),
                _ => name.push(*byte),
            }
        }
        OsString::from_vec(name)
    }
}

/// Reads a text such as `~/.npm`.
fn persistent(path: &str, name: Option<String>) -> Result<Persistent, String> {
    let below = match path {
        "~" => Some(""),
        _ => path.strip_prefix("~/").filter(|rest| !rest.trim_matches('/').is_empty()),
    };
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
    let below = below
        .map(Path::new)
        .filter(|below| below.components().all(is_name) && !path.contains('\0'))
        .ok_or_else(|| {
            format!("{path:?}: must be ~ or a directory below it, such as ~/.cache/tool")
        })?;
    if let Some(name) = name.as_ref().filter(|name| !super::library::is_name(name)) {
        return Err(format!("{name:?}: a name has letters, digits, dashes, dots and underscores"));
    }
    if below.as_os_str().is_empty() && name.is_none() {
        return Err(
            "a whole home belongs to somebody: { path = \"~\", name = \"tool\" }".to_owned()
        );
    }
    let below = below.components().collect();
    let persistent = Persistent { below, name, origin: Origin::Offset(0), rank: 0 };
    match persistent.file_name().len() > LONGEST {
        true => Err(format!("{path:?}: too long")),
        false => Ok(persistent),
    }
}

impl<'de> Deserialize<'de> for Persistent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Unplaced>::deserialize(deserializer)?;
        let origin = Origin::Offset(spanned.span().start);
        Ok(Persistent { origin, ..spanned.into_inner().0 })
    }
}

/// One before its place is known.
struct Unplaced(Persistent);

impl<'de> Deserialize<'de> for Unplaced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Table {
            path: String,
            #[serde(default)]
            name: Option<String>,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Unplaced;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a table with path, name")
            }
            fn visit_str<E: de::Error>(self, path: &str) -> Result<Unplaced, E> {
                persistent(path, None).map(Unplaced).map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Unplaced, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                persistent(&table.path, table.name).map(Unplaced).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_home_and_what_is_below_it_can_stay() {
        assert_eq!(persistent("~/.cache//pip", None).unwrap().below, Path::new(".cache/pip"));
        let long = format!("~/{}", "a/".repeat(100));
        for bad in ["~", "~/", "~/..", "~/a/../b", "/a", "a", "$HOME/a", "~ann/a", "~/\0", &long] {
            assert!(persistent(bad, None).is_err(), "{bad}");
        }
        assert!(persistent("~", Some("tool".into())).is_ok());
        assert!(persistent("~", Some("../tool".into())).is_err());
    }

    #[test]
    fn no_two_have_one_directory() {
        let name = |path, name: Option<&str>| {
            persistent(path, name.map(str::to_owned)).unwrap().file_name()
        };
        assert_eq!(name("~/.cache/pip", None), ".cache%2Fpip");
        assert_eq!(name("~/.cache%2Fpip", None), ".cache%252Fpip");
        assert_eq!(name("~/.npm", Some("x")), "x:.npm");
        assert_eq!(name("~/x:.npm", None), "x%3A.npm");
        assert_eq!(name("~", Some("x")), "x:~");
        assert_eq!(name("~/~", Some("x")), "x:%7E");
    }
}
