//! How a transfer goes: bars on a terminal, lines anywhere else.
//!
//! The picture is drawn here and not by a library: each line is made to fit the terminal, so that
//! none is broken into two and can be drawn over, the cursor is always shown and at the start of the
//! line below, so that an interrupt leaves the terminal as it was, and nothing needs a thread.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{bytes, escape, note};
use crate::sys::tty::window_size;

/// What is on the terminal now; other messages go above it.
static DRAWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How often a transfer says something where it draws nothing.
const EVERY: Duration = Duration::from_secs(10);
/// How often it draws.
const PICTURE: Duration = Duration::from_millis(200);
/// Over how long the rate is measured.
const RATE: Duration = Duration::from_secs(5);
/// The least room for a name; where there is less, other things give way.
const NAME: usize = 16;
/// How wide a terminal is that does not know.
const USUAL: usize = 80;

/// Where a transfer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Standard error: drawn where it is a terminal.
    Progress,
    /// Nowhere.
    Nothing,
}

/// The parts of a transfer and how far they are. Several threads may tell it so.
pub struct Progress {
    verb: &'static str,
    show: Show,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    title: String,
    parts: Vec<Part>,
    moved: u64,
    size: u64,
    /// When something was said or drawn last.
    said: Option<Instant>,
    draws: bool,
    /// How much had come at some moments of late.
    rate: VecDeque<(Instant, u64)>,
}

struct Part {
    label: String,
    size: u64,
    moved: u64,
    done: bool,
}

impl Progress {
    /// `verb` is what is done to the parts (`pulling`).
    pub fn new(verb: &'static str, show: Show) -> Self {
        Progress { verb, show, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts that there are: a label and so many bytes each. `note_beside` is said beside them.
    pub fn begin(&self, what: &str, parts: impl Iterator<Item = (String, u64)>, note_beside: &str) {
        let mut state = self.state();
        let part = |(label, size)| Part { label, size, moved: 0, done: false };
        state.parts = parts.map(part).collect();
        // Sizes are what a foreign manifest says.
        state.size = state.parts.iter().map(|part| part.size).fold(0, u64::saturating_add);
        if self.show == Show::Nothing || state.parts.is_empty() {
            return;
        }
        state.draws = is_drawable();
        if state.draws {
            state.title = format!("{} {what}{note_beside}", self.verb);
            state.draw(Instant::now());
            return;
        }
        let (count, size) = (state.parts.len(), bytes(state.size));
        let layers = if count == 1 { "layer" } else { "layers" };
        state.said = Some(Instant::now());
        note(&format!("{} {what}: {count} {layers}, {size}{note_beside}", self.verb));
    }

    /// More bytes of a part.
    pub fn moved(&self, part: usize, count: u64) {
        let mut state = self.state();
        state.moved += count;
        let Some(part) = state.parts.get_mut(part) else { return };
        part.moved += count;
        let is_complete = part.moved >= part.size;
        let Some(said) = state.said else { return };
        if !state.draws {
            if said.elapsed() >= EVERY {
                state.said = Some(Instant::now());
                note(&format!("{} of {}", bytes(state.moved), bytes(state.size)));
            }
        } else if is_complete || said.elapsed() >= PICTURE {
            // Nothing more may come for a while that would draw what is being unpacked.
            state.draw(Instant::now());
        }
    }

    /// A part is complete.
    pub fn done(&self, part: usize) {
        let mut state = self.state();
        let (total, draws) = (state.parts.len(), state.draws);
        let Some(part_of) = state.parts.get_mut(part) else { return };
        part_of.done = true;
        if self.show == Show::Progress && !draws {
            let (label, size) = (&part_of.label, bytes(part_of.size));
            note(&format!("layer {} of {total}: {label}, {size}", part + 1));
        }
        if draws {
            state.draw(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.state().draws {
            replace(&mut drawn(), Vec::new());
        }
    }
}

impl State {
    fn draw(&mut self, now: Instant) {
        self.said = Some(now);
        self.rate.push_back((now, self.moved));
        while self.rate.len() > 2 && now.duration_since(self.rate[0].0) > RATE {
            self.rate.pop_front();
        }
        let columns = window_size(io::stderr()).map_or(0, |size| size.columns().into());
        let picture = self.picture(if columns == 0 { USUAL } else { columns });
        replace(&mut drawn(), picture);
    }

    /// Bytes in a second, of late.
    fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.rate.front(), self.rate.back()) else { return 0.0 };
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        // The first bytes come all at once, whatever the link is like.
        if seconds < 0.3 { 0.0 } else { (last.1 - first.1) as f64 / seconds }
    }

    /// The whole first, then each part that is under way.
    fn picture(&self, columns: usize) -> Vec<String> {
        let rate = self.rate();
        let (speed, left) = match rate {
            0.0 => (String::new(), String::new()),
            _ => {
                let left = self.size.saturating_sub(self.moved) as f64 / rate;
                (format!("{}/s", bytes(rate as u64)), time(left))
            }
        };
        let whole = [
            format!("{:>20}  {speed:>10}  {left:>6}", amount(self.moved, self.size)),
            format!("{:>20}  {speed:>10}", amount(self.moved, self.size)),
            format!("{}  {speed:>10}", percent(self.moved, self.size)),
            percent(self.moved, self.size),
        ];
        let mut lines = vec![line(&self.title, &whole, columns)];
        let begun = |part: &&Part| part.moved > 0 && !part.done;
        let all = self.parts.len();
        for (number, part) in self.parts.iter().enumerate().filter(|(_, part)| begun(part)) {
            let title = format!("  layer {} of {all} {}", number + 1, part.label);
            let (moved, size) = (part.moved, part.size);
            let forms = if moved >= size {
                // It lines up with the amounts, as far as there is room for that.
                [format!("{:>20}  {:>18}", "unpacking", ""), "unpacking".to_owned()].to_vec()
            } else {
                vec![
                    format!("{:>20}  {}", amount(moved, size), bar(moved, size, 16)),
                    amount(moved, size),
                    percent(moved, size),
                ]
            };
            lines.push(line(&title, &forms, columns));
        }
        lines
    }
}

/// A title on the left and the longest of `forms` on the right that leaves it room. It is shorter
/// than the terminal is wide.
fn line(title: &str, forms: &[String], columns: usize) -> String {
    let room = columns.saturating_sub(1);
    let title = escape(title);
    let wanted = title.chars().count().min(NAME) + 2;
    let form = forms.iter().find(|form| form.chars().count() + wanted <= room);
    let form = form.or(forms.last()).map_or("", |form| form.as_str());
    let left = room.saturating_sub(form.chars().count() + 2);
    let mut title: Vec<char> = title.chars().collect();
    if title.len() > left {
        title.truncate(left.saturating_sub(1));
        title.push('…');
    }
    let title: String = title.into_iter().collect();
    let whole = format!("{title:<left$}  {form}");
    whole.trim_end().chars().take(room).collect()
}

fn amount(moved: u64, size: u64) -> String {
    format!("{} of {}", bytes(moved), bytes(size))
}

fn percent(moved: u64, size: u64) -> String {
    let percent = u128::from(moved) * 100 / u128::from(size.max(1));
    format!("{:>3}%", percent.min(100))
}

fn bar(moved: u64, size: u64, width: usize) -> String {
    let full = u128::from(moved) * width as u128 / u128::from(size.max(1));
    let full = usize::try_from(full).unwrap_or(width).min(width);
    format!("[{:<width$}]", "=".repeat(full))
}

/// A time for people, of at most six characters.
fn time(seconds: f64) -> String {
    let seconds = seconds.min(1e9) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..360_000 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => String::new(),
    }
}

/// Bars need a terminal that can move its cursor.
fn is_drawable() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn drawn() -> MutexGuard<'static, Vec<String>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Draws lines over those that are there, in one write, so that no half picture is seen.
fn replace(drawn: &mut Vec<String>, lines: Vec<String>) {
    let mut text = String::new();
    if !drawn.is_empty() {
        // Up, and nothing from there on.
        text = format!("\x1b[{}A\x1b[J", drawn.len());
    }
    for line in &lines {
        text.push_str(line);
        text.push('\n');
    }
    let _nowhere_to_report = io::stderr().lock().write_all(text.as_bytes());
    *drawn = lines;
}

/// Writes to standard error, above what is drawn there.
pub(super) fn above(write: impl FnOnce()) {
    let mut drawn = drawn();
    if drawn.is_empty() {
        return write();
    }
    let lines = drawn.clone();
    replace(&mut drawn, Vec::new());
    write();
    replace(&mut drawn, lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let part =
            |label: &str, size, moved| Part { label: label.into(), size, moved, done: false };
        let start = Instant::now();
        State {
            title: "pulling docker.io/library/debian:stable (1 there already)".into(),
            parts: vec![
                part("0123456789ab", 66 << 20, 33 << 20),
                part("123456789abc", 5 << 20, 5 << 20),
                part("23456789abcd", 100 << 20, 0),
            ],
            moved: 38 << 20,
            size: 171 << 20,
            rate: [(start, 0), (start + Duration::from_secs(4), 38 << 20)].into(),
            ..State::default()
        }
    }

    #[test]
    fn sizes_that_nothing_has_are_shown_too() {
        let progress = Progress::new("pulling", Show::Nothing);
        let parts = [("a".to_owned(), u64::MAX), ("b".to_owned(), 2)];
        progress.begin("x", parts.into_iter(), "");
        progress.moved(1, 2);
        assert_eq!(progress.state().size, u64::MAX);
    }

    #[test]
    fn lines_fit_any_terminal() {
        assert_eq!(
            state().picture(80),
            [
                "pulling docker.io/library/debian:sta…     38 MiB of 171 MiB   9.5 MiB/s     14s",
                "  layer 1 of 3 0123456789ab                33 MiB of 66 MiB  [========        ]",
                "  layer 2 of 3 123456789abc                       unpacking",
            ]
        );
        assert_eq!(
            state().picture(40),
            [
                "pulling docker.io/li…   22%   9.5 MiB/s",
                "  layer 1 of 3 01234…  33 MiB of 66 MiB",
                "  layer 2 of 3 123456789abc   unpacking",
            ]
        );
        for columns in 1..200 {
            let picture = state().picture(columns);
            assert!(
                picture.iter().all(|line| line.chars().count() < columns.max(1)),
                "{picture:?}"
            );
        }
    }

    #[test]
    fn what_is_foreign_does_not_drive_the_terminal() {
        let mut state = state();
        state.title = "pulling \u{1b}[2J".into();
        state.parts[0].label = "\r\n\u{9b}".into();
        let picture = state.picture(120).join("");
        assert!(!picture.contains(char::is_control), "{picture:?}");
    }

    #[test]
    fn times_read_well() {
        for (seconds, text) in
            [(0.4, "0s"), (61.0, "1m01s"), (7325.0, "2h02m"), (f64::INFINITY, "")]
        {
            assert_eq!(time(seconds), text);
        }
    }
}
