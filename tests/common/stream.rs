//! What a process says, collected as it comes, so that a test can wait for a word of it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Clone)]
pub struct Stream(Arc<(Mutex<State>, Condvar)>);

struct State {
    bytes: Vec<u8>,
    /// How much of it `expect` has consumed.
    seen: usize,
    ended: bool,
}

impl Stream {
    /// Starts to collect from the source on a thread of its own.
    pub fn collect(mut source: impl Read + Send + 'static) -> Self {
        let state = State { bytes: Vec::new(), seen: 0, ended: false };
        let stream = Stream(Arc::new((Mutex::new(state), Condvar::new())));
        let shared = stream.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                // The master of a terminal answers EIO when the last slave is closed: its end.
                let count = source.read(&mut buffer).unwrap_or(0);
                let mut state = shared.0.0.lock().unwrap();
                state.bytes.extend_from_slice(&buffer[..count]);
                state.ended = count == 0;
                shared.0.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        stream
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// Waits for the end and returns everything; `None` if somebody still holds the other end.
    pub fn finish(&self, patience: Duration) -> Option<Vec<u8>> {
        let (state, changed) = &*self.0;
        let waiting = state.lock().unwrap();
        let (mut state, _) = changed.wait_timeout_while(waiting, patience, |s| !s.ended).unwrap();
        state.ended.then(|| std::mem::take(&mut state.bytes))
    }

    /// Waits until the pattern appears after what was expected before, and returns the text up to and
    /// with it.
    pub fn expect(&self, pattern: &str, patience: Duration) -> String {
        match self.wait_for(pattern, patience) {
            Some(text) => text,
            None => panic!("no {pattern:?} within {patience:?} in:\n{}", self.text()),
        }
    }

    /// As `expect`, `None` when it does not come.
    pub fn wait_for(&self, pattern: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        loop {
            let rest = &state.bytes[state.seen..];
            let found = rest.windows(pattern.len()).position(|window| window == pattern.as_bytes());
            if let Some(at) = found {
                let end = at + pattern.len();
                let text = String::from_utf8_lossy(&rest[..end]).into_owned();
                state.seen += end;
                return Some(text);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                return None;
            }
            state = changed.wait_timeout(state, left).unwrap().0;
        }
    }
}
