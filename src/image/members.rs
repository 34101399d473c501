//! The files of an image archive by name, in a directory or in a tar that stays on disk.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::tar::{Kind, Reader};
use crate::error::{During, Error, Result};
use crate::sys::fs::{Resolve, identity, openat2};

/// Where the files of an image archive are.
pub(super) enum Members {
    /// An OCI layout as a directory.
    Directory(OwnedFd),
    /// A tar, indexed in one pass.
    Archive { file: Arc<File>, index: Index },
}

/// What a tar holds, by name.
#[derive(Default)]
pub(super) struct Index {
    files: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
}

/// The most files of an image archive; the largest images have a few hundred.
const MAX_MEMBERS: usize = 100_000;

/// Part of a file, read by position, so that several may be open at once.
pub struct Section {
    file: Arc<File>,
    position: u64,
    left: u64,
}

impl Section {
    /// A whole file from its beginning.
    pub fn whole(file: File) -> io::Result<Self> {
        let left = file.metadata()?.len();
        Ok(Section { file: Arc::new(file), position: 0, left })
    }

    /// Part of a file.
    pub fn of(file: Arc<File>, position: u64, length: u64) -> Self {
        Section { file, position, left: length }
    }

    /// The first bytes, without taking them.
    pub fn head(&self, length: usize) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let same = Section { file: Arc::clone(&self.file), ..*self };
        same.take(length as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    /// The file that it is in.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where in the file it starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes are left.
    pub fn len(&self) -> u64 {
        self.left
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.position)?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is cut short"));
        }
        self.position += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Index {
    /// Indexes a tar of files. Stops with `None` at the first name that no image archive has: then
    /// the tar is a root file system, and its remainder is not read here.
    pub(super) fn of(reader: &mut Reader<impl super::tar::Skip>) -> io::Result<Option<Self>> {
        let mut index = Index::default();
        while let Some(entry) = reader.next_entry()? {
            let Some(name) = String::from_utf8(entry.path).ok() else { return Ok(None) };
            let name = name.trim_start_matches("./").trim_end_matches('/').to_owned();
            if !is_image_member(&name) {
                return Ok(None);
            }
            if !is_read(&name) {
                continue;
            }
            if index.files.len() + index.links.len() >= MAX_MEMBERS {
                return Err(io::Error::other(format!("more than {MAX_MEMBERS} members")));
            }
            // A name that comes twice has one meaning only: the last, as when unpacking.
            index.files.remove(&name);
            index.links.remove(&name);
            match entry.kind {
                Kind::File if entry.extents.len() == 1 && entry.size == entry.stored => {
                    index.files.insert(name, (entry.offset, entry.stored));
                }
                Kind::Symlink | Kind::HardLink => {
                    let Ok(target) = String::from_utf8(entry.link) else { return Ok(None) };
                    let base = if entry.kind == Kind::Symlink { parent(&name) } else { "" };
                    let Some(target) = resolve(base, &target) else { return Ok(None) };
                    if !is_image_member(&target) {
                        return Ok(None);
                    }
                    index.links.insert(name, target);
                }
                Kind::Directory => (),
                _ => return Ok(None),
            }
        }
        Ok(Some(index))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Looks a name up inside the archive, through its links: old `docker save` archives share
    /// layers that way.
    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let (mut name, mut seen) = (name, HashSet::new());
        loop {
            if let Some(&place) = self.files.get(name) {
                return Some(place);
            }
            let target = self.links.get(name)?;
            if !seen.insert(target) {
                return None;
            }
            name = target;
        }
    }
}

/// Whether a name may stand in a `docker save` archive or an OCI layout.
fn is_image_member(name: &str) -> bool {
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (first, rest) = name.split_once('/').unwrap_or((name, ""));
    match first {
        "" | "." => rest.is_empty(),
        "oci-layout" | "index.json" | "manifest.json" | "repositories" => rest.is_empty(),
        "blobs" => true,
        _ if is_id(first) => matches!(rest, "" | "layer.tar" | "json" | "VERSION"),
        _ => {
            let id = first.strip_suffix(".json").or_else(|| first.strip_suffix(".tar"));
            rest.is_empty() && id.is_some_and(is_id)
        }
    }
}

/// Whether anything that is read from an image archive may have this name. What else lies among its
/// blobs, under names of any length, is not remembered.
fn is_read(name: &str) -> bool {
    let blob = name.strip_prefix("blobs/");
    blob.is_none_or(|blob| {
        blob.strip_prefix("sha256/").is_some_and(|hex| super::Digest::from_hex(hex).is_some())
    })
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A link target as a name inside the archive; none where it leads out.
fn resolve(base: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => (),
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Members {
    pub(super) fn has(&self, name: &str) -> Result<bool> {
        match self {
            Members::Archive { index, .. } => Ok(index.has(name)),
            Members::Directory(_) => Ok(self.find(name)?.is_some()),
        }
    }

    /// A file by name; names come from digests or are constants, save those in a docker manifest,
    /// which are only ever looked up in an index.
    pub(super) fn find(&self, name: &str) -> Result<Option<Section>> {
        match self {
            Members::Archive { file, index } => Ok(index
                .find(name)
                .map(|(position, left)| Section { file: Arc::clone(file), position, left })),
            Members::Directory(dir) => {
                // O_NONBLOCK: opening a FIFO must not wait for a writer.
                let flags = libc::O_RDONLY | libc::O_NONBLOCK;
                // The directory is the user's: build tools fill layouts with symbolic links, and
                // what they lead to is verified by digest like the rest.
                let opened = openat2(dir.as_fd(), Path::new(name), flags, 0, Resolve::Ordinary);
                let file = match opened {
                    Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                        return Ok(None);
                    }
                    opened => opened.at("open", name)?,
                };
                if !identity(&file).at("stat", name)?.is_file() {
                    return Err(Error::new(format!("open {name}: not a regular file")));
                }
                Section::whole(File::from(file)).map(Some).at("stat", name)
            }
        }
    }

    /// A file that must be there, whole, up to a limit.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let Some(mut section) = self.find(name)? else {
            return Err(Error::new(format!("{name} is missing")));
        };
        if section.len() > limit {
            return Err(Error::new(format!("{name} is larger than {limit} bytes")));
        }
        let mut content = Vec::new();
        section.read_to_end(&mut content).at("read", name)?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_archives_are_told_by_their_names() {
        let id = "0".repeat(64);
        for name in ["oci-layout", "blobs/sha256/00", ".", "", "manifest.json"] {
            assert!(is_image_member(name), "{name}");
        }
        for name in [id.clone(), format!("{id}.json"), format!("{id}/layer.tar")] {
            assert!(is_image_member(&name), "{name}");
        }
        for name in ["bin", "etc/passwd", "manifest.json/x", "x.json", &format!("{id}/etc")] {
            assert!(!is_image_member(name), "{name}");
        }
    }

    #[test]
    fn links_stay_inside_the_archive() {
        assert_eq!(resolve("a", "../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(resolve("a", "../../b"), None);
        assert_eq!(resolve("", "/etc/passwd"), None);
    }
}
