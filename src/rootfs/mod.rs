//! Which root file system a box gets, and why.

pub mod host;

use nix::errno::Errno;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::host::doctor::Outcome;
use crate::profile;

/// What assembles the layers of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlay {
    /// The kernel's overlayfs on the layers.
    Kernel,
    /// The kernel's overlayfs, with the merged layers of casemate's own server as its only lower one.
    Hybrid,
    /// casemate's own server alone.
    Fuse,
}

impl Overlay {
    /// Whether a process of casemate's own serves the root or a part of it.
    pub fn has_server(self) -> bool {
        self != Overlay::Kernel
    }

    /// It, in a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Overlay::Kernel => "kernel: overlayfs on the layers",
            Overlay::Hybrid => "hybrid: overlayfs on the merged layers of a FUSE server",
            Overlay::Fuse => "fuse: a FUSE server on the layers",
        }
    }
}

/// Chooses one, and says why: the cheapest that can be had, unless one was asked for, which is then
/// taken or refused. `kernel` is how a trial of overlayfs went, `fuse` whether /dev/fuse opens; one
/// that was not tried is left to the run to find out.
pub fn overlay(
    asked: profile::Overlay,
    kernel: Outcome,
    fuse: Outcome,
) -> Result<(Overlay, String)> {
    let served = |overlay: Overlay| match fuse {
        Outcome::Fails(errno) => Err(no_fuse(overlay, errno)),
        _ => Ok(overlay),
    };
    let asked_for = |overlay| (overlay, "asked for".to_owned());
    match asked {
        profile::Overlay::Kernel => Ok(asked_for(Overlay::Kernel)),
        profile::Overlay::Hybrid => served(Overlay::Hybrid).map(asked_for),
        profile::Overlay::Fuse => served(Overlay::Fuse).map(asked_for),
        profile::Overlay::Auto => match kernel {
            Outcome::Works | Outcome::NotTried => {
                Ok((Overlay::Kernel, "the cheapest that gives what is asked for".to_owned()))
            }
            Outcome::Fails(errno) => {
                let errno = Errno::from_raw(errno).desc();
                let why = format!("the kernel's overlayfs cannot be mounted here ({errno})");
                match served(Overlay::Fuse) {
                    Ok(overlay) => Ok((overlay, why)),
                    Err(error) => Err(error.within(why)),
                }
            }
        },
    }
}

/// As [`overlay`], for a box with many ids. On disk all layers belong to the user, and who owns what
/// is written beside: only casemate's server shows that. What is written needs true owners where the
/// kernel's overlayfs takes it, which memory of the box's own can have, and the user's disk must not:
/// nobody but such a box could remove the files.
pub fn overlay_for_many(
    asked: profile::Overlay,
    on_disk: bool,
    fuse: Outcome,
) -> Result<(Overlay, String)> {
    let served = |overlay: Overlay, why: &str| match fuse {
        Outcome::Fails(errno) => Err(no_fuse(overlay, errno).within("a box with many ids")),
        _ => Ok((overlay, why.to_owned())),
    };
    match asked {
        profile::Overlay::Auto if on_disk => {
            served(Overlay::Fuse, "the owners of many ids, kept beside files of your own")
        }
        profile::Overlay::Auto => served(
            Overlay::Hybrid,
            "the owners of many ids, and those of what is written in memory",
        ),
        profile::Overlay::Fuse => served(Overlay::Fuse, "asked for"),
        profile::Overlay::Hybrid if on_disk => Err(Error::new(
            "overlay hybrid: with many ids it would leave files on disk that you could not remove",
        )
        .hint("leave it out, or say --overlay fuse, or --scratch memory")),
        profile::Overlay::Hybrid => served(Overlay::Hybrid, "asked for"),
        profile::Overlay::Kernel => Err(Error::new(
            "overlay kernel: with many ids it would show every file of the image as nobody's",
        )
        .hint("leave it out, or say --overlay fuse or hybrid")),
    }
}

/// Whether files of the root have extended attributes (`user.*`), and why. `in_layers` is whether a
/// layer has any. overlayfs keeps them always. The kernel remembers none that a FUSE server tells, but
/// asks for one of each file that `ls -l` shows or that is written to; if there are none at all, it
/// asks once.
pub fn xattrs(asked: Option<bool>, overlay: Overlay, in_layers: bool) -> (bool, &'static str) {
    match (overlay, asked) {
        (Overlay::Kernel | Overlay::Hybrid, Some(false)) => {
            (true, "overlayfs always keeps them, whatever xattrs says")
        }
        (Overlay::Kernel | Overlay::Hybrid, _) => (true, "overlayfs always keeps them"),
        (Overlay::Fuse, Some(asked)) => (asked, "asked for"),
        (Overlay::Fuse, None) if in_layers => (true, "a layer has some"),
        (Overlay::Fuse, None) => {
            (false, "no layer has any, and it is faster without; xattrs = true keeps them")
        }
    }
}

fn no_fuse(overlay: Overlay, errno: i32) -> Error {
    let word = match overlay {
        Overlay::Hybrid => "hybrid",
        Overlay::Kernel | Overlay::Fuse => "fuse",
    };
    let errno = Errno::from_raw(errno);
    let error = Error::os("open", "/dev/fuse", errno).within(format_args!("overlay {word}"));
    match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => error
            .hint("the device is missing: sudo modprobe fuse; in a container: --device /dev/fuse"),
        Errno::EACCES | Errno::EPERM => error.hint(
            "the device is not open to you, as it is on most systems: sudo chmod 666 /dev/fuse",
        ),
        _ => error,
    }
    .hint("a box with one id does without, by `--overlay kernel`")
}

/// Where writes to an image's root go until the box ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scratch {
    /// A tmpfs in the box's own mount namespace.
    Memory,
    /// A directory below the store.
    Disk,
}

/// Chooses between them. A tmpfs can hold the upper layer only where it keeps `user.*` attributes
/// (Linux 6.6): overlayfs marks a directory that was made anew as opaque with one.
pub fn scratch(asked: profile::Scratch, tmpfs_xattrs: bool) -> (Scratch, &'static str) {
    match (asked, tmpfs_xattrs) {
        (profile::Scratch::Disk, _) => (Scratch::Disk, "asked for"),
        (profile::Scratch::Memory, _) => (Scratch::Memory, "asked for"),
        (profile::Scratch::Auto, true) => {
            (Scratch::Memory, "this kernel's tmpfs can hold an upper layer")
        }
        (profile::Scratch::Auto, false) => {
            (Scratch::Disk, "this kernel's tmpfs cannot hold an upper layer (Linux 6.6 can)")
        }
    }
}
