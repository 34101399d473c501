//! The user's own systemd: a transient scope for a box, asked for over the manager's private socket
//! or, failing that, the session bus (org.freedesktop.systemd1(5)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::bus::{Address, Bus, addresses, is_private};
use super::group::{self, Group};
use super::limits::{Controller, Limits};
use super::wire::{Call, Kind, Message, Value, Writer};
use crate::error::{Error, Result};
use crate::sys::clone;

/// How long a manager may take for a greeting and a question, and then for a scope. It tells every
/// signal to every direct connection, so that the work for many boxes at once grows with their
/// square: a hundred in an emulated machine have been seen to wait for more than twenty seconds.
const GREETING: Duration = Duration::from_secs(30);
const JOB: Duration = Duration::from_secs(60);

/// How long a call may lie before the rest is said: a bus hangs up on who says no more for 30 seconds,
/// and an image may be pulled meanwhile.
const FRESH: Duration = Duration::from_secs(10);

/// Where to look when it fails.
const TELLS: &str = "`systemctl --user status` and `journalctl --user -e` may tell why";

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// The arguments of its signal JobRemoved: the job's number and path, the unit, and the result.
pub(super) const JOB_REMOVED: &str = "uoss";

/// Every box's scope is below this one, so that all boxes can be limited together.
const SLICE: &str = "casemate.slice";

/// The ways to it.
const PRIVATE: &str = "its private socket";
const BUS: &str = "the session bus";

/// A manager that answers.
pub(super) struct Manager {
    bus: Bus,
    /// By what way it was reached.
    pub(super) via: &'static str,
    /// Its own cgroup, with the controllers that it can give.
    pub(super) group: Group,
}

fn call<'a>(member: &'a str, signature: &'a str, body: Writer) -> Call<'a> {
    Call {
        destination: "",
        path: OBJECT,
        interface: MANAGER,
        member,
        signature,
        body,
        descriptors: 0,
    }
}

/// The user's runtime directory: `$XDG_RUNTIME_DIR`, or where pam_systemd makes it.
pub fn runtime_directory() -> Option<PathBuf> {
    let said = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let said = said.filter(|path| path.is_absolute() && is_private(path));
    said.or_else(|| {
        let usual = PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()));
        is_private(&usual).then_some(usual)
    })
}

/// The ways to the manager, the first of which was called at already where somebody listens there:
/// the answer comes while something else is done.
pub(super) struct Ways {
    all: Vec<(&'static str, Address)>,
    runtime: Option<PathBuf>,
    called: Option<Result<Bus>>,
    since: Instant,
}

impl Ways {
    /// Calls at the first.
    pub(super) fn call() -> Ways {
        let since = Instant::now();
        let runtime = runtime_directory();
        let mut all = Vec::new();
        if let Some(runtime) = &runtime {
            all.push((PRIVATE, Address::Path(runtime.join("systemd/private"))));
            all.push((BUS, Address::Path(runtime.join("bus"))));
        }
        let said = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
        for address in addresses(&said) {
            if !all.iter().any(|(_, known)| *known == address) {
                all.push((BUS, address));
            }
        }
        let called = all.first().map(|(_, address)| Bus::open(address, since + GREETING));
        Ways { all, runtime, called, since }
    }

    /// Tries each. The error says how each failed.
    pub(super) fn manager(mut self) -> Result<Manager> {
        let mut failures: Vec<String> = Vec::new();
        // What was done meanwhile took time that is not the manager's.
        let deadline = Instant::now() + GREETING;
        for (via, address) in &self.all {
            let called = self.called.take().filter(|_| self.since.elapsed() < FRESH);
            let bus = called.unwrap_or_else(|| Bus::open(address, deadline));
            let reached = bus.and_then(|bus| {
                Manager::greet(via, bus, deadline).map_err(|error| error.within(address))
            });
            match reached {
                Ok(manager) => return Ok(manager),
                // By another way it is the same manager.
                Err(error) if error.errno() == Some(Errno::ETIMEDOUT) => {
                    return Err(error
                        .within("the user manager of systemd")
                        .hint("it hangs: `systemctl --user status` and `journalctl --user -e` may tell why"));
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        let missing = match self.runtime {
            None if failures.is_empty() => format!(
                "no user manager of systemd: /run/user/{} is not there",
                nix::unistd::geteuid()
            ),
            _ => format!("no user manager of systemd answers ({})", failures.join("; ")),
        };
        Err(Error::new(missing).hint(
            "log in through PAM (a console, ssh, su -l), or keep a manager running: sudo loginctl enable-linger $USER",
        ))
    }
}

impl Manager {
    fn greet(via: &'static str, mut bus: Bus, deadline: Instant) -> Result<Manager> {
        // A call that comes in one piece with the greeting is left lying by the manager until more
        // comes: it looks at the socket for it, from which it has read it already (systemd 252, 257).
        bus.greeted(deadline)?;
        if via == BUS {
            bus.hello(NAME, deadline)?;
        }
        let known = if via == PRIVATE { group_of(bus.peer()) } else { None };
        let path = match known {
            Some(path) => path,
            None => ask_for_group(&mut bus, deadline)?,
        };
        let mount = group::mount().ok_or_else(|| {
            Error::new("find the cgroup: no unified hierarchy (cgroup v2) is mounted")
        })?;
        let group = Group::open(&mount.join(path))?;
        Ok(Manager { bus, via, group })
    }

    /// The controllers that are delegated to it.
    pub(super) fn controllers(&self) -> Result<Vec<Controller>> {
        self.group.controllers()
    }

    /// Prepares to hear of the end of a job. A direct connection gets every signal; a bus passes on
    /// what was asked for.
    fn subscribe(&mut self, deadline: Instant) -> Result<()> {
        if self.bus.destination().is_empty() {
            return Ok(());
        }
        let mut body = Writer::default();
        body.string(&format!("type='signal',interface='{MANAGER}',member='JobRemoved'"));
        let bus = "org.freedesktop.DBus";
        let rule = Call { destination: bus, interface: bus, ..call("AddMatch", "s", body) };
        self.bus.call(Call { path: "/org/freedesktop/DBus", ..rule }, deadline)?;
        let destination = self.bus.destination();
        let subscribe = Call { destination, ..call("Subscribe", "", Writer::default()) };
        self.bus.call(subscribe, deadline).map(drop)
    }

    /// Asks for a scope with this process and these in it, and does not wait.
    pub(super) fn begin(
        mut self,
        box_name: &str,
        limits: &Limits,
        others: Vec<i32>,
    ) -> Result<Pending> {
        let deadline = Instant::now() + JOB;
        self.subscribe(deadline)?;
        let mut pids = vec![nix::unistd::getpid().as_raw()];
        pids.extend(others);
        let open = |pid: &i32| {
            clone::open_process(*pid)
                .map_err(|error| Error::os("open", format!("process {pid}"), &error))
        };
        let pidfds = pids.iter().map(open).collect::<Result<_>>()?;
        let mut pending = Pending {
            manager: self,
            unit: String::new(),
            box_name: box_name.to_owned(),
            limits: limits.clone(),
            pids,
            pidfds,
            by_descriptor: true,
            serial: 0,
            job: None,
            removed: Vec::new(),
            attempts: ATTEMPTS,
            deadline,
        };
        pending.ask()?;
        Ok(pending)
    }

    /// Changes the limits of a running scope.
    pub(super) fn change(mut self, unit: &str, limits: &Limits) -> Result<()> {
        let mut body = Writer::default();
        body.string(unit);
        body.bool(true);
        body.properties(&limits.properties());
        let destination = self.bus.destination();
        let call = Call { destination, ..call("SetUnitProperties", "sba(sv)", body) };
        let done = self.bus.call(call, Instant::now() + JOB);
        done.map(drop).map_err(|error| error.within(format!("change {unit}")).hint(TELLS))
    }
}

/// The manager's own cgroup, from that of its process: the manager itself is in `init.scope` of it.
/// Saves a question; only what it can give is read there. `None` where that is not how it is.
fn group_of(pid: i32) -> Option<PathBuf> {
    if pid <= 0 {
        return None;
    }
    let path = group::of(&pid.to_string()).ok()?;
    path.ends_with("init.scope").then(|| path.parent().map(Path::to_owned))?
}

fn ask_for_group(bus: &mut Bus, deadline: Instant) -> Result<PathBuf> {
    let mut body = Writer::default();
    body.string(MANAGER);
    body.string("ControlGroup");
    let call = Call {
        destination: bus.destination(),
        interface: "org.freedesktop.DBus.Properties",
        ..call("Get", "ss", body)
    };
    let reply = bus.call(call, deadline)?;
    let path = reply.arguments("v")?.text_variant()?;
    Ok(PathBuf::from(path.trim_start_matches('/')))
}

/// A scope that was asked for.
pub(super) struct Pending {
    manager: Manager,
    unit: String,
    box_name: String,
    limits: Limits,
    /// Who shall be in it; the first is this process.
    pids: Vec<i32>,
    pidfds: Vec<OwnedFd>,
    /// Whether the manager is told of them by descriptors, which cannot come to mean other
    /// processes (systemd 253 and later know it).
    by_descriptor: bool,
    serial: u32,
    /// The path of the job, once it is known, and those of jobs for the unit that are over, each
    /// with its result: one that is quick may be removed before its path is known.
    job: Option<String>,
    removed: Vec<(String, String)>,
    /// How often it may be asked for yet.
    attempts: usize,
    deadline: Instant,
}

/// How often a scope is asked for under another name, or in another way.
const ATTEMPTS: usize = 4;

impl Pending {
    fn ask(&mut self) -> Result<()> {
        self.attempts = self.attempts.checked_sub(1).ok_or_else(|| {
            Error::new(format!(
                "start scope {}: the manager says that it started, and this process is elsewhere",
                self.unit
            ))
            .hint("another program moves it to a cgroup of its own")
        })?;
        self.unit = unit_name(&self.box_name)?;
        (self.job, self.removed) = (None, Vec::new());
        let fds: Vec<BorrowedFd<'_>> = self.pidfds.iter().map(AsFd::as_fd).collect();
        let count = u32::try_from(fds.len()).unwrap_or(u32::MAX);
        let (processes, fds) = if self.by_descriptor {
            (("PIDFDs", Value::Descriptors(count)), fds)
        } else {
            let pids = self.pids.iter().map(|pid| pid.cast_unsigned()).collect();
            (("PIDs", Value::Numbers(pids)), Vec::new())
        };
        let mut properties = vec![
            ("Description", Value::Text(format!("casemate box {}", self.box_name))),
            ("Slice", Value::Text(SLICE.to_owned())),
            ("Delegate", Value::Bool(true)),
            // Nothing of it is left, also where its processes were killed.
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            processes,
        ];
        properties.extend(self.limits.properties());
        let mut body = Writer::default();
        body.string(&self.unit);
        body.string("fail");
        body.properties(&properties);
        // No auxiliary units.
        body.array(8, |_| {});
        let bus = &mut self.manager.bus;
        let call = Call {
            destination: bus.destination(),
            descriptors: u32::try_from(fds.len()).unwrap_or(u32::MAX),
            ..call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        };
        self.serial = bus.begin(call, &fds, self.deadline)?;
        Ok(())
    }

    /// What is readable when the manager has said something.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.manager.bus.fd()
    }

    /// How long it may take.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Hears what the manager has said. The cgroup and the unit, once the scope stands and has the
    /// processes in it.
    pub(super) fn advance(&mut self) -> Result<Option<(Group, String)>> {
        loop {
            let message = match self.manager.bus.receive_if_there() {
                Ok(Some(message)) => message,
                Ok(None) if Instant::now() >= self.deadline => return Err(self.late()),
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.within(error)),
            };
            self.hear(&message)?;
            let job = self.job.as_ref();
            let is_over = |(path, _): &&(String, String)| Some(path) == job;
            match self.removed.iter().find(is_over) {
                // One that says other things without an end.
                None if Instant::now() >= self.deadline => return Err(self.late()),
                None => {}
                Some((_, result)) if result == "done" => match self.place()? {
                    Some(group) => return Ok(Some((group, self.unit.clone()))),
                    None => self.ask()?,
                },
                Some((_, result)) => {
                    return Err(Error::new(format!("start scope {}: {result}", self.unit))
                        .hint(format!("journalctl --user -u {} tells more", self.unit)));
                }
            }
        }
    }

    fn late(&self) -> Error {
        self.within(Error::new("no answer in time"))
    }

    fn within(&self, error: Error) -> Error {
        error.within(format!("start scope {}", self.unit)).hint(TELLS)
    }

    fn hear(&mut self, message: &Message) -> Result<()> {
        if message.reply_to == Some(self.serial) {
            match message.kind {
                Kind::Return => self.job = Some(message.arguments("o")?.string()?),
                _ => self.refused(message)?,
            }
        } else if message.kind == Kind::Signal && message.member == "JobRemoved" {
            let mut arguments = message.arguments(JOB_REMOVED)?;
            let (_number, path) = (arguments.u32()?, arguments.string()?);
            let (unit, result) = (arguments.string()?, arguments.string()?);
            if unit == self.unit {
                self.removed.push((path, result));
            }
        }
        Ok(())
    }

    /// The scope's cgroup. `None` where not all processes are in it: a scope that the manager took
    /// for empty is gone although it "started" (systemd#36781); whoever wrote limits then wrote them
    /// into somebody else's cgroup.
    fn place(&self) -> Result<Option<Group>> {
        let own = group::own()?;
        if own.file_name().is_none_or(|name| name != self.unit.as_str()) {
            return Ok(None);
        }
        for pid in self.pids.iter().skip(1) {
            if group::of(&pid.to_string())? != own {
                return Ok(None);
            }
        }
        let mount = group::mount().ok_or_else(|| Error::new("find the cgroup: it is gone"))?;
        Group::open(&mount.join(own)).map(Some)
    }

    /// Asks again in another way where that may help.
    fn refused(&mut self, message: &Message) -> Result<()> {
        let complaint = message.complaint();
        let unknown = matches!(
            message.error.as_str(),
            "org.freedesktop.DBus.Error.PropertyReadOnly"
                | "org.freedesktop.DBus.Error.UnknownProperty"
                | "org.freedesktop.DBus.Error.InvalidArgs"
        );
        if self.by_descriptor && (unknown || complaint.contains("PIDFDs")) {
            self.by_descriptor = false;
            return self.ask();
        }
        if message.error == "org.freedesktop.systemd1.UnitExists" {
            // The name has a random part, so that another one will do.
            return self.ask();
        }
        Err(Error::new(format!("start scope {}: {complaint}", self.unit))
            .hint("the user's systemd refuses it; `journalctl --user -e` may tell why"))
    }
}

/// `casemate-<box>-<random>.scope`, of characters that need no escape in a unit's name.
fn unit_name(box_name: &str) -> Result<String> {
    let plain: String = box_name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '_' })
        .take(100)
        .collect();
    Ok(format!("casemate-{plain}-{:08x}.scope", super::random()?))
}

/// Whether a path is that of a scope of casemate's.
pub(super) fn is_scope(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    path.file_name().is_some_and(|name| {
        let name = name.as_bytes();
        name.starts_with(b"casemate-") && name.ends_with(b".scope")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units_need_no_escape() {
        let name = unit_name("a b/ü\n-c.toml").unwrap();
        let (stem, random) = name.strip_suffix(".scope").unwrap().rsplit_once('-').unwrap();
        assert_eq!(stem, "casemate-a_b___-c.toml");
        assert_eq!(random.len(), 8);
        assert!(is_scope(Path::new("/a/b").join(&name).as_path()));
        assert!(!is_scope(Path::new("/a/casemate-x.service")));
        assert!(unit_name(&"x".repeat(300)).unwrap().len() < 256);
    }
}
