//! The one error type: what was attempted, on what, why it failed, and what to change.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The exit codes that are casemate's own, as podman and chroot(1) use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 124: the time that `--timeout` allowed is over.
    TimedOut,
    /// 125: casemate itself failed, or refused.
    Failed,
    /// 126: the command was found and cannot be executed.
    CannotExecute,
    /// 127: the command was not found.
    NotFound,
    /// 137: the kernel killed the box, which had used up its memory.
    OutOfMemory,
}

impl Exit {
    /// The process exit code.
    pub fn code(self) -> i32 {
        match self {
            Exit::TimedOut => 124,
            Exit::Failed => 125,
            Exit::CannotExecute => 126,
            Exit::NotFound => 127,
            Exit::OutOfMemory => 137,
        }
    }
}

/// A failure the user reads: one line that says operation, object and reason, an excerpt of the
/// file at fault where there is one, and hints that name what to change. Printed once, by `ui`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    exit: Exit,
    errno: Option<nix::errno::Errno>,
    message: String,
    excerpt: Option<String>,
    hints: Vec<String>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of casemate itself (exit code 125).
    pub fn new(message: impl Into<String>) -> Self {
        Error {
            exit: Exit::Failed,
            errno: None,
            message: message.into(),
            excerpt: None,
            hints: Vec::new(),
        }
    }

    /// A failed system call: operation, object and errno in words.
    pub fn os(operation: &str, object: impl fmt::Display, reason: impl Into<Errno>) -> Self {
        let errno = reason.into().0;
        let error = Error::new(format!("{operation} {object}: {}", errno.desc()));
        Error { errno: Some(errno), ..error }
    }

    /// The error of ours that went through a [`std::io::Read`] as one of its own kind.
    pub fn carried(error: &std::io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned()
    }

    /// Adds a line that says what to change. Hints are printed in the order they were added.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Sets the excerpt: the lines of the file at fault, already laid out with their markers.
    #[must_use]
    pub fn excerpt(mut self, excerpt: impl Into<String>) -> Self {
        self.excerpt = Some(excerpt.into());
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Puts `context: ` before the message.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Says what kind of failure it is, as the errno that a system call would have given.
    #[must_use]
    pub fn kind(mut self, errno: nix::errno::Errno) -> Self {
        self.errno = Some(errno);
        self
    }

    /// The errno of the system call that failed, if it was one, or the one that says its kind.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        self.errno
    }

    /// The exit code that casemate ends with.
    pub fn exit_code(&self) -> i32 {
        self.exit.code()
    }

    /// The excerpt, if any.
    pub fn excerpt_text(&self) -> Option<&str> {
        self.excerpt.as_deref()
    }

    /// The hints, first to last.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

/// How many characters of a long text stay at either end of a [`Told`]. Only a foreign name can be
/// long, and what is wrong with it comes at the end.
const SHOWN: usize = 2000;
/// How many hints go along; in JSON a character takes six bytes at the most.
const HINTS: usize = 4;

/// An error on its way from one process to the one that prints it, cut to a length that fits into
/// a datagram of 128 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    message: String,
    hints: Vec<String>,
}

impl Told {
    /// The words of an error.
    pub fn of(error: &Error) -> Self {
        let short = |text: &str| {
            let length = text.chars().count();
            if length <= 2 * SHOWN {
                return text.to_owned();
            }
            let start: String = text.chars().take(SHOWN).collect();
            let end: String = text.chars().skip(length - SHOWN).collect();
            format!("{start}…{end}")
        };
        let hints = error.hints.iter().take(HINTS).map(|hint| short(hint)).collect();
        Told { message: short(&error.message), hints }
    }

    /// The error again.
    pub fn into_error(self) -> Error {
        self.hints.into_iter().fold(Error::new(self.message), Error::hint)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// An errno on its way into an [`Error`], from `nix` or from `std::io`.
pub struct Errno(pub nix::errno::Errno);

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Errno(errno)
    }
}

impl From<&std::io::Error> for Errno {
    fn from(error: &std::io::Error) -> Self {
        // An error without an errno is one that std made up itself, such as a short read.
        let raw = error.raw_os_error().unwrap_or(match error.kind() {
            std::io::ErrorKind::NotFound => libc::ENOENT,
            std::io::ErrorKind::PermissionDenied => libc::EACCES,
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => libc::EINVAL,
            _ => libc::EIO,
        });
        Errno(nix::errno::Errno::from_raw(raw))
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Errno::from(&error)
    }
}

/// Turns a failed system call into an [`Error`] that says what was being done to what.
pub trait During<T> {
    /// Names the operation and its object; neither is formatted when the call succeeded.
    fn during(self, operation: &str, object: impl fmt::Display) -> Result<T>;

    /// As [`During::during`], for a path.
    fn at(self, operation: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<Errno>> During<T> for std::result::Result<T, E> {
    fn during(self, operation: &str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|reason| Error::os(operation, object, reason))
    }

    fn at(self, operation: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|reason| Error::os(operation, path.as_ref().display(), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_reads_as_operation_object_reason() {
        let error = Error::os("open", "/nowhere", nix::errno::Errno::ENOENT).hint("make it");
        assert_eq!(error.to_string(), "open /nowhere: No such file or directory");
        assert_eq!(error.hints(), ["make it"]);
        assert_eq!(error.exit_code(), 125);
    }

    #[test]
    fn an_io_error_without_errno_still_has_words() {
        let failed: std::io::Result<()> = Err(std::io::ErrorKind::UnexpectedEof.into());
        assert_eq!(failed.at("read", "/x").unwrap_err().to_string(), "read /x: I/O error");
    }
}
