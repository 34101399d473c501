//! How a transfer goes: bars on a terminal, lines anywhere else.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{bytes, note};

/// What draws on the terminal now; other messages go above it.
static DRAWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// How often a transfer says something where it draws nothing.
const EVERY: Duration = Duration::from_secs(10);

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
    parts: Vec<Part>,
    total: Option<ProgressBar>,
    moved: u64,
    size: u64,
    said: Option<Instant>,
}

struct Part {
    label: String,
    size: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `verb` is what is done to the parts (`pulling`).
    pub fn new(verb: &'static str, show: Show) -> Self {
        Progress { verb, show, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts that there are: a label and so many bytes each. `note` is said beside them.
    pub fn begin(&self, what: &str, parts: impl Iterator<Item = (String, u64)>, note_beside: &str) {
        let mut state = self.state();
        state.parts = parts.map(|(label, size)| Part { label, size, bar: None }).collect();
        state.size = state.parts.iter().map(|part| part.size).sum();
        if self.show == Show::Nothing || state.parts.is_empty() {
            return;
        }
        let drawn = is_drawable().then(MultiProgress::new);
        let Some(drawn) = drawn else {
            let (count, size) = (state.parts.len(), bytes(state.size));
            let layers = if count == 1 { "layer" } else { "layers" };
            state.said = Some(Instant::now());
            note(&format!("{} {what}: {count} {layers}, {size}{note_beside}", self.verb));
            return;
        };
        drawn.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let total = drawn.add(ProgressBar::new(state.size));
        total.set_style(style(
            "{prefix} [{bar:24}] {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
        ));
        total.set_prefix(super::escape(&format!("{} {what}{note_beside}", self.verb)));
        state.total = Some(total);
        *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(drawn);
    }

    /// More bytes of a part.
    pub fn moved(&self, part: usize, count: u64) {
        let mut state = self.state();
        state.moved += count;
        if let Some(total) = &state.total {
            total.inc(count);
            let (all, drawn) = (state.parts.len(), &DRAWN);
            if let Some(part_of) = state.parts.get_mut(part) {
                let bar = part_of
                    .bar
                    .get_or_insert_with(|| bar(drawn, part, all, &part_of.label, part_of.size));
                bar.inc(count);
                if bar.position() >= part_of.size {
                    bar.set_message("unpacking");
                }
            }
            return;
        }
        if self.show == Show::Progress && state.said.is_some_and(|said| said.elapsed() >= EVERY) {
            state.said = Some(Instant::now());
            note(&format!("{} of {}", bytes(state.moved), bytes(state.size)));
        }
    }

    /// A part is complete.
    pub fn done(&self, part: usize) {
        let mut state = self.state();
        let total = state.parts.len();
        let drawn = state.total.is_some();
        let Some(part_of) = state.parts.get_mut(part) else { return };
        if drawn {
            if let Some(bar) = part_of.bar.take() {
                bar.finish_and_clear();
            }
        } else if self.show == Show::Progress {
            let (label, size) = (&part_of.label, bytes(part_of.size));
            note(&format!("layer {} of {total}: {label}, {size}", part + 1));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let state = self.state();
        for bar in state.parts.iter().filter_map(|part| part.bar.as_ref()).chain(&state.total) {
            bar.finish_and_clear();
        }
        drop(state);
        *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Bars need a terminal that can move its cursor.
fn is_drawable() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn bar(
    drawn: &Mutex<Option<MultiProgress>>,
    part: usize,
    all: usize,
    label: &str,
    size: u64,
) -> ProgressBar {
    let bar = ProgressBar::new(size);
    bar.set_style(style(
        "  {prefix} [{bar:24}] {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec}  {msg}",
    ));
    bar.set_prefix(format!("layer {} of {all} {}", part + 1, super::escape(label)));
    match drawn.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        Some(drawn) => drawn.add(bar),
        None => bar,
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants that a test reads.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// Writes to standard error, above what is drawn there.
pub(super) fn above(write: impl FnOnce()) {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match drawn {
        Some(drawn) => drawn.suspend(write),
        None => write(),
    }
}
