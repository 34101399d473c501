//! Id maps: which ids of one user namespace are which of another (user_namespaces(7)).

use std::fmt::Write as _;

use serde::Serialize;

use crate::profile::MapLine;

/// What a box with many ids has unless it was told otherwise: 0 to 65535, which every account of a
/// distribution and the overflow id are in.
pub const MANY: u32 = 65536;

/// The most lines that the kernel takes (Linux 4.15).
const MOST_LINES: usize = 340;

/// Consecutive ids: `inside` is `outside`, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// The first id in the namespace.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Reads /proc/PID/uid_map. `None` for what the kernel does not write.
pub fn parse(text: &str) -> Option<Vec<Extent>> {
    text.lines()
        .map(|line| {
            let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
            let mut next = || fields.next()?.ok();
            Some(Extent { inside: next()?, outside: next()?, count: next()? })
        })
        .collect()
}

/// The text to write to /proc/PID/uid_map.
pub fn text(map: &[Extent]) -> String {
    let mut text = String::new();
    for Extent { inside, outside, count } in map {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{inside} {outside} {count}");
    }
    text
}

/// What an id of the namespace is outside.
pub fn outside(map: &[Extent], id: u32) -> Option<u32> {
    map.iter().find_map(|extent| {
        let offset = id.checked_sub(extent.inside).filter(|offset| *offset < extent.count)?;
        extent.outside.checked_add(offset)
    })
}

/// What an outer id is in the namespace.
pub fn inside(map: &[Extent], id: u32) -> Option<u32> {
    map.iter().find_map(|extent| {
        let offset = id.checked_sub(extent.outside).filter(|offset| *offset < extent.count)?;
        extent.inside.checked_add(offset)
    })
}

/// What a box is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// 0 to 65535, none of them the user's own.
    Many,
    /// The same, and this one the user's own.
    Keep(u32),
    /// What was said.
    Lines(&'a [MapLine]),
}

/// Makes the map of a box from that of the namespace that it is made in: `range`, whose outer ids
/// are the host's; `own` is the user's id there. What is outside in the result are ids of the
/// range's namespace. The error says why it cannot be.
pub fn compose(
    wanted: Wanted<'_>,
    range: &[Extent],
    own: u32,
    what: &str,
) -> Result<Vec<Extent>, String> {
    let free = Free::of(range, own);
    let own_id = || {
        inside(range, own).ok_or_else(|| {
            format!("your own {what} id is not in the range that this backend gives")
        })
    };
    let mut map = Vec::new();
    match wanted {
        Wanted::Many => {
            // A range of that many with the user's own among them has one less; nobody is still in it.
            let count = if free.count() == u64::from(MANY) - 1 { MANY - 1 } else { MANY };
            free.take(0, 0, count, &mut map)?;
        }
        Wanted::Keep(id) => {
            free.take(0, 0, id.min(MANY), &mut map)?;
            map.push(Extent { inside: id, outside: own_id()?, count: 1 });
            if let Some(rest) = MANY.checked_sub(id + 1) {
                free.take(id + 1, id, rest, &mut map)?;
            }
        }
        Wanted::Lines(lines) => {
            for line in lines {
                match line.outside.checked_sub(1) {
                    Some(first) => free.take(line.inside, first, line.count, &mut map)?,
                    None => {
                        map.push(Extent { inside: line.inside, outside: own_id()?, count: 1 });
                        if line.count > 1 {
                            free.take(line.inside + 1, 0, line.count - 1, &mut map)?;
                        }
                    }
                }
            }
            without_overlap(lines, |line| (line.inside, line.count), "in the box")?;
            without_overlap(lines, |line| (line.outside, line.count), "outside")?;
            if outside(&map, 0).is_none() {
                return Err(format!("the {what} map has no id 0, which the box is made by"));
            }
        }
    }
    if map.len() > MOST_LINES {
        return Err(format!("the {what} map has more than {MOST_LINES} lines"));
    }
    Ok(map)
}

fn without_overlap(
    lines: &[MapLine],
    part: impl Fn(&MapLine) -> (u32, u32),
    place: &str,
) -> Result<(), String> {
    let mut sorted: Vec<_> = lines.iter().collect();
    sorted.sort_by_key(|line| part(line));
    for pair in sorted.windows(2) {
        let ((first, count), (second, _)) = (part(pair[0]), part(pair[1]));
        if first + count > second {
            return Err(format!("{} and {} overlap {place}", pair[0], pair[1]));
        }
    }
    Ok(())
}

/// The ids of a range's namespace that boxes may have: all but the user's own.
struct Free(Vec<(u32, u32)>);

impl Free {
    fn of(range: &[Extent], own: u32) -> Free {
        let mut sorted = range.to_vec();
        sorted.sort_by_key(|extent| extent.inside);
        let mut free = Vec::new();
        for Extent { inside, outside, count } in sorted {
            match own.checked_sub(outside).filter(|offset| *offset < count) {
                Some(offset) => {
                    free.push((inside, offset));
                    free.push((inside + offset + 1, count - offset - 1));
                }
                None => free.push((inside, count)),
            }
        }
        free.retain(|(_, count)| *count > 0);
        Free(free)
    }

    /// Maps `count` ids from `inside` on to those that come after the first `skip`.
    fn take(
        &self,
        mut inside: u32,
        mut skip: u32,
        count: u32,
        map: &mut Vec<Extent>,
    ) -> Result<(), String> {
        let mut left = count;
        for (first, length) in &self.0 {
            let passed = skip.min(*length);
            skip -= passed;
            let taken = (length - passed).min(left);
            if taken > 0 {
                map.push(Extent { inside, outside: first + passed, count: taken });
                inside += taken;
                left -= taken;
            }
        }
        if left > 0 {
            return Err(format!("the range has {} ids, {left} too few", self.count()));
        }
        Ok(())
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(inside: u32, outside: u32, count: u32) -> Extent {
        Extent { inside, outside, count }
    }

    #[test]
    fn the_users_own_id_is_left_out_or_kept() {
        let range = [extent(0, 1000, 1), extent(1, 100_000, 65536)];
        let many = compose(Wanted::Many, &range, 1000, "user").unwrap();
        assert_eq!(many, [extent(0, 1, 65536)]);
        let keep = compose(Wanted::Keep(1000), &range, 1000, "user").unwrap();
        let expected = [extent(0, 1, 1000), extent(1000, 0, 1), extent(1001, 1001, 64535)];
        assert_eq!(keep, expected);
        let first = compose(Wanted::Keep(0), &range, 1000, "user").unwrap();
        assert_eq!(first, [extent(0, 0, 1), extent(1, 1, 65535)]);
        let tight = [extent(0, 1000, 1), extent(1, 100_000, 65535)];
        let many = compose(Wanted::Many, &tight, 1000, "user").unwrap();
        assert_eq!(many, [extent(0, 1, 65535)]);
        let transient = [extent(0, 1_252_655_104, 65536)];
        let many = compose(Wanted::Many, &transient, 1000, "user").unwrap();
        assert_eq!(many, [extent(0, 0, 65536)]);
        let error = compose(Wanted::Keep(5), &transient, 1000, "user").unwrap_err();
        assert!(error.contains("own user id"), "{error}");
    }

    #[test]
    fn several_ranges_are_one_after_the_other() {
        let range = [extent(0, 300_000, 40_000), extent(40_000, 500_000, 40_000)];
        let many = compose(Wanted::Many, &range, 1000, "user").unwrap();
        assert_eq!(many, [extent(0, 0, 40_000), extent(40_000, 40_000, 25_536)]);
        assert_eq!(outside(&many, 65_535), Some(65_535));
        assert_eq!(outside(&many, 65_536), None);
        assert_eq!(inside(&range, 500_001), Some(40_001));
    }

    #[test]
    fn said_lines_are_held_against_the_range() {
        let range = [extent(0, 100_000, 10), extent(10, 1000, 1)];
        let lines = |texts: &[&str]| -> Result<Vec<Extent>, String> {
            let lines: Vec<MapLine> = texts.iter().map(|text| text.parse().unwrap()).collect();
            compose(Wanted::Lines(&lines), &range, 1000, "user")
        };
        assert_eq!(lines(&["0:1:5", "1000:0"]).unwrap(), [extent(0, 0, 5), extent(1000, 10, 1)]);
        assert_eq!(lines(&["0:0:3"]).unwrap(), [extent(0, 10, 1), extent(1, 0, 2)]);
        for (bad, why) in [
            (&["0:1:11"][..], "too few"),
            (&["0:1:5", "4:8:1"], "overlap in the box"),
            (&["0:1:5", "5:5:1"], "overlap outside"),
            (&["1:1:5"], "no id 0"),
        ] {
            let error = lines(bad).unwrap_err();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
        let error = compose(Wanted::Many, &range, 1000, "user").unwrap_err();
        assert!(error.contains("has 10 ids"), "{error}");
    }

    #[test]
    fn the_kernels_text_is_read() {
        let map = parse("         0     100000      65536\n     65536       1000          1\n");
        assert_eq!(map.unwrap(), [extent(0, 100_000, 65536), extent(65536, 1000, 1)]);
        assert_eq!(text(&[extent(0, 1, 2)]), "0 1 2\n");
        assert!(parse("0 1\n").is_none() && parse("a b c\n").is_none());
    }
}
