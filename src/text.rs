//! Bytes as JSON text: UTF-8 as it is, any other byte as `\xNN`, a backslash doubled then. JSON has
//! no form for the names that Linux allows; this one is readable and loses nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serializer;
use serde::ser::SerializeSeq;

/// One string of bytes.
pub fn plain(bytes: &[u8]) -> String {
    if let Ok(text) = str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

pub(crate) fn bytes<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&plain(value))
}

pub(crate) fn path<S: Serializer>(value: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    bytes(value.as_os_str().as_bytes(), serializer)
}

pub(crate) fn optional_path<S: Serializer>(
    value: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => path(value, serializer),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn list<S: Serializer>(value: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
    sequence(value.iter().map(OsString::as_os_str), serializer)
}

pub(crate) fn paths<S: Serializer>(value: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    sequence(value.iter().map(|path| path.as_os_str()), serializer)
}

fn sequence<'a, S: Serializer>(
    items: impl ExactSizeIterator<Item = &'a OsStr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(items.len()))?;
    for item in items {
        sequence.serialize_element(&plain(item.as_bytes()))?;
    }
    sequence.end()
}

pub(crate) fn pairs<S: Serializer>(
    value: &[(OsString, OsString)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        value.iter().map(|(name, value)| (plain(name.as_bytes()), plain(value.as_bytes()))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_look_alike() {
        assert_eq!(plain("grüße\\x".as_bytes()), "grüße\\x");
        assert_eq!(plain(b"a\\b\xff"), "a\\\\b\\xff");
    }
}
