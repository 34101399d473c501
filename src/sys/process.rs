//! Calls that change what this process may do: prctl(2), capset(2), keyctl(2), personality(2),
//! execveat(2), and the file-mode creation mask.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;

use super::check;

/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The effective, permitted and inheritable capability sets, a bit a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapSets {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

/// capget(2) for this thread.
pub fn capabilities() -> io::Result<CapSets> {
    let mut header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 of the call writes two elements, which `data` has.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(CapSets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// capset(2) for this thread.
pub fn set_capabilities(sets: CapSets) -> io::Result<()> {
    let mut header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 of the call reads two elements, which `data` has.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })
}

fn prctl(option: i32, arg2: u64, arg3: u64) -> io::Result<i32> {
    // SAFETY: every option used in this file takes integers only.
    let result = unsafe { libc::prctl(option, arg2, arg3, 0u64, 0u64) };
    check(result)?;
    Ok(result)
}

/// Whether the capability is in the bounding set; `EINVAL` for one that the kernel does not know.
pub fn in_bounding_set(capability: u32) -> io::Result<bool> {
    Ok(prctl(libc::PR_CAPBSET_READ, capability.into(), 0)? == 1)
}

/// Drops a capability from the bounding set.
pub fn drop_from_bounding_set(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Raises a capability in the ambient set; it must be permitted and inheritable.
pub fn raise_ambient(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability.into()).map(drop)
}

/// Empties the ambient set.
pub fn clear_ambient() -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// Sets the securebits (capabilities(7)).
pub fn set_securebits(bits: u32) -> io::Result<()> {
    prctl(libc::PR_SET_SECUREBITS, bits.into(), 0).map(drop)
}

/// The securebits.
pub fn securebits() -> io::Result<u32> {
    prctl(libc::PR_GET_SECUREBITS, 0, 0).map(|bits| bits as u32)
}

/// `PR_SET_NO_NEW_PRIVS`.
pub fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// `PR_SET_DUMPABLE` 0: no ptrace and no /proc/PID/{mem,exe,…} for others of the same user.
pub fn set_undumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

/// `PR_SET_DUMPABLE` 1, which a change of ids has undone.
pub fn set_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 1, 0).map(drop)
}

/// `PR_SET_KEEPCAPS`: whether the permitted capabilities outlast a change from root's id to another.
pub fn set_keep_capabilities(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// `PR_SET_NAME`: what ps(1) shows of this thread, 15 bytes.
pub fn set_name(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a live C string, of which the kernel reads 16 bytes at the most.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })
}

/// `PR_SET_PDEATHSIG`: the signal this process gets when the thread that made it ends.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64, 0).map(drop)
}

/// Joins a session keyring (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`), so that keys in the caller's
/// are out of reach: the one of this name, or a new one without a name. A kernel without keyrings
/// (`ENOSYS`) has none to hide.
pub fn join_session_keyring(name: Option<&CStr>) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    let pointer = name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the name is a live C string, or null, which asks for a keyring without a name.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, pointer) };
    match check(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        Ok(()) if name.is_some() => let_the_user_search_the_session_keyring(),
        done => done,
    }
}

/// A keyring is found by its name only by those who may search it, which a new one grants to its
/// possessors alone.
fn let_the_user_search_the_session_keyring() -> io::Result<()> {
    const KEYCTL_SETPERM: i32 = 5;
    const KEY_SPEC_SESSION_KEYRING: i32 = -3;
    /// `KEY_POS_ALL | KEY_USR_VIEW | KEY_USR_READ | KEY_USR_SEARCH | KEY_USR_LINK`
    const PERMISSIONS: u32 = 0x3f1b_0000;
    // SAFETY: a plain system call on integers.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, KEY_SPEC_SESSION_KEYRING, PERMISSIONS)
    })
}

/// Whether keyctl(2) answers, or there are no keyrings at all. A container's own seccomp filter
/// may refuse it (`EPERM`).
pub fn keyring_is_reachable() -> bool {
    const KEYCTL_GET_KEYRING_ID: i32 = 0;
    const KEY_SPEC_SESSION_KEYRING: i32 = -3;
    // SAFETY: a plain system call on integers; the last one forbids creation.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    };
    !matches!(check(result), Err(error) if error.raw_os_error() == Some(libc::EPERM))
}

/// personality(2) 0: an `ADDR_NO_RANDOMIZE` or `READ_IMPLIES_EXEC` of the caller ends here.
pub fn reset_personality() -> io::Result<()> {
    // SAFETY: a plain system call.
    check(unsafe { libc::personality(0) })
}

/// True when the kernel started this program with raised privileges (setuid, file capabilities).
pub fn is_privileged_start() -> bool {
    // SAFETY: getauxval(3) reads the auxiliary vector and has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// execve(2). Returns only when it failed.
pub fn execute(path: &CStr, argv: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let pointers = |strings: &[CString]| {
        let mut all: Vec<*const libc::c_char> = strings.iter().map(|s| s.as_ptr()).collect();
        all.push(std::ptr::null());
        all
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with null and point to live C strings.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Brings up the loopback interface of this network namespace (netdevice(7), `SIOCSIFFLAGS`).
pub fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is a plain structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which is live.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// Makes an open directory the root of this process, which must be single-threaded, in a user
/// namespace of its own: there, an ordinary user may (chroot(2), user_namespaces(7)). No id is
/// mapped, which what it makes does not show: the file system sees the same user as before. The
/// capabilities that came with the namespace go.
pub fn enter_root(dir: impl AsFd) -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?;
    nix::unistd::fchdir(dir.as_fd())?;
    nix::unistd::chroot(".")?;
    set_capabilities(CapSets::default())
}

/// Puts SIGCHLD back to its default: ignored, as a caller may have left it, children are reaped by
/// nobody's asking, and their exit codes lost (wait(2), NOTES).
pub fn default_child_signal() {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Ignores the signals of limits. A write beyond `RLIMIT_FSIZE` is `EFBIG` then, and no end of this
/// process; processor time beyond the soft `RLIMIT_CPU` is only an end at the hard one.
pub fn ignore_limit_signals() {
    for signal in [libc::SIGXFSZ, libc::SIGXCPU] {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Puts every signal's disposition back to the default, and the mask to empty: both survive
/// execve(2), and the Rust runtime ignores SIGPIPE.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL installs no handler. EINVAL for the two that libc keeps is harmless.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Gives freed heap pages back to the kernel (malloc_trim(3)); a box may run for days.
pub fn trim_heap() {
    // SAFETY: malloc_trim has no preconditions.
    unsafe { libc::malloc_trim(0) };
}
