//! The subordinate ids that the system lists for a user: /etc/subuid and /etc/subgid (subuid(5)), or
//! what a name service has instead. Only a convention of the programs that write id maps: the kernel
//! knows nothing of them.

use std::fmt;

use super::map::{Extent, MANY};

/// Consecutive ids that belong to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Span {
    fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }

    fn meets(self, other: Span) -> bool {
        u64::from(self.first) < other.end() && u64::from(other.first) < self.end()
    }
}

/// Why a list gives no range that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no such file.
    NoFile,
    /// No line is for this user.
    None {
        /// Whether there are lines for others.
        others: bool,
    },
    /// A line that is for this user is none.
    Malformed {
        /// Its number.
        line: usize,
    },
    /// There are not enough ids.
    Short {
        /// How many there are.
        have: u64,
    },
    /// Two of the user's own ranges share ids.
    Overlap {
        /// The lines' numbers.
        lines: (usize, usize),
    },
    /// The user's range shares ids with another's.
    Foreign {
        /// The lines' numbers: the user's, and the other's.
        lines: (usize, usize),
        /// The other.
        owner: String,
    },
    /// The range holds the id of an account of this system.
    Account {
        /// The line's number.
        line: usize,
        /// The account.
        name: String,
        /// Its id.
        id: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoFile => write!(f, "there is no such file"),
            Fault::None { others: false } => write!(f, "no line for you"),
            Fault::None { others: true } => write!(f, "no line for you, only for others"),
            Fault::Malformed { line } => {
                write!(f, "line {line} is for you and is malformed (USER:FIRST:COUNT)")
            }
            Fault::Short { have } => write!(f, "{have} ids for you, where {MANY} are needed"),
            Fault::Overlap { lines: (a, b) } => {
                write!(f, "your ranges in lines {a} and {b} overlap")
            }
            Fault::Foreign { lines: (own, other), owner } => write!(
                f,
                "your range in line {own} overlaps with that of {owner} in line {other}: its files would be yours"
            ),
            Fault::Account { line, name, id } => write!(
                f,
                "your range in line {line} holds {id}, the id of the account {name}: its files would be yours"
            ),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The user id.
    pub uid: u32,
    /// The login name, where one is known.
    pub name: Option<&'a str>,
}

struct Line<'a> {
    number: usize,
    owner: &'a [u8],
    span: Option<Span>,
}

/// The user's ranges in the text of such a file. `accounts` are the names and ids that the system
/// has already. Lines that cannot be read and are for others are passed over, as shadow does it.
pub fn parse(
    text: &[u8],
    asker: Asker<'_>,
    accounts: &[(String, u32)],
) -> Result<Vec<Span>, Fault> {
    let lines: Vec<Line<'_>> = text
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
        .map(|(index, line)| read(index + 1, line))
        .collect();
    let number = asker.uid.to_string();
    let is_own = |line: &Line<'_>| {
        line.owner == number.as_bytes()
            || asker.name.is_some_and(|name| line.owner == name.as_bytes())
    };
    let mut own: Vec<(usize, Span)> = Vec::new();
    for line in lines.iter().filter(|line| is_own(line)) {
        let span = line.span.ok_or(Fault::Malformed { line: line.number })?;
        if let Some((other, _)) = own.iter().find(|(_, other)| other.meets(span)) {
            return Err(Fault::Overlap { lines: (*other, line.number) });
        }
        own.push((line.number, span));
    }
    if own.is_empty() {
        return Err(Fault::None { others: !lines.is_empty() });
    }
    for other in lines.iter().filter(|line| !is_own(line)) {
        let Some(span) = other.span else { continue };
        if let Some((line, _)) = own.iter().find(|(_, own)| own.meets(span)) {
            let owner = crate::text::plain(other.owner);
            return Err(Fault::Foreign { lines: (*line, other.number), owner });
        }
    }
    for (line, span) in &own {
        let holds = |id: u32| span.meets(Span { first: id, count: 1 });
        if let Some((name, id)) = accounts.iter().find(|(_, id)| holds(*id)) {
            return Err(Fault::Account { line: *line, name: name.clone(), id: *id });
        }
    }
    let have: u64 = own.iter().map(|(_, span)| u64::from(span.count)).sum();
    if have < MANY.into() {
        return Err(Fault::Short { have });
    }
    Ok(own.into_iter().map(|(_, span)| span).collect())
}

fn read(number: usize, line: &[u8]) -> Line<'_> {
    let mut fields = line.split(|byte| *byte == b':');
    let owner = fields.next().unwrap_or_default();
    let mut next = || id(fields.next()?);
    let span = match (next(), next()) {
        (Some(first), Some(count)) if count > 0 => Some(Span { first, count }),
        _ => None,
    };
    let is_whole = fields.next().is_none();
    // The last id is (uid_t)-1, which is none.
    let span = span.filter(|span| is_whole && span.end() <= u64::from(u32::MAX));
    Line { number, owner, span }
}

fn id(field: &[u8]) -> Option<u32> {
    let text = str::from_utf8(field).ok()?;
    // `parse` would take a leading plus.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What `getsubids USER` prints, in the form of such a file: `0: USER FIRST COUNT` a line.
pub fn from_getsubids(output: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let fields: Vec<&[u8]> =
            line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).skip(1).collect();
        text.extend(fields.join(&b':'));
        text.push(b'\n');
    }
    text
}

/// The map of a namespace with these ranges, from 0 on, and the user's own id behind them.
pub fn map(spans: &[Span], own: u32) -> Vec<Extent> {
    let mut map = Vec::new();
    let mut inside = 0;
    for span in spans {
        let count = span.count.min(MANY - inside);
        if count > 0 {
            map.push(Extent { inside, outside: span.first, count });
            inside += count;
        }
    }
    map.push(Extent { inside, outside: own, count: 1 });
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Asker<'_> = Asker { uid: 1000, name: Some("ann") };

    fn parsed(text: &str) -> Result<Vec<Span>, Fault> {
        let accounts = [("root".to_owned(), 0), ("bob".to_owned(), 1001)];
        parse(text.as_bytes(), ANN, &accounts)
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let span = |first, count| Span { first, count };
        let spans = parsed("bob:300000:65536\nann:100000:65536\n").unwrap();
        assert_eq!(spans, [span(100_000, 65536)]);
        let spans = parsed("# ids\n\n1000:100000:40000\nann:200000:40000").unwrap();
        assert_eq!(spans, [span(100_000, 40_000), span(200_000, 40_000)]);
        let map = map(&spans, 1000);
        let lines: Vec<_> = map.iter().map(|e| (e.inside, e.outside, e.count)).collect();
        assert_eq!(lines, [(0, 100_000, 40_000), (40_000, 200_000, 25_536), (65_536, 1000, 1)]);
    }

    #[test]
    fn faults_are_told_apart() {
        for (text, fault) in [
            ("", Fault::None { others: false }),
            ("bob:100000:65536\n", Fault::None { others: true }),
            ("ann2:100000:65536\nan:1:1\n", Fault::None { others: true }),
            ("ann:100000:1\n", Fault::Short { have: 1 }),
            ("ann:100000\n", Fault::Malformed { line: 1 }),
            ("bob:x:y\nann:100000:65536:1\n", Fault::Malformed { line: 2 }),
            ("ann:+100000:65536\n", Fault::Malformed { line: 1 }),
            ("ann: 100000:65536\n", Fault::Malformed { line: 1 }),
            ("ann:100000:0\n", Fault::Malformed { line: 1 }),
            ("ann:4294960000:65536\n", Fault::Malformed { line: 1 }),
            ("ann:100000:99999999999\n", Fault::Malformed { line: 1 }),
            ("ann:100000:65536\nann:165535:2\n", Fault::Overlap { lines: (1, 2) }),
            (
                "ann:100000:65536\nbob:100000:65536\n",
                Fault::Foreign { lines: (1, 2), owner: "bob".into() },
            ),
            ("ann:1001:65536\n", Fault::Account { line: 1, name: "bob".into(), id: 1001 }),
            ("ann:0:65536\n", Fault::Account { line: 1, name: "root".into(), id: 0 }),
        ] {
            assert_eq!(parsed(text), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn what_getsubids_prints_is_read() {
        let text = from_getsubids(b"0: ann 100000 65536\n1: ann 300000 5\n");
        assert_eq!(text, b"ann:100000:65536\nann:300000:5\n");
    }
}
