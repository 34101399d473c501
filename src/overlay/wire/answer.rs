//! Answers: what is told to the kernel, in a buffer that is used again and again.

use nix::errno::Errno;

use super::ANSWER_HEADER;

/// How long the kernel may go on using what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    seconds: u64,
    nanoseconds: u32,
}

impl Timeout {
    /// Without limit: 136 years, since the kernel computes with what it gets.
    pub const NEVER: Timeout = Timeout { seconds: u32::MAX as u64, nanoseconds: 0 };
    /// Not at all.
    pub const NOW: Timeout = Timeout { seconds: 0, nanoseconds: 0 };
}

/// Seconds since 1970 and nanoseconds, of access, modification and change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// Access.
    pub access: (i64, u32),
    /// Modification.
    pub modification: (i64, u32),
    /// Change.
    pub change: (i64, u32),
}

/// What stat(2) tells (`struct fuse_attr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Room on disk in units of 512 bytes.
    pub blocks: u64,
    /// The three times.
    pub times: Times,
    /// Type and permissions.
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Owner, in the user namespace of the mount.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a device node, as [`Attributes::device`] makes it.
    pub device: u32,
    /// What programs should read at once, in bytes.
    pub block_size: u32,
}

impl Attributes {
    /// A device number in the kernel's form of 32 bits (`new_encode_dev`): 12 bits of `major`, 20 of
    /// `minor`.
    pub const fn device(major: u32, minor: u32) -> u32 {
        (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
    }

    /// The numbers of a device again.
    const fn device_numbers(&self) -> (u32, u32) {
        ((self.device >> 8) & 0xfff, (self.device & 0xff) | ((self.device >> 12) & 0xf_ff00))
    }
}

/// A name that was looked up (`struct fuse_entry_out`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The node; 0 says that there is none, which the kernel remembers as long as `names`.
    pub node: u64,
    /// With the node id unique for ever.
    pub generation: u64,
    /// How long the name stands for the node.
    pub names: Timeout,
    /// How long the attributes hold.
    pub attributes_for: Timeout,
    /// The attributes.
    pub attributes: Attributes,
}

impl Entry {
    /// That there is no such name.
    pub fn none(names: Timeout) -> Self {
        Entry {
            node: 0,
            generation: 0,
            names,
            attributes_for: Timeout::NOW,
            attributes: Attributes::default(),
        }
    }
}

/// What statfs(2) tells (`struct fuse_kstatfs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Length of the file system in blocks.
    pub blocks: u64,
    /// Free ones.
    pub free: u64,
    /// Free ones for ordinary users.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub free_files: u64,
    /// Length of a block in bytes.
    pub block_size: u32,
    /// The longest name.
    pub name_max: u32,
    /// Length of a fragment in bytes.
    pub fragment_size: u32,
}

/// The buffer of one answer after another.
pub struct Answer {
    buffer: Box<[u8]>,
    length: usize,
}

impl Answer {
    /// One with room for `capacity` bytes after the header. Memory is used as it is written to.
    pub fn new(capacity: usize) -> Self {
        let buffer = vec![0; ANSWER_HEADER.saturating_add(capacity)].into_boxed_slice();
        Answer { buffer, length: ANSWER_HEADER }
    }

    /// Begins the next answer, which is empty.
    pub fn clear(&mut self) {
        self.length = ANSWER_HEADER;
    }

    /// How many bytes there are after the header.
    pub fn len(&self) -> usize {
        self.length - ANSWER_HEADER
    }

    /// Whether there is nothing after the header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes; `ERANGE` where they do not fit.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let room = self.buffer.get_mut(self.length..).and_then(|rest| rest.get_mut(..bytes.len()));
        room.ok_or(Errno::ERANGE)?.copy_from_slice(bytes);
        self.length += bytes.len();
        Ok(())
    }

    /// Lets `fill` write at most `size` bytes where the answer goes on, fewer where there is less
    /// room; it says how many it wrote.
    pub fn fill(
        &mut self,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        let rest = self.buffer.get_mut(self.length..).ok_or(Errno::ERANGE)?;
        let size = size.min(rest.len());
        let written = fill(rest.get_mut(..size).ok_or(Errno::ERANGE)?)?;
        self.length += written.min(size);
        Ok(())
    }

    /// `struct fuse_entry_out`, the answer to all that makes or finds a name.
    pub fn put_entry(&mut self, entry: &Entry) -> Result<(), Errno> {
        self.put_u64(entry.node)?;
        self.put_u64(entry.generation)?;
        self.put_u64(entry.names.seconds)?;
        self.put_u64(entry.attributes_for.seconds)?;
        self.put_u32(entry.names.nanoseconds)?;
        self.put_u32(entry.attributes_for.nanoseconds)?;
        self.put_raw_attributes(&entry.attributes)
    }

    /// `struct fuse_attr_out`, the answer to `GetAttributes` and `SetAttributes`.
    pub fn put_attributes(&mut self, of: &Attributes, valid: Timeout) -> Result<(), Errno> {
        self.put_u64(valid.seconds)?;
        self.put_u32(valid.nanoseconds)?;
        self.put_u32(0)?;
        self.put_raw_attributes(of)
    }

    /// `struct fuse_statx_out`, the answer to `StatX`: the attributes, and when the file was made
    /// where that is known.
    pub fn put_statx(
        &mut self,
        of: &Attributes,
        birth: Option<(i64, u32)>,
        valid: Timeout,
    ) -> Result<(), Errno> {
        self.put_u64(valid.seconds)?;
        self.put_u32(valid.nanoseconds)?;
        self.put(&[0; 20])?;
        let known = if birth.is_some() { libc::STATX_BTIME } else { 0 };
        self.put_u32(libc::STATX_BASIC_STATS | known)?;
        self.put_u32(of.block_size)?;
        self.put_u64(0)?;
        for field in [of.links, of.uid, of.gid, of.mode & 0xffff] {
            self.put_u32(field)?;
        }
        for field in [of.ino, of.size, of.blocks, 0] {
            self.put_u64(field)?;
        }
        let Times { access, modification, change } = of.times;
        for (seconds, nanoseconds) in [access, birth.unwrap_or_default(), change, modification] {
            self.put_u64(seconds.cast_unsigned())?;
            self.put_u32(nanoseconds)?;
            self.put_u32(0)?;
        }
        let (major, minor) = of.device_numbers();
        self.put_u32(major)?;
        self.put_u32(minor)?;
        self.put(&[0; 8 + 112])
    }

    /// `struct fuse_open_out`, the answer to `Open`, and after the entry to `Create`.
    pub fn put_open(&mut self, handle: u64, open_flags: u32) -> Result<(), Errno> {
        self.put_u64(handle)?;
        self.put_u32(open_flags)?;
        self.put_u32(0)
    }

    /// A number of bytes: the answer to `Write` and `Copy` (`struct fuse_write_out`), and to a
    /// `GetXattr` or `ListXattr` that asks for a length (`struct fuse_getxattr_out`).
    pub fn put_length(&mut self, length: u32) -> Result<(), Errno> {
        self.put_u32(length)?;
        self.put_u32(0)
    }

    /// A place in a file (`struct fuse_lseek_out`).
    pub fn put_offset(&mut self, offset: u64) -> Result<(), Errno> {
        self.put_u64(offset)
    }

    /// The answer to `Statistics`.
    pub fn put_statistics(&mut self, of: &Statistics) -> Result<(), Errno> {
        for field in [of.blocks, of.free, of.available, of.files, of.free_files] {
            self.put_u64(field)?;
        }
        for field in [of.block_size, of.name_max, of.fragment_size] {
            self.put_u32(field)?;
        }
        self.put(&[0; 28])
    }

    /// The value of an attribute or the list of their names, or the length of it where the request
    /// gave room for none.
    pub fn put_sized(&mut self, bytes: &[u8], size: u32) -> Result<(), Errno> {
        let length = u32::try_from(bytes.len()).map_err(|_| Errno::E2BIG)?;
        match size {
            0 => self.put_length(length),
            _ if length > size => Err(Errno::ERANGE),
            _ => self.put(bytes),
        }
    }

    pub(super) fn put_u32(&mut self, number: u32) -> Result<(), Errno> {
        self.put(&number.to_ne_bytes())
    }

    pub(super) fn put_u64(&mut self, number: u64) -> Result<(), Errno> {
        self.put(&number.to_ne_bytes())
    }

    fn put_raw_attributes(&mut self, of: &Attributes) -> Result<(), Errno> {
        let times = [of.times.access, of.times.modification, of.times.change];
        for field in [of.ino, of.size, of.blocks] {
            self.put_u64(field)?;
        }
        for (seconds, _) in times {
            self.put_u64(seconds.cast_unsigned())?;
        }
        for (_, nanoseconds) in times {
            self.put_u32(nanoseconds)?;
        }
        for field in [of.mode, of.links, of.uid, of.gid, of.device, of.block_size, 0] {
            self.put_u32(field)?;
        }
        Ok(())
    }

    /// The whole answer, header included.
    pub fn finish(&mut self, unique: u64) -> &[u8] {
        self.head(0, unique)
    }

    /// The answer that says why there is none.
    pub fn fail(&mut self, errno: Errno, unique: u64) -> &[u8] {
        self.clear();
        self.head(-(errno as i32), unique)
    }

    /// `struct fuse_out_header`
    fn head(&mut self, error: i32, unique: u64) -> &[u8] {
        // A buffer is never as long as 4 GiB.
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        let fields: [&[u8]; 3] =
            [&length.to_ne_bytes(), &error.to_ne_bytes(), &unique.to_ne_bytes()];
        let mut rest = &mut self.buffer[..];
        for field in fields {
            if let Some((front, behind)) =
                std::mem::take(&mut rest).split_at_mut_checked(field.len())
            {
                front.copy_from_slice(field);
                rest = behind;
            }
        }
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

/// The entries of a directory on their way into an answer.
pub struct Listing<'a> {
    answer: &'a mut Answer,
    end: usize,
}

impl<'a> Listing<'a> {
    /// A listing of at most `size` bytes.
    pub fn new(answer: &'a mut Answer, size: u32) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let end = answer.length.saturating_add(size).min(answer.buffer.len());
        Listing { answer, end }
    }

    /// Adds an entry; false where there is no more room for it. `next` is the offset at which
    /// reading goes on behind it, `kind` the type as in a mode. `entry` goes before it in the answer
    /// to a request with attributes; its node is 0 where the kernel is not to remember it.
    pub fn push(
        &mut self,
        name: &[u8],
        ino: u64,
        kind: u32,
        next: u64,
        entry: Option<&Entry>,
    ) -> bool {
        let before = self.answer.length;
        let done = self.try_push(name, ino, kind, next, entry).is_ok();
        if !done || self.answer.length > self.end {
            self.answer.length = before;
            return false;
        }
        true
    }

    fn try_push(
        &mut self,
        name: &[u8],
        ino: u64,
        kind: u32,
        next: u64,
        entry: Option<&Entry>,
    ) -> Result<(), Errno> {
        if let Some(entry) = entry {
            self.answer.put_entry(entry)?;
        }
        self.answer.put_u64(ino)?;
        self.answer.put_u64(next)?;
        self.answer.put_u32(u32::try_from(name.len()).map_err(|_| Errno::ENAMETOOLONG)?)?;
        // DT_* are the bits of S_IFMT, shifted (dirent.h, IFTODT).
        self.answer.put_u32((kind & libc::S_IFMT) >> 12)?;
        self.answer.put(name)?;
        // Records begin at multiples of eight bytes.
        self.answer.put([0; 8].get(..name.len().wrapping_neg() % 8).unwrap_or_default())
    }
}
