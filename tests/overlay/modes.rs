//! The modes of the root that are tested, and how a box of each is asked for.

use crate::common::{Run, casemate};

/// One way to assemble the root of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// What `casemate run` is told.
    options: &'static [&'static str],
    /// casemate's own server has a part in it, through /dev/fuse.
    pub(crate) has_server: bool,
    /// The rename of a directory that a layer has is EXDEV.
    pub(crate) keeps_lower_directories: bool,
    /// Reading a directory gives other inode numbers of directories than stat(2) does.
    pub(crate) lists_other_numbers: bool,
    /// The mode bits are the image's own, also where they deny the owner something or are setuid.
    pub(crate) has_own_modes: bool,
}

/// All of them. Where writes go is part of it: in memory and on disk they meet different file systems.
pub(crate) const MODES: [Mode; 6] = [
    Mode {
        name: "kernel",
        options: &["--overlay", "kernel", "--scratch", "memory"],
        has_server: false,
        keeps_lower_directories: true,
        lists_other_numbers: true,
        has_own_modes: false,
    },
    Mode {
        name: "kernel-on-disk",
        options: &["--overlay", "kernel", "--scratch", "disk"],
        has_server: false,
        keeps_lower_directories: true,
        lists_other_numbers: false,
        has_own_modes: false,
    },
    Mode {
        name: "hybrid",
        options: &["--overlay", "hybrid", "--scratch", "memory"],
        has_server: true,
        keeps_lower_directories: true,
        lists_other_numbers: true,
        has_own_modes: true,
    },
    Mode {
        name: "hybrid-on-disk",
        options: &["--overlay", "hybrid", "--scratch", "disk"],
        has_server: true,
        keeps_lower_directories: true,
        lists_other_numbers: true,
        has_own_modes: true,
    },
    Mode {
        name: "fuse",
        options: &["--overlay", "fuse", "--scratch", "memory"],
        has_server: true,
        keeps_lower_directories: false,
        lists_other_numbers: false,
        has_own_modes: true,
    },
    Mode {
        name: "fuse-on-disk",
        options: &["--overlay", "fuse", "--scratch", "disk"],
        has_server: true,
        keeps_lower_directories: false,
        lists_other_numbers: false,
        has_own_modes: true,
    },
];

/// The modes for long work: where writes go is nothing to it, and the disk takes long.
pub(crate) fn at_work() -> impl Iterator<Item = Mode> {
    MODES.into_iter().filter(|mode| !mode.options.contains(&"disk"))
}

impl Mode {
    /// A box of this mode with these options; the command is still to be added.
    pub(crate) fn run(self, image: &str, options: &[&str]) -> Run {
        let run = casemate(["run", "--image", image]).args(self.options).args(options).arg("--");
        if self.has_server { run.with_fuse() } else { run }
    }
}
