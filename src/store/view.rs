//! Single files as the merged layers show them, without mounting anything.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use super::{DIRECTORY, Image, Store, open_directory};
use crate::error::{During, Error, Result};
use crate::index::override_stat;
use crate::sys::fs::{Resolve, get_xattr, identity, openat2};

/// What one layer says about a path.
enum Says {
    /// This is the file.
    File(OwnedFd),
    /// There is no such regular file, whatever the layers below have.
    Hidden,
    /// Ask the layer below.
    Nothing,
}

pub(super) fn read_file(
    store: &Store,
    image: &Image,
    path: &Path,
    limit: u64,
) -> Result<Option<Vec<u8>>> {
    for layer in image.layers.iter().rev() {
        let root = open_directory(&store.layer_path(layer))?;
        match ask(&root, path)? {
            Says::Nothing => (),
            Says::Hidden => return Ok(None),
            Says::File(file) => {
                let mut content = Vec::new();
                let more = limit.saturating_add(1);
                File::from(file).take(more).read_to_end(&mut content).at("read", path)?;
                if content.len() as u64 > limit {
                    let path = path.display();
                    return Err(Error::new(format!("read {path}: larger than {limit} bytes")));
                }
                return Ok(Some(content));
            }
        }
    }
    Ok(None)
}

fn ask(root: &OwnedFd, path: &Path) -> Result<Says> {
    let whole = path.strip_prefix("/").unwrap_or(path);
    let open = |flags| openat2(root.as_fd(), whole, flags, 0, Resolve::BeneathNoSymlinks);
    // For reference first: neither a FIFO nor a whiteout (mode 000) is to be opened.
    match open(libc::O_PATH) {
        Ok(file) => {
            if !identity(&file).at("stat", path)?.is_file() {
                return Ok(Says::Hidden);
            }
            let file = open(libc::O_RDONLY).at("open", path)?;
            let kept = get_xattr(&file, override_stat::NAME).at("stat", path)?;
            let kept = kept.unwrap_or_default();
            let kind = kept.split(|&byte| byte == b':').nth(3).unwrap_or_default();
            let is_device = kind.starts_with(b"char") || kind.starts_with(b"block");
            return Ok(if is_device { Says::Hidden } else { Says::File(file) });
        }
        Err(error) => match error.raw_os_error() {
            // ENOTDIR: something on the way is no directory, a whiteout for one. ELOOP: a link.
            Some(libc::ENOTDIR | libc::ELOOP) => return Ok(Says::Hidden),
            Some(libc::ENOENT) => (),
            _ => return Err(Error::os("open", path.display(), error)),
        },
    }
    // It is not: an opaque directory on the way hides the layers below.
    let mut so_far = std::path::PathBuf::new();
    let components = whole.components();
    for component in std::iter::once(Component::CurDir).chain(components) {
        so_far.push(component);
        match openat2(root.as_fd(), &so_far, DIRECTORY, 0, Resolve::BeneathNoSymlinks) {
            Ok(dir) => {
                if get_xattr(&dir, c"user.overlay.opaque").at("read", path)?.as_deref()
                    == Some(b"y")
                {
                    return Ok(Says::Hidden);
                }
            }
            Err(_) => return Ok(Says::Nothing),
        }
    }
    Ok(Says::Nothing)
}
