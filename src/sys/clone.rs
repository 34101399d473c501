//! clone3(2) and fork(2) of a single-threaded process, and pidfds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::unistd::Pid;

use super::{check, check_fd, fs};

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The process that forked: the child's id and a descriptor for it.
    Parent(Child),
}

/// A child process, held by a pidfd so that its number cannot come to mean another process.
pub struct Child {
    /// The process id as the parent sees it.
    pub pid: Pid,
    /// The pidfd, readable once the process has ended.
    pub pidfd: OwnedFd,
}

/// How many threads this process has, from /proc/self/status; forking with more than one would
/// leave locks of the others held in the child.
pub fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// clone3(2) (Linux 5.3) with `flags` (`CLONE_NEW*`) and a pidfd, otherwise as fork(2).
///
/// The caller must be single-threaded: that is what makes ordinary code, allocation included,
/// sound in the child. The child gets SIGCHLD as its exit signal; with `CLONE_PARENT` it has that of
/// the caller (clone(2)), and is a child of the caller's parent.
pub fn clone3(flags: u64) -> io::Result<Forked> {
    clone3_into(flags, None)
}

/// The `libc` crate's constant overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// As [`clone3`]; the child is born in this cgroup (`CLONE_INTO_CGROUP`, Linux 5.7), so that it is
/// never without the limits there.
pub fn clone3_into(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is a plain structure for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    }
    // SAFETY: `args` is live and of the size passed. No CLONE_VM: the child has its own memory and
    // the caller is single-threaded, so that it may go on as after fork(2).
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const args, std::mem::size_of::<libc::clone_args>())
    };
    match result {
        0 => Ok(Forked::Child),
        pid if pid > 0 => {
            Ok(Forked::Parent(Child { pid: Pid::from_raw(pid as i32), pidfd: fs::own(pidfd) }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// pidfd_open(2) (Linux 5.3) of a process that need not be a child.
pub fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call.
    super::check_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// A pidfd for the process that forked this one (pidfd_open(2), Linux 5.3). Whoever needs to be sure
/// that it has not ended before asks afterwards whether it still lives.
pub fn parent() -> io::Result<OwnedFd> {
    // SAFETY: plain system calls; a descriptor is returned, which nobody owns yet.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getppid(), 0) };
    check(raw)?;
    i32::try_from(raw).map(fs::own).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// pidfd_send_signal(2) (Linux 5.1).
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: a plain system call; a null siginfo asks for what kill(2) would send.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
}

/// Ends this process at once, running nothing that was registered for its exit.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from 3 on as close-on-exec (close_range(2), Linux 5.11).
pub fn close_all_on_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: nothing is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, flags) })
}

/// close_range(2) (Linux 5.9) from 3 on, save the numbers in `kept`, which are in rising order.
///
/// For a process that ends by execve(2) or _exit(2) and uses no other descriptor until then: the
/// owners of those that are closed here are never dropped.
pub fn close_all_but(kept: &[i32]) -> io::Result<()> {
    let close = |first: u32, last: u32| {
        if first > last {
            return Ok(());
        }
        // SAFETY: as the caller promises, nobody uses or closes these again.
        check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
    };
    let mut first = 3;
    for number in kept.iter().filter_map(|number| u32::try_from(*number).ok()) {
        if number >= first {
            close(first, number - 1)?;
            first = number + 1;
        }
    }
    close(first, u32::MAX)
}

/// dup2(2) onto a number of the caller's choosing, which is not close-on-exec afterwards.
pub fn place_at(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        // SAFETY: clears FD_CLOEXEC on a borrowed descriptor.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) });
    }
    // SAFETY: the number is one of 0 to 3, which no OwnedFd of the calling process refers to.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) })
}

/// fcntl(2) with `F_DUPFD_CLOEXEC`: the descriptor under the first free number from `least` on.
pub fn raise(fd: &OwnedFd, least: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call on a descriptor that is owned here.
    check_fd(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }.into())
}

/// kill(2) of the process group that the pidfd's process leads. `PIDFD_SIGNAL_PROCESS_GROUP` came
/// with Linux 6.9; before, the process alone gets the signal.
pub fn send_signal_to_group(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;
    // SAFETY: a plain system call; a null siginfo asks for what kill(2) would send.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    });
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => send_signal(pidfd, signal),
        done => done,
    }
}

/// How a child changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it; any of 1 to 64, real-time signals among them.
    Killed(i32),
    /// A signal stopped it.
    Stopped,
}

/// Waits for the end of the pidfd's process, a child, and fetches its status (waitid(2), `P_PIDFD`,
/// Linux 5.4).
pub fn wait_for_end(pidfd: impl AsFd) -> io::Result<Change> {
    loop {
        // SAFETY: siginfo_t is a plain structure for which all zeroes is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = pidfd.as_fd().as_raw_fd().cast_unsigned();
        // SAFETY: `info` is live.
        let result = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED) };
        match check(result) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        // SAFETY: waitid(2) has filled in the fields of a child's change of state.
        let status = unsafe { info.si_status() };
        return Ok(match info.si_code {
            libc::CLD_EXITED => Change::Exited(status),
            _ => Change::Killed(status),
        });
    }
}

/// Fetches the status of any child that has ended or stopped, without waiting; `None` when there is
/// none such now.
pub fn reap() -> io::Result<Option<(Pid, Change)>> {
    let mut status: libc::c_int = 0;
    // SAFETY: `status` is live.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
    check(pid)?;
    if pid == 0 {
        return Ok(None);
    }
    let change = if libc::WIFEXITED(status) {
        Change::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSTOPPED(status) {
        Change::Stopped
    } else {
        Change::Killed(libc::WTERMSIG(status))
    };
    Ok(Some((Pid::from_raw(pid), change)))
}

/// fork(2) with a pidfd (pidfd_open(2), Linux 5.3).
///
/// The C library's own fork, whose handlers leave the allocator usable in the child also where the
/// caller has other threads; the child must not wait for anything that one of these may hold.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: the child has its own memory; what it may not do is the caller's promise above.
    let pid = unsafe { libc::fork() };
    check(pid)?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // The number cannot come to mean another process: nobody has waited for this one.
    let pid = Pid::from_raw(pid);
    Ok(Forked::Parent(Child { pid, pidfd: open_process(pid.as_raw())? }))
}
