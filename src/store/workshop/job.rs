//! What goes over the channel between casemate and one of its workers.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Told};
use crate::image::{Compression, Digest};
use crate::store::unpack::Unpacked;

/// The longest message.
pub(super) const LIMIT: usize = 128 << 10;

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
        /// Why.
        told: Told,
        /// Digest and length of the whole stream, where it lies in a file.
        stream: Option<(Digest, u64)>,
        /// The system failed, whatever the archive is like: a full disk.
        system: bool,
    },
}

impl Answer {
    /// A failure on its way to the process that prints it.
    pub(super) fn failed(error: &Error, stream: Option<(Digest, u64)>) -> Self {
        Answer::Failed {
            told: Told::of(error),
            stream,
            system: error.errno().is_some_and(|errno| SYSTEM.contains(&errno)),
        }
    }

    /// The error that it is; anything but a failure is out of place where this is asked.
    pub(super) fn into_error(self) -> Error {
        match self {
            Answer::Failed { told, .. } => told.into_error(),
            other => Error::new(format!("unpack: unexpected answer {other:?}")),
        }
    }
}
