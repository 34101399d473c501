//! The default policy and its switches.

use std::borrow::Cow;

use super::tables::{ALLOWED, DEBUG, HIDDEN, NESTING, REFUSED, group, groups};
use super::{Action, Architecture, Clause, Condition, Operator, Policy, Rule};
use crate::error::{Error, Result};

const EPERM: Action = Action::Errno(libc::EPERM as u16);
const ENOSYS: Action = Action::Errno(libc::ENOSYS as u16);
const EAFNOSUPPORT: Action = Action::Errno(libc::EAFNOSUPPORT as u16);

/// The call is not made and returns 0.
const SUCCESS: Action = Action::Errno(0);

/// What [`Policy::with_fake_root`] lets succeed, with the spellings of 32-bit architectures. Not
/// setfsuid(2) and setfsgid(2), whose result is the id before; nor capset(2), which tells the truth.
const FAKED: &[&str] = &[
    "chown",
    "chown32",
    "fchown",
    "fchown32",
    "fchownat",
    "lchown",
    "lchown32",
    "setgid",
    "setgid32",
    "setgroups",
    "setgroups32",
    "setregid",
    "setregid32",
    "setresgid",
    "setresgid32",
    "setresuid",
    "setresuid32",
    "setreuid",
    "setreuid32",
    "setuid",
    "setuid32",
];

/// The `CLONE_NEW*` bits that clone(2) takes. Not `CLONE_NEWTIME` (0x80): in clone(2) that bit
/// belongs to the signal number, only clone3(2) and unshare(2) read it.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;

/// `ioctl` requests that act on another's terminal: type into it, paste into it, take the console's
/// output, load a line discipline module.
const TERMINAL_REQUESTS: [u32; 4] = [
    0x5412, // TIOCSTI: CVE-2017-5226; off by default since Linux 6.2, but only by a sysctl
    0x541c, // TIOCLINUX: CVE-2023-28100
    0x541d, // TIOCCONS
    0x5423, // TIOCSETD: CVE-2017-2636 and other line disciplines
];

/// `PER_LINUX` and `PER_LINUX32`, each also with `UNAME26`, and the value that only asks. All others
/// switch off address randomisation or map page zero. Read as `unsigned int` by the kernel.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

impl Policy {
    /// What a box gets when its profile says nothing: an allow-list. A call that is not on it, be it
    /// newer than the list or older than anyone's memory, looks as if the kernel did not have it:
    /// programs probe for calls and fall back on ENOSYS, and treat EPERM as a failure.
    pub fn default_for(arch: Architecture) -> Self {
        let mut policy = Policy::new(arch, ENOSYS);
        for (groups, action) in [(ALLOWED, Action::Allow), (REFUSED, EPERM), (HIDDEN, ENOSYS)] {
            for group in groups {
                policy.put(group.names, action);
            }
        }
        let rules = [
            ("clone", clone()),
            ("ioctl", ioctl()),
            ("personality", personality()),
            ("socket", socket()),
            ("socketpair", socket()),
        ];
        policy.rules.extend(rules.map(|(name, rule)| (Cow::Borrowed(name), rule)));
        policy
    }

    /// The default without what a program that works on files can do without: sockets but local ones,
    /// System V and POSIX objects, asynchronous I/O, sight of the mounts, other personalities.
    pub fn strict_for(arch: Architecture) -> Self {
        let mut policy = Policy::default_for(arch);
        for name in ["@aio", "@ipc", "@mount-info"] {
            policy.put(&group(name), EPERM);
        }
        policy.put(&STRICT, EPERM);
        let local = Clause {
            conditions: vec![Condition::int(0, libc::AF_UNIX.unsigned_abs())],
            action: Action::Allow,
        };
        let sockets = Rule { clauses: vec![local], otherwise: EAFNOSUPPORT };
        let asks = Condition::int(0, 0xffff_ffff);
        let asking = Clause { conditions: vec![asks], action: Action::Allow };
        let rules = [
            ("personality", Rule { clauses: vec![asking], otherwise: EPERM }),
            ("socket", sockets.clone()),
            ("socketpair", sockets),
        ];
        policy.rules.extend(rules.map(|(name, rule)| (Cow::Borrowed(name), rule)));
        policy
    }

    /// Allows a group: as the default policy does where that looks at arguments.
    pub fn allow_group(&mut self, name: &str) -> Result<()> {
        let calls = checked_group(name)?;
        let default = Policy::default_for(Architecture::native());
        for call in calls {
            let rule = default.rules.get(call).filter(|rule| !rule.clauses.is_empty());
            let rule = rule.cloned().unwrap_or(Rule::always(Action::Allow));
            self.rules.insert(Cow::Borrowed(call), rule);
        }
        Ok(())
    }

    /// Makes the calls of a group fail.
    pub fn deny_group(&mut self, name: &str, errno: nix::errno::Errno) -> Result<()> {
        let errno = u16::try_from(errno as i32).unwrap_or(libc::EPERM as u16);
        self.put(&checked_group(name)?, Action::Errno(errno));
        Ok(())
    }

    /// Gives back namespaces and mounts, for programs that build sandboxes of their own: browsers,
    /// bubblewrap, rootless containers. The box then reaches all the kernel code that needs
    /// capabilities in a namespace of one's own, where most privilege escalations of the last years
    /// were found.
    #[must_use]
    pub fn with_nesting(mut self) -> Self {
        self.put(NESTING, Action::Allow);
        self
    }

    /// Lets the calls that change owners and ids, and those that make devices, succeed without effect,
    /// where they were allowed: in a box with one id the kernel would refuse them. No other call
    /// changes, and none that was refused.
    #[must_use]
    pub fn with_fake_root(mut self) -> Self {
        for name in FAKED {
            if self.rules.get(*name) == Some(&Rule::always(Action::Allow)) {
                self.rules.insert(Cow::Borrowed(*name), Rule::always(SUCCESS));
            }
        }
        for (name, mode) in [("mknod", 1), ("mknodat", 2)] {
            if self.rules.get(name) == Some(&Rule::always(Action::Allow)) {
                self.rules.insert(Cow::Borrowed(name), device(mode));
            }
        }
        self
    }

    /// Gives back what debuggers and tracers need. The kernel still asks for the same user and for
    /// no more capabilities in the traced process (ptrace(2), "access mode checking").
    #[must_use]
    pub fn with_debug(mut self) -> Self {
        self.put(DEBUG, Action::Allow);
        self
    }
}

/// What [`Policy::strict_for`] refuses besides whole groups.
const STRICT: [&str; 11] = [
    "mlock",
    "mlock2",
    "mlockall",
    "name_to_handle_at",
    "pidfd_open",
    "pidfd_send_signal",
    "process_madvise",
    "process_mrelease",
    "sched_setaffinity",
    "sched_setattr",
    "sched_setscheduler",
];

fn checked_group(name: &str) -> Result<Vec<&'static str>> {
    let calls = group(name);
    if !calls.is_empty() {
        return Ok(calls);
    }
    let all: Vec<&str> = groups().into_iter().collect();
    Err(Error::new(format!("seccomp: there is no group named {name:?}"))
        .hint(format!("groups: {}", all.join(", "))))
}

/// mknod(2) of a device does nothing; FIFOs, sockets and plain files are made. `mode` is the argument
/// that says which.
fn device(mode: u8) -> Rule {
    let is = |kind: u32| Condition {
        argument: mode,
        mask: libc::S_IFMT.into(),
        operator: Operator::Equal,
        value: kind.into(),
    };
    let clause = |kind| Clause { conditions: vec![is(kind)], action: SUCCESS };
    Rule { clauses: vec![clause(libc::S_IFCHR), clause(libc::S_IFBLK)], otherwise: Action::Allow }
}

fn clone() -> Rule {
    let namespaces = Condition {
        argument: 0,
        mask: CLONE_NAMESPACES.into(),
        operator: Operator::NotEqual,
        value: 0,
    };
    Rule {
        clauses: vec![Clause { conditions: vec![namespaces], action: EPERM }],
        otherwise: Action::Allow,
    }
}

fn ioctl() -> Rule {
    let clause = |request| Clause { conditions: vec![Condition::int(1, request)], action: EPERM };
    Rule { clauses: TERMINAL_REQUESTS.map(clause).into(), otherwise: Action::Allow }
}

fn personality() -> Rule {
    let clause =
        |value| Clause { conditions: vec![Condition::int(0, value)], action: Action::Allow };
    Rule { clauses: PERSONALITIES.map(clause).into(), otherwise: EPERM }
}

/// Local and internet sockets, and the netlink protocol that answers getifaddrs(3). All other
/// families and netlink protocols are kernel code that hardly any program needs and many exploits
/// did: AF_ALG (CVE-2026-31431), AF_RXRPC, AF_VSOCK, NETLINK_NETFILTER.
fn socket() -> Rule {
    let family = |family: i32| Condition::int(0, family.unsigned_abs());
    let allow = |conditions| Clause { conditions, action: Action::Allow };
    let route = Condition::int(2, libc::NETLINK_ROUTE.unsigned_abs());
    Rule {
        clauses: vec![
            allow(vec![family(libc::AF_UNIX)]),
            allow(vec![family(libc::AF_INET)]),
            allow(vec![family(libc::AF_INET6)]),
            allow(vec![family(libc::AF_NETLINK), route]),
        ],
        otherwise: EAFNOSUPPORT,
    }
}
