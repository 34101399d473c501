//! The supervisor: makes the box's first process in one clone3(2), forwards signals and terminal
//! traffic, keeps the time, and turns the program's end into an exit code. It stays single-threaded:
//! the parent death signal follows the thread that cloned (prctl(2)).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use nix::sys::signalfd::SignalFd;

use super::child;
use super::handover::{Inherited, Way};
use super::message::{Channel, Message};
use super::namespaces::{namespaces, no_namespaces};
use super::network;
use super::overlay::{self, Layers, Server};
use super::ranged::{self, Made};
use super::shared::{Sharing, Start};
use super::signals;
use super::tty::Relay;
use crate::cgroup::{Begun, Cgroup, Coming};
use crate::confine::seccomp;
use crate::error::{During, Error, Exit, Result};
use crate::profile::NetworkMode;
use crate::rootfs::Overlay;
use crate::running::{Entry, Place};
use crate::sandbox::{Keyring, Sandbox};
use crate::sys::clone::{self, Change, Child, Forked};
use crate::sys::process;
use crate::ui;

/// What a launch needs beside the plan.
pub struct Options<'a> {
    /// The writable layer on disk, where the plan has one.
    pub scratch: Option<PathBuf>,
    /// Opens the layers, where the plan has a server for them: in the server's process.
    pub layers: Option<Box<dyn FnOnce() -> Result<Layers> + 'a>>,
    /// Where boxes over the same layers meet, if they are to have one server.
    pub sharing: Option<Sharing>,
    /// The namespace that the plan's range of ids is in, unless it is casemate's own.
    pub namespace: Option<OwnedFd>,
    /// The box's own cgroup, where the plan has one.
    pub cgroup: Begun,
    /// The box among those that run, where these are kept.
    pub entry: Option<Entry>,
}

/// Runs the plan to its end and returns the exit code: the program's, or 128 plus the signal that
/// ended it, or 124 when its time was over.
pub fn launch(sandbox: &Sandbox, options: Options<'_>) -> Result<i32> {
    let filter = sandbox.seccomp.as_ref().map(seccomp::Filter::program).transpose()?;
    let init_filter = seccomp::init_program(seccomp::Architecture::native())?;
    process::default_child_signal();
    if sandbox.keyring == Keyring::Shared {
        process::join_session_keyring(Some(c"casemate"))
            .during("join", "the session keyring of boxes")?;
    }
    let signals = signals::block()?;
    let (channel, theirs) = Channel::pair()?;
    if clone::thread_count().during("count", "threads")? != 1 {
        return Err(Error::new("start the box: casemate is not single-threaded here"));
    }
    let (network_from, network_to) = match sandbox.network {
        NetworkMode::None => {
            let (from, to) = Channel::pair()?;
            (Some(from), Some(to))
        }
        NetworkMode::Host => (None, None),
    };
    let (overlay_to, serving) = match (sandbox.root.overlay(), options.sharing) {
        (Some(Overlay::Hybrid), Some(sharing)) => {
            let (connection, start) = sharing.join()?;
            let theirs = connection.try_clone()?;
            (Some(Way::Shared(theirs)), Some(Serving::Shared { connection, start }))
        }
        (Some(overlay), _) if overlay.has_server() => {
            let (to, from) = Channel::pair()?;
            (Some(Way::Own(to)), Some(Serving::Own { overlay, from }))
        }
        _ => (None, None),
    };
    let layers = options.layers;
    let (mapped_to, mapped) = match sandbox.identity.has_many() {
        true => {
            let (to, from) = Channel::pair()?;
            (Some(to), Some(from))
        }
        false => (None, None),
    };
    // With many ids the server has the layer on disk, and nobody else.
    let (box_scratch, server_scratch) = match sandbox.identity.has_many() {
        true => (None, options.scratch),
        false => (options.scratch, None),
    };
    let inherited = Inherited {
        filter,
        init_filter,
        channel: theirs,
        network: network_from,
        overlay: overlay_to,
        mapped,
        scratch: box_scratch,
    };
    let (cgroup, wanted) = match options.cgroup {
        Begun::Nowhere => (None, None),
        Begun::Made(cgroup) => (Some(cgroup), None),
        Begun::Wanted(wanted) => (None, Some(wanted)),
    };
    let born_in = cgroup.as_ref().map(Cgroup::payload);
    let made = match mapped_to {
        Some(mapped_to) => ranged::make(sandbox, options.namespace.as_ref(), born_in, mapped_to),
        None => match clone::clone3_into(namespaces(sandbox), born_in) {
            Ok(Forked::Child) => Ok(Made::Box),
            Ok(Forked::Parent(child)) => Ok(Made::Supervisor { child, identity: None }),
            Err(error) => Err(no_namespaces(&error)),
        },
    };
    let made = match (made, &cgroup) {
        (Err(error), Some(cgroup)) => {
            cgroup.end()?;
            return Err(error);
        }
        (made, _) => made?,
    };
    let Made::Supervisor { child, identity } = made else {
        // The far ends: were they open here too, a death at the other side would go unseen.
        drop((channel, network_to, serving, layers, options.namespace, wanted));
        child::run(sandbox, inherited)
    };
    drop(options.namespace);
    // First: the box waits for it in the middle, and for the network at its end.
    let server = serving
        .map(|serving| serving.begin(layers, sandbox, server_scratch.as_deref()))
        .transpose();
    let of = identity.as_ref().unwrap_or(&child.pidfd).as_fd();
    let network = network_to.map(|to| network::make_beside(of, to)).transpose();
    drop(identity);
    // After the last fork: what this process makes while the manager moves it would stand in the way
    // of controllers, as would a server in the cgroup of its first box.
    let own_server = server.as_ref().ok().and_then(Option::as_ref).and_then(Server::own);
    let coming = wanted.map(|wanted| wanted.ask(child.pid.as_raw(), own_server)).transpose();
    // The child had to be dumpable when it was made, to write its own id maps.
    process::set_undumpable().during("make undumpable", "the supervisor")?;
    // The box's end must be the box's alone, or its end would never be seen.
    drop(inherited);
    let mut supervisor = Supervisor {
        child,
        network: None,
        server: None,
        channel: Some(channel),
        signals,
        program: None,
        pending: Vec::new(),
        relay: None,
        deadline: sandbox
            .timeout
            .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
        timeout: sandbox.timeout,
        timed_out: false,
        outcome: None,
        cgroup,
        coming: None,
        entry: options.entry,
    };
    process::trim_heap();
    // Both are the supervisor's to end, whatever became of the other.
    let failed = [
        network.map(|network| supervisor.network = network).err(),
        server.map(|server| supervisor.server = server).err(),
        coming.map(|coming| supervisor.coming = coming).err(),
    ];
    let result = match failed.into_iter().flatten().next() {
        None => supervisor.run(),
        Some(error) => Err(error),
    };
    let ended = supervisor.end();
    drop(supervisor);
    let outcome = result?;
    ended?;
    outcome
}

/// A server that the box is going to need.
enum Serving {
    Own { overlay: Overlay, from: Channel },
    Shared { connection: Channel, start: Option<Start> },
}

impl Serving {
    /// Starts it, where it is not there.
    fn begin(
        self,
        layers: Option<impl FnOnce() -> Result<Layers>>,
        sandbox: &Sandbox,
        scratch: Option<&Path>,
    ) -> Result<Server> {
        let layers = || match layers {
            Some(open) => open(),
            None => Err(Error::new("start the overlay's server: it has no layers")),
        };
        match self {
            Serving::Own { overlay, from } => {
                overlay::serve_beside(layers, sandbox, overlay, from, scratch)
            }
            Serving::Shared { connection, start } => {
                if let Some(start) = start {
                    start.start(layers, sandbox)?;
                }
                Ok(Server::shared(connection))
            }
        }
    }
}

/// The exit code of a program that the kernel killed.
const OUT_OF_MEMORY: i32 = 128 + libc::SIGKILL;

/// How long a box that was asked to end by SIGTERM, at its timeout, has before it is killed.
const GRACE: Duration = Duration::from_secs(2);

struct Supervisor {
    child: Child,
    /// The process that makes the network namespace, until it has ended.
    network: Option<Child>,
    /// The process that serves the root, or a part of it.
    server: Option<Server>,
    channel: Option<Channel>,
    signals: SignalFd,
    /// The program's pidfd, once it exists.
    program: Option<OwnedFd>,
    /// Signals that came before it did.
    pending: Vec<i32>,
    relay: Option<Relay>,
    deadline: Option<Instant>,
    /// The time that the box has, in seconds.
    timeout: Option<u64>,
    timed_out: bool,
    outcome: Option<Result<i32>>,
    cgroup: Option<Cgroup>,
    /// The scope, until it stands.
    coming: Option<Coming>,
    entry: Option<Entry>,
}

impl Supervisor {
    /// Serves the box until its first process has ended, which ends every other.
    fn run(&mut self) -> Result<Result<i32>> {
        loop {
            let deadlines = [self.deadline, self.coming.as_ref().map(Coming::deadline)];
            let ready = self.wait(signals::until(deadlines.into_iter().flatten().min()))?;
            if ready.signal {
                self.take_signals()?;
            }
            if self.coming.is_some() {
                // The box waits for the scope, and a manager that hangs must not keep a box that is
                // to end.
                let ending = self.pending.iter().find(|signal| signals::ENDING.contains(signal));
                if let Some(signal) = ending.filter(|_| !self.timed_out) {
                    return Ok(Ok(128 + signal));
                }
                if let Err(error) = self.take_scope() {
                    return self.explain(error);
                }
            }
            if ready.channel {
                self.take_message()?;
            }
            if let Some(relay) = &mut self.relay {
                relay.transfer(&ready.relay)?;
            }
            if ready.network {
                self.reap_network()?;
            }
            // The box goes on with what the kernel still has, and the program sees what is lost.
            if ready.server
                && let Some(server) = &mut self.server
            {
                server.reap()?;
            }
            if ready.ended {
                // What the box said last is still on its way.
                while self.channel.is_some() {
                    self.take_message()?;
                }
                return self.finish();
            }
            self.keep_time();
        }
    }

    /// Has the box go on where it is in its scope by now.
    fn take_scope(&mut self) -> Result<()> {
        let Some(coming) = &mut self.coming else { return Ok(()) };
        let Some(cgroup) = coming.advance()? else { return Ok(()) };
        self.coming = None;
        note(self.entry.as_ref().map(|entry| entry.placed(&Place::of(&cgroup))));
        self.cgroup = Some(cgroup);
        match &self.channel {
            Some(channel) => channel.send(&Message::Placed, None),
            None => Ok(()),
        }
    }

    /// A box that failed by itself cannot be put anywhere; then that is the reason.
    fn explain(&mut self, error: Error) -> Result<Result<i32>> {
        // What it said is there by its end; a box that lives says no more.
        let _ended_already = clone::send_signal(&self.child.pidfd, libc::SIGKILL);
        while self.channel.is_some() {
            self.take_message()?;
        }
        match self.outcome.take() {
            Some(Err(reason)) => Ok(Err(reason)),
            _ => Err(error),
        }
    }

    fn wait(&self, timeout: PollTimeout) -> Result<Ready> {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(channel) = &self.channel {
            fds.push(PollFd::new(channel.fd(), PollFlags::POLLIN));
        }
        let network = fds.len();
        if let Some(process) = &self.network {
            fds.push(PollFd::new(process.pidfd.as_fd(), PollFlags::POLLIN));
        }
        let server = fds.len();
        let serving = self.server.as_ref().and_then(Server::fd);
        if let Some(end) = serving {
            fds.push(PollFd::new(end, PollFlags::POLLIN));
        }
        if let Some(coming) = &self.coming {
            fds.push(PollFd::new(coming.fd(), PollFlags::POLLIN));
        }
        let first = fds.len();
        if let Some(relay) = &self.relay {
            relay.interests(&mut fds);
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Error::os("wait for", "the box", error)),
        }
        let is_ready = |index: usize| {
            fds.get(index).and_then(PollFd::revents).is_some_and(|events| !events.is_empty())
        };
        Ok(Ready {
            signal: is_ready(0),
            ended: is_ready(1),
            channel: self.channel.is_some() && is_ready(2),
            network: self.network.is_some() && is_ready(network),
            server: serving.is_some() && is_ready(server),
            relay: (first..fds.len()).map(is_ready).collect(),
        })
    }

    fn take_signals(&mut self) -> Result<()> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Ok(signal) = i32::try_from(info.ssi_signo) else { continue };
            match Signal::try_from(signal) {
                Ok(Signal::SIGWINCH) => {
                    if let Some(relay) = &self.relay {
                        relay.copy_window_size();
                    }
                }
                // Without a terminal of its own, the program is in no job of the caller's shell:
                // it is stopped and continued by hand.
                Ok(Signal::SIGTSTP) => {
                    self.send_to_group(libc::SIGSTOP)?;
                    self.stop_self()?;
                }
                Ok(Signal::SIGCONT) => self.resume()?,
                // Typed at the caller's terminal, which would have sent it to the whole group.
                _ if info.ssi_code == libc::SI_KERNEL && self.program.is_some() => {
                    self.send_to_group(signal)?;
                }
                _ => self.send(signal)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, signal: i32) -> Result<()> {
        match &self.program {
            None => self.pending.push(signal),
            Some(program) => match clone::send_signal(program, signal) {
                // Ended already; its end is about to be told.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                done => done.during("send a signal to", "the program")?,
            },
        }
        Ok(())
    }

    fn take_message(&mut self) -> Result<()> {
        let Some(channel) = &self.channel else { return Ok(()) };
        match channel.receive()? {
            None => self.channel = None,
            Some((Message::Life, Some(life))) => {
                if let Some(server) = &mut self.server {
                    server.watch(life);
                }
            }
            Some((Message::Server, Some(process))) => {
                if let Some(server) = &mut self.server {
                    server.know(process);
                }
            }
            Some((Message::Terminal, Some(master))) => self.relay = Some(Relay::start(master)?),
            Some((Message::Started, Some(program))) => {
                note(self.entry.as_ref().map(|entry| entry.started(&program)));
                self.program = Some(program);
                for signal in std::mem::take(&mut self.pending) {
                    self.send(signal)?;
                }
            }
            Some((Message::Stopped, _)) => {
                // Stopped by its terminal: the caller's shell shall see a stopped job. Stopped by
                // anyone else, or by us: nothing of the caller's.
                if self.relay.is_some() {
                    self.stop_self()?;
                }
            }
            // The first word counts: a failure to start is followed by the end of its process.
            Some((Message::Exited(code), _)) => {
                self.outcome.get_or_insert(Ok(code));
                self.release_server();
            }
            Some((Message::Killed(signal), _)) => {
                self.outcome.get_or_insert(Ok(128 + signal));
                self.release_server();
            }
            Some((message, _)) => {
                if let Some(error) = message.into_error() {
                    self.outcome.get_or_insert(Err(error));
                }
            }
        }
        Ok(())
    }

    fn release_server(&mut self) {
        if let Some(server) = &mut self.server {
            server.release();
        }
    }

    /// Stops casemate as Ctrl-Z stops any program, with the terminal as the shell left it.
    fn stop_self(&mut self) -> Result<()> {
        if let Some(relay) = &mut self.relay {
            relay.restore();
        }
        // Whoever stops does not see the time go by: the kernel wakes us when it is over.
        let alarm = match self.deadline {
            Some(deadline) => Some(signals::wake_at(deadline)?),
            None => None,
        };
        raise(Signal::SIGSTOP).during("stop", "casemate")?;
        drop(alarm);
        // Continued: SIGCONT is waiting in the signal descriptor as well, and does no harm twice.
        self.resume()
    }

    fn resume(&mut self) -> Result<()> {
        if let Some(relay) = &mut self.relay {
            relay.take_over()?;
        }
        self.send_to_group(libc::SIGCONT)
    }

    /// To the program and the processes that stayed in its group.
    fn send_to_group(&self, signal: i32) -> Result<()> {
        let Some(program) = &self.program else { return Ok(()) };
        match clone::send_signal_to_group(program, signal) {
            // Ended already; its end is about to be told.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            done => done.during("send a signal to", "the program"),
        }
    }

    fn keep_time(&mut self) {
        let Some(deadline) = self.deadline else { return };
        if Instant::now() < deadline {
            return;
        }
        if self.timed_out {
            self.deadline = None;
            self.kill();
        } else {
            self.timed_out = true;
            self.deadline = Some(Instant::now() + GRACE);
            if self.send(libc::SIGTERM).is_err() || self.program.is_none() {
                self.kill();
            }
        }
    }

    /// Ends the box: the kernel ends all processes of a PID namespace with its first.
    fn kill(&mut self) {
        if let Some(server) = &mut self.server {
            server.kill();
        }
        // ESRCH says that it has ended by itself.
        let _ended_already = clone::send_signal(&self.child.pidfd, libc::SIGKILL);
        if let Some(server) = self.server.as_ref().filter(|server| server.is_shared()) {
            let mut fds = [PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::MAX);
            if poll(&mut fds, timeout).is_ok_and(|count| count == 0) {
                server.kill_hung();
            }
        }
    }

    fn finish(&mut self) -> Result<Result<i32>> {
        let status = clone::wait_for_end(&self.child.pidfd).during("wait for", "the box")?;
        if let Some(server) = self.server.take()
            && let Err(error) = server.finish()
        {
            return Ok(Err(error));
        }
        if self.timed_out {
            let seconds = self.timeout.unwrap_or_default();
            return Ok(Err(Error::new(format!("timeout: the box was ended after {seconds} s"))
                .exit(Exit::TimedOut)));
        }
        let killed = match (&self.outcome, status) {
            (Some(Ok(code)), _) => *code == OUT_OF_MEMORY,
            (Some(Err(_)), _) => false,
            (None, change) => change == Change::Killed(libc::SIGKILL),
        };
        if killed
            && let Some(cgroup) = &self.cgroup
            && let Some(found) = cgroup.out_of_memory()?
        {
            return Ok(Err(found.into_error()));
        }
        Ok(match (self.outcome.take(), status) {
            (Some(outcome), _) => outcome,
            (None, Change::Killed(signal)) => {
                Err(Error::new(format!("the box was ended by signal {signal}"))
                    .hint("out of memory, or killed from outside"))
            }
            (None, _) => Err(Error::new("the box ended without a word")),
        })
    }

    fn reap_network(&mut self) -> Result<()> {
        if let Some(process) = self.network.take() {
            clone::wait_for_end(&process.pidfd).during("wait for", "the network's process")?;
        }
        Ok(())
    }

    /// Whatever happened: no process of the box is left, and the terminal is as it was.
    fn end(&mut self) -> Result<()> {
        self.kill();
        self.reap_network()?;
        if let Some(server) = self.server.take() {
            // What came too early was told; what went wrong before it was worse.
            let _told = server.finish();
        }
        // ECHILD says that it was waited for already.
        match clone::wait_for_end(&self.child.pidfd) {
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {}
            done => done.map(drop).during("wait for", "the box")?,
        }
        // Nothing of the box is left in it, whatever became of its first process.
        let ended = self.cgroup.take().map_or(Ok(()), |cgroup| cgroup.end());
        drop(self.entry.take());
        if let Some(mut relay) = self.relay.take() {
            // A reader that is stuck must not outlast the time, nor a signal to casemate.
            let drained = relay.drain(self.signals.as_fd(), self.timed_out);
            relay.restore();
            drained?;
        }
        ended
    }
}

/// What the list of boxes does not say is no reason to end one.
fn note(written: Option<Result<()>>) {
    if let Some(Err(error)) = written {
        ui::warning(&format!("the list of boxes does not say all of this one: {error}"));
    }
}

struct Ready {
    signal: bool,
    ended: bool,
    channel: bool,
    network: bool,
    server: bool,
    relay: Vec<bool>,
}
