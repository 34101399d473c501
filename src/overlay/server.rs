//! The process that serves: confined, as many threads as processors, one request after the other.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{Pid, read, write};

use super::turns::{Turn, Turns};
use super::wire::{Answer, Features, Limits, MIN_REQUEST, Operation, REQUEST_HEADER, Request};
use crate::confine::landlock::{self, Access};
use crate::confine::seccomp::{Architecture, Policy};
use crate::error::{During, Error, Result};
use crate::sys::{clone, fs, fuse, process, seccomp};

/// More threads than this were of no use.
const MOST_THREADS: usize = 4;

/// The longest answer: what a read of [`Limits::pages`] gives.
const LONGEST_ANSWER: usize = 1 << 20;

/// How long a thread looks for the next request before it sleeps.
const LOOK: Duration = Duration::from_micros(50);

/// How long a thread that stands in for the first one sleeps before it asks whether it still has to,
/// in milliseconds.
const STAND_IN: u8 = 2;

/// More than the descriptors that are opened after [`give_up`] and before any file is: the devices,
/// and the one of the ruleset of Landlock.
const DEVICES: i32 = 16;

/// A thread's stack in bytes. Nothing here goes deep.
const STACK: usize = 256 << 10;

/// A file system that answers requests. It never panics; what goes wrong is an errno.
pub trait FileSystem: Sync {
    /// What it wants of the kernel, where it has it.
    fn features(&self) -> Features;

    /// Its limits. Pages of more than a mebibyte are not answered.
    fn limits(&self) -> Limits;

    /// Answers a request, by writing to an empty answer or by an errno. Called from several threads
    /// at once. An `Interrupt` is answered by an errno only.
    fn answer(&self, request: &Request<'_>, answer: &mut Answer) -> Result<(), Errno>;

    /// The directories that it works on, and how: what Landlock leaves to the process.
    fn directories(&self) -> Vec<(BorrowedFd<'_>, Access)>;

    /// The system calls that its threads make.
    fn calls(&self, arch: Architecture) -> Policy;
}

/// Serves a file system until it is unmounted. For a process of its own that was forked for this,
/// has one thread, lives in the host's namespaces, and ends when this returns: what it held before
/// is closed, save `kept`. `life` hangs up before anybody can find the file system gone, where this
/// process ends.
///
/// Everything that takes time is done before `device` is called, which waits for the device of a
/// mount that exists (see [`mount`](super::mount)). The process is confined before it answers
/// anything.
pub fn serve(
    file_system: &impl FileSystem,
    kept: &[BorrowedFd<'_>],
    life: Option<OwnedFd>,
    device: impl FnOnce() -> Result<OwnedFd>,
) -> Result<()> {
    let threads = threads().during("get", "the processors that may be used")?;
    let directories = file_system.directories();
    let open = directories.iter().map(|(directory, _)| *directory);
    give_up(kept.iter().copied().chain(open), life)?;
    // Each thread has a device of its own; they are bound to the mount when it is there.
    let others: Vec<OwnedFd> =
        (1..threads).map(|_| fuse::open_device().at("open", "/dev/fuse")).collect::<Result<_>>()?;
    landlock::restrict_to(directories).map_err(|error| {
        error.hint("the server of a FUSE overlay needs Landlock; `--overlay kernel` does without")
    })?;
    let filter = file_system.calls(Architecture::native()).compile()?;
    let turns = Turns::new();
    let mut first = Worker::new(file_system, 0, &filter, &turns);
    let workers: Vec<_> = (1..)
        .zip(&others)
        .map(|(rank, _)| Worker::new(file_system, rank, &filter, &turns))
        .collect();
    let device = device()?;
    thread::scope(|scope| {
        for (mut worker, other) in workers.into_iter().zip(others) {
            // Before Linux 5.12 only a process in the mount's user namespace may do this.
            let own = match fuse::clone_device(&device, &other) {
                Ok(()) => other,
                Err(_) => device.try_clone().during("duplicate", "the device")?,
            };
            thread::Builder::new()
                .name("overlay".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, move || worker.run(&own))
                .during("start", "a thread of the overlay's server")?;
        }
        let served = first.run(&device);
        turns.end();
        served
    })
}

/// How many threads there are to be: as many as processors that this process may run on. None is
/// bound to one, or the servers of all boxes would meet on the same.
fn threads() -> Result<usize, Errno> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let is_allowed = |processor: &usize| allowed.is_set(*processor).unwrap_or(false);
    Ok((0..CpuSet::count()).filter(is_allowed).take(MOST_THREADS).count())
}

/// Gives up what a server does not need. `life` stays open until the process ends, and is the first
/// that it gives up then: a process that ends goes through its files by their numbers, but what
/// becomes of each is put off, and done in the reverse order (task_work_run() in the kernel, since
/// Linux 4.3).
pub(crate) fn give_up<'a>(
    kept: impl Iterator<Item = BorrowedFd<'a>>,
    life: Option<OwnedFd>,
) -> Result<()> {
    // A caller's limit on the size of files is to stop the copy that meets it, not the server, and
    // one on processor time is the caller's own.
    process::ignore_limit_signals();
    let null = fs::openat2(fs::cwd(), "/dev/null", libc::O_RDWR, 0, fs::Resolve::NoSymlinks)
        .at("open", "/dev/null")?;
    for number in 0..3 {
        clone::place_at(null.as_fd(), number).during("leave", "the standard streams")?;
    }
    drop(null);
    let mut numbers: Vec<i32> = kept.map(|fd| fd.as_raw_fd()).collect();
    numbers.sort_unstable();
    if let Some(life) = life {
        // Above the devices, which are opened next, each under the lowest number that is free.
        let least = numbers.last().map_or(3, |last| last + 1) + DEVICES;
        let raised = clone::raise(&life, least).during("duplicate", "a descriptor")?;
        numbers.push(raised.into_raw_fd());
    }
    clone::close_all_but(&numbers).during("close", "descriptors")?;
    process::set_undumpable().during("become", "undumpable")?;
    process::set_no_new_privs().during("set", "no_new_privs")
}

/// One thread.
struct Worker<'a, F> {
    file_system: &'a F,
    /// 0 for the first.
    rank: u32,
    filter: &'a [seccomp::Instruction],
    turns: &'a Turns,
    request: Vec<u8>,
    answer: Answer,
}

/// What becomes of the connection.
enum Next {
    Request,
    End,
}

/// What reading gave.
enum Found {
    /// A request of so many bytes.
    Request(usize),
    Nothing,
    /// It is unmounted.
    End,
}

impl<'a, F: FileSystem> Worker<'a, F> {
    fn new(
        file_system: &'a F,
        rank: u32,
        filter: &'a [seccomp::Instruction],
        turns: &'a Turns,
    ) -> Self {
        // The kernel wants room for the longest write with its header (`struct fuse_write_in`).
        let max_write = file_system.limits().max_write;
        let longest = usize::try_from(max_write).unwrap_or(0) + REQUEST_HEADER + 40;
        Worker {
            file_system,
            rank,
            filter,
            turns,
            request: vec![0; longest.max(MIN_REQUEST)],
            answer: Answer::new(LONGEST_ANSWER),
        }
    }

    fn run(&mut self, device: &OwnedFd) -> Result<()> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK;
        fcntl(device, FcntlArg::F_SETFL(flags)).at("set the flags of", "/dev/fuse")?;
        seccomp::load(self.filter).during("load", "the overlay's seccomp filter")?;
        if self.rank == 0 { self.lead(device) } else { self.follow(device) }
    }

    /// What the first thread does: reads requests, and sleeps when there are none.
    fn lead(&mut self, device: &OwnedFd) -> Result<()> {
        self.turns.awake(true);
        loop {
            let mut at_once = 0;
            loop {
                let (length, waited) = match self.look(device)? {
                    (Found::Request(length), waited) => (length, waited),
                    (Found::End, _) => return Ok(()),
                    (Found::Nothing, _) => break,
                };
                at_once = if waited { 0 } else { at_once + 1 };
                self.turns.begin(at_once);
                let next = self.handle(device, length);
                self.turns.done();
                if let Next::End = next? {
                    return Ok(());
                }
            }
            self.turns.awake(false);
            sleep(device, PollTimeout::NONE)?;
            self.turns.awake(true);
        }
    }

    /// What the others do when they are wanted. Who stands in for the first thread looks for nothing,
    /// or the one program that there is would have to share its processor with somebody who looks.
    fn follow(&mut self, device: &OwnedFd) -> Result<()> {
        loop {
            let turn = self.turns.wait(self.rank);
            loop {
                let found = match turn {
                    Turn::Help => self.look(device)?.0,
                    Turn::StandIn => self.read(device)?,
                    Turn::End => return Ok(()),
                };
                match found {
                    Found::Request(length) => {
                        if let Next::End = self.handle(device, length)? {
                            return Ok(());
                        }
                    }
                    Found::Nothing if self.turns.is_late(LOOK) => {
                        sleep(device, PollTimeout::from(STAND_IN))?;
                    }
                    Found::Nothing => break,
                    Found::End => return Ok(()),
                }
            }
        }
    }

    /// Looks for a request, for [`LOOK`]. Also says whether it had to wait. Whoever else wants the
    /// processor has it meanwhile: the program, above all.
    fn look(&mut self, device: &OwnedFd) -> Result<(Found, bool)> {
        let mut since = None;
        loop {
            let found = self.read(device)?;
            let Found::Nothing = found else { return Ok((found, since.is_some())) };
            let since = since.get_or_insert_with(Instant::now);
            if since.elapsed() >= LOOK {
                return Ok((found, true));
            }
            std::thread::yield_now();
        }
    }

    fn read(&mut self, device: &OwnedFd) -> Result<Found> {
        loop {
            return match read(device, &mut self.request) {
                Ok(length) => Ok(Found::Request(length)),
                Err(Errno::EAGAIN) => Ok(Found::Nothing),
                // The request was taken back before it was read.
                Err(Errno::ENOENT | Errno::EINTR) => continue,
                Err(Errno::ENODEV) => Ok(Found::End),
                Err(errno) => Err(Error::os("read", "/dev/fuse", errno)),
            };
        }
    }

    /// Answers the request that was read.
    fn handle(&mut self, device: &OwnedFd, length: usize) -> Result<Next> {
        let bytes = self.request.get(..length).unwrap_or_default();
        self.answer.clear();
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(malformed) => {
                let Some(unique) = malformed.unique else { return Ok(Next::Request) };
                return send(device, self.answer.fail(Errno::EINVAL, unique));
            }
        };
        if let Operation::Init(hello) = request.operation {
            let wanted = self.file_system.features();
            let limits = self.file_system.limits();
            if let Err(error) = hello.welcome(wanted, limits, &mut self.answer) {
                // Whoever uses the mount then gets ECONNREFUSED, and nobody waits.
                send(device, self.answer.fail(Errno::EPROTO, request.unique))?;
                return Err(error);
            }
            return send(device, self.answer.finish(request.unique));
        }
        let is_answered = request.operation.is_answered();
        match self.file_system.answer(&request, &mut self.answer) {
            Ok(()) if is_answered => send(device, self.answer.finish(request.unique)),
            Err(errno)
                if is_answered || matches!(request.operation, Operation::Interrupt { .. }) =>
            {
                send(device, self.answer.fail(errno, request.unique))
            }
            _ => Ok(Next::Request),
        }
    }
}

/// Waits for a request, or for the end.
fn sleep(device: &OwnedFd, timeout: PollTimeout) -> Result<()> {
    let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Error::os("wait for", "/dev/fuse", errno)),
    }
}

fn send(device: &OwnedFd, answer: &[u8]) -> Result<Next> {
    loop {
        return match write(device, answer) {
            Ok(_) => Ok(Next::Request),
            Err(Errno::EINTR) => continue,
            Err(Errno::ENODEV) => Ok(Next::End),
            // Who asked is gone, or (EINVAL) the kernel does not want what was answered: the request
            // has failed then, and the next one is served.
            Err(Errno::ENOENT | Errno::EINVAL | Errno::EAGAIN | Errno::ENOMEM) => Ok(Next::Request),
            Err(errno) => Err(Error::os("write", "/dev/fuse", errno)),
        };
    }
}
