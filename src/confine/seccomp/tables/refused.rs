//! What only the kernel's administrator, a debugger or another sandbox calls.

use super::Group;

/// Refused with EPERM.
pub(in super::super) const REFUSED: &[Group] = &[
    Group {
        name: "@namespace",
        why: "namespaces: capabilities in a nested one reach most kernel privilege escalations",
        names: &["listns", "setns", "unshare"],
    },
    Group {
        name: "@mount",
        why: "mounts and root directories",
        names: &["chroot", "mount", "pivot_root", "umount", "umount2"],
    },
    Group {
        name: "@keyring",
        why: "the kernel's key rings: not namespaced as a whole, many past vulnerabilities",
        names: &["add_key", "keyctl", "request_key"],
    },
    Group {
        name: "@debug",
        why: "looking into and changing other processes",
        names: &[
            "kcmp",
            "pidfd_getfd",
            "process_madvise",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
        ],
    },
    Group {
        name: "@trace",
        why: "kernel instrumentation, and faults that stop the kernel where an attacker wants",
        names: &["bpf", "lookup_dcookie", "perf_event_open", "userfaultfd"],
    },
    Group {
        name: "@module",
        why: "kernel modules and booting",
        names: &[
            "create_module",
            "delete_module",
            "finit_module",
            "get_kernel_syms",
            "init_module",
            "kexec_file_load",
            "kexec_load",
            "query_module",
            "reboot",
        ],
    },
    Group {
        name: "@admin",
        why: "administration of the whole machine",
        names: &[
            "acct",
            "nfsservctl",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "swapoff",
            "swapon",
            "syslog",
            "vhangup",
        ],
    },
    Group {
        name: "@clock",
        why: "setting clocks",
        names: &[
            "adjtimex",
            "clock_adjtime",
            "clock_adjtime64",
            "clock_settime",
            "clock_settime64",
            "settimeofday",
            "stime",
        ],
    },
    Group {
        name: "@raw-io",
        why: "ports, segments and 16-bit modes of x86",
        names: &["ioperm", "iopl", "modify_ldt", "vm86", "vm86old"],
    },
    Group {
        name: "@obsolete",
        why: "obsolete, and code that hardly anyone reads",
        names: &["_sysctl", "remap_file_pages", "sysfs", "uselib", "ustat", "vmsplice"],
    },
    Group {
        name: "@file-handle",
        why: "files by handle, and watching a whole file system",
        names: &["fanotify_init", "fanotify_mark", "open_by_handle_at"],
    },
    // get_mempolicy reads only, but libnuma takes its failure for "no NUMA here" and then leaves
    // the others alone.
    Group {
        name: "@numa",
        why: "placing memory on NUMA nodes",
        names: &[
            "get_mempolicy",
            "mbind",
            "migrate_pages",
            "move_pages",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    },
];

/// Refused with ENOSYS, as on a kernel that does not have them. That is the default too; they are
/// listed so that a policy with another default (a log of what would be refused) still hides them.
pub(in super::super) const HIDDEN: &[Group] = &[
    Group {
        name: "@namespace",
        why: "its flags are behind a pointer; glibc falls back to clone on ENOSYS only",
        names: &["clone3"],
    },
    Group {
        name: "@mount",
        why: "the newer mount calls (CVE-2021-41133)",
        names: &[
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
        ],
    },
    Group {
        name: "@io-uring",
        why: "does other calls behind the filter's back",
        names: &["io_uring_enter", "io_uring_register", "io_uring_setup"],
    },
    Group {
        name: "@socketcall",
        why: "i386: the family is behind a pointer; glibc calls socket since Linux 4.3",
        names: &["socketcall"],
    },
    Group {
        name: "@label",
        why: "changes the security label; programs fall back to /proc/self/attr",
        names: &["lsm_set_self_attr"],
    },
];
