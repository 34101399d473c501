//! Names in an archive: what they mean below the layer's root, and which are refused.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The deepest directory that is unpacked. The kernel bounds a path at 4096 bytes, which would be
/// 2048 levels; no layer that runs comes near this.
const MAX_DEPTH: usize = 512;
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// A cleaned name: components joined by single slashes, none of them `.` or `..`; empty for the
/// root itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name(Vec<u8>);

impl Name {
    /// Cleans a name as tar does: leading slashes and `.` components go. The error says why not.
    pub(super) fn clean(raw: &[u8]) -> Result<Self, &'static str> {
        if raw.is_empty() {
            return Err("the name is empty");
        }
        if raw.contains(&0) {
            return Err("the name holds a NUL byte");
        }
        let mut clean = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for part in raw.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err("the name goes up with `..`"),
                part if part.len() > NAME_MAX => return Err("a name is longer than 255 bytes"),
                part => {
                    if !clean.is_empty() {
                        clean.push(b'/');
                    }
                    clean.extend_from_slice(part);
                    depth += 1;
                }
            }
        }
        if depth > MAX_DEPTH {
            return Err("nested deeper than 512 directories");
        }
        if clean.len() > PATH_MAX {
            return Err("the path is longer than 4095 bytes");
        }
        Ok(Name(clean))
    }

    pub(super) fn root() -> Self {
        Name(Vec::new())
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The directory that holds it; the root for names at the top.
    pub(super) fn parent(&self) -> Self {
        let end = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Name(self.0[..end].to_vec())
    }

    /// The last component.
    pub(super) fn leaf(&self) -> &OsStr {
        let start = self.0.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        OsStr::from_bytes(&self.0[start..])
    }

    /// Whether it is `other` or below it.
    pub(super) fn is_within(&self, other: &Name) -> bool {
        self.0
            .strip_prefix(other.0.as_slice())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || other.is_root())
    }
}

/// What a name that starts with `.wh.` says (OCI image specification, layer.md, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker<'a> {
    /// No marker.
    None,
    /// This name is removed from the layers below.
    Whiteout(&'a OsStr),
    /// Nothing of the layers below shows in this directory.
    Opaque,
    /// AUFS's own records, which mean nothing to anyone else.
    Aufs,
}

/// Reads the marker in a last component.
pub(super) fn marker(leaf: &OsStr) -> Result<Marker<'_>, &'static str> {
    let Some(rest) = leaf.as_bytes().strip_prefix(b".wh.") else { return Ok(Marker::None) };
    match rest {
        b".wh..opq" => Ok(Marker::Opaque),
        b"" | b"." | b".." => Err("a whiteout of nothing"),
        rest if rest.starts_with(b".wh.") => Ok(Marker::Aufs),
        rest => Ok(Marker::Whiteout(OsStr::from_bytes(rest))),
    }
}

/// Whether a directory on the way has a marker's name.
pub(super) fn passes_marker(parent: &Name) -> bool {
    parent.0.split(|&byte| byte == b'/').any(|part| part.starts_with(b".wh."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(raw: &str) -> Result<String, &'static str> {
        Name::clean(raw.as_bytes()).map(|name| String::from_utf8(name.0).unwrap())
    }

    #[test]
    fn names_are_cleaned_as_tar_does() {
        for (raw, expected) in [
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            (".", ""),
            ("/", ""),
            ("a/./b", "a/b"),
        ] {
            assert_eq!(clean(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn names_that_lead_out_or_cannot_be_are_refused() {
        for raw in ["", "..", "../a", "a/../b", "a/..", "/..", "a\0b", &"x".repeat(256)] {
            assert!(clean(raw).is_err(), "{raw:?}");
        }
        assert!(clean(&"a/".repeat(513)).is_err());
        assert!(clean(&format!("{0}/{0}", "x".repeat(255)).repeat(17)).is_err());
    }

    #[test]
    fn markers_are_operations() {
        let marker = |leaf| marker(OsStr::new(leaf));
        assert_eq!(marker("a"), Ok(Marker::None));
        assert_eq!(marker(".wh.a"), Ok(Marker::Whiteout(OsStr::new("a"))));
        assert_eq!(marker(".wh..wh..opq"), Ok(Marker::Opaque));
        assert_eq!(marker(".wh..wh.plnk"), Ok(Marker::Aufs));
        for wrong in [".wh.", ".wh..", ".wh..."] {
            assert!(marker(wrong).is_err(), "{wrong}");
        }
        assert_eq!(marker(".wh..hidden"), Ok(Marker::Whiteout(OsStr::new(".hidden"))));
        assert!(passes_marker(&Name::clean(b"a/.wh.b/c").unwrap()));
    }

    #[test]
    fn parents_and_leaves() {
        let name = Name::clean(b"a/b/c").unwrap();
        assert_eq!(name.parent().path(), Path::new("a/b"));
        assert_eq!(name.leaf(), "c");
        assert!(Name::clean(b"a").unwrap().parent().is_root());
        assert!(name.is_within(&Name::clean(b"a/b").unwrap()));
        assert!(name.is_within(&Name::root()));
        assert!(!name.is_within(&Name::clean(b"a/bb").unwrap()));
    }
}
