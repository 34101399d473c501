//! Questions at the terminal. They are on standard error, the answers come from standard input.

use std::io::{self, Read};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::{escape, to_stderr};
use crate::error::{During, Error, Result};

/// No answer is longer.
const MAX_ANSWER: usize = 4096;
const END_OF_TEXT: u8 = 3;
const END_OF_TRANSMISSION: u8 = 4;
const BACKSPACE: u8 = 8;
const KILL: u8 = 21;
const DELETE: u8 = 127;

/// Asks for a line. The question is escaped here.
pub fn ask(question: &str) -> Result<String> {
    to_stderr(&escape(question));
    let mut answer = Vec::new();
    while let Some(byte) = next()? {
        if byte == b'\n' {
            break;
        }
        push(&mut answer, byte)?;
    }
    text(answer)
}

/// Asks for a line that is not shown while it is typed.
pub fn ask_secret(question: &str) -> Result<String> {
    let hidden = Hidden::new()?;
    to_stderr(&escape(question));
    let mut answer = Vec::new();
    let ended = loop {
        // The terminal does no editing and sends no signals meanwhile: a signal that ended us would
        // leave it without echo.
        match next()? {
            None | Some(b'\n' | b'\r') => break true,
            Some(END_OF_TRANSMISSION) if answer.is_empty() => break false,
            Some(END_OF_TEXT) => break false,
            Some(BACKSPACE | DELETE) => drop_last(&mut answer),
            Some(KILL) => answer.clear(),
            Some(byte) => push(&mut answer, byte)?,
        }
    };
    drop(hidden);
    to_stderr("\n");
    if ended { text(answer) } else { Err(Error::new("ask at the terminal: nothing was answered")) }
}

/// A terminal without echo, signals and line editing, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> Result<Self> {
        let before = tcgetattr(io::stdin()).during("read the settings of", "the terminal")?;
        let mut settings = before.clone();
        settings.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        // What was typed before the question is no answer to it.
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &settings)
            .during("change the settings of", "the terminal")?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // The terminal is gone where this fails.
        let _gone = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

fn next() -> Result<Option<u8>> {
    let mut byte = [0];
    let count = io::stdin().lock().read(&mut byte).during("read", "the answer")?;
    Ok((count == 1).then_some(byte[0]))
}

fn push(answer: &mut Vec<u8>, byte: u8) -> Result<()> {
    if answer.len() == MAX_ANSWER {
        return Err(Error::new("the answer is too long"));
    }
    answer.push(byte);
    Ok(())
}

/// Takes away a whole character.
fn drop_last(answer: &mut Vec<u8>) {
    while answer.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

fn text(answer: Vec<u8>) -> Result<String> {
    String::from_utf8(answer).map_err(|_| Error::new("the answer is not UTF-8 text"))
}
