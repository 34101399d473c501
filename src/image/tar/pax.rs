//! PAX records: `LENGTH KEY=VALUE\n`, as many as the extended header holds.

use std::io;

use super::wrong;

/// The records of one extended header, in order.
#[derive(Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(super) fn parse(mut data: &[u8]) -> io::Result<Self> {
        let bad = || wrong("PAX record");
        let mut records = Vec::new();
        while !data.is_empty() {
            let blank = data.iter().take(20).position(|&byte| byte == b' ').ok_or_else(bad)?;
            let length = decimal(&data[..blank]).ok_or_else(bad)?;
            let length = usize::try_from(length).map_err(|_| bad())?;
            if length <= blank + 1 || length > data.len() {
                return Err(bad());
            }
            let (record, rest) = data.split_at(length);
            let record = record[blank + 1..].strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            data = rest;
        }
        Ok(Records(records))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last value of a key, as POSIX has it; an empty one takes the record back.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(name, _)| name == key)?;
        Some(found.1.as_slice()).filter(|value| !value.is_empty())
    }

    /// All records in order, for the old sparse form that repeats its keys.
    pub(super) fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    pub(super) fn changes_entries(&self) -> bool {
        self.0.iter().any(|(key, _)| {
            matches!(key.as_slice(), b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.")
        })
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.0.iter().any(|(key, _)| key.starts_with(b"GNU.sparse."))
    }

    pub(super) fn number(&self, key: &[u8]) -> io::Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        decimal(value).map(Some).ok_or_else(|| wrong("number in a PAX record"))
    }

    pub(super) fn size(&self) -> io::Result<Option<u64>> {
        self.number(b"size")
    }

    pub(super) fn id(&self, key: &[u8]) -> io::Result<Option<u32>> {
        let Some(id) = self.number(key)? else { return Ok(None) };
        u32::try_from(id).map(Some).map_err(|_| wrong("owner in a PAX record"))
    }

    /// Seconds with an optional fraction, possibly before 1970.
    pub(super) fn mtime(&self) -> io::Result<Option<(i64, u32)>> {
        let Some(text) = self.get(b"mtime") else { return Ok(None) };
        let bad = || wrong("time in a PAX record");
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut parts = text.splitn(2, |&byte| byte == b'.');
        let seconds = decimal(parts.next().unwrap_or_default()).ok_or_else(bad)?;
        let seconds = i64::try_from(seconds).map_err(|_| bad())?;
        let mut nanoseconds = 0;
        let fraction = parts.next().unwrap_or_default();
        for position in 0..9 {
            let digit = fraction.get(position).copied().unwrap_or(b'0');
            if !digit.is_ascii_digit() {
                return Err(bad());
            }
            nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
        }
        Ok(Some(match (negative, nanoseconds) {
            (false, nanoseconds) => (seconds, nanoseconds),
            (true, 0) => (-seconds, 0),
            (true, nanoseconds) => (-seconds - 1, 1_000_000_000 - nanoseconds),
        }))
    }

    /// The extended attributes, in the form that star, GNU tar and Go write.
    pub(super) fn into_xattrs(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let name = |key: &[u8]| key.strip_prefix(b"SCHILY.xattr.").map(<[u8]>::to_vec);
        self.0.into_iter().filter_map(|(key, value)| Some((name(&key)?, value))).collect()
    }
}

/// An unsigned decimal number; no sign, no blanks, not empty.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
