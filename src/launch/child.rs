//! The first process of the box: it makes the box, step by step as the plan says, starts the
//! program, and stays as the box's PID 1 (`init`). Every step uses calls that a later one takes
//! away; the order is that of `sandbox::steps`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::fchownat;

use super::handover::Inherited;
use super::maker::{Maker, attach_clone, out_of_order, tmpfs};
use super::message::{Channel, Message, hung_up};
use super::place::{self, Last};
use super::{devices, init, network, overlay, payload, proc, ranged, root, verify};
use crate::confine::capabilities;
use crate::error::{During, Error, Result};
use crate::host::Source;
use crate::identity::{IdMap, Identity};
use crate::sandbox::steps::{Step, steps};
use crate::sandbox::{Mount, Root, Sandbox, What};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes};
use crate::sys::{clone, namespace, process, tty};

/// Runs as the box's first process. Never returns.
pub(super) fn run(sandbox: &Sandbox, inherited: Inherited) -> ! {
    match set_up(sandbox, &inherited) {
        Ok(terminal) => init::run(sandbox, inherited, terminal),
        Err(error) => inherited.channel.fail(&error),
    }
}

fn set_up(sandbox: &Sandbox, inherited: &Inherited) -> Result<Option<OwnedFd>> {
    die_with_the_supervisor(&inherited.channel)?;
    process::reset_signals().during("reset", "signals")?;
    // The modes of what is made are the plan's; the program gets the caller's mask back.
    let mask = umask(Mode::empty());
    let mut maker = Maker::new(Some(inherited));
    for step in steps(sandbox) {
        maker.perform(sandbox, step)?;
    }
    payload::make_likelier_oom_victim()?;
    let id = &sandbox.identity;
    if let IdMap::Many { groups, .. } = &id.ids {
        // Before the terminal, whose owner is whoever opens it.
        become_id(id.uid, id.gid, groups).during("become", &id.name)?;
    }
    let terminal = if sandbox.program.has_terminal() {
        Some(open_terminal(&inherited.channel)?)
    } else {
        None
    };
    umask(mask);
    // Last of all, so that every step before had what it needs.
    if id.is_root() {
        capabilities::reduce_root_to(&sandbox.capabilities)?;
    } else {
        capabilities::reduce_to(&sandbox.capabilities)?;
    }
    Ok(terminal)
}

/// Another id of the box's. The kernel forgets with the old one what was to happen at the
/// supervisor's end (prctl(2)).
fn become_id(uid: u32, gid: u32, groups: &[u32]) -> std::io::Result<()> {
    namespace::become_id(uid, gid, groups)?;
    process::set_parent_death_signal(libc::SIGKILL)
}

/// The namespace of cgroups begins where its first process is when it is made (cgroup_namespaces(7)).
fn join_scope(supervisor: &Channel) -> Result<()> {
    match supervisor.receive()? {
        Some((Message::Placed, _)) => {}
        // Nobody is left to be told.
        _ => clone::exit_now(125),
    }
    unshare(CloneFlags::CLONE_NEWCGROUP).during("make", "the box's namespace of cgroups")
}

/// A supervisor that is killed takes the box along: PID 1 gets SIGKILL, and the kernel ends all
/// others of its namespace. The second look closes the gap before the signal was asked for.
fn die_with_the_supervisor(channel: &Channel) -> Result<()> {
    process::set_parent_death_signal(libc::SIGKILL).during("set", "the parent death signal")?;
    if hung_up(channel.fd()).during("poll", "the supervisor")? {
        clone::exit_now(125);
    }
    Ok(())
}

impl<'a> Maker<'a> {
    fn perform(&mut self, sandbox: &'a Sandbox, step: Step<'_>) -> Result<()> {
        match step {
            Step::IdMaps => match self.mapped {
                Some(mapped) => ranged::wait(mapped),
                None => write_id_maps(&sandbox.identity.uid_map(), &sandbox.identity.gid_map()),
            },
            Step::BecomeRoot => {
                // With the user's own rights, which are gone after this.
                if sandbox.root.overlay().is_some() {
                    self.device = Some(overlay::open_device()?);
                }
                become_id(0, 0, &[]).during("become", "root of the box's ids")
            }
            Step::Keyring => {
                process::join_session_keyring(None).during("join", "a new session keyring")
            }
            Step::PrivatePropagation => {
                let all = fs::open_path("/").at("open", "/")?;
                mount::set_attributes(all.as_fd(), Attributes::default(), true, true)
                    .at("make private", "/")
            }
            Step::FindSources => self.find_sources(sandbox),
            Step::Memory(size) => self.make_memory(&size.to_string()),
            Step::Serve(overlay) => {
                self.served = Some(root::serve(sandbox, overlay, self)?);
                Ok(())
            }
            Step::Root(_) => {
                self.root = Some(root::make(sandbox, self)?);
                Ok(())
            }
            Step::Mount(mount) => self.make(mount, &sandbox.identity),
            Step::SealEmpty(mount) => self.seal(&mount.target),
            Step::LockNamespaces => proc::lock_user_namespaces(self.root()?),
            Step::CloseSettings => proc::close_settings(self.root()?),
            Step::SealRoot => mount::set_attributes(self.root()?, Attributes::RDONLY, false, false)
                .at("make read-only", "/"),
            Step::Pivot => self.pivot(),
            Step::Verify => verify::mounts(sandbox),
            Step::JoinNetwork => match self.network {
                Some(channel) => network::join(channel),
                None => Err(out_of_order("the network")),
            },
            Step::JoinScope => match self.supervisor {
                Some(supervisor) => join_scope(supervisor),
                None => Err(out_of_order("the scope")),
            },
            Step::Hostname(name) => nix::unistd::sethostname(name).during("set host name", name),
        }
    }

    /// Finds every file of the host again, in this mount namespace, and goes on only with the very
    /// files that the plan was made with.
    fn find_sources(&mut self, sandbox: &Sandbox) -> Result<()> {
        for planned in sandbox.mounts.iter().rev() {
            let (What::Bind { source, .. } | What::Overlaid { source }) = &planned.what else {
                continue;
            };
            let found = find_again(source).map_err(|error| error.within(&planned.origin))?;
            self.sources.push(found);
        }
        if let Root::Image { store, .. } = &sandbox.root {
            let found = find_again(store).map_err(|error| error.within("image store"))?;
            self.layers = Some(found);
        }
        if let Some(path) = self.scratch {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let found =
                fs::openat2(fs::cwd(), path, flags, 0, Resolve::NoSymlinks).at("open", path)?;
            self.writable = Some(found);
        }
        Ok(())
    }

    fn make(&mut self, planned: &Mount, identity: &Identity) -> Result<()> {
        let target = &planned.target;
        // Made by the box's root; the home is the program's.
        let is_programs = *target == identity.home || matches!(planned.what, What::Tmpfs { .. });
        let owner = (identity.has_many() && is_programs)
            .then_some((identity.uid.into(), identity.gid.into()));
        let give = |fd: BorrowedFd<'_>| match owner {
            Some((uid, gid)) => {
                let flags = AtFlags::AT_EMPTY_PATH;
                fchownat(fd, "", Some(uid), Some(gid), flags).at("change the owner of", target)
            }
            None => Ok(()),
        };
        match &planned.what {
            What::Bind { source, write, exec } => {
                let found = self.sources.pop().ok_or_else(|| out_of_order("a source"))?;
                let attributes = Attributes::SAFE
                    .and_if(!write, Attributes::RDONLY)
                    .and_if(!exec, Attributes::NOEXEC);
                let place = if source.identity.is_dir() {
                    place::directory(self.root()?, target, 0o755, Last::Refuse)?
                } else {
                    place::file(self.root()?, target)?
                };
                attach_clone(found.as_fd(), place.as_fd(), attributes, target)
            }
            What::Overlaid { .. } => {
                let found = self.sources.pop().ok_or_else(|| out_of_order("a source"))?;
                let made = root::overlaid(found, target, self)?;
                let place = place::directory(self.root()?, target, 0o755, Last::Refuse)?;
                mount::attach(made, place).at("mount overlay at", target)
            }
            What::Itself { write, exec } => {
                let attributes = Attributes::SAFE
                    .and_if(!write, Attributes::RDONLY)
                    .and_if(!exec, Attributes::NOEXEC);
                let place = place::existing(self.root()?, target)?;
                attach_clone(place.as_fd(), place.as_fd(), attributes, target)
            }
            What::Empty { directory: true } => {
                // Writable until all that is to be mounted below it has its place.
                let directory = self.new_directory(0o555)?;
                let place = place::directory(self.root()?, target, 0o755, Last::Refuse)?;
                attach_clone(directory.fd.as_fd(), place.as_fd(), Attributes::SAFE, target)
            }
            What::Empty { directory: false } => {
                let file = self.new_file()?;
                let place = place::file(self.root()?, target)?;
                let attributes = Attributes::SAFE.and_if(true, Attributes::RDONLY);
                attach_clone(file.as_fd(), place.as_fd(), attributes, target)
            }
            What::Tmpfs { size, mode, exec } => {
                let size = size.map_or("50%".to_owned(), |size| size.to_string());
                let attributes = Attributes::SAFE.and_if(!exec, Attributes::NOEXEC);
                let place = place::directory(self.root()?, target, 0o755, Last::Refuse)?;
                let made = tmpfs(&size, *mode, attributes)?;
                give(made.as_fd())?;
                mount::attach(made, place).at("mount tmpfs at", target)
            }
            What::Private { mode } => {
                let directory = self.new_directory(*mode)?;
                give(directory.fd.as_fd())?;
                let place = place::directory(self.root()?, target, 0o755, Last::Refuse)?;
                attach_clone(directory.fd.as_fd(), place.as_fd(), Attributes::SAFE, target)
            }
            What::Directory { mode } => {
                let made = place::directory(self.root()?, target, *mode, Last::Follow)?;
                give(made.as_fd())
            }
            What::Link { to } => place::link(self.root()?, target, to),
            What::File { .. } if self.early.contains(&target.as_path()) => Ok(()),
            What::File { content } => place::write(self.root()?, target, content),
            What::Devices => devices::make(self, target),
            What::Proc => proc::make(self, target),
        }
    }

    fn seal(&self, target: &Path) -> Result<()> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let inside = target.strip_prefix("/").unwrap_or(target);
        let top =
            fs::openat2(self.root()?, inside, flags, 0, Resolve::InRoot).at("open", target)?;
        mount::set_attributes(top.as_fd(), Attributes::RDONLY, false, false)
            .at("make read-only", target)
    }

    fn pivot(&mut self) -> Result<()> {
        nix::unistd::fchdir(self.root()?).at("enter", "the new root")?;
        mount::pivot_to_working_directory().at("pivot to", "the new root")?;
        mount::detach(c".").at("detach", "the old root")?;
        nix::unistd::chdir("/").at("enter", "/")?;
        self.memory = None;
        Ok(())
    }
}

/// The very file that was opened when the plan was made, looked up without following any link.
fn find_again(source: &Source) -> Result<OwnedFd> {
    let path = &source.path;
    let found =
        fs::openat2(fs::cwd(), path, libc::O_PATH, 0, Resolve::NoSymlinks).at("open", path)?;
    if fs::identity(&found).at("stat", path)? != source.identity {
        return Err(Error::new(format!(
            "{} was replaced while the box was being made",
            path.display()
        )));
    }
    Ok(found)
}

/// One id each, written by this process itself: the kernel allows an unprivileged process exactly
/// that, once setgroups is given up (user_namespaces(7)).
/// Writes this process's id maps, of one id each.
pub(super) fn write_id_maps(uids: &str, gids: &str) -> Result<()> {
    let write = |path: &str, content: &str| {
        let fd = openat(fs::cwd(), path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
            .at("open", path)?;
        nix::unistd::write(&fd, content.as_bytes()).at("write", path).map(drop)
    };
    let hint = |error: Error| {
        error.hint("the system restricts user namespaces; `casemate doctor` names what to change")
    };
    write("/proc/self/setgroups", "deny").map_err(hint)?;
    write("/proc/self/uid_map", uids).map_err(hint)?;
    write("/proc/self/gid_map", gids).map_err(hint)
}

/// A pseudo-terminal of the box's own devpts: this process leads its session, the supervisor gets
/// the master side, the program the other.
fn open_terminal(channel: &Channel) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = fs::openat2(fs::cwd(), "/dev/pts/ptmx", flags, 0, Resolve::NoSymlinks)
        .at("open", "/dev/pts/ptmx")?;
    tty::unlock(&master).during("unlock", "the pseudo-terminal")?;
    let slave = tty::peer(&master).during("open", "the pseudo-terminal")?;
    channel.send(&Message::Terminal, Some(master.as_fd()))?;
    nix::unistd::setsid().during("start", "a session")?;
    tty::make_controlling(&slave).during("control", "the pseudo-terminal")?;
    Ok(slave)
}
