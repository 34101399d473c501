//! From text to [`Profile`]. Parsing takes the text, never a path: reading files is `library`'s.

use super::{Named, Origin, Profile};
use crate::error::Result;
use crate::place::{Place, located};

/// Parses the text of the profile that goes by `name` in messages. An error carries the place,
/// the line and a marker under what is wrong.
pub fn parse(name: &str, text: &str) -> Result<Named> {
    let mut profile: Profile = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        located(name, text, span, error.message())
    })?;
    let files = &mut profile.files;
    let grants = files.read.iter_mut().chain(&mut files.write).chain(&mut files.overlay);
    let paths = files.hide.iter_mut().chain(&mut files.protect);
    let stays = files.persist.iter_mut().map(|stays| &mut stays.origin);
    let paths = paths.map(|path| &mut path.origin).chain(stays);
    let calls = profile.seccomp.allow.iter_mut().chain(&mut profile.seccomp.deny);
    let words = calls.chain(&mut profile.extends);
    let places = grants.map(|grant| &mut grant.origin).chain(words.map(|word| &mut word.origin));
    let rules = profile.seccomp.rule.iter_mut().map(|rule| &mut rule.origin);
    for origin in places.chain(paths).chain(rules) {
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
            "[network]\nallow = [\"example.org\"]",
            "[desktop]\nwayland = true",
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
            ("[files]\nread = [\"/a\", \"$PATH/x\"]", "2:15", "unknown directory"),
            ("[files]\nhide = [\"/a\", \"xdg-down\"]", "2:15", "unknown directory"),
            ("[files]\npersist = [\"~/a\", \"/b\"]", "2:19", "must be ~ or a directory"),
            ("[identity]\nuser = \"a b\"", "2:8", "neither a number nor"),
            ("may-degrade = [\"seccomp\"]", "1:16", "unknown control"),
            (
                "[root]\noverlay = \"overlay2\"",
                "2:11",
                "expected one of auto, kernel, hybrid, fuse",
            ),
            ("[seccomp]\nbase = \"lax\"", "2:8", "expected one of default, strict, none"),
            (
                "[[seccomp.rule]]\ncalls = [\"read\"]\naction = \"deny\"\nerrno = \"EPER\"",
                "4:9",
                "not the name of an errno",
            ),
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
