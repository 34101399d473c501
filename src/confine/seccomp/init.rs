//! The filter of PID 1 in the box.

use super::{Action, Architecture, Policy};

/// What a process needs that waits for its children, passes signals on and tells its parent how the
/// program ended. Both spellings of a call where 32-bit or newer architectures have only one.
const CALLS: &[&str] = &[
    // messages to and from the supervisor
    "close",
    "poll",
    "ppoll",
    "ppoll_time64",
    "read",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "sendto",
    "write",
    // reaping and signals
    "kill",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "rt_sigtimedwait_time64",
    "wait4",
    "waitid",
    // the allocator and std: a lock, the alternate signal stack that std frees on exit
    "brk",
    "clock_gettime",
    "clock_gettime64",
    "futex",
    "futex_time64",
    "getpid",
    "madvise",
    "mmap",
    "mmap2",
    "mremap",
    "munmap",
    "sigaltstack",
    // the end
    "exit",
    "exit_group",
];

impl Policy {
    /// The filter of the process that is PID 1 in the box. It never executes, opens, clones or
    /// connects: whoever takes it over finds nothing to call, and any try ends the box.
    pub fn for_init(arch: Architecture) -> Self {
        let mut policy = Policy::new(arch, Action::KillProcess);
        policy.put(CALLS, Action::Allow);
        policy
    }
}
