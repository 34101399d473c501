//! The indexes of layers: opening one, and making it from the tree where it is missing or cannot be
//! read. Layers are otherwise never changed once they are in their place.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;

use super::hold::{Held, missing};
use super::layer::directory_name;
use super::staging::Staging;
use super::{Store, open_directory, with_space_hint};
use crate::error::{During, Error, Result};
use crate::image::Digest;
use crate::index::{self, Builder, LayerIndex};
use crate::sys::fs::memfd;

/// Its name in the layer's directory.
const NAME: &str = "index";
// O_NONBLOCK: whatever somebody put there, opening it must not wait.
const FILE: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// The index of a layer, which is held meanwhile.
pub(super) fn open(store: &Store, layer: &Digest) -> Result<File> {
    let _held = Held::layer(store, layer)?.ok_or_else(|| missing(layer))?;
    let path = store.layers_dir().join(directory_name(layer));
    let dir = open_directory(&path)?;
    if let Ok(Some((file, _))) = find(&dir) {
        return Ok(file);
    }
    let tree = open_directory(&path.join("fs"))?;
    let builder =
        index::walk(&tree).map_err(|error| error.within(format_args!("layer {layer}")))?;
    match staged(store, builder, &dir) {
        Ok(file) => Ok(file),
        // A store that cannot be written can still be read: the index is in memory then, and made
        // again the next time.
        Err(_) => unnamed(index::walk(&tree)?),
    }
}

/// The index of a layer as it lies there; `None` where there is none, an error where it is of no use.
pub(super) fn find(dir: &OwnedFd) -> Result<Option<(File, LayerIndex)>> {
    let file = match openat(dir, NAME, FILE, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        file => File::from(file.during("open", "the layer's index")?),
    };
    if !file.metadata().during("stat", "the layer's index")?.is_file() {
        return Err(Error::new("the layer's index is no file"));
    }
    let index = LayerIndex::open(&file)?;
    Ok(Some((file, index)))
}

/// How the index of a layer differs from what its stream says. `outline` is what the stream became,
/// without the contents of files, and has an index unless the layer is too large for one; the tree
/// says it then.
pub(super) fn differences(layer: &Path, outline: &Path) -> Result<Vec<String>> {
    let found = match find(&open_directory(layer)?) {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some((_, found))) => found,
        Err(error) => return Ok(vec![error.to_string()]),
    };
    let wanted = match find(&open_directory(outline)?)? {
        Some((_, wanted)) => wanted,
        None => {
            let file = unnamed(index::walk(&open_directory(&layer.join("fs"))?)?)?;
            LayerIndex::open(&file)?
        }
    };
    Ok(index::differences(&found, &wanted))
}

/// Puts the index of an outline in the place of the one that a layer has; made from the tree where
/// the outline has none.
pub(super) fn replace(store: &Store, layer: &Digest, outline: &Path) -> Result<()> {
    let path = store.layers_dir().join(directory_name(layer));
    let dir = open_directory(&path)?;
    let from = open_directory(outline)?;
    if find(&from)?.is_some() {
        return renameat(&from, NAME, &dir, NAME).at("rename to", path.join(NAME));
    }
    staged(store, index::walk(&open_directory(&path.join("fs"))?)?, &dir).map(drop)
}

/// Writes an index in staging, and gives it its name in the layer's directory in one step.
fn staged(store: &Store, builder: Builder, layer: &OwnedFd) -> Result<File> {
    let staging = Staging::new(store)?;
    let dir = open_directory(staging.path())?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = openat(&dir, NAME, flags, mode).during("make", "the layer's index")?;
    let file = write(builder, File::from(file))?;
    // What a crash leaves is whole, or is found to be none.
    file.sync_data().during("write", "the layer's index")?;
    renameat(&dir, NAME, layer, NAME).during("rename", "the layer's index")?;
    // Not the one that could be written to.
    openat(layer, NAME, FILE, Mode::empty()).map(File::from).during("open", "the layer's index")
}

/// An index in memory alone.
fn unnamed(builder: Builder) -> Result<File> {
    let file = memfd(c"casemate-index").during("make", "a file in memory")?;
    write(builder, File::from(file))
}

fn write(builder: Builder, file: File) -> Result<File> {
    let mut out = BufWriter::with_capacity(64 << 10, file);
    let written = builder.write(&mut out).and_then(|()| out.flush());
    let file = written.and_then(|()| out.into_inner().map_err(|error| error.into_error()));
    let mut file = file.map_err(|error| {
        let errno = crate::error::Errno::from(error).0;
        with_space_hint(Error::os("write", "the layer's index", errno), errno)
    })?;
    file.rewind().during("rewind", "the layer's index")?;
    Ok(file)
}
