//! Requests: what the kernel asks.

use nix::errno::Errno;

use super::fields::Fields;
use super::init::Hello;
use super::{NAME_MAX, REQUEST_HEADER, opcode};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// What the answer must repeat.
    pub unique: u64,
    /// The node that it is about.
    pub node: u64,
    /// The file system user id of the process that asks, in the user namespace of the mount.
    pub uid: u32,
    /// The file system group id.
    pub gid: u32,
    /// The process id, 0 where the kernel asks for itself.
    pub pid: u32,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// A request that is not as the protocol has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// What an answer must repeat; `None` where not even the header could be read.
    pub unique: Option<u64>,
}

/// What is asked. Names are single components: not empty, not `.` or `..`, without `/` and NUL.
/// Handles are what an earlier answer gave, 0 without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The first request of a connection.
    Init(Hello),
    /// The last one; the file system is unmounted.
    Destroy,
    /// The node of a name in a directory.
    Lookup {
        /// The name.
        name: &'a [u8],
    },
    /// The kernel no longer knows a node. Not answered.
    Forget {
        /// By so many of the answers that made it known.
        lookups: u64,
    },
    /// As `Forget`, for many nodes. Not answered.
    BatchForget(Forgets<'a>),
    /// Attributes.
    GetAttributes {
        /// The open file that they are asked of.
        handle: Option<u64>,
    },
    /// statx(2), asked only where more is wanted than `GetAttributes` tells (protocol 7.39).
    StatX {
        /// The open file that they are asked of.
        handle: Option<u64>,
        /// `STATX_*`
        mask: u32,
    },
    /// Changes of attributes.
    SetAttributes(Change),
    /// The target of a symbolic link.
    ReadLink,
    /// symlink(2)
    SymbolicLink {
        /// The name.
        name: &'a [u8],
        /// What it points to.
        target: &'a [u8],
    },
    /// mknod(2)
    MakeNode {
        /// The name.
        name: &'a [u8],
        /// Type and permissions.
        mode: u32,
        /// Device number, as [`Attributes`](super::Attributes) has it.
        device: u32,
        /// The mask of the process, already applied to `mode` unless `DONT_MASK` was agreed.
        umask: u32,
    },
    /// mkdir(2)
    MakeDirectory {
        /// The name.
        name: &'a [u8],
        /// Permissions.
        mode: u32,
        /// As in `MakeNode`.
        umask: u32,
    },
    /// unlink(2)
    Unlink {
        /// The name.
        name: &'a [u8],
    },
    /// rmdir(2)
    RemoveDirectory {
        /// The name.
        name: &'a [u8],
    },
    /// renameat2(2); the node of the request is the old directory.
    Rename {
        /// The old name.
        name: &'a [u8],
        /// The new directory.
        new_directory: u64,
        /// The new name.
        new_name: &'a [u8],
        /// `RENAME_*`
        flags: u32,
    },
    /// link(2); the node of the request is the directory of the new name.
    Link {
        /// The node that gets another name.
        of: u64,
        /// The name.
        name: &'a [u8],
    },
    /// open(2)
    Open(Open),
    /// open(2) with `O_CREAT`
    Create {
        /// The name.
        name: &'a [u8],
        /// How it is opened.
        open: Open,
        /// Type and permissions.
        mode: u32,
        /// As in `MakeNode`.
        umask: u32,
    },
    /// open(2) with `O_TMPFILE` (protocol 7.37); the node of the request is the directory.
    TemporaryFile {
        /// How it is opened.
        open: Open,
        /// Type and permissions.
        mode: u32,
        /// As in `MakeNode`.
        umask: u32,
    },
    /// pread(2)
    Read(Range),
    /// pwrite(2)
    Write {
        /// The open file.
        handle: u64,
        /// Where.
        offset: u64,
        /// What.
        data: &'a [u8],
        /// `FUSE_WRITE_*`
        write_flags: u32,
        /// The flags of the open file, `O_*`.
        flags: u32,
    },
    /// close(2) of one of the descriptors of an open file.
    Flush {
        /// The open file.
        handle: u64,
    },
    /// The last close(2) of an open file.
    Release {
        /// The open file.
        handle: u64,
        /// Its flags, `O_*`.
        flags: u32,
    },
    /// fsync(2) and fdatasync(2)
    Sync {
        /// The open file.
        handle: u64,
        /// fdatasync(2)
        only_data: bool,
    },
    /// opendir(3)
    OpenDirectory(Open),
    /// The entries of a directory, with their attributes where `with_attributes`.
    ReadDirectory {
        /// Where it goes on and how many bytes the answer may have.
        range: Range,
        /// `READDIRPLUS`: every entry counts as a lookup.
        with_attributes: bool,
    },
    /// closedir(3)
    ReleaseDirectory {
        /// The open directory.
        handle: u64,
    },
    /// fsync(2) of a directory.
    SyncDirectory {
        /// The open directory.
        handle: u64,
        /// fdatasync(2)
        only_data: bool,
    },
    /// statfs(2)
    Statistics,
    /// setxattr(2)
    SetXattr {
        /// The name of the attribute.
        name: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// `XATTR_CREATE`, `XATTR_REPLACE`
        flags: u32,
    },
    /// getxattr(2)
    GetXattr {
        /// The name of the attribute.
        name: &'a [u8],
        /// The longest value that is wanted; 0 asks for the length.
        size: u32,
    },
    /// listxattr(2)
    ListXattr {
        /// The longest list that is wanted; 0 asks for the length.
        size: u32,
    },
    /// removexattr(2)
    RemoveXattr {
        /// The name of the attribute.
        name: &'a [u8],
    },
    /// access(2), asked where the kernel does not check permissions itself.
    Access {
        /// `R_OK`, `W_OK`, `X_OK`
        mask: u32,
    },
    /// The process that waits for another request got a signal.
    Interrupt {
        /// That request.
        unique: u64,
    },
    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`
    Seek {
        /// The open file.
        handle: u64,
        /// From where.
        offset: u64,
        /// `SEEK_*`
        whence: u32,
    },
    /// fallocate(2)
    Allocate {
        /// The open file.
        handle: u64,
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
        /// `FALLOC_FL_*`
        mode: u32,
    },
    /// copy_file_range(2); the node of the request is the source.
    Copy(Transfer),
    /// syncfs(2)
    SyncFileSystem,
    /// An operation that is not decoded here, by its number. The answer is `ENOSYS`.
    Other(u32),
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// `O_*`
    pub flags: u32,
    /// `FUSE_OPEN_*`
    pub open_flags: u32,
}

/// A part of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The open file.
    pub handle: u64,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes the answer may have.
    pub size: u32,
}

/// What copy_file_range(2) copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// The open file that is read.
    pub handle: u64,
    /// From where.
    pub offset: u64,
    /// The node that is written.
    pub to_node: u64,
    /// The open file that is written.
    pub to_handle: u64,
    /// To where.
    pub to_offset: u64,
    /// How much.
    pub length: u64,
    /// As the call has them.
    pub flags: u64,
}

/// A time that is set (utimensat(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// `UTIME_NOW`
    Now,
    /// Seconds and nanoseconds.
    At(i64, u32),
}

/// The attributes that a `SetAttributes` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The open file that it is asked of.
    pub handle: Option<u64>,
    /// Permissions, with the type.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Time of access.
    pub atime: Option<SetTime>,
    /// Time of modification.
    pub mtime: Option<SetTime>,
    /// Time of change.
    pub ctime: Option<(i64, u32)>,
    /// `FATTR_KILL_SUIDGID`: setuid and setgid bits go, as by a write.
    pub drops_setid: bool,
}

/// The nodes of a `BatchForget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgets<'a>(&'a [u8]);

impl Forgets<'_> {
    /// Node and number of lookups, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.chunks_exact(16).filter_map(|one| {
            let mut fields = Fields::of(one);
            Some((fields.u64().ok()?, fields.u64().ok()?))
        })
    }
}

/// Whether a name can be that of a file in a directory.
pub fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_MAX
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl Operation<'_> {
    /// Whether the kernel waits for an answer. An `Interrupt` may stay without one.
    pub fn is_answered(&self) -> bool {
        !matches!(
            self,
            Operation::Forget { .. } | Operation::BatchForget(_) | Operation::Interrupt { .. }
        )
    }
}

impl<'a> Request<'a> {
    /// Decodes what one read(2) of the device gave.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let length = bytes.len();
        let mut fields = Fields::of(bytes);
        let nameless = |_| Malformed { unique: None };
        let said = fields.u32().map_err(nameless)?;
        let number = fields.u32().map_err(nameless)?;
        let unique = fields.u64().map_err(nameless)?;
        let malformed = |_| Malformed { unique: Some(unique) };
        let node = fields.u64().map_err(malformed)?;
        let uid = fields.u32().map_err(malformed)?;
        let gid = fields.u32().map_err(malformed)?;
        let pid = fields.u32().map_err(malformed)?;
        // Length of the extensions that follow the arguments, in units of eight bytes: none was
        // agreed to. With the two bytes after it, it was padding before protocol 7.38.
        fields.u32().map_err(malformed)?;
        if usize::try_from(said) != Ok(length) || length < REQUEST_HEADER {
            return Err(Malformed { unique: Some(unique) });
        }
        let operation = decode(number, &mut fields).map_err(malformed)?;
        Ok(Request { unique, node, uid, gid, pid, operation })
    }
}

fn decode<'a>(number: u32, fields: &mut Fields<'a>) -> Result<Operation<'a>, Errno> {
    Ok(match number {
        opcode::INIT => Operation::Init(Hello::decode(fields)?),
        opcode::DESTROY => Operation::Destroy,
        opcode::LOOKUP => Operation::Lookup { name: fields.name()? },
        opcode::FORGET => Operation::Forget { lookups: fields.u64()? },
        opcode::BATCH_FORGET => {
            let count = usize::try_from(fields.u32()?).map_err(|_| Errno::EINVAL)?;
            fields.u32()?;
            let length = count.checked_mul(16).ok_or(Errno::EINVAL)?;
            Operation::BatchForget(Forgets(fields.bytes(length)?))
        }
        opcode::GETATTR => Operation::GetAttributes { handle: fields.optional_handle()? },
        opcode::STATX => {
            let handle = fields.optional_handle()?;
            fields.u32()?;
            Operation::StatX { handle, mask: fields.u32()? }
        }
        opcode::SETATTR => Operation::SetAttributes(fields.change()?),
        opcode::READLINK => Operation::ReadLink,
        opcode::SYMLINK => {
            Operation::SymbolicLink { name: fields.name()?, target: fields.string()? }
        }
        opcode::MKNOD => {
            let [mode, device, umask, _] = fields.four()?;
            Operation::MakeNode { name: fields.name()?, mode, device, umask }
        }
        opcode::MKDIR => {
            let (mode, umask) = (fields.u32()?, fields.u32()?);
            Operation::MakeDirectory { name: fields.name()?, mode, umask }
        }
        opcode::UNLINK => Operation::Unlink { name: fields.name()? },
        opcode::RMDIR => Operation::RemoveDirectory { name: fields.name()? },
        opcode::RENAME | opcode::RENAME2 => {
            let new_directory = fields.u64()?;
            let mut flags = 0;
            if number == opcode::RENAME2 {
                flags = fields.u32()?;
                fields.u32()?;
            }
            let (name, new_name) = (fields.name()?, fields.name()?);
            Operation::Rename { name, new_directory, new_name, flags }
        }
        opcode::LINK => {
            let of = fields.u64()?;
            Operation::Link { of, name: fields.name()? }
        }
        opcode::OPEN => Operation::Open(fields.open()?),
        opcode::OPENDIR => Operation::OpenDirectory(fields.open()?),
        opcode::CREATE | opcode::TMPFILE => {
            let [flags, mode, umask, open_flags] = fields.four()?;
            let open = Open { flags, open_flags };
            match number {
                opcode::CREATE => Operation::Create { name: fields.name()?, open, mode, umask },
                // The kernel sends a name here too, which means nothing.
                _ => Operation::TemporaryFile { open, mode, umask },
            }
        }
        opcode::READ => Operation::Read(fields.range()?),
        opcode::READDIR | opcode::READDIRPLUS => Operation::ReadDirectory {
            range: fields.range()?,
            with_attributes: number == opcode::READDIRPLUS,
        },
        opcode::WRITE => {
            let (handle, offset) = (fields.u64()?, fields.u64()?);
            let (size, write_flags) = (fields.u32()?, fields.u32()?);
            let _lock_owner = fields.u64()?;
            let (flags, _) = (fields.u32()?, fields.u32()?);
            let data = fields.bytes(usize::try_from(size).map_err(|_| Errno::EINVAL)?)?;
            Operation::Write { handle, offset, data, write_flags, flags }
        }
        opcode::FLUSH => Operation::Flush { handle: fields.u64()? },
        opcode::RELEASE => Operation::Release { handle: fields.u64()?, flags: fields.u32()? },
        opcode::RELEASEDIR => Operation::ReleaseDirectory { handle: fields.u64()? },
        opcode::FSYNC => Operation::Sync { handle: fields.u64()?, only_data: fields.flag(1)? },
        opcode::FSYNCDIR => {
            Operation::SyncDirectory { handle: fields.u64()?, only_data: fields.flag(1)? }
        }
        opcode::STATFS => Operation::Statistics,
        opcode::SETXATTR => {
            // The short form; the long one, which was not agreed to, has eight bytes more.
            let (size, flags) = (fields.u32()?, fields.u32()?);
            let name = fields.string()?;
            let value = fields.bytes(usize::try_from(size).map_err(|_| Errno::EINVAL)?)?;
            Operation::SetXattr { name, value, flags }
        }
        opcode::GETXATTR => {
            let (size, _) = (fields.u32()?, fields.u32()?);
            Operation::GetXattr { name: fields.string()?, size }
        }
        opcode::LISTXATTR => Operation::ListXattr { size: fields.u32()? },
        opcode::REMOVEXATTR => Operation::RemoveXattr { name: fields.string()? },
        opcode::ACCESS => Operation::Access { mask: fields.u32()? },
        opcode::INTERRUPT => Operation::Interrupt { unique: fields.u64()? },
        opcode::LSEEK => {
            let (handle, offset) = (fields.u64()?, fields.u64()?);
            Operation::Seek { handle, offset, whence: fields.u32()? }
        }
        opcode::FALLOCATE => Operation::Allocate {
            handle: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u64()?,
            mode: fields.u32()?,
        },
        opcode::COPY_FILE_RANGE => Operation::Copy(Transfer {
            handle: fields.u64()?,
            offset: fields.u64()?,
            to_node: fields.u64()?,
            to_handle: fields.u64()?,
            to_offset: fields.u64()?,
            length: fields.u64()?,
            flags: fields.u64()?,
        }),
        opcode::SYNCFS => Operation::SyncFileSystem,
        other => Operation::Other(other),
    })
}
