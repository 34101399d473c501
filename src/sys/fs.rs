//! Files by descriptor: openat2(2), statx(2) identities, extended attributes, locks.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, Flockable};

use super::{check, check_fd};

/// How a path may be resolved below the descriptor it starts from (openat2(2), `resolve`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolve {
    /// `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`: nothing outside, nothing followed.
    BeneathNoSymlinks,
    /// `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: the descriptor is the root, symbolic links stay
    /// inside it. For trees that a program or an image has made.
    InRoot,
    /// As `InRoot`, and `RESOLVE_NO_XDEV`: not into another mount either.
    InRootMount,
    /// `RESOLVE_NO_SYMLINKS`: an absolute path whose every component is what it says.
    NoSymlinks,
    /// `RESOLVE_NO_MAGICLINKS`: an ordinary lookup with the user's own rights.
    Ordinary,
}

impl Resolve {
    fn bits(self) -> u64 {
        match self {
            Resolve::BeneathNoSymlinks => libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS,
            Resolve::InRoot => libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS,
            Resolve::InRootMount => Resolve::InRoot.bits() | libc::RESOLVE_NO_XDEV,
            Resolve::NoSymlinks => libc::RESOLVE_NO_SYMLINKS,
            Resolve::Ordinary => libc::RESOLVE_NO_MAGICLINKS,
        }
    }
}

/// A path as the C string that system calls take; `EINVAL` where it holds a NUL byte.
pub fn c_path(path: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(path.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// openat2(2) (Linux 5.6). `O_CLOEXEC` is always set; an empty path means the descriptor itself.
pub fn openat2(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: i32,
    mode: u32,
    resolve: Resolve,
) -> io::Result<OwnedFd> {
    let path = path.as_ref();
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let path = c_path(path)?;
    // SAFETY: open_how is a plain structure for which all zeroes is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve.bits();
    loop {
        // SAFETY: `path` is a live C string, `how` a live structure of the size that is passed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                std::mem::size_of::<libc::open_how>(),
            )
        };
        match check_fd(result) {
            // The kernel gives up when something was renamed during an in-root walk, and says so.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => continue,
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
            done => return done,
        }
    }
}

/// `AT_FDCWD` as a borrowed descriptor.
pub fn cwd() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is no descriptor that can be closed; the *at calls accept it as one.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// Opens a path for reference only (`O_PATH`), following symbolic links as the user would.
pub fn open_path(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    openat2(cwd(), path, libc::O_PATH, 0, Resolve::Ordinary)
}

/// What makes a file itself, whatever its name: device and inode number, with its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// File type bits of the mode (`S_IFMT`).
    pub kind: u32,
    /// Device number of a device node, 0 otherwise.
    pub rdev: u64,
}

impl Identity {
    /// True for a directory.
    pub fn is_dir(self) -> bool {
        self.kind == libc::S_IFDIR
    }

    /// True for a regular file.
    pub fn is_file(self) -> bool {
        self.kind == libc::S_IFREG
    }

    /// True for a socket.
    pub fn is_socket(self) -> bool {
        self.kind == libc::S_IFSOCK
    }
}

/// The identity of an open file.
pub fn identity(fd: impl AsFd) -> io::Result<Identity> {
    let stat = nix::sys::stat::fstat(fd.as_fd())?;
    Ok(Identity {
        dev: stat.st_dev,
        ino: stat.st_ino,
        kind: stat.st_mode & libc::S_IFMT,
        rdev: stat.st_rdev,
    })
}

/// When an open file was made, in seconds and nanoseconds: statx(2), `STATX_BTIME`. `None` where the
/// file system does not keep that.
pub fn birth_time(fd: impl AsFd) -> io::Result<Option<(i64, u32)>> {
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let (fd, flags) = (fd.as_fd().as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: an empty path that NUL ends, and room for the structure that is written.
    check(unsafe { libc::statx(fd, c"".as_ptr(), flags, libc::STATX_BTIME, found.as_mut_ptr()) })?;
    // SAFETY: all zeroes is a valid value, and the kernel has written another.
    let found = unsafe { found.assume_init() };
    let has_it = found.stx_mask & libc::STATX_BTIME != 0;
    Ok(has_it.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec)))
}

/// fsetxattr(2).
pub fn set_xattr(fd: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    put_xattr(fd.as_fd(), name, value, 0)
}

/// fsetxattr(2) with XATTR_REPLACE: `ENODATA` where the file does not have the attribute.
pub fn replace_xattr(fd: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    put_xattr(fd.as_fd(), name, value, libc::XATTR_REPLACE)
}

fn put_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: i32) -> io::Result<()> {
    // SAFETY: the name is a live C string and the value a live slice of the length that is passed.
    check(unsafe {
        libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    })
}

/// fgetxattr(2); `None` where the attribute is not there.
pub fn get_xattr(fd: impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 256];
    loop {
        // SAFETY: the name is a live C string and the buffer a live slice of the length passed.
        let length = unsafe {
            libc::fgetxattr(
                fd.as_fd().as_raw_fd(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        if let Ok(length) = usize::try_from(length) {
            value.truncate(length);
            return Ok(Some(value));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODATA) => return Ok(None),
            // The kernel's own ceiling for one value is 64 KiB (xattr(7)).
            Some(libc::ERANGE) if value.len() < 65536 => value.resize(65536, 0),
            _ => return Err(error),
        }
    }
}

/// flistxattr(2): the names, sorted.
pub fn list_xattrs(fd: impl AsFd) -> io::Result<Vec<CString>> {
    // The kernel's own ceiling for the list is 64 KiB (xattr(7)).
    let mut names = vec![0u8; 65536];
    // SAFETY: the buffer is a live slice of the length passed.
    let length =
        unsafe { libc::flistxattr(fd.as_fd().as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.filter_map(|name| CString::new(name).ok()).collect();
    names.sort();
    Ok(names)
}

/// Whether tmpfs keeps `user.*` attributes here (Linux 6.6 with CONFIG_TMPFS_XATTR), which
/// overlayfs needs of a writable layer; tried on a memfd, which lives in the same file system.
pub fn tmpfs_has_user_xattrs() -> bool {
    let Ok(file) = memfd(c"casemate-probe") else { return false };
    set_xattr(&file, c"user.casemate", b"1").is_ok()
}

/// memfd_create(2), close-on-exec.
pub fn memfd(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the name is a live C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    check_fd(fd.into())
}

/// utimensat(2) on a name below a directory, never following a symbolic link. Seconds and
/// nanoseconds of the modification time; the access time is set to the same.
pub fn set_mtime(dir: impl AsFd, name: &CStr, sec: i64, nsec: i64) -> io::Result<()> {
    let time = libc::timespec { tv_sec: sec, tv_nsec: nsec };
    let times = [time, time];
    // SAFETY: the name is a live C string and `times` an array of two, as the call demands.
    check(unsafe {
        libc::utimensat(
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            times.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
}

/// futimens(3): as [`set_mtime`], on an open file.
pub fn set_mtime_of(fd: impl AsFd, sec: i64, nsec: i64) -> io::Result<()> {
    let time = libc::timespec { tv_sec: sec, tv_nsec: nsec };
    let times = [time, time];
    // SAFETY: `times` is an array of two, as the call demands.
    check(unsafe { libc::futimens(fd.as_fd().as_raw_fd(), times.as_ptr()) })
}

/// renameat2(2) with RENAME_EXCHANGE (Linux 3.15): two names change places in one step. `EINVAL`
/// where the file system cannot.
pub fn exchange(a: impl AsFd, a_name: &CStr, b: impl AsFd, b_name: &CStr) -> io::Result<()> {
    // SAFETY: both names are live C strings, both descriptors are borrowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            a.as_fd().as_raw_fd(),
            a_name.as_ptr(),
            b.as_fd().as_raw_fd(),
            b_name.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    })
}

/// syncfs(2): writes out the whole file system that the descriptor is on.
pub fn syncfs(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: a plain system call on a borrowed descriptor.
    check(unsafe { libc::syncfs(fd.as_fd().as_raw_fd()) })
}

/// Takes ownership of a descriptor number that a system call has just returned.
pub(super) fn own(raw: i32) -> OwnedFd {
    // SAFETY: callers pass a number that the kernel has just handed out, owned by nobody yet.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Where a descriptor points, as readlink(2) of /proc/self/fd says: the path without symbolic
/// links, at this moment and in this mount namespace.
pub fn descriptor_link(fd: impl AsFd) -> io::Result<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))?;
    Ok(link.into_os_string().into_vec())
}

/// Takes ownership of a descriptor that a received message has just installed in this process.
pub fn adopt(raw: i32) -> OwnedFd {
    own(raw)
}

/// Whether a path is on the unified hierarchy of cgroups (statfs(2)).
pub fn is_cgroup2(path: impl AsRef<Path>) -> bool {
    use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
    statfs(path.as_ref()).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Whether a descriptor was opened with `O_PATH`.
pub fn is_path_only(fd: impl AsFd) -> io::Result<bool> {
    let flags = nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_GETFL)?;
    Ok(flags & libc::O_PATH != 0)
}

/// Takes the lock of an open file alone (flock(2)). `EWOULDBLOCK` where another still has it when the
/// time is over: flock(2) itself would wait for one that was stopped without an end.
pub fn lock_in_time<T: Flockable>(file: T, patience: Duration) -> nix::Result<Flock<T>> {
    let since = Instant::now();
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((back, Errno::EWOULDBLOCK)) if since.elapsed() < patience => file = back,
            done => return done.map_err(|(_, error)| error),
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_another_keeps_is_given_up() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || std::fs::File::open(file.path()).unwrap();
        let held = lock_in_time(open(), Duration::ZERO).unwrap();
        let patience = Duration::from_millis(20);
        assert_eq!(lock_in_time(open(), patience).err(), Some(Errno::EWOULDBLOCK));
        drop(held);
        assert!(lock_in_time(open(), patience).is_ok());
    }
}
