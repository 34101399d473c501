//! All printing: messages and errors to standard error, results to standard output. Text that came
//! from an image, a profile or the command line is escaped here, once.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod progress;
mod prompt;

use std::fmt::Write as _;
use std::io::{self, Write as _};

pub use progress::{Progress, Show};
pub use prompt::{ask, ask_secret};

use crate::error::Error;

/// Makes control characters visible (`\u{1b}`), so that a name cannot drive the terminal
/// (CVE-2023-28101); line breaks and tabs among them. Bidirectional overrides count as control.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing to a String cannot fail.
            let _infallible = write!(safe, "{}", c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_unsafe(c: char) -> bool {
    let reorders =
        matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    c.is_control() || reorders
}

/// Prints an error with its excerpt and hints to standard error.
pub fn error(error: &Error) {
    let mut text = format!("casemate: {}\n", escape(&error.to_string()));
    if let Some(excerpt) = error.excerpt_text() {
        for line in excerpt.lines() {
            text.push_str(&escape(line));
            text.push('\n');
        }
    }
    for hint in error.hints() {
        text.push_str("hint: ");
        text.push_str(&escape(hint));
        text.push('\n');
    }
    to_stderr(&text);
}

/// Prints a warning to standard error.
pub fn warning(text: &str) {
    to_stderr(&format!("casemate: warning: {}\n", escape(text)));
}

/// Prints a note on progress or outcome to standard error.
pub fn note(text: &str) {
    to_stderr(&format!("casemate: {}\n", escape(text)));
}

/// Shows on a terminal what is being done, in a line that the next one takes the place of; nothing
/// clears it.
pub fn status(text: &str) {
    to_stderr(&format!("\r\x1b[K{}", escape(text)));
}

/// Prints what is wrong with the command line, in clap's words under our name.
pub fn usage(text: &str) {
    let mut shown = String::from("casemate: ");
    for (index, line) in text.trim_end().strip_prefix("error: ").unwrap_or(text).lines().enumerate()
    {
        if index > 0 {
            shown.push('\n');
        }
        shown.push_str(&escape(line));
    }
    shown.push('\n');
    to_stderr(&shown);
}

/// Prints the help that stands in for a missing command, to standard error.
pub fn usage_page(text: &str) {
    to_stderr(text);
}

// A closed standard error leaves nowhere to say anything; the exit code still tells.
fn to_stderr(text: &str) {
    progress::above(|| {
        let _nowhere_to_report = io::stderr().lock().write_all(text.as_bytes());
    });
}

/// Prints a result to standard output. The text must be escaped already where it is foreign.
/// A reader that went away (`casemate images | head`) is no error.
pub fn output(text: &str) -> Result<(), Error> {
    bytes_out(text.as_bytes())
}

/// Writes a result that is no text to standard output.
pub fn bytes_out(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Error::os("write to", "standard output", &error)),
        Ok(()) => Ok(()),
    }
}

/// Prints a result as JSON. What [`escape`] makes visible is written as `\u` and four digits, which
/// mean the same to who reads JSON, and nothing to a terminal.
pub fn json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(format!("write JSON: {error}")))?;
    output(&format!("{}\n", safe_json(&text)))
}

/// Control characters stand only inside of JSON's strings, but for the line breaks between.
fn safe_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_unsafe(c) {
            // All of them are below U+FFFF. Writing to a String cannot fail.
            let _infallible = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Lays out rows under a heading, columns two spaces apart, the last one ragged.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(escape(cell).chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        let mut row = String::new();
        for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if index > 0 {
                row.push_str("  ");
            }
            let _infallible = write!(row, "{cell:<width$}");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(heading.iter().map(|cell| (*cell).to_owned()).collect());
    for row in rows {
        line(row.iter().map(|cell| escape(cell)).collect());
    }
    text
}

/// A byte count for people: binary units, one decimal below ten.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 10.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(escape("a\u{1b}]0;x\u{7}b"), "a\\u{1b}]0;x\\u{7}b");
        assert_eq!(escape("two\nlines\u{9b}"), "two\\u{a}lines\\u{9b}");
        assert_eq!(escape("\u{202e}gnp.exe"), "\\u{202e}gnp.exe");
        assert_eq!(escape("grüße"), "grüße");
    }

    #[test]
    fn json_means_the_same_without_control_characters() {
        let value = "a\u{9b}\u{202e}b\n\u{7f}grüße";
        let text = safe_json(&serde_json::to_string_pretty(&[value]).unwrap());
        assert_eq!(text, "[\n  \"a\\u009b\\u202eb\\n\\u007fgrüße\"\n]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [value]);
    }

    #[test]
    fn tables_align_and_escape() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["lo\tng".into(), "2".into()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME       N\na          1\nlo\\u{9}ng  2\n");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(200 << 20), "200 MiB");
    }
}
