//! `casemate run`

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::plan;
use super::pull::Obtain;
use crate::cgroup::{Begun, runtime_directory};
use crate::cli::RunArgs;
use crate::error::{During, Error, Result};
use crate::host::Directories;
use crate::identity;
use crate::launch::{self, Options, Placeholders, Sharing};
use crate::rootfs::Overlay;
use crate::running::{Entry, Place, Record, Registry};
use crate::sandbox::{Root, Sandbox};
use crate::store::Scratch;
use crate::sys::{clone, fs, process};
use crate::text::plain;
use crate::ui;

pub(super) fn run(args: &RunArgs, directories: &Directories) -> Result<i32> {
    // Whatever the caller left open stays on this side of every execve(2) (CVE-2024-21626).
    clone::close_all_on_exec().during("close", "inherited descriptors")?;
    refuse_directories()?;
    let plan::Planned { sandbox, world, in_use, namespace, cgroup, name } =
        plan::plan(args, directories, Some(&Obtain { directories, quiet: args.quiet }))?;
    if !args.quiet {
        for lost in &sandbox.degraded {
            ui::warning(&format!("{} is not enforced: {}", lost.control.word(), lost.reason));
        }
    }
    if let Some(image) = &in_use {
        image.mark();
    }
    let placeholders = match sandbox.placeholders.as_slice() {
        [] => Placeholders::default(),
        wanted => Placeholders::make(wanted, directories.store()?)?,
    };
    let scratch = match &sandbox.root {
        Root::Image { scratch_dir: Some(_), .. } => Some(Scratch::create(directories.store()?)?),
        _ => None,
    };
    let scratch_path = scratch.as_ref().map(|scratch| scratch.path().to_owned());
    let entry = enter(args, &sandbox, &name, &cgroup);
    let entry = match (entry, &cgroup) {
        (Err(error), Begun::Made(cgroup)) => {
            cgroup.end()?;
            return Err(error);
        }
        (entry, _) => entry?,
    };
    // A shared server outlives the box that starts it, and stays in the cgroup where it began.
    let may_share = !matches!(&cgroup, Begun::Made(cgroup) if cgroup.holds_all());
    let mut options =
        Options { scratch: scratch_path, layers: None, sharing: None, namespace, cgroup, entry };
    if let (Some(image), Some(overlay)) = (&in_use, sandbox.root.overlay()) {
        options.layers = Some(Box::new(|| image.layers()));
        if let (Overlay::Hybrid, Some(runtime)) = (overlay, &directories.runtime)
            // The one server admits the user's own id, and knows one owner.
            && !sandbox.identity.has_many()
            && may_share
        {
            options.sharing = Sharing::at(runtime, &image.key()?);
        }
    }
    let outcome = launch::launch(&sandbox, options);
    drop(world);
    drop(in_use);
    drop(scratch);
    drop(placeholders);
    outcome
}

/// Enters the box among those that run. Without a runtime directory there is no list of them, which
/// only a box with a name needs.
fn enter(args: &RunArgs, sandbox: &Sandbox, name: &str, cgroup: &Begun) -> Result<Option<Entry>> {
    let Some(runtime) = runtime_directory() else {
        return match &args.name {
            None => Ok(None),
            Some(_) => Err(Error::new(format!(
                "name {name}: there is no runtime directory to keep it in"
            ))
            .hint("set XDG_RUNTIME_DIR to a directory of yours with mode 0700; a login through PAM makes one")),
        };
    };
    let image = match &sandbox.root {
        Root::Image { name, .. } => Some(name.clone()),
        Root::Host => None,
    };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let record = Record {
        name: name.to_owned(),
        profile: sandbox.profiles.last().cloned().unwrap_or_default(),
        image,
        command: sandbox.program.argv.iter().map(|word| plain(word.as_bytes())).collect(),
        started: since.map_or(0, |since| since.as_secs()),
        place: match cgroup {
            Begun::Made(cgroup) => Some(Place::of(cgroup)),
            Begun::Nowhere | Begun::Wanted(_) => None,
        },
    };
    match Registry::open(&runtime).and_then(|registry| registry.enter(&record)) {
        // Nobody asked for the list.
        Err(error) if args.name.is_none() => {
            if !args.quiet {
                ui::warning(&format!("the box is not in the list of those that run: {error}"));
            }
            Ok(None)
        }
        entered => entered.map(Some),
    }
}

/// A directory as standard input is a way out of every box: what lies above it can be walked to,
/// and much done there that Landlock does not govern (CVE-2024-21626 was such a descriptor).
fn refuse_directories() -> Result<()> {
    for (name, fd) in [
        ("standard input", std::io::stdin().as_fd()),
        ("standard output", std::io::stdout().as_fd()),
        ("standard error", std::io::stderr().as_fd()),
    ] {
        let is_path = fs::is_path_only(fd).during("look at", name)?;
        if is_path || fs::identity(fd).during("look at", name)?.is_dir() {
            return Err(Error::new(format!("{name} is a directory, or opened as a path only"))
                .hint("redirect it from or to a file, a pipe or /dev/null"));
        }
    }
    Ok(())
}

/// Whether this process is in a user namespace whose ids are not the machine's. Where that cannot be
/// known it is not.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").ok();
    let map = map.as_deref().and_then(identity::map::parse).unwrap_or_default();
    !map.is_empty() && identity::map::outside(&map, 0) != Some(0)
}

/// casemate is for ordinary users and gains nothing from privilege; with it, a leak would be one of
/// the whole system.
pub(super) fn refuse_privilege(directories: &Directories) -> Result<()> {
    if process::is_privileged_start() {
        return Err(Error::new("casemate must not be setuid, setgid or have file capabilities")
            .hint("remove them: chmod ug-s, setcap -r; it needs no privilege"));
    }
    // Root of a user namespace is an ordinary user of the one around it.
    if directories.caller.uid == 0 && !in_user_namespace() {
        return Err(Error::new("casemate runs boxes for ordinary users, not for root").hint(
            "run it as the user whose box it is, for example: su - USER -c 'casemate run …'",
        ));
    }
    Ok(())
}
