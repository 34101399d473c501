//! The user's own systemd: a transient scope for a box, asked for over the manager's private socket
//! or, failing that, the session bus (org.freedesktop.systemd1(5)).

use std::os::fd::{AsFd, OwnedFd};
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

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Every box's scope is below this one, so that all boxes can be limited together.
const SLICE: &str = "casemate.slice";

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

impl Manager {
    /// Tries each way to it. The error says how each failed.
    pub(super) fn find() -> Result<Manager> {
        let deadline = Instant::now() + GREETING;
        let runtime = runtime_directory();
        let mut ways = Vec::new();
        if let Some(runtime) = &runtime {
            ways.push(("its private socket", Address::Path(runtime.join("systemd/private"))));
            ways.push(("the session bus", Address::Path(runtime.join("bus"))));
        }
        let said = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
        for address in addresses(&said) {
            if !ways.iter().any(|(_, known)| *known == address) {
                ways.push(("the session bus", address));
            }
        }
        let mut failures: Vec<String> = Vec::new();
        for (via, address) in ways {
            match Manager::reach(via, &address, deadline) {
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
        let missing = match runtime {
            Some(_) => format!("no user manager of systemd answers ({})", failures.join("; ")),
            None if failures.is_empty() => format!(
                "no user manager of systemd: /run/user/{} is not there",
                nix::unistd::geteuid()
            ),
            None => format!("no user manager of systemd answers ({})", failures.join("; ")),
        };
        Err(Error::new(missing).hint(
            "log in through PAM (a console, ssh, su -l), or keep a manager running: sudo loginctl enable-linger $USER",
        ))
    }

    fn reach(via: &'static str, address: &Address, deadline: Instant) -> Result<Manager> {
        let within = |error: Error| error.within(address);
        let mut bus = Bus::open(address, deadline)?;
        // A call that comes in one piece with the greeting is left lying by the manager until more
        // comes: it looks at the socket for it, from which it has read it already (systemd 252, 257).
        bus.greeted(deadline).map_err(within)?;
        if via == "the session bus" {
            bus.hello(NAME, deadline).map_err(within)?;
        }
        let mut body = Writer::default();
        body.string(MANAGER);
        body.string("ControlGroup");
        let call = Call {
            destination: bus.destination(),
            interface: "org.freedesktop.DBus.Properties",
            ..call("Get", "ss", body)
        };
        let reply = bus.call(call, None, deadline).map_err(within)?;
        let path = reply.arguments("v")?.text_variant()?;
        let mount = group::mount().ok_or_else(|| {
            Error::new("find the cgroup: no unified hierarchy (cgroup v2) is mounted")
        })?;
        let group = Group::open(&mount.join(path.trim_start_matches('/')))?;
        Ok(Manager { bus, via, group })
    }

    /// The controllers that are delegated to it.
    pub(super) fn controllers(&self) -> Result<Vec<Controller>> {
        self.group.controllers()
    }

    /// Asks for a scope with this process in it, and does not wait.
    pub(super) fn begin(mut self, box_name: &str, limits: &Limits) -> Result<Pending> {
        let deadline = Instant::now() + JOB;
        if !self.bus.destination().is_empty() {
            // A direct connection gets every signal; a bus passes on what was asked for.
            let mut body = Writer::default();
            body.string(&format!("type='signal',interface='{MANAGER}',member='JobRemoved'"));
            let bus = "org.freedesktop.DBus";
            let rule = Call { destination: bus, interface: bus, ..call("AddMatch", "s", body) };
            self.bus.call(Call { path: "/org/freedesktop/DBus", ..rule }, None, deadline)?;
            let destination = self.bus.destination();
            let subscribe = Call { destination, ..call("Subscribe", "", Writer::default()) };
            self.bus.call(subscribe, None, deadline)?;
        }
        let own = clone::open_process(nix::unistd::getpid().as_raw())
            .map_err(|error| Error::os("open", "this process", &error))?;
        let mut pending = Pending {
            manager: self,
            unit: String::new(),
            box_name: box_name.to_owned(),
            limits: limits.clone(),
            own,
            by_descriptor: true,
            serial: 0,
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
        self.bus.call(call, None, Instant::now() + JOB).map(drop)
    }
}

/// A scope that was asked for.
pub(super) struct Pending {
    manager: Manager,
    unit: String,
    box_name: String,
    limits: Limits,
    own: OwnedFd,
    /// Whether the manager is told of this process by a descriptor, which cannot come to mean
    /// another process (systemd 253 and later know it).
    by_descriptor: bool,
    serial: u32,
    deadline: Instant,
}

/// How often a scope is asked for under another name, or in another way.
const ATTEMPTS: usize = 4;

impl Pending {
    fn ask(&mut self) -> Result<()> {
        self.unit = unit_name(&self.box_name)?;
        let (process, fd) = if self.by_descriptor {
            (("PIDFDs", Value::Descriptors(1)), Some(self.own.as_fd()))
        } else {
            (("PIDs", Value::Numbers(vec![nix::unistd::getpid().as_raw().cast_unsigned()])), None)
        };
        let mut properties = vec![
            ("Description", Value::Text(format!("casemate box {}", self.box_name))),
            ("Slice", Value::Text(SLICE.to_owned())),
            ("Delegate", Value::Bool(true)),
            // Nothing of it is left, also where its processes were killed.
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            process,
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
            descriptors: u32::from(fd.is_some()),
            ..call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        };
        self.serial = bus.begin(call, fd, self.deadline)?;
        Ok(())
    }

    /// Waits until the scope stands and this process is in it.
    pub(super) fn finish(mut self) -> Result<(Group, String)> {
        for _ in 1..ATTEMPTS {
            match self.settle()? {
                Settled::Here(group) => return Ok((group, self.unit)),
                Settled::Again => self.ask()?,
            }
        }
        match self.settle()? {
            Settled::Here(group) => Ok((group, self.unit)),
            Settled::Again => Err(Error::new(format!(
                "start scope {}: the manager says that it started, and this process is elsewhere",
                self.unit
            ))
            .hint("another program moves it to a cgroup of its own")),
        }
    }

    fn settle(&mut self) -> Result<Settled> {
        let within = |error: Error, unit: &str| error.within(format!("start scope {unit}"));
        let mut job = None;
        // A job that is quick may be removed before its path is known.
        let mut removed: Vec<(String, String)> = Vec::new();
        loop {
            let message = self.manager.bus.receive(self.deadline);
            let message = message.map_err(|error| within(error, &self.unit))?;
            if message.reply_to == Some(self.serial) {
                match message.kind {
                    Kind::Return => job = Some(message.arguments("o")?.string()?),
                    _ => return self.refused(&message),
                }
            } else if message.kind == Kind::Signal && message.member == "JobRemoved" {
                let mut arguments = message.arguments("uoss")?;
                let (_number, path) = (arguments.u32()?, arguments.string()?);
                let (unit, result) = (arguments.string()?, arguments.string()?);
                if unit == self.unit {
                    removed.push((path, result));
                }
            }
            let Some(job) = &job else { continue };
            match removed.iter().find(|(path, _)| path == job) {
                None => {}
                Some((_, result)) if result == "done" => break,
                Some((_, result)) => {
                    return Err(Error::new(format!("start scope {}: {result}", self.unit))
                        .hint(format!("journalctl --user -u {} tells more", self.unit)));
                }
            }
        }
        // A scope that the manager took for empty is gone although it "started" (systemd#36781);
        // whoever wrote limits then wrote them into somebody else's cgroup.
        let own = group::own()?;
        if own.file_name().is_none_or(|name| name != self.unit.as_str()) {
            return Ok(Settled::Again);
        }
        let mount = group::mount().ok_or_else(|| Error::new("find the cgroup: it is gone"))?;
        Ok(Settled::Here(Group::open(&mount.join(own))?))
    }

    fn refused(&mut self, message: &Message) -> Result<Settled> {
        let complaint = message.complaint();
        let unknown = matches!(
            message.error.as_str(),
            "org.freedesktop.DBus.Error.PropertyReadOnly"
                | "org.freedesktop.DBus.Error.UnknownProperty"
                | "org.freedesktop.DBus.Error.InvalidArgs"
        );
        if self.by_descriptor && (unknown || complaint.contains("PIDFDs")) {
            self.by_descriptor = false;
            return Ok(Settled::Again);
        }
        if message.error == "org.freedesktop.systemd1.UnitExists" {
            // The name has a random part, so that another one will do.
            return Ok(Settled::Again);
        }
        Err(Error::new(format!("start scope {}: {complaint}", self.unit))
            .hint("the user's systemd refuses it; `journalctl --user -e` may tell why"))
    }
}

enum Settled {
    Here(Group),
    Again,
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
