//! Places in texts that people write, for messages: `FILE:LINE:COLUMN`, and the line with a marker.

use std::fmt::Write as _;

use crate::error::Error;

/// A place in a text: line and column from 1 (columns count characters), and the line itself.
pub(crate) struct Place<'a> {
    pub(crate) line: usize,
    pub(crate) column: usize,
    text: &'a str,
}

impl<'a> Place<'a> {
    /// The place of a byte offset.
    pub(crate) fn of(text: &'a str, offset: usize) -> Place<'a> {
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

/// An error at a span of the text that goes by `name`: its place, the line, and a marker under what is
/// wrong.
pub(crate) fn located(
    name: &str,
    text: &str,
    span: std::ops::Range<usize>,
    message: &str,
) -> Error {
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
