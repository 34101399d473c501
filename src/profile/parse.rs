//! From text to [`Profile`]. Parsing takes the text, never a path: reading files is `shipped`'s.

use std::fmt::Write as _;

use super::{Named, Origin, Profile};
use crate::error::{Error, Result};

/// Parses the text of the profile that goes by `name` in messages. An error carries the place,
/// the line and a marker under what is wrong.
pub fn parse(name: &str, text: &str) -> Result<Named> {
    let mut profile: Profile = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        located(name, text, span, error.message())
    })?;
    let grants = profile.files.read.iter_mut().chain(&mut profile.files.write);
    let calls = profile.seccomp.allow.iter_mut().chain(&mut profile.seccomp.deny);
    for origin in grants.map(|grant| &mut grant.origin).chain(calls.map(|call| &mut call.origin)) {
        settle(origin, name, text);
    }
    Ok(Named { name: name.to_owned(), profile })
}

fn settle(origin: &mut Origin, name: &str, text: &str) {
    if let Origin::Offset(offset) = *origin {
        let place = Place::of(text, offset);
        *origin = Origin::Place(format!("{name}:{}:{}", place.line, place.column));
    }
}

/// A place in a text: line and column from 1 (columns count characters), and the line itself.
struct Place<'a> {
    line: usize,
    column: usize,
    text: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, offset: usize) -> Place<'a> {
        let before = text.get(..offset.min(text.len())).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = &text[start..];
        Place {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            text: rest.split('\n').next().unwrap_or(rest).trim_end_matches('\r'),
        }
    }
}

fn located(name: &str, text: &str, span: std::ops::Range<usize>, message: &str) -> Error {
    let place = Place::of(text, span.start);
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    let width = text
        .get(span)
        .map_or(1, |marked| marked.split('\n').next().unwrap_or_default().chars().count().max(1));
    let mut excerpt = String::new();
    // Writing to a String cannot fail.
    let _infallible = write!(
        excerpt,
        "{gutter} |\n{number} | {}\n{gutter} | {}{}",
        place.text.replace('\t', " "),
        " ".repeat(place.column - 1),
        "^".repeat(width),
    );
    // serde separates its lists by line breaks; a message is one line.
    let message = message.lines().collect::<Vec<_>>().join("; ");
    Error::new(format!("{name}:{}:{}: {message}", place.line, place.column)).excerpt(excerpt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> (String, String) {
        let error = parse("p.toml", text).unwrap_err();
        (error.to_string(), error.excerpt_text().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_typo_is_shown_with_its_line() {
        let (message, excerpt) = failure("[root]\nimage = \"a\"\nread-onyl = true\n");
        assert!(message.starts_with("p.toml:3:1: unknown field `read-onyl`"), "{message}");
        assert_eq!(excerpt, "  |\n3 | read-onyl = true\n  | ^^^^^^^^^");
    }

    #[test]
    fn a_wrong_type_is_shown_at_its_value() {
        let (message, excerpt) = failure("[root]\nread-only = \"yes\"\n");
        assert!(message.starts_with("p.toml:2:13: invalid type: string"), "{message}");
        assert_eq!(excerpt, "  |\n2 | read-only = \"yes\"\n  |             ^^^^^");
    }

    #[test]
    fn a_reserved_key_is_refused_not_ignored() {
        for text in [
            "[limits]\nmemory = \"512m\"",
            "extends = [\"cli\"]",
            "[network]\nallow = [\"example.org\"]",
            "[desktop]\nwayland = true",
            "[files]\nhide = [\"~/.ssh\"]",
            "[seccomp]\ncompat32 = true",
            "[landlock]\nx = 1",
        ] {
            let (message, _) = failure(text);
            assert!(message.contains("reserved"), "{text}: {message}");
        }
    }

    #[test]
    fn values_are_checked_where_they_stand() {
        for (text, place, words) in [
            ("[capabilities]\nkeep = [\"net_raw\", \"everything\"]", "2:20", "unknown capability"),
            ("[network]\nmode = \"bridge\"", "2:8", "expected one of none, host"),
            ("[limits]\ntimeout = \"soon\"", "2:11", "not a time span"),
            ("[limits.rlimits]\nnofile = \"2:1\"", "2:10", "above the hard one"),
            ("[files]\nread = [\"/a\", \"$HOME/x\"]", "2:15", "reserved"),
            ("[identity]\nuser = \"a b\"", "2:8", "neither a number nor"),
            ("may-degrade = [\"seccomp\"]", "1:16", "unknown control"),
            ("[root]\noverlay = \"fuse\"", "2:11", "reserved"),
            ("[environment]\nkeep = [\"*\"]", "2:9", "every variable"),
            ("[root]\nimage = \"a b\"", "2:9", "image"),
        ] {
            let (message, _) = failure(text);
            assert!(message.starts_with(&format!("p.toml:{place}:")), "{text}: {message}");
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn grants_know_where_they_were_said() {
        let named = parse(
            "p.toml",
            "[files]\nread = [\n  \"/a\",\n  { path = \"/b\", optional = true },\n]\n",
        )
        .unwrap();
        let read = &named.profile.files.read;
        assert_eq!(read[0].origin.to_string(), "p.toml:3:3");
        assert_eq!(read[1].origin.to_string(), "p.toml:4:3");
        assert!(read[1].optional && read[1].exec);
    }

    #[test]
    fn broken_toml_of_any_kind_is_an_error_not_a_panic() {
        for text in [
            "[",
            "a = ",
            "\u{0}",
            "x = \"\u{fffd}",
            "[root]\n[root]",
            "root = 5",
            "é = [",
            "\n\n\n=",
        ] {
            assert!(parse("p", text).is_err(), "{text:?}");
        }
    }
}
