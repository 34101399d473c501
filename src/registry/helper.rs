//! Asking another program: a credential helper, or getent(1). Bounded in what it says and in time.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// More than this is no answer.
const MAX_ANSWER: usize = 256 * 1024;

/// What a program said on standard output, and whether it succeeded.
pub(super) struct Answer {
    pub(super) succeeded: bool,
    pub(super) code: Option<i32>,
    pub(super) output: Vec<u8>,
}

/// A child that does not outlive the question.
struct Asked(Child);

impl Drop for Asked {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Runs a program, writes `question` to it, and reads its answer. `question` must fit into a pipe
/// (64 KiB).
pub(super) fn ask(
    program: &OsStr,
    arguments: &[&str],
    question: &[u8],
    patience: Duration,
) -> io::Result<Answer> {
    let deadline = Instant::now() + patience;
    let mut asked = Asked(
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?,
    );
    if let Some(mut input) = asked.0.stdin.take() {
        match input.write_all(question) {
            // It need not read what it does not want.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let mut output = Vec::new();
    if let Some(mut pipe) = asked.0.stdout.take() {
        let mut buffer = [0; 4096];
        loop {
            wait_readable(&pipe, deadline)?;
            let count = pipe.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if output.len() + count > MAX_ANSWER {
                return Err(io::Error::from_raw_os_error(libc::EFBIG));
            }
            output.extend_from_slice(&buffer[..count]);
        }
    }
    loop {
        if let Some(status) = asked.0.try_wait()? {
            return Ok(Answer { succeeded: status.success(), code: status.code(), output });
        }
        if Instant::now() >= deadline {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_readable(pipe: &impl AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, question: &[u8]) -> io::Result<Answer> {
        ask(OsStr::new("sh"), &["-c", script], question, Duration::from_millis(500))
    }

    #[test]
    fn an_answer_is_bounded() {
        let answer = shell("cat; exit 3", b"x").unwrap();
        assert_eq!((answer.code, answer.output.as_slice()), (Some(3), &b"x"[..]));
        let errno = |script| shell(script, b"").err().unwrap().raw_os_error();
        assert_eq!(errno("yes"), Some(libc::EFBIG));
        assert_eq!(errno("sleep 100"), Some(libc::ETIMEDOUT));
        assert_eq!(errno("exec >&-; sleep 100"), Some(libc::ETIMEDOUT));
    }
}
