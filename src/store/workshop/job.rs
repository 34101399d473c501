//! What goes over the channel between casemate and one of its workers.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::image::{Compression, Digest};
use crate::store::unpack::Unpacked;

/// The longest message.
pub(super) const LIMIT: usize = 64 << 10;
/// How many characters of a long text stay at either end; in JSON one takes six bytes at the most.
const SHOWN: usize = 2000;

/// What fails whatever the archive is like.
const SYSTEM: [Errno; 6] =
    [Errno::ENOSPC, Errno::EDQUOT, Errno::EIO, Errno::EROFS, Errno::ENOMEM, Errno::EMFILE];

/// Something to do; its descriptors come along.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Read the first descriptor, write what it unpacks to into the second.
    Inflate {
        /// How it is packed.
        compression: Compression,
    },
    /// Unpack a tar stream from the descriptor below the staging directory.
    Unpack {
        /// The directory, which is there already.
        dir: String,
        /// The tree alone, without the contents of its files.
        outline: bool,
        /// Where the stream lies in the descriptor, a file: position and length. Otherwise it is
        /// read to its end.
        section: Option<(u64, u64)>,
    },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// All was inflated, or the reader wanted no more.
    Inflated,
    /// The layer is there.
    Unpacked {
        /// What was seen in it.
        unpacked: Unpacked,
        /// Digest and length of the stream.
        digest: Digest,
        size: u64,
    },
    /// It failed.
    Failed {
        message: String,
        hints: Vec<String>,
        /// Digest and length of the whole stream, where it lies in a file.
        stream: Option<(Digest, u64)>,
        /// The system failed, whatever the archive is like: a full disk.
        system: bool,
    },
}

impl Answer {
    /// A failure on its way to the process that prints it.
    pub(super) fn failed(error: &Error, stream: Option<(Digest, u64)>) -> Self {
        // Only a name can be long; what is wrong with it comes at the end.
        let short = |text: &str| {
            let length = text.chars().count();
            if length <= 2 * SHOWN {
                return text.to_owned();
            }
            let start: String = text.chars().take(SHOWN).collect();
            let end: String = text.chars().skip(length - SHOWN).collect();
            format!("{start}…{end}")
        };
        Answer::Failed {
            message: short(&error.to_string()),
            hints: error.hints().iter().map(|hint| short(hint)).collect(),
            stream,
            system: error.errno().is_some_and(|errno| SYSTEM.contains(&errno)),
        }
    }

    /// The error that it is; anything but a failure is out of place where this is asked.
    pub(super) fn into_error(self) -> Error {
        match self {
            Answer::Failed { message, hints, .. } => {
                hints.into_iter().fold(Error::new(message), Error::hint)
            }
            other => Error::new(format!("unpack: unexpected answer {other:?}")),
        }
    }
}
