//! The modes of the root that are tested, and how a box of each is asked for.

use crate::common::{Run, casemate};

/// One way to assemble the root of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// What `casemate run` is told.
    options: &'static [&'static str],
    /// The rename of a directory that a layer has is EXDEV.
    pub(crate) keeps_lower_directories: bool,
    /// Reading a directory gives other inode numbers of directories than stat(2) does.
    pub(crate) lists_other_numbers: bool,
    /// The mode bits are the image's own, also where they deny the owner something or are setuid.
    pub(crate) has_own_modes: bool,
}

/// All of them. Where writes go is part of it: in memory and on disk they meet different file systems.
pub(crate) const MODES: [Mode; 2] = [
    Mode {
        name: "kernel",
        options: &["--scratch", "memory"],
        keeps_lower_directories: true,
        lists_other_numbers: true,
        has_own_modes: false,
    },
    Mode {
        name: "kernel-on-disk",
        options: &["--scratch", "disk"],
        keeps_lower_directories: true,
        lists_other_numbers: false,
        has_own_modes: false,
    },
];

/// The modes for long work: where writes go is nothing to it, and the disk takes long.
pub(crate) fn at_work() -> impl Iterator<Item = Mode> {
    MODES.into_iter().filter(|mode| !mode.options.contains(&"disk"))
}

impl Mode {
    /// A box of this mode with these options; the command is still to be added.
    pub(crate) fn run(self, image: &str, options: &[&str]) -> Run {
        casemate(["run", "--image", image]).args(self.options).args(options).arg("--")
    }
}
