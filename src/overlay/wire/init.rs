//! The first request: versions, features and limits are agreed on.

use nix::errno::Errno;

use super::answer::Answer;
use super::fields::Fields;
use crate::error::{Error, Result};

/// The version of the protocol that is spoken here.
const MAJOR: u32 = 7;

/// The least minor version: Linux 5.4 and newer. What a server here relies on came before it, down
/// to opening without a request (7.23, and 7.29 for directories).
pub const MINOR: u32 = 31;

/// The newest minor version whose requests are understood.
const NEWEST_MINOR: u32 = 39;

/// What the kernel says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// How far it reads ahead, in bytes.
    pub max_readahead: u32,
    /// What it can do.
    pub features: Features,
}

/// Features, a bit each (`FUSE_*` of linux/fuse.h, "INIT request/reply flags").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u64);

impl Features {
    /// Several reads of one file at once.
    pub const ASYNC_READ: Features = Features(1 << 0);
    /// `O_TRUNC` is the server's to do in `Open`.
    pub const ATOMIC_O_TRUNC: Features = Features(1 << 3);
    /// Writes of more than a page.
    pub const BIG_WRITES: Features = Features(1 << 5);
    /// The mask of the process is not applied by the kernel.
    pub const DONT_MASK: Features = Features(1 << 6);
    /// Cached pages go when a file was seen to have changed.
    pub const AUTO_INVAL_DATA: Features = Features(1 << 12);
    /// Directories are read with attributes.
    pub const DO_READDIRPLUS: Features = Features(1 << 13);
    /// Writes wait in the page cache.
    pub const WRITEBACK_CACHE: Features = Features(1 << 16);
    /// `ENOSYS` to `Open` means: all files are opened without asking.
    pub const NO_OPEN_SUPPORT: Features = Features(1 << 17);
    /// Several lookups and readings of one directory at once.
    pub const PARALLEL_DIROPS: Features = Features(1 << 18);
    /// Permissions by ACL, which the kernel then checks.
    pub const POSIX_ACL: Features = Features(1 << 20);
    /// [`Limits::pages`] is heeded.
    pub const MAX_PAGES: Features = Features(1 << 22);
    /// Targets of symbolic links are remembered.
    pub const CACHE_SYMLINKS: Features = Features(1 << 23);
    /// As `NO_OPEN_SUPPORT`, for directories.
    pub const NO_OPENDIR_SUPPORT: Features = Features(1 << 24);
    /// Cached pages go only when the server says so.
    pub const EXPLICIT_INVAL_DATA: Features = Features(1 << 25);
    /// The server drops setuid and setgid bits where a write must.
    pub const HANDLE_KILLPRIV_V2: Features = Features(1 << 28);
    /// More than 32 features.
    const INIT_EXT: Features = Features(1 << 30);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn common(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    /// Whether all of `other` are among them.
    pub const fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The limits that a server sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest write in bytes; the buffer for requests holds a page more.
    pub max_write: u32,
    /// The longest read or write in pages of 4 KiB.
    pub pages: u16,
    /// How many requests that nobody waits for may be under way.
    pub background: u16,
}

impl Hello {
    pub(super) fn decode(fields: &mut Fields<'_>) -> std::result::Result<Self, Errno> {
        let (major, minor) = (fields.u32()?, fields.u32()?);
        // What follows may differ in another major version; only this much is certain.
        if major != MAJOR {
            let features = Features::default();
            return Ok(Hello { major, minor, max_readahead: 0, features });
        }
        let (max_readahead, low) = (fields.u32()?, u64::from(fields.u32()?));
        let high = match Features(low).has(Features::INIT_EXT) {
            true => u64::from(fields.u32()?),
            false => 0,
        };
        Ok(Hello { major, minor, max_readahead, features: Features(low | high << 32) })
    }

    /// Writes the answer to it, and returns the features that both sides have; `None` where the
    /// kernel was told our major version and will begin again.
    pub fn welcome(
        &self,
        wanted: Features,
        limits: Limits,
        answer: &mut Answer,
    ) -> Result<Option<Features>> {
        let too_long = |_| Error::new("FUSE: the answer to INIT does not fit its buffer");
        if self.major > MAJOR {
            answer.put_u32(MAJOR).and_then(|()| answer.put_u32(MINOR)).map_err(too_long)?;
            return Ok(None);
        }
        if self.major < MAJOR || self.minor < MINOR {
            return Err(Error::new(format!(
                "FUSE: this kernel speaks version {}.{} of the protocol, {MAJOR}.{MINOR} is needed",
                self.major, self.minor
            ))
            .hint("Linux 5.4 and newer have it"));
        }
        let agreed = wanted.common(self.features);
        let told = match self.features.has(Features::INIT_EXT) {
            true => agreed.and(Features::INIT_EXT),
            false => agreed,
        };
        let halves = [told.0 as u32, (told.0 >> 32) as u32];
        let mut put = || {
            answer.put_u32(MAJOR)?;
            answer.put_u32(self.minor.min(NEWEST_MINOR))?;
            answer.put_u32(self.max_readahead)?;
            answer.put_u32(halves[0])?;
            // From three quarters of it on the kernel holds back what it does in advance.
            let congestion = limits.background - limits.background / 4;
            answer.put(&limits.background.to_ne_bytes())?;
            answer.put(&congestion.to_ne_bytes())?;
            answer.put_u32(limits.max_write)?;
            // Times are exact to a nanosecond.
            answer.put_u32(1)?;
            answer.put(&limits.pages.to_ne_bytes())?;
            answer.put(&0u16.to_ne_bytes())?;
            answer.put_u32(halves[1])?;
            answer.put(&[0; 28])
        };
        put().map_err(too_long)?;
        Ok(Some(agreed))
    }
}
