//! Finding an image by what the user typed: a name, a name with a digest, or the beginning of an id.

use super::index::{Entry, Index};
use super::{Held, Image, Store, catalogue};
use crate::error::{Error, Result};
use crate::image::Reference;

/// Fewer digits of an id than this are taken for a name only.
const SHORTEST_ID: usize = 6;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    reference: Reference,
    candidates: &'a [Reference],
    /// The digits, where it may be the beginning of an id.
    id: Option<String>,
}

impl<'a> Wanted<'a> {
    /// Reads what the user typed. Fails where it can be neither a name nor an id.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Wanted { reference: Reference::parse(text)?, candidates: &[], id: id(text) })
    }

    /// What a name that was read already means.
    pub fn of(reference: &Reference) -> Self {
        let id = id(&reference.to_string());
        Wanted { reference: reference.clone(), candidates: &[], id }
    }

    /// The full names that the user's configuration has for a short one, looked for in this order
    /// where the name itself is not in the store.
    #[must_use]
    pub fn with_candidates(mut self, candidates: &'a [Reference]) -> Self {
        self.candidates = candidates;
        self
    }

    /// The name that was typed.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }
}

fn id(text: &str) -> Option<String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = (SHORTEST_ID..=64).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_id.then(|| digits.to_owned())
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A name.
    Name(&'a Entry),
    /// An image by its id: all its names, sorted, at least one.
    Id(&'a Entry, Vec<&'a Entry>),
}

impl<'a> Found<'a> {
    /// An entry that leads to the image.
    pub(super) fn first(&self) -> &'a Entry {
        match self {
            Found::Name(entry) | Found::Id(entry, _) => entry,
        }
    }
}

/// Looks for, in this order: the exact name; the candidates of a short one; an image of the same
/// repository that has the digest, or was pulled by it; an image whose id begins so.
pub(super) fn find<'a>(index: &'a Index, wanted: &Wanted<'_>) -> Result<Found<'a>> {
    let candidates: &[Reference] =
        if wanted.reference.is_short() { wanted.candidates } else { &[] };
    let meant = || std::iter::once(&wanted.reference).chain(candidates);
    for reference in meant() {
        let full = reference.full();
        if let Some(entry) = index.named().find(|entry| entry.full() == Some(&full)) {
            return Ok(Found::Name(entry));
        }
    }
    for reference in meant() {
        let Some(digest) = reference.digest() else { continue };
        let has_it = |entry: &&Entry| {
            entry.reference().is_some_and(|name| name.repository() == reference.repository())
                && (entry.digest().is_ok_and(|own| own == digest)
                    || entry.origin().digest == Some(digest))
        };
        if let Some(entry) = index.named().find(has_it) {
            return Ok(Found::Name(entry));
        }
    }
    let names = || index.named().filter_map(Entry::full);
    let Some(id) = &wanted.id else { return Err(missing(&wanted.reference, names())) };
    let begins_so = |entry: &&Entry| entry.digest().is_ok_and(|own| own.hex().starts_with(id));
    let mut entries: Vec<_> = index.named().filter(begins_so).collect();
    entries.sort_by_key(|entry| entry.name());
    let Some(&first) = entries.first() else {
        return Err(missing(&wanted.reference, names()));
    };
    if entries.iter().any(|entry| entry.digest() != first.digest()) {
        let error = Error::new(format!("image {id}: several images have an id that begins so"));
        let list = entries.iter().filter_map(|entry| {
            let hex = entry.digest().ok()?.hex();
            Some(format!("{} ({})", entry.name(), &hex[..id.len().max(12)]))
        });
        return Err(error.hint(format!("they are {}", list.collect::<Vec<_>>().join(", "))));
    }
    Ok(Found::Id(first, entries))
}

/// Whether the index leads to one.
pub(super) fn is_named(store: &Store, wanted: &Wanted<'_>) -> bool {
    Index::read(store).is_ok_and(|index| find(&index, wanted).is_ok())
}

/// An image with its layers held.
pub(super) fn hold(store: &Store, wanted: &Wanted<'_>) -> Result<(Image, Vec<Held>)> {
    settled(store, wanted, |entry| {
        let image = catalogue::load(store, entry)?;
        let mut held = Held::layers(store, &image.layers)?;
        held.extend(Held::document(store, &image.digest)?);
        Ok((image, held))
    })
}

/// An image as it is at this moment.
pub(super) fn image(store: &Store, wanted: &Wanted<'_>) -> Result<Image> {
    settled(store, wanted, |entry| catalogue::load(store, entry))
}

/// Readers take no lock: what fails because somebody changed the index meanwhile is tried again.
pub(super) fn settled<T>(
    store: &Store,
    wanted: &Wanted<'_>,
    read: impl Fn(&Entry) -> Result<T>,
) -> Result<T> {
    let mut index = Index::read(store)?;
    loop {
        let failed = match find(&index, wanted) {
            Ok(found) => match read(found.first()) {
                Ok(done) => return Ok(done),
                Err(error) => error.within(format_args!("image {}", wanted.reference)),
            },
            Err(error) => error,
        };
        let now = Index::read(store)?;
        if now == index {
            return Err(failed);
        }
        index = now;
    }
}

/// The error for a name that is not there, with the nearest one that is.
pub fn missing<'a>(reference: &Reference, names: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::new(format!("image {reference}: not in the store"));
    let known = names.filter_map(|name| Reference::parse(name).ok());
    let near = known
        .map(|known| {
            let other_tag = known.repository() == reference.repository();
            (if other_tag { 1 } else { distance(&known.full(), &reference.full()) }, known)
        })
        .filter(|(distance, known)| *distance <= 1 + known.repository().len() / 4)
        .min();
    let error = match near {
        Some((_, near)) => error.hint(format!("did you mean {near}?")),
        None => error,
    };
    error
        .hint("`casemate images` lists what is there")
        .hint(format!("`casemate pull {reference}` brings it from its registry"))
        .hint(format!(
            "`casemate import {reference} SOURCE` adds it from an OCI layout, a docker archive or \
             a root file system"
        ))
}

/// How many letters must be added, removed or replaced to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(wanted: &str, names: &[&str]) -> Vec<String> {
        missing(&Reference::parse(wanted).unwrap(), names.iter().copied()).hints().to_vec()
    }

    #[test]
    fn a_near_name_is_offered() {
        assert_eq!(hints("debain", &["alpine:latest", "debian:latest"])[0], "did you mean debian?");
        assert_eq!(hints("debian:13", &["debian:12"])[0], "did you mean debian:12?");
        assert_eq!(hints("fedora", &["debian:latest"]).len(), 3);
    }

    #[test]
    fn six_digits_and_more_may_be_an_id() {
        let id = |text: &str| Wanted::parse(text).unwrap().id;
        assert_eq!(id("abc123").as_deref(), Some("abc123"));
        assert_eq!(id("sha256:abc123").as_deref(), Some("abc123"));
        assert_eq!(id(&"a".repeat(64)).unwrap().len(), 64);
        for name in ["abc12", "abc12g", "abc123:latest", "abc/abc123", "x.y/abc123"] {
            assert_eq!(id(name), None, "{name}");
        }
    }
}
