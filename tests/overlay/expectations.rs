//! Where a mode answers a check otherwise than a plain file system would, and why.

/// Not a mode: the checks on a plain directory.
pub(crate) const PLAIN: &str = "plain";

/// A check that is not `ok` in some modes.
pub(crate) struct Exception {
    pub(crate) check: &'static str,
    pub(crate) modes: &'static [&'static str],
    /// How the answer begins.
    pub(crate) answer: &'static str,
    pub(crate) reason: &'static str,
}

/// The modes of the kernel's own overlay on the layers.
const KERNEL: &[&str] = &["kernel", "kernel-on-disk"];
/// The modes in which the kernel's overlay does what is written.
const OVERLAYFS: &[&str] = &["kernel", "kernel-on-disk", "hybrid", "hybrid-on-disk"];
/// Those where it has two file systems below it.
const OVERLAYFS_ON_TWO: &[&str] = &["kernel", "hybrid", "hybrid-on-disk"];
/// Where casemate's own server does all.
const FUSE: &[&str] = &["fuse", "fuse-on-disk"];

const NO_INDEX: &str = "a file of several names is copied up for one of them, which is then a file of \
     its own with another number (overlayfs mends this with index=on, a directory of its own per file)";
const NO_REDIRECT: &str = "directories of the layers are not renamed without redirect_dir, which needs \
     privilege; programs copy instead, as between file systems";
const OWN_MODE: &str = "the file in the store has the mode that its owner needs, u+rw and no setuid bit; \
     the image's own is in user.containers.override_stat, which overlayfs does not read";

pub(crate) const EXCEPTIONS: &[Exception] = &[
    Exception {
        check: "whiteouts_are_refused",
        modes: &[PLAIN],
        answer: "not: is_refused",
        reason: "only an overlay gives that device a meaning",
    },
    Exception {
        check: "unlinked_files_have_no_links",
        modes: OVERLAYFS,
        answer: "not: state_of(reader).st_nlink == 0",
        reason: "the file in the layer keeps its link",
    },
    Exception {
        check: "unlinked_lower_file_is_changed",
        modes: OVERLAYFS,
        answer: "EEXIST: fchmod",
        reason: "a file is copied up under its name, where the whiteout is in the way",
    },
    Exception {
        check: "copy_file_range_from_a_lower_file",
        modes: OVERLAYFS_ON_TWO,
        answer: "EXDEV: copy_file_range",
        reason: "it is handed to the file systems below, which are two; programs copy by read and write",
    },
    Exception {
        check: "lower_hard_links_share_what_is_written",
        modes: OVERLAYFS,
        answer: "not: !strcmp(text(\"hard-b\"), \"HARD\\n\")",
        reason: NO_INDEX,
    },
    Exception {
        check: "other_hard_link_has_what_was_written_without_the_first",
        modes: OVERLAYFS,
        answer: "not: !strcmp(text(\"hard-b\"), \"HARD\\n\")",
        reason: NO_INDEX,
    },
    Exception {
        check: "lower_hard_links_are_counted",
        modes: OVERLAYFS,
        answer: "not: state(\"hard-b\").st_nlink == 1",
        reason: NO_INDEX,
    },
    Exception {
        check: "hard_link_of_a_lower_file",
        modes: OVERLAYFS,
        answer: "not: state(\"dir/second\").st_ino == number",
        reason: NO_INDEX,
    },
    Exception {
        check: "links_to_special_files",
        modes: OVERLAYFS,
        answer: "not: state(\"followed\").st_ino == state(\"file\").st_ino",
        reason: NO_INDEX,
    },
    Exception {
        check: "rename_of_one_file_onto_itself_does_nothing",
        modes: OVERLAYFS,
        answer: "not: is_there(\"hard-a\") && is_there(\"hard-b\")",
        reason: NO_INDEX,
    },
    Exception {
        check: "rename_lower_directory",
        modes: OVERLAYFS,
        answer: "EXDEV: rename",
        reason: NO_REDIRECT,
    },
    Exception {
        check: "rename_merged_directory",
        modes: OVERLAYFS,
        answer: "EXDEV: rename",
        reason: NO_REDIRECT,
    },
    Exception {
        check: "exchange_lower_directories",
        modes: OVERLAYFS,
        answer: "EXDEV: exchange",
        reason: NO_REDIRECT,
    },
    Exception {
        check: "inode_numbers_in_directories",
        modes: &["kernel"],
        answer: "again ",
        reason: "directories get their numbers from one file system, what reads them from the other; \
                 xino, which would mend it, finds no spare bits in the numbers of a tmpfs",
    },
    Exception {
        check: "inode_numbers_in_directories",
        modes: &["hybrid", "hybrid-on-disk"],
        answer: ". ",
        reason: "as before; the layers are a file system of their own there, wherever the writes go",
    },
    Exception {
        check: "one_device_for_all",
        modes: OVERLAYFS_ON_TWO,
        answer: "not: state(\"dir\").st_dev == device && state(\"new\").st_dev == device",
        reason: "files of each file system below have a device number of their own, for the same want \
                 of spare bits",
    },
    Exception {
        check: "the_setuid_bit_of_the_image_is_seen",
        modes: KERNEL,
        answer: "not: (state(\"setuid\")",
        reason: OWN_MODE,
    },
    Exception {
        check: "modes_of_the_image_are_seen",
        modes: KERNEL,
        answer: "not: (state(\"read-only\")",
        reason: OWN_MODE,
    },
    Exception {
        check: "marks_of_the_layers_are_hidden",
        modes: KERNEL,
        answer: "not: !has_name(\"setuid\"",
        reason: "overlayfs hides its own attributes only, and not user.containers.override_stat",
    },
    Exception {
        check: "access_lists",
        modes: FUSE,
        answer: "EOPNOTSUPP: setxattr",
        reason: "the server does not ask the kernel for access control lists (FUSE_POSIX_ACL)",
    },
    Exception {
        check: "memory_sees_what_is_written_later",
        modes: OVERLAYFS,
        answer: "not: shared[10] == 'X'",
        reason: "the memory is that of the file in the layer, not of its copy (overlayfs.rst, \
                 Non-standard behavior)",
    },
];
