//! Terminals: controlling terminal, window size, pseudo-terminal peers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{check, check_fd};

/// Rows and columns, with the pixel sizes that some programs ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize(libc::winsize);

impl WindowSize {
    /// How many columns there are; 0 where the terminal does not know.
    pub fn columns(self) -> u16 {
        self.0.ws_col
    }
}

/// `TIOCGWINSZ`.
pub fn window_size(fd: impl AsFd) -> io::Result<WindowSize> {
    // SAFETY: winsize is a plain structure for which all zeroes is a valid value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes a winsize, which is live.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(WindowSize(size))
}

/// `TIOCSWINSZ`.
pub fn set_window_size(fd: impl AsFd, size: WindowSize) -> io::Result<()> {
    // SAFETY: TIOCSWINSZ reads a winsize, which is live.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size.0) })
}

/// `TIOCSPTLCK` 0: lets the other side of a new pseudo-terminal be opened.
pub fn unlock(master: impl AsFd) -> io::Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int, which is live.
    check(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })
}

/// `TIOCGPTPEER` (Linux 4.13): opens the other side without looking up a name.
pub fn peer(master: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    check_fd(i64::from(unsafe {
        libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags)
    }))
}

/// `TIOCSCTTY`: makes the terminal the controlling one of this session's leader.
pub fn make_controlling(tty: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an int by value; 0 steals from nobody.
    check(unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })
}
