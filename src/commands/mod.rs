//! One file a command: what it reads, what it calls, what it prints.

mod boxes;
mod check;
mod completion;
mod doctor;
mod explain;
mod holder;
mod images;
mod import;
mod inspect;
mod login;
mod plan;
mod profile;
mod profile_edit;
mod prune;
mod pull;
mod push;
mod registries;
mod rmi;
mod run;
mod save;
mod seccomp;
mod shim;
mod stats;
mod store;
mod tag;
mod trust;
pub(crate) mod wrap;

use crate::cli::{Command, StoreCommand};
use crate::error::Result;
use crate::host::Directories;

/// Runs a command and returns the exit code.
pub fn dispatch(command: &Command) -> Result<i32> {
    let directories = Directories::find();
    // These change nothing and are for root's shell, and a package's build, as well.
    match command {
        Command::Completion(args) => return completion::script(args.shell).map(|()| 0),
        Command::Complete(args) => return completion::complete(args, &directories).map(|()| 0),
        _ => {}
    }
    run::refuse_privilege(&directories)?;
    match command {
        Command::Run(args) => run::run(args, &directories),
        Command::Explain(args) => explain::explain(args, &directories).map(|()| 0),
        Command::Ps(args) => boxes::ps(args).map(|()| 0),
        Command::Stats(args) => stats::stats(args).map(|()| 0),
        Command::Kill(args) => boxes::kill(args),
        Command::Pause(args) => boxes::pause(args, true),
        Command::Resume(args) => boxes::pause(args, false),
        Command::Update(args) => boxes::update(args).map(|()| 0),
        Command::Import(args) => import::import(args, directories.store()?).map(|()| 0),
        Command::Login(args) => login::login(args, &directories).map(|()| 0),
        Command::Logout(args) => login::logout(args, &directories).map(|()| 0),
        Command::Pull(args) => pull::pull(args, &directories),
        Command::Push(args) => push::push(args, &directories).map(|()| 0),
        Command::Save(args) => save::save(args, &directories).map(|()| 0),
        Command::Images(args) => images::images(args, directories.store()?).map(|()| 0),
        Command::Inspect(args) => inspect::inspect(args, &directories),
        Command::Tag(args) => tag::tag(args, &directories).map(|()| 0),
        Command::Rmi(args) => rmi::rmi(args, &directories),
        Command::Prune(args) => prune::prune(args, directories.store()?).map(|()| 0),
        Command::Store(args) => match &args.command {
            StoreCommand::Check(args) => check::check(args, &directories),
            StoreCommand::Usage(args) => store::usage(args, directories.store()?).map(|()| 0),
        },
        Command::Profile(args) => profile::profile(&args.command, &directories),
        Command::Trust(args) => trust::trust(args, &directories).map(|()| 0),
        Command::Seccomp(args) => seccomp::seccomp(&args.command, &directories).map(|()| 0),
        Command::Shim(args) => shim::shim(&args.command, &directories),
        Command::Alias(args) => shim::alias(args, &directories).map(|()| 0),
        Command::Holder(args) => holder::holder(args.command, &directories),
        Command::Doctor(args) => doctor::doctor(args, &directories),
        // Answered above.
        Command::Completion(_) | Command::Complete(_) => Ok(0),
    }
}
