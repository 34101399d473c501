//! The times of directories, in the order in which the archive has them. On disk: a layer may have
//! millions, with names of 4 KiB.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use super::name::Name;
use super::tree::Tree;
use crate::sys::fs::set_mtime_of;

/// What has been noted so far.
pub(super) struct Times(BufWriter<File>);

impl Times {
    /// Takes an empty file.
    pub(super) fn new(file: File) -> Self {
        Times(BufWriter::with_capacity(64 << 10, file))
    }

    /// Notes the time of a directory; what was noted earlier for the same name does not count.
    pub(super) fn add(
        &mut self,
        name: &Name,
        (seconds, nanoseconds): (i64, u32),
    ) -> io::Result<()> {
        let bytes = name.path().as_os_str().as_encoded_bytes();
        let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0.write_all(&seconds.to_le_bytes())?;
        self.0.write_all(&nanoseconds.to_le_bytes())?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(bytes)
    }

    /// Sets them all.
    pub(super) fn set_all(self, tree: &mut Tree) -> io::Result<()> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        let end = file.stream_position()?;
        file.rewind()?;
        let mut reader = BufReader::with_capacity(64 << 10, file).take(end);
        while reader.limit() > 0 {
            let (mut seconds, mut nanoseconds, mut length) = ([0; 8], [0; 4], [0; 2]);
            reader.read_exact(&mut seconds)?;
            reader.read_exact(&mut nanoseconds)?;
            reader.read_exact(&mut length)?;
            let mut bytes = vec![0; u16::from_le_bytes(length).into()];
            reader.read_exact(&mut bytes)?;
            let name = match bytes.as_slice() {
                [] => Name::root(),
                bytes => Name::clean(bytes).map_err(io::Error::other)?,
            };
            let time = (i64::from_le_bytes(seconds), u32::from_le_bytes(nanoseconds));
            set(tree, &name, time)?;
        }
        Ok(())
    }
}

fn set(tree: &mut Tree, name: &Name, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
    // A directory that a later entry replaced has no time to set.
    match tree.existing(name) {
        Ok(Some(dir)) => set_mtime_of(&*dir, seconds, nanoseconds.into()),
        _ => Ok(()),
    }
}
