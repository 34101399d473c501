//! The FUSE protocol between the kernel and a file system in a process, version 7 (linux/fuse.h,
//! fuse(4)): requests are decoded, answers are encoded, and nothing else.
//!
//! What arrives comes from the kernel, which has checked it; it is checked here again all the same,
//! so that a mistake on either side is an errno and never a wrong read. Numbers are in the byte
//! order of the machine.

mod answer;
mod fields;
mod init;
mod request;

pub use answer::{Answer, Attributes, Entry, Listing, Statistics, Timeout, Times};
pub use init::{Features, Hello, Limits, MINOR};
pub use request::{
    Change, Forgets, Malformed, Open, Operation, Range, Request, SetTime, Transfer, is_name,
};

/// The node id of the root (`FUSE_ROOT_ID`).
pub const ROOT: u64 = 1;

/// Length of the header of a request (`struct fuse_in_header`).
pub const REQUEST_HEADER: usize = 40;

/// Length of the header of an answer (`struct fuse_out_header`).
pub const ANSWER_HEADER: usize = 16;

/// The least that the kernel wants to be offered by a read of a request (`FUSE_MIN_READ_BUFFER`).
pub const MIN_REQUEST: usize = 8192;

/// The longest name that may arrive (`FUSE_NAME_MAX` as of Linux 6.15). Most file systems end at 255,
/// which is theirs to say.
pub const NAME_MAX: usize = 4095;

/// The numbers of the operations (`enum fuse_opcode`).
mod opcode {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const READLINK: u32 = 5;
    pub(super) const SYMLINK: u32 = 6;
    pub(super) const MKNOD: u32 = 8;
    pub(super) const MKDIR: u32 = 9;
    pub(super) const UNLINK: u32 = 10;
    pub(super) const RMDIR: u32 = 11;
    pub(super) const RENAME: u32 = 12;
    pub(super) const LINK: u32 = 13;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const STATFS: u32 = 17;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const SETXATTR: u32 = 21;
    pub(super) const GETXATTR: u32 = 22;
    pub(super) const LISTXATTR: u32 = 23;
    pub(super) const REMOVEXATTR: u32 = 24;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const OPENDIR: u32 = 27;
    pub(super) const READDIR: u32 = 28;
    pub(super) const RELEASEDIR: u32 = 29;
    pub(super) const FSYNCDIR: u32 = 30;
    pub(super) const ACCESS: u32 = 34;
    pub(super) const CREATE: u32 = 35;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const FALLOCATE: u32 = 43;
    pub(super) const READDIRPLUS: u32 = 44;
    pub(super) const RENAME2: u32 = 45;
    pub(super) const LSEEK: u32 = 46;
    pub(super) const COPY_FILE_RANGE: u32 = 47;
    pub(super) const SYNCFS: u32 = 50;
    pub(super) const TMPFILE: u32 = 51;
    pub(super) const STATX: u32 = 52;
}

#[cfg(test)]
mod tests;
