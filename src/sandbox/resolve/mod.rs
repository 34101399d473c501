//! The one translator: profile, host facts and image in, [`Sandbox`] out. Everything that can fail
//! for a reason the user can mend fails here, before any process is made.

mod environment;
mod files;
mod git;
mod guard;
mod locate;
mod notes;
mod protect;
mod root;
mod seccomp;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Degraded, Keyring, Mount, Program, Root, Sandbox, What};
use crate::cgroup;
use crate::confine::capabilities;
use crate::confine::landlock::{self, Access, Rules};
use crate::confine::lsm::Labels;
use crate::confine::rlimits::Rlimit;
use crate::confine::seccomp::Filter;
use crate::error::{Error, Result};
use crate::host::{Host, Source, World};
use crate::identity::{self, Asked, Identity, Names, Question};
use crate::image;
use crate::profile::{
    Control, NetworkMode, Port, Profile, ResourceLimit, ResourceName, Size, Terminal,
};

pub use environment::DEFAULT_PATH;
pub use protect::Own;
pub use seccomp::filter;

/// What a plan is made from.
pub struct Inputs<'a> {
    /// The names of the profiles that `profile` came from, lowest first.
    pub profiles: Vec<String>,
    /// The profile with the command line laid over it.
    pub profile: &'a Profile,
    /// The words after the options.
    pub command: Vec<OsString>,
    /// The entrypoint that replaces the image's (`--entrypoint`).
    pub entrypoint: Option<OsString>,
    /// This machine.
    pub host: &'a Host,
    /// The image, where the profile names one.
    pub image: Option<ImageInput>,
    /// What names ids in the box.
    pub names: Names,
    /// casemate's own directories, which no program may change: a layer or a compiled filter put
    /// there would be the next box's.
    pub own: Vec<Own>,
    /// The directory that holds those that stay (`files.persist`), which exist.
    pub persistent: Option<PathBuf>,
    /// What stands on the host for other boxes that run, and so does not exist.
    pub placeholders: BTreeSet<PathBuf>,
}

/// An image as far as a plan needs it.
pub struct ImageInput {
    /// Its name.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// Its configuration.
    pub config: image::Config,
    /// The directory of the layers.
    pub store: Source,
    /// The layers' trees below it, lowest first.
    pub layers: Vec<PathBuf>,
    /// Whether any layer has extended attributes; `None` where that was not looked at, since nothing
    /// depends on it.
    pub has_xattrs: Option<bool>,
    /// The directory in which a writable layer on disk would be.
    pub scratch_dir: PathBuf,
}

/// Makes the plan.
pub fn resolve(inputs: &Inputs<'_>, world: &mut dyn World) -> Result<Sandbox> {
    let Inputs { profile, host, image, .. } = inputs;
    let asked = match (&profile.identity.user, image) {
        (Some(spec), _) => Asked::Profile(spec),
        (None, Some(image)) => Asked::Image(image.config.user.as_deref().unwrap_or_default()),
        (None, None) => Asked::Nobody,
    };
    let question = Question {
        asked,
        wanted: &profile.identity,
        caller: &host.caller,
        names: &inputs.names,
        in_image: image.is_some(),
        range: host.range.as_ref(),
        may_be_single: profile.may_lose(Control::Ids),
    };
    let (identity, one_id) = identity::resolve(&question)?;
    let hostname =
        profile.identity.hostname.as_ref().map_or("casemate", |name| name.0.as_str()).to_owned();
    let network = profile.network.mode.unwrap_or(NetworkMode::None);
    let mut degraded: Vec<_> =
        one_id.map(|reason| Degraded { control: Control::Ids, reason }).into_iter().collect();

    let root = root::choose(profile, host, image.as_ref(), &identity)?;
    let memory = profile.root.scratch_size.unwrap_or(Size::Percent(50));
    let mut mounts = root::base(&root, &identity, &inputs.names, &hostname, network, world)?;
    let (granted, placeholders) = files::grants(inputs, &identity, &mounts, world)?;
    // What was granted at /etc, say, is the user's: nothing of a box's own is made in it.
    mounts.retain(|mount| !granted.iter().any(|grant| files::lies_below(mount, grant)));
    mounts.extend(granted);
    let mut mounts = files::in_order(mounts);

    let program = program(inputs, &identity, &mounts, &hostname, world)?;
    // As podman: an image's own working directory is made where a layer lacks it.
    if profile.program.workdir.is_none() && program.workdir != Path::new("/") && image.is_some() {
        mounts.push(Mount {
            target: program.workdir.clone(),
            what: What::Directory { mode: 0o755 },
            origin: "the image's working directory".to_owned(),
        });
    }
    let decided = cgroup::plan(profile, &host.cgroup)?;
    let rlimits = stricter(&profile.limits.rlimits, &decided.rlimits);
    if let Some(reason) = decided.lost {
        degraded.push(Degraded { control: Control::Limits, reason });
    }
    let memory = within(memory, decided.plan.as_ref(), host);
    let nesting = profile.seccomp.nesting.unwrap_or(false);
    let landlock = landlock_rules(profile, host, &root, &mounts, network, &mut degraded)?;
    let lsm = labels(profile, host, &mut degraded)?;
    let filter = seccomp::filter(profile, identity.fake_root, host, world)?;
    let no_keys = |filter: &Filter| filter.refuses(&["keyctl", "add_key", "request_key"]);
    let keyring = if !host.keyring {
        let reason = "keyctl is refused here, by a filter that casemate was started under";
        give_up(profile, Control::Keyring, reason, &mut degraded)?;
        Keyring::Callers
    } else if filter.as_ref().is_some_and(no_keys) {
        Keyring::Shared
    } else {
        Keyring::Private
    };
    let mut capabilities = profile.capabilities.keep.clone();
    if identity.is_root() {
        capabilities.extend(capabilities::ROOT);
    }
    capabilities.sort();
    capabilities.dedup();
    files::check_owners(&mounts, &identity, host)?;
    let notes = notes::collect(inputs, &identity, &mounts, nesting, decided.plan.as_ref());

    Ok(Sandbox {
        profiles: inputs.profiles.clone(),
        program,
        identity,
        hostname,
        root,
        mounts,
        placeholders,
        memory,
        network,
        rlimits,
        cgroup: decided.plan,
        // As podman's: 0 is no limit.
        timeout: profile.limits.timeout.map(|timeout| timeout.0).filter(|seconds| *seconds > 0),
        capabilities,
        nesting,
        seccomp: filter,
        landlock,
        lsm,
        keyring,
        degraded,
        notes,
    })
}

/// The profile's limits of each process, and those in place of limits of the box. Where both limit
/// the same, the lower holds: neither was asked for to lift the other.
fn stricter(said: &BTreeMap<ResourceName, ResourceLimit>, instead: &[Rlimit]) -> Vec<Rlimit> {
    let mut all = said.clone();
    // Without a number there is no limit.
    let lower = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    for Rlimit { name, limit } in instead {
        all.entry(*name)
            .and_modify(|said| {
                said.soft = lower(said.soft, limit.soft);
                said.hard = lower(said.hard, limit.hard);
            })
            .or_insert(*limit);
    }
    all.into_iter().map(|(name, limit)| Rlimit { name, limit }).collect()
}

/// The box's memory file systems hold no more than the box may have: beyond it the kernel would end
/// the box, where a full file system is an error that the program sees.
fn within(memory: Size, plan: Option<&cgroup::Plan>, host: &Host) -> Size {
    let Some(limit) = plan.and_then(|plan| plan.limits.memory) else { return memory };
    let bytes = match memory {
        Size::Bytes(bytes) => bytes,
        Size::Percent(percent) => host.cgroup.memory / 100 * u64::from(percent),
    };
    if limit < bytes { Size::Bytes(limit) } else { memory }
}

/// Refuses, unless the profile lists the control as one it may lose.
fn give_up(
    profile: &Profile,
    control: Control,
    reason: &str,
    degraded: &mut Vec<Degraded>,
) -> Result<()> {
    if profile.require.contains(&control) {
        return Err(Error::new(format!("control {}: {reason}", control.word()))
            .hint(format!("a profile says require = [\"{}\"]", control.word())));
    }
    if profile.may_degrade.contains(&control) {
        degraded.push(Degraded { control, reason: reason.to_owned() });
        return Ok(());
    }
    Err(Error::new(format!("control {}: {reason}", control.word())).hint(format!(
        "to run without it, say --may-degrade {0}, or may-degrade = [\"{0}\"] in the profile",
        control.word()
    )))
}

const PORTS_WITHOUT: &str =
    "TCP ports are told apart by Landlock of Linux 6.7, and nesting is without Landlock";

/// What the profile asks of the system's own security modules. What is not there is refused.
fn labels(profile: &Profile, host: &Host, degraded: &mut Vec<Degraded>) -> Result<Option<Labels>> {
    let mut labels = Labels {
        apparmor: profile.lsm.apparmor.as_ref().map(|label| label.0.clone()),
        selinux: profile.lsm.selinux.as_ref().map(|label| label.0.clone()),
    };
    if labels.apparmor.is_some() && !host.apparmor {
        let reason = "a profile of AppArmor was asked for, and this kernel has none, or it is off";
        give_up(profile, Control::Lsm, reason, degraded)?;
        labels.apparmor = None;
    }
    if labels.selinux.is_some() && !host.selinux {
        let reason = "a label of SELinux was asked for, and this kernel has none, or it is off";
        give_up(profile, Control::Lsm, reason, degraded)?;
        labels.selinux = None;
    }
    let any = labels.apparmor.is_some() || labels.selinux.is_some();
    Ok(any.then_some(labels))
}

fn landlock_rules(
    profile: &Profile,
    host: &Host,
    root: &Root,
    mounts: &[Mount],
    network: NetworkMode,
    degraded: &mut Vec<Degraded>,
) -> Result<Option<Rules>> {
    // A landlocked process may not mount (landlock(7)), which a sandbox in the box must.
    let nesting = profile.seccomp.nesting == Some(true);
    let abi = host.landlock_abi;
    if abi == 0 && !nesting {
        let reason = "this kernel has no Landlock, or it is switched off (lsm= at boot)";
        give_up(profile, Control::Landlock, reason, degraded)?;
    }
    let scoped = abi >= landlock::SCOPES_SINCE && !nesting;
    // A network namespace of its own hides the host's abstract sockets, and a PID namespace its
    // processes; only the host's network leaves the scope as the one wall (CVE-2020-15257).
    if network == NetworkMode::Host && !scoped {
        let reason = "with the host's network, only Landlock of Linux 6.12 hides its abstract sockets, and nesting is without Landlock";
        give_up(profile, Control::AbstractSockets, reason, degraded)?;
    }
    if abi == 0 || nesting {
        if profile.network.tcp_connect.is_some() || profile.network.tcp_bind.is_some() {
            give_up(profile, Control::TcpPorts, PORTS_WITHOUT, degraded)?;
        }
        return Ok(None);
    }
    let wanted = &profile.network;
    let asked = wanted.tcp_connect.is_some() || wanted.tcp_bind.is_some();
    if asked && abi < landlock::PORTS_SINCE {
        give_up(profile, Control::TcpPorts, PORTS_WITHOUT, degraded)?;
    }
    let ports = |list: &Option<Vec<Port>>| {
        let list = list.as_ref().filter(|_| abi >= landlock::PORTS_SINCE)?;
        Some(list.iter().map(|port| port.0).collect())
    };
    let (tcp_connect, tcp_bind) = (ports(&wanted.tcp_connect), ports(&wanted.tcp_bind));
    let mut rules = Rules { abi, scoped, paths: Vec::new(), tcp_connect, tcp_bind };
    rules.add("/", if root.is_writable() { Access::Write } else { Access::Read });
    for mount in mounts {
        match &mount.what {
            What::Bind { write: true, .. }
            | What::Overlaid { .. }
            | What::Tmpfs { .. }
            | What::Private { .. } => {
                rules.add(&mount.target, Access::Write);
            }
            What::Proc => rules.add(&mount.target, Access::Update),
            What::Devices => {
                rules.add(&mount.target, Access::Device);
                rules.add(mount.target.join("shm"), Access::Write);
            }
            _ => {}
        }
    }
    Ok(Some(rules))
}

fn program(
    inputs: &Inputs<'_>,
    identity: &Identity,
    mounts: &[Mount],
    hostname: &str,
    world: &mut dyn World,
) -> Result<Program> {
    let Inputs { profile, host, image, .. } = inputs;
    let config = image.as_ref().map(|image| &image.config);
    let argv = argv(inputs)?;
    let image_workdir = config.and_then(|config| config.working_dir.as_deref()).map(Path::new);
    let workdir = match (&profile.program.workdir, image_workdir) {
        (Some(workdir), _) => {
            if !workdir.is_absolute() {
                return Err(Error::new(format!(
                    "workdir {}: must be an absolute path in the box",
                    workdir.display()
                )));
            }
            workdir.clone()
        }
        (None, Some(workdir)) if workdir.is_absolute() => workdir.to_owned(),
        (None, _) if image.is_some() => PathBuf::from("/"),
        // Where the working directory was granted at its own path, that is where one wants to be.
        (None, _) => match &host.cwd {
            Some(cwd) if files::is_granted(cwd, mounts) => cwd.clone(),
            _ => identity.home.clone(),
        },
    };
    let terminals = host.terminals;
    let terminal = match profile.program.terminal.unwrap_or(Terminal::Auto) {
        Terminal::Always => [true; 3],
        // A stream that was redirected stays redirected.
        Terminal::Auto if terminals[0] && terminals[1] => terminals,
        _ => [false; 3],
    };
    let environment =
        environment::collect(profile, host, identity, config, hostname, &terminal, world)?;
    Ok(Program { argv, environment, workdir, terminal })
}

/// The command as podman composes it: the entrypoint, then the words of the command line, or the
/// image's own Cmd where there are none; an entrypoint from the command line drops the image's Cmd.
fn argv(inputs: &Inputs<'_>) -> Result<Vec<OsString>> {
    let config = inputs.image.as_ref().map(|image| &image.config);
    let words = |list: &[String]| list.iter().map(OsString::from).collect::<Vec<_>>();
    let (mut argv, default) = match (&inputs.entrypoint, config) {
        (Some(entrypoint), _) if entrypoint.is_empty() => (Vec::new(), Vec::new()),
        (Some(entrypoint), _) => (vec![entrypoint.clone()], Vec::new()),
        (None, Some(config)) => (words(&config.entrypoint), words(&config.cmd)),
        (None, None) => (Vec::new(), Vec::new()),
    };
    argv.extend(if inputs.command.is_empty() { default } else { inputs.command.clone() });
    match argv.first() {
        None => Err(Error::new("run: no command given").hint(match &inputs.image {
            Some(image) => format!(
                "image {} has neither Entrypoint nor Cmd; add the command to run",
                image.name
            ),
            None => "add the command to run, such as: casemate run -- ls /".to_owned(),
        })),
        Some(first) if first.is_empty() => Err(Error::new("run: the command is empty")),
        Some(_) => Ok(argv),
    }
}
