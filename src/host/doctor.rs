//! `casemate doctor`: every step that a box needs, tried for real in a process of its own. Settings
//! are read only to name the cause of a step that failed, never to predict one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use serde::Serialize;

use super::clues::Clues;
use super::diagnosis::{Finding, Level, diagnose, ended, home_overlay};
use super::facts::Directories;
use super::home;
use super::look::Here;
use super::notes::notes;
use super::overlay::assemble;
use super::step::Step;
use crate::confine::landlock;
use crate::error::{During, Error, Result};
use crate::overlay::{self, Mounting};
use crate::sys::clone::{self, Forked};
use crate::sys::fs;
use crate::sys::mount::{self, Attributes, Context};
use crate::sys::{fuse, process, seccomp};

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It works.
    Works,
    /// The kernel refused, with this errno.
    Fails(i32),
    /// A step before it failed.
    NotTried,
}

/// A step with how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Which.
    pub step: Step,
    /// How it went.
    pub outcome: Outcome,
    /// The id of what stands in its way, where it failed.
    pub finding: Option<&'static str>,
}

/// What is known of a machine in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// Every step, in the order of [`Step::ALL`].
    pub steps: Vec<Tried>,
    /// A finding for each that failed, and the notes.
    pub findings: Vec<Finding>,
}

/// Tries everything.
pub fn examine(directories: &Directories) -> Result<Examination> {
    let mut outcomes = attempt()?;
    for (step, outcome) in home::try_store(directories.data.as_deref()) {
        outcomes[usize::from(step.id())] = outcome;
    }
    let runtime = home::try_runtime(directories.runtime.as_deref());
    outcomes[usize::from(Step::RuntimeDirectory.id())] = runtime;
    let store = directories.data.as_deref().map(home::nearest);
    let store = store.and_then(|path| path.canonicalize().ok());
    let store = store.as_ref().and_then(|path| path.to_str());
    let clues = Clues::gather(&Here, store, fs::tmpfs_has_user_xattrs());
    let steps = Step::ALL.into_iter().zip(outcomes);
    let mut steps: Vec<Tried> =
        steps.map(|(step, outcome)| Tried { step, outcome, finding: None }).collect();
    let findings = conclude(&mut steps, &clues);
    Ok(Examination { steps, findings })
}

/// Names the causes of what failed; then what is worth a note. One cause is told once.
pub fn conclude(steps: &mut [Tried], clues: &Clues) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    // Then it is not the kernel that refuses one on disk, whatever the errno.
    let in_memory =
        steps.iter().any(|tried| tried.step == Step::Overlay && tried.outcome == Outcome::Works);
    for tried in &mut *steps {
        if let Outcome::Fails(errno) = tried.outcome {
            let found = match tried.step {
                Step::StoreOverlay if in_memory => home_overlay(clues),
                step => diagnose(step, errno, clues),
            };
            tried.finding = Some(found.id);
            if found.id == "unknown" || findings.iter().all(|other| other.id != found.id) {
                findings.push(found);
            }
        }
    }
    // The first failure of a step that others build on ends the trial, and is fatal; a trial that
    // ended with none did not end by itself.
    let is_untried = |tried: &&Tried| tried.outcome == Outcome::NotTried && tried.step.is_needed();
    if findings.iter().all(|found| found.level != Level::Fatal)
        && let Some(first) = steps.iter().find(is_untried)
    {
        findings.push(ended(first.step));
    }
    findings.extend(notes(clues));
    findings
}

/// Runs the trial in a child and collects what it reports: two bytes of step and errno each.
fn attempt() -> Result<Vec<Outcome>> {
    let mut outcomes = vec![Outcome::NotTried; Step::ALL.len()];
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).during("make", "a pipe")?;
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let child = match clone::clone3(libc::CLONE_NEWUSER.cast_unsigned().into()) {
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            outcomes[usize::from(Step::UserNamespace.id())] = Outcome::Fails(errno);
            outcomes[usize::from(Step::Landlock.id())] = landlock_outcome();
            return Ok(outcomes);
        }
        Ok(Forked::Child) => {
            drop(reader);
            let mut trial = Trial { report: File::from(writer) };
            trial.say(Step::UserNamespace, Ok(()));
            trial.run(uid, gid);
            clone::exit_now(0)
        }
        Ok(Forked::Parent(child)) => child,
    };
    drop(writer);
    let mut report = Vec::new();
    File::from(reader).read_to_end(&mut report).during("read", "the trial's report")?;
    waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED).during("wait for", "the trial")?;
    for pair in report.chunks_exact(2) {
        let Some(slot) = outcomes.get_mut(usize::from(pair[0])) else {
            return Err(Error::new("read the trial's report: not what was written"));
        };
        *slot = match pair[1] {
            0 => Outcome::Works,
            errno => Outcome::Fails(errno.into()),
        };
    }
    outcomes[usize::from(Step::Landlock.id())] = landlock_outcome();
    Ok(outcomes)
}

fn landlock_outcome() -> Outcome {
    match landlock::kernel_abi() {
        0 => Outcome::Fails(libc::EOPNOTSUPP),
        _ => Outcome::Works,
    }
}

/// The child's side. A step that others build on ends the trial when it fails.
struct Trial {
    report: File,
}

impl Trial {
    fn say(&mut self, step: Step, result: std::io::Result<()>) -> bool {
        let errno = match &result {
            Ok(()) => 0,
            // All of Linux' errno values are below 134 and fit a byte.
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO) as u8,
        };
        // A parent that went away reads nothing.
        self.report.write_all(&[step.id(), errno]).is_ok() && result.is_ok()
    }

    fn run(&mut self, uid: u32, gid: u32) {
        let goes_on = self.say(Step::Setgroups, write("/proc/self/setgroups", "deny"))
            && self.say(Step::IdMaps, maps(uid, gid))
            && self.say(Step::MountNamespace, mount_namespace());
        if !goes_on {
            return;
        }
        let memory = tmpfs();
        let memory = match memory {
            Ok(memory) => {
                self.say(Step::Tmpfs, Ok(()));
                memory
            }
            Err(error) => {
                self.say(Step::Tmpfs, Err(error));
                return;
            }
        };
        self.say(Step::Overlay, assemble(&memory, &memory));
        self.say(Step::Fuse, fuse(uid, gid));
        self.say(Step::Proc, in_pid_namespace(proc));
        self.say(Step::Network, network());
        let others =
            CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
        self.say(Step::OtherNamespaces, unshare(others).map_err(Into::into));
        self.say(Step::Devpts, mounts(c"devpts", Attributes::NOSUID));
        self.say(Step::NamespaceLock, write("/proc/sys/user/max_user_namespaces", "0"));
        self.say(Step::PivotRoot, pivot(&memory));
        self.say(Step::Keyring, process::join_session_keyring(None));
        self.say(Step::Seccomp, filter());
    }
}

pub(super) fn write(path: &str, text: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

pub(super) fn maps(uid: u32, gid: u32) -> std::io::Result<()> {
    write("/proc/self/uid_map", &format!("{uid} {uid} 1\n"))?;
    write("/proc/self/gid_map", &format!("{gid} {gid} 1\n"))
}

fn mount_namespace() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    private_mounts()
}

pub(super) fn private_mounts() -> std::io::Result<()> {
    let root = fs::open_path("/")?;
    mount::set_attributes(root.as_fd(), Attributes::default(), true, true)
}

pub(super) fn tmpfs() -> std::io::Result<OwnedFd> {
    let memory = Context::open(c"tmpfs")?.mount(Attributes::SAFE)?;
    let place = fs::open_path("/tmp").or_else(|_| fs::open_path("/usr"))?;
    mount::attach(&memory, place)?;
    Ok(memory)
}

fn mounts(kind: &std::ffi::CStr, attributes: Attributes) -> std::io::Result<()> {
    Context::open(kind)?.mount(attributes).map(drop)
}

/// A FUSE file system that nobody serves: the mount is made before the first answer.
fn fuse(uid: u32, gid: u32) -> std::io::Result<()> {
    let device = fuse::open_device()?;
    let how = Mounting { uid, gid, for_all: false, read_only: true };
    overlay::mount(&device, &how).map(drop)
}

/// Runs in a child that is the first of a new PID namespace; its exit code is the errno.
fn in_pid_namespace(what: fn() -> std::io::Result<()>) -> std::io::Result<()> {
    match clone::clone3(libc::CLONE_NEWPID.cast_unsigned().into())? {
        Forked::Child => {
            let errno =
                what().map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
            clone::exit_now(errno)
        }
        Forked::Parent(child) => {
            match waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED)? {
                nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
                nix::sys::wait::WaitStatus::Exited(_, errno) => {
                    Err(std::io::Error::from_raw_os_error(errno))
                }
                _ => Err(std::io::Error::from_raw_os_error(libc::ECHILD)),
            }
        }
    }
}

fn proc() -> std::io::Result<()> {
    mounts(c"proc", Attributes::SAFE)
}

fn network() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    process::loopback_up()
}

fn pivot(memory: &OwnedFd) -> std::io::Result<()> {
    nix::unistd::fchdir(memory)?;
    mount::pivot_to_working_directory()?;
    mount::detach(c".")
}

fn filter() -> std::io::Result<()> {
    /// `BPF_RET | BPF_K` with `SECCOMP_RET_ALLOW`.
    const ALLOW_ALL: seccomp::Instruction =
        seccomp::Instruction { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    process::set_no_new_privs()?;
    seccomp::load(&[ALLOW_ALL])
}
