//! How many ids a box has, and which: the words of `[identity] ids`, `--userns` and `--uidmap`.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// How many ids the box has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ids {
    /// What the plan needs.
    Auto,
    /// The user's own id only.
    Single,
    /// A range of subordinate ids, and not the user's own.
    Many,
    /// A range of subordinate ids, and the user's own, which is the program's.
    KeepId {
        /// The user id in the box that is the user's own; the same number where it is not said.
        uid: Option<u32>,
        /// The group id, likewise.
        gid: Option<u32>,
    },
}

impl FromStr for Ids {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Ids::Auto),
            "single" => Ok(Ids::Single),
            "many" => Ok(Ids::Many),
            "keep-id" => Ok(Ids::KeepId { uid: None, gid: None }),
            _ => match text.strip_prefix("keep-id:") {
                Some(rest) => keep_id(rest),
                None => Err(format!(
                    "unknown ids {text:?}, expected one of auto, single, many, keep-id, keep-id:uid=UID,gid=GID"
                )),
            },
        }
    }
}

fn keep_id(text: &str) -> Result<Ids, String> {
    let (mut uid, mut gid) = (None, None);
    for part in text.split(',') {
        let (field, value) = match part.split_once('=') {
            Some(("uid", value)) => (&mut uid, value),
            Some(("gid", value)) => (&mut gid, value),
            _ => return Err(format!("keep-id: {part:?} is neither uid=NUMBER nor gid=NUMBER")),
        };
        if field.replace(number(value)?).is_some() {
            return Err(format!("keep-id: {part:?} is said twice"));
        }
    }
    Ok(Ids::KeepId { uid, gid })
}

/// One line of an id map (`--uidmap INSIDE:OUTSIDE[:COUNT]`). Outside, 0 is the user's own id and
/// 1 the first of the subordinate ones, as podman counts without root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MapLine {
    /// The first id in the box.
    pub inside: u32,
    /// What it is.
    pub outside: u32,
    /// How many, at least one.
    pub count: u32,
}

impl FromStr for MapLine {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not INSIDE:OUTSIDE[:COUNT]");
        let mut parts = text.split(':');
        let inside = number(parts.next().ok_or_else(wrong)?)?;
        let outside = number(parts.next().ok_or_else(wrong)?)?;
        let count = parts.next().map_or(Ok(1), number)?;
        if parts.next().is_some() {
            return Err(wrong());
        }
        let ends = [inside, outside].map(|first| first.checked_add(count));
        // The last id is (uid_t)-1, which system calls read as "leave it" (chown(2)).
        if count == 0 || ends.contains(&None) {
            return Err(format!("{text:?}: the count is 0, or leads beyond the last id"));
        }
        Ok(MapLine { inside, outside, count })
    }
}

impl fmt::Display for MapLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.count)
    }
}

/// Decimal digits and nothing else: `parse` would take a leading plus.
fn number(text: &str) -> Result<u32, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_number && number != u32::MAX => Ok(number),
        _ => Err(format!("{text:?} is not an id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_strictly() {
        assert_eq!("many".parse(), Ok(Ids::Many));
        assert_eq!("keep-id".parse(), Ok(Ids::KeepId { uid: None, gid: None }));
        let both = Ids::KeepId { uid: Some(5), gid: Some(6) };
        assert_eq!("keep-id:uid=5,gid=6".parse(), Ok(both));
        assert_eq!("keep-id:gid=6,uid=5".parse(), Ok(both));
        for bad in ["", "Many", "host", "keep-id:", "keep-id:uid=", "keep-id:uid=+1", "keep-id:x=1"]
        {
            assert!(bad.parse::<Ids>().is_err(), "{bad:?}");
        }
        assert!("keep-id:uid=1,uid=2".parse::<Ids>().is_err());
    }

    #[test]
    fn map_lines_stay_within_the_ids() {
        let line = |text: &str| text.parse::<MapLine>();
        assert_eq!(line("0:1:10"), Ok(MapLine { inside: 0, outside: 1, count: 10 }));
        assert_eq!(line("7:0"), Ok(MapLine { inside: 7, outside: 0, count: 1 }));
        for bad in ["", "0", "0:1:0", "0:1:2:3", "-1:0", "0:4294967295", "4294967294:0:2", "a:b"] {
            assert!(line(bad).is_err(), "{bad:?}");
        }
    }
}
