//! The mount API by descriptors: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2),
//! mount_setattr(2) (Linux 5.2 to 5.12), and pivot_root(2).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{check, check_fd};

/// Mount attributes (mount_setattr(2)), kept as the kernel's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub u64);

impl Attributes {
    /// `MOUNT_ATTR_RDONLY`
    pub const RDONLY: Attributes = Attributes(libc::MOUNT_ATTR_RDONLY);
    /// `MOUNT_ATTR_NOSUID`
    pub const NOSUID: Attributes = Attributes(libc::MOUNT_ATTR_NOSUID);
    /// `MOUNT_ATTR_NODEV`
    pub const NODEV: Attributes = Attributes(libc::MOUNT_ATTR_NODEV);
    /// `MOUNT_ATTR_NOEXEC`
    pub const NOEXEC: Attributes = Attributes(libc::MOUNT_ATTR_NOEXEC);
    /// `MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV`, which every mount of a box has.
    pub const SAFE: Attributes = Attributes(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Attributes) -> Attributes {
        Attributes(self.0 | other.0)
    }

    /// These, and `other` where `condition` holds.
    #[must_use]
    pub const fn and_if(self, condition: bool, other: Attributes) -> Attributes {
        if condition { self.and(other) } else { self }
    }
}

/// A file system being configured (the descriptor of fsopen(2)).
pub struct Context(OwnedFd);

impl Context {
    /// fsopen(2).
    pub fn open(kind: &CStr) -> io::Result<Context> {
        // SAFETY: the name is a live C string.
        let fd =
            unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC as i32) };
        check_fd(fd).map(Context)
    }

    /// `FSCONFIG_SET_STRING`.
    pub fn set(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.config(libc::FSCONFIG_SET_STRING as i32, Some(key), Some(value))
    }

    /// `FSCONFIG_SET_FLAG`.
    pub fn flag(&self, key: &CStr) -> io::Result<()> {
        self.config(libc::FSCONFIG_SET_FLAG as i32, Some(key), None)
    }

    /// `FSCONFIG_CMD_CREATE` and fsmount(2): a mount that is attached nowhere yet.
    pub fn mount(self, attributes: Attributes) -> io::Result<OwnedFd> {
        self.create()?;
        self.fsmount(attributes)
    }

    /// As [`Context::mount`]; a failure comes with what the file system said about it.
    pub fn mount_or_message(
        self,
        attributes: Attributes,
    ) -> Result<OwnedFd, (io::Error, Option<String>)> {
        self.create().map_err(|error| (error, self.message()))?;
        self.fsmount(attributes).map_err(|error| (error, self.message()))
    }

    fn create(&self) -> io::Result<()> {
        self.config(libc::FSCONFIG_CMD_CREATE as i32, None, None)
    }

    fn fsmount(&self, attributes: Attributes) -> io::Result<OwnedFd> {
        // SAFETY: a plain system call on an owned descriptor.
        check_fd(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                libc::FSMOUNT_CLOEXEC as i32,
                attributes.0 as u32,
            )
        })
    }

    fn config(&self, command: i32, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
        let key = key.map_or(std::ptr::null(), CStr::as_ptr);
        let value = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are live C strings or null, as the command demands.
        check(unsafe {
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, 0)
        })
    }

    /// What the file system said about its last failure (read(2) on the context), if anything.
    pub fn message(&self) -> Option<String> {
        let mut text = [0u8; 512];
        let length = nix::unistd::read(&self.0, &mut text).ok()?;
        // Messages look like "e overlay: upper fs does not support …": a class letter first.
        let text = String::from_utf8(text.get(2..length)?.to_vec()).ok()?;
        Some(text.trim_end().to_owned())
    }
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a detached copy of the mount at `tree`, submounts included
/// where `recursive`.
pub fn clone_tree(tree: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE as i32
        | libc::OPEN_TREE_CLOEXEC as i32
        | libc::AT_EMPTY_PATH
        | libc::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a live C string.
    check_fd(unsafe { libc::syscall(libc::SYS_open_tree, tree.as_raw_fd(), path.as_ptr(), flags) })
}

/// mount_setattr(2) (Linux 5.12): adds `set` to the mount, and to all below it where `recursive`;
/// `private` also ends every propagation.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    set: Attributes,
    private: bool,
    recursive: bool,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set.0,
        attr_clr: 0,
        propagation: if private { libc::MS_PRIVATE } else { 0 },
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and `attr` is live and of the size passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            std::mem::size_of::<libc::mount_attr>(),
        )
    })
}

/// move_mount(2): attaches a detached mount on the file or directory that `target` refers to.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })
}

/// As [`attach`], on a name in a directory that nobody else can have touched.
pub fn attach_at(mount: impl AsFd, directory: impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: both paths are live C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            directory.as_fd().as_raw_fd(),
            name.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
}

/// pivot_root(".", "."): the working directory, which must be a mount, becomes the root, and the
/// old root lies on top of it (pivot_root(2), NOTES).
pub fn pivot_to_working_directory() -> io::Result<()> {
    // SAFETY: both paths are live C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })
}

/// umount2(2) with `MNT_DETACH`.
pub fn detach(path: &CStr) -> io::Result<()> {
    // SAFETY: the path is a live C string.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) })
}

/// The path by which another descriptor of this process can be named while /proc is there.
pub fn descriptor_path(fd: impl AsFd) -> CString {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    // A decimal number holds no NUL byte.
    CString::new(path).unwrap_or_default()
}

/// mount(2) of an overlay, for kernels whose fsconfig(2) does not take layers one by one. The
/// attributes are the caller's to set.
pub fn mount_overlay(target: &CStr, data: &CStr) -> io::Result<()> {
    // SAFETY: all four are live C strings.
    check(unsafe {
        libc::mount(
            c"overlay".as_ptr(),
            target.as_ptr(),
            c"overlay".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            data.as_ptr().cast(),
        )
    })
}
