//! One file a command: what it reads, what it calls, what it prints.

mod doctor;
mod explain;
mod images;
mod import;
mod login;
mod plan;
mod registries;
mod run;

use crate::cli::Command;
use crate::error::Result;
use crate::host::Directories;

/// Runs a command and returns the exit code.
pub fn dispatch(command: &Command) -> Result<i32> {
    let directories = Directories::find();
    run::refuse_privilege(&directories)?;
    match command {
        Command::Run(args) => run::run(args, &directories),
        Command::Explain(args) => explain::explain(args, &directories).map(|()| 0),
        Command::Import(args) => {
            import::import(&args.name, &args.source, directories.store()?, args.quiet).map(|()| 0)
        }
        Command::Images(args) => images::images(directories.store()?, args.json).map(|()| 0),
        Command::Login(args) => login::login(args, &directories).map(|()| 0),
        Command::Logout(args) => login::logout(args, &directories).map(|()| 0),
        Command::Doctor(args) => doctor::doctor(args),
    }
}
