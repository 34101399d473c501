//! One worker: a process that is forked, gives up what it does not need, and takes jobs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::stat::{Mode, umask};

use super::job::{Answer, Job, LIMIT};
use crate::confine::landlock::{Access, Rules, SCOPES_SINCE, kernel_abi};
use crate::confine::seccomp::Policy;
use crate::error::{During, Error, Result};
use crate::sys::channel::Channel;
use crate::sys::clone::{self, Change, Child, Forked};
use crate::sys::{process, seccomp};

/// The Landlock ABI from which files can be linked and renamed between directories.
const LINKS_SINCE: u32 = 2;

/// A worker as casemate sees it; it ends when this is dropped.
pub(super) struct Worker {
    name: &'static str,
    /// Taken when dropped, so that the process sees the end of its jobs before it is waited for.
    channel: Option<Channel>,
    child: Child,
}

impl Worker {
    /// Forks a process that runs `serve` until it is told no more.
    pub(super) fn start(
        name: &'static str,
        serve: impl FnOnce(&Channel) -> Result<()>,
    ) -> Result<Worker> {
        let (ours, theirs) = Channel::pair().during("make", "a socket pair")?;
        match clone::fork().during("start", format_args!("the {name}"))? {
            Forked::Parent(child) => Ok(Worker { name, channel: Some(ours), child }),
            Forked::Child => {
                drop(ours);
                if let Err(error) = serve(&theirs) {
                    // The first job is answered with the reason that there will be none.
                    if receive_job(&theirs).is_ok_and(|job| job.is_some()) {
                        let _nobody_left = answer(&theirs, &Answer::failed(&error, None));
                    }
                }
                clone::exit_now(0)
            }
        }
    }

    fn channel(&self) -> Result<&Channel> {
        self.channel.as_ref().ok_or_else(|| Error::new(format!("the {} has ended", self.name)))
    }

    /// Gives it a job.
    pub(super) fn send(&self, job: &Job, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let text = serde_json::to_vec(job)
            .map_err(|error| Error::new(format!("encode a job: {error}")))?;
        self.channel()?.send(&text, fds).map_err(|_| self.ended())
    }

    /// Waits for the answer.
    pub(super) fn receive(&self) -> Result<Answer> {
        match self.channel()?.receive(LIMIT) {
            Ok(Some((bytes, _))) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::new(format!("the {} answers: {error}", self.name))),
            Ok(None) | Err(_) => Err(self.ended()),
        }
    }

    /// Why there is no answer.
    fn ended(&self) -> Error {
        let how = match clone::wait_for_end(&self.child.pidfd) {
            Ok(Change::Killed(libc::SIGSYS)) => {
                "made a system call that it has no use for, and was ended".to_owned()
            }
            Ok(Change::Killed(signal)) => format!("was killed by signal {signal}"),
            _ => "ended".to_owned(),
        };
        Error::new(format!("unpack: the {} {how}", self.name))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.channel.take());
        // One that is in the middle of a layer would go on to its end.
        let _gone_already = clone::send_signal(&self.child.pidfd, libc::SIGKILL);
        let _waited_for_already = clone::wait_for_end(&self.child.pidfd);
    }
}

/// The next job with its descriptors; `None` when there are no more.
pub(super) fn receive_job(channel: &Channel) -> Result<Option<(Job, Vec<OwnedFd>)>> {
    let Some((bytes, fds)) = channel.receive(LIMIT).during("receive", "a job")? else {
        return Ok(None);
    };
    let job = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(format!("decode a job: {error}")))?;
    Ok(Some((job, fds)))
}

/// Answers it.
pub(super) fn answer(channel: &Channel, answer: &Answer) -> Result<()> {
    let text = serde_json::to_vec(answer)
        .map_err(|error| Error::new(format!("encode an answer: {error}")))?;
    channel.send(&text, &[]).during("send", "an answer")
}

/// Gives up everything but the channel and, where it works on files, one directory, which is open
/// and has this path.
pub(super) fn confine(
    channel: &Channel,
    files: Option<(&OwnedFd, &Path)>,
    policy: &Policy,
) -> Result<()> {
    process::set_parent_death_signal(libc::SIGKILL).during("set", "the parent death signal")?;
    // Modes are as they are given, and nothing here is anybody else's.
    umask(Mode::empty());
    let mut numbers = vec![channel.as_fd().as_raw_fd()];
    numbers.extend(files.map(|(dir, _)| dir.as_raw_fd()));
    numbers.sort_unstable();
    clone::close_all_but(&numbers).during("close", "descriptors")?;
    process::set_undumpable().during("become", "undumpable")?;
    process::set_no_new_privs().during("set", "no_new_privs")?;
    if let Some((dir, path)) = files {
        cage(dir, path)?;
    }
    let program = policy.compile()?;
    seccomp::load(&program).during("load", "the unpacker's seccomp filter")
}

/// Leaves this process the files of one directory, in two ways that do not depend on each other:
/// as its root, in a user namespace of its own, and by Landlock. One of them must hold. The first
/// also governs what Landlock leaves alone (the times of files), the second holds where user
/// namespaces come without capabilities (AppArmor's `userns` restriction).
fn cage(dir: &OwnedFd, path: &Path) -> Result<()> {
    let rooted = process::enter_root(dir);
    let below = if rooted.is_ok() { Path::new("/") } else { path };
    // Before ABI 2 (Linux 5.19) Landlock forbids every hard link between two directories.
    let abi = kernel_abi();
    if abi >= LINKS_SINCE {
        let scoped = abi >= SCOPES_SINCE;
        let mut rules = Rules { abi, scoped, paths: Vec::new(), tcp_connect: None, tcp_bind: None };
        rules.add(below, Access::Unpack);
        return rules.apply();
    }
    rooted.during("confine", "the unpacker to its directory").map_err(|error| {
        error
            .hint("it needs unprivileged user namespaces, or Landlock as of Linux 5.19")
            .hint("`casemate doctor` tells what this machine has")
    })
}
