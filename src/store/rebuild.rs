//! A layer's tar stream made again from its tree and its skeleton.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::layer::directory_name;
use super::skeleton::{Reader, Record};
use super::{Store, open_directory};
use crate::error::{During, Error, Result};
use crate::image::Digest;
use crate::image::tar::Extent;
use crate::sys::fs::{Resolve, openat2};

const BUFFER: usize = 256 << 10;

/// A layer that is written as a tar stream.
struct Rebuild {
    dir: OwnedFd,
    path: PathBuf,
    /// What later entries replaced, by path: the number of each record that says so, in order, and
    /// its number in `replaced/`. A foreign archive may have millions of them.
    moved: HashMap<Vec<u8>, Vec<(u64, u64)>>,
    buffer: Vec<u8>,
}

/// Writes the tar stream of a layer. It is the one that the layer was made from as long as nobody
/// has changed the tree, which only its digest tells.
pub(super) fn write(store: &Store, layer: &Digest, to: &mut dyn Write) -> Result<()> {
    write_directory(store.layers_dir().join(directory_name(layer)), to)
}

/// As [`write`], for the layer's directory.
pub(super) fn write_directory(path: PathBuf, to: &mut dyn Write) -> Result<()> {
    let dir = open_directory(&path)?;
    let mut rebuild = Rebuild { dir, path, moved: HashMap::new(), buffer: vec![0; BUFFER] };
    rebuild.find_moved()?;
    let mut skeleton = rebuild.skeleton()?;
    let mut number = 0;
    while let Some(record) = rebuild.record(skeleton.next())? {
        match record {
            Record::Raw(bytes) => sent(to.write_all(&bytes))?,
            Record::File { path, extents } => rebuild.contents(number, &path, &extents, to)?,
            Record::Replaced { .. } => (),
        }
        number += 1;
    }
    sent(to.flush())
}

fn sent(written: io::Result<()>) -> Result<()> {
    written.during("write", "the layer's stream")
}

impl Rebuild {
    fn skeleton(&self) -> Result<Reader> {
        let path = self.path.join("skeleton");
        let flags = libc::O_RDONLY;
        let file =
            openat2(self.dir.as_fd(), Path::new("skeleton"), flags, 0, Resolve::BeneathNoSymlinks);
        Ok(Reader::new(File::from(file.at("open", path)?)))
    }

    fn record(&self, record: io::Result<Option<Record>>) -> Result<Option<Record>> {
        record.map_err(|error| match error.raw_os_error() {
            Some(_) => Error::os("read", self.path.join("skeleton").display(), error),
            None => Error::new(format!("read {}: {error}", self.path.join("skeleton").display())),
        })
    }

    /// Few layers have a name twice; only these need the skeleton read twice.
    fn find_moved(&mut self) -> Result<()> {
        if !self.path.join("replaced").try_exists().at("look for", &self.path)? {
            return Ok(());
        }
        let mut skeleton = self.skeleton()?;
        let mut number = 0;
        while let Some(record) = self.record(skeleton.next())? {
            if let Record::Replaced { path, number: to } = record {
                self.moved.entry(path).or_default().push((number, to));
            }
            number += 1;
        }
        Ok(())
    }

    /// Where the file of the record `number` is today: the first move after it that concerns its
    /// path took it away, and what is there is not touched again.
    fn place(&self, number: u64, path: &[u8]) -> PathBuf {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let first = ends
            .chain([path.len()])
            .filter_map(|end| {
                let moves = self.moved.get(&path[..end])?;
                let next = moves.partition_point(|(when, _)| *when <= number);
                moves.get(next).map(|(when, to)| (*when, *to, end))
            })
            .min();
        if let Some((_, to, end)) = first {
            let mut place = format!("replaced/{to}").into_bytes();
            place.extend_from_slice(&path[end..]);
            return PathBuf::from(OsStr::from_bytes(&place));
        }
        Path::new("fs").join(OsStr::from_bytes(path))
    }

    fn contents(
        &mut self,
        number: u64,
        path: &[u8],
        extents: &[Extent],
        to: &mut dyn Write,
    ) -> Result<()> {
        let place = self.place(number, path);
        let full = self.path.join(&place);
        // O_NONBLOCK: whatever somebody put there, opening it must not wait.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        let file = openat2(self.dir.as_fd(), &place, flags, 0, Resolve::BeneathNoSymlinks);
        let file = File::from(file.at("open", &full)?);
        for extent in extents {
            let (mut position, mut left) = (extent.offset, extent.length);
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                let read = file.read_at(&mut self.buffer[..most], position).at("read", &full)?;
                if read == 0 {
                    return Err(Error::new(format!(
                        "read {}: shorter than the layer has it",
                        full.display()
                    )));
                }
                sent(to.write_all(&self.buffer[..read]))?;
                position += read as u64;
                left -= read as u64;
            }
        }
        Ok(())
    }
}
