//! The filters of casemate's own processes: those that read foreign archives, and the one that
//! serves a file system.

use nix::errno::Errno;

use super::policy::{Clause, Condition, Operator};
use super::{Action, Architecture, Policy, Rule};

/// Jobs and answers.
const TALK: &[&str] = &["recvmsg", "sendmsg"];

/// Bytes in and out, memory, and the end.
const CALLS: &[&str] = &[
    "close",
    "read",
    "restart_syscall",
    "rt_sigprocmask",
    "rt_sigreturn",
    "write",
    // the allocator and std
    "brk",
    "clock_gettime",
    "clock_gettime64",
    "futex",
    "futex_time64",
    "getpid",
    "getrandom",
    "gettid",
    "madvise",
    "mremap",
    "munmap",
    "sigaltstack",
    "exit",
    "exit_group",
];

/// Making files below a directory that is open.
const FILES: &[&str] = &[
    "fchmod",
    "fsetxattr",
    "fstat",
    "fstat64",
    "fstatat64",
    "ftruncate",
    "ftruncate64",
    "getdents64",
    "linkat",
    "lseek",
    "mkdirat",
    "mknodat",
    "newfstatat",
    "openat",
    "openat2",
    "pread64",
    "pwrite64",
    "renameat",
    "renameat2",
    "statx",
    "symlinkat",
    "unlinkat",
    "utimensat",
    "utimensat_time64",
    // a thread's beginnings and its stack
    "rseq",
    "rt_sigaction",
    "sched_getaffinity",
    "set_robust_list",
];

/// Reading files below directories that are open. `openat` and `open` are not among them: what
/// openat2(2) resolves is bound to its directory by what it is asked, and by Landlock.
const SERVING: &[&str] = &[
    "fstatfs",
    "fstatfs64",
    "lseek",
    "openat2",
    "poll",
    "ppoll",
    "ppoll_time64",
    "pread64",
    "sched_yield",
];

/// Changing files below directories that are open, besides.
const CHANGING: &[&str] = &[
    "copy_file_range",
    "fallocate",
    "fchmod",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstat64",
    "fstatat64",
    "fsync",
    "ftruncate",
    "ftruncate64",
    "getdents64",
    "linkat",
    "mkdirat",
    "mknodat",
    "newfstatat",
    "pwrite64",
    "readlinkat",
    "renameat2",
    "statx",
    "symlinkat",
    "syncfs",
    "unlinkat",
    "utimensat",
    "utimensat_time64",
];

/// Handing out clones of a mount.
const KEEPING: &[&str] = &[
    "accept4",
    "clock_nanosleep",
    "clock_nanosleep_time64",
    "flock",
    "fstatat64",
    "getsockopt",
    "nanosleep",
    "newfstatat",
    "open_tree",
    "pidfd_send_signal",
    "unlinkat",
];

impl Policy {
    /// The filter of the process that inflates: it reads one descriptor and writes another, opens
    /// nothing, starts nothing, and has no address for anything.
    pub fn for_inflater(arch: Architecture) -> Self {
        let mut policy = Policy::for_any_worker(arch);
        policy.put(TALK, Action::Allow);
        policy
    }

    /// The filter of the threads that serve the merged layers of an image, once they are started.
    pub fn for_overlay_reader(arch: Architecture) -> Self {
        let mut policy = Policy::for_any_worker(arch);
        policy.put(SERVING, Action::Allow);
        policy
    }

    /// The filter of the threads that serve them with an upper directory.
    pub fn for_overlay_writer(arch: Architecture) -> Self {
        let mut policy = Policy::for_overlay_reader(arch);
        policy.put(CHANGING, Action::Allow);
        let shares = Condition::int(1, libc::FICLONE as u32);
        policy.rules.insert("ioctl".into(), only(shares));
        policy
    }

    /// The filter of the process that hands the merged layers of a shared server to boxes.
    pub fn for_keeper(arch: Architecture) -> Self {
        let mut policy = Policy::for_any_worker(arch);
        policy.put(TALK, Action::Allow);
        policy.put(&["poll", "ppoll", "ppoll_time64"], Action::Allow);
        policy.put(KEEPING, Action::Allow);
        policy
    }

    fn for_any_worker(arch: Architecture) -> Self {
        let mut policy = Policy::new(arch, Action::KillProcess);
        policy.put(CALLS, Action::Allow);
        // glibc's free(3) looks into /proc/sys/vm/overcommit_memory, once, when a thread that is not
        // the first gives up a heap (malloc/arena.c, shrink_heap), and does without where it may not.
        policy.put(&["open", "openat"], refused(Errno::EACCES));
        // Memory is never executable that was not so at the start.
        for name in ["mmap", "mmap2", "mprotect"] {
            let exec = libc::PROT_EXEC as u64;
            let rule =
                only(Condition { argument: 2, mask: exec, operator: Operator::Equal, value: 0 });
            policy.rules.insert(name.into(), rule);
        }
        // F_GETFD is what std asks of a descriptor it closes, where it was built with checks, and
        // F_GETFL and F_SETFD what the C library does to a directory that it reads.
        let commands =
            [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC].map(|command| {
                Clause {
                    conditions: vec![Condition::int(1, command.cast_unsigned())],
                    action: Action::Allow,
                }
            });
        for name in ["fcntl", "fcntl64"] {
            let rule = Rule { clauses: commands.to_vec(), otherwise: Action::KillProcess };
            policy.rules.insert(name.into(), rule);
        }
        policy
    }

    /// The filter of the process that unpacks: files, and threads of its own. Landlock says where
    /// the files may be. Modes are changed by descriptor only, since Landlock has no say in that.
    pub fn for_unpacker(arch: Architecture) -> Self {
        let mut policy = Policy::for_inflater(arch);
        policy.put(FILES, Action::Allow);
        // Its flags are in memory that a filter cannot see; the C library takes clone(2) then.
        policy.put(&["clone3"], refused(Errno::ENOSYS));
        // Names for threads and memory areas, which are for debuggers only.
        policy.put(&["prctl"], refused(Errno::EINVAL));
        // CLONE_THREAD: a thread, never a process.
        let thread = libc::CLONE_THREAD as u64;
        let is_thread =
            Condition { argument: 0, mask: thread, operator: Operator::Equal, value: thread };
        policy.rules.insert("clone".into(), only(is_thread));
        policy
    }
}

fn refused(errno: Errno) -> Action {
    Action::Errno(u16::try_from(errno as i32).unwrap_or(libc::EPERM as u16))
}

/// Allowed under one condition.
fn only(condition: Condition) -> Rule {
    Rule {
        clauses: vec![Clause { conditions: vec![condition], action: Action::Allow }],
        otherwise: Action::KillProcess,
    }
}
