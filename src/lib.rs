//! casemate runs a program in a box that an ordinary user builds alone.
//!
//! The flow is one: `cli` reads words, `profile` the policy that they name, `host` the facts of
//! this machine, `store` the image; `sandbox::resolve` makes one immutable [`sandbox::Sandbox`] of
//! them; `launch` executes it, or `explain` prints it. Rooms on a lower floor (`sys`, `error`,
//! `ui`) import nothing of a higher one.

pub mod cgroup;
pub mod cli;
pub mod commands;
pub mod confine;
mod crew;
pub mod error;
pub mod host;
pub mod identity;
pub mod image;
pub mod index;
pub mod launch;
pub mod overlay;
mod place;
pub mod profile;
pub mod registry;
pub mod rootfs;
pub mod running;
pub mod sandbox;
pub mod store;
pub mod sys;
pub mod text;
pub mod transfer;
pub mod ui;

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use error::Exit;

/// Runs the command line and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let args: Vec<OsString> = args.into_iter().collect();
    match commands::wrap::by_link(&args) {
        Ok(Some(meant)) => parsed(&meant),
        Ok(None) => parsed(&args),
        Err(error) => failed(&error),
    }
}

fn parsed(args: &[OsString]) -> i32 {
    match cli::Cli::try_parse_from(args) {
        Ok(cli) => commands::dispatch(&cli.command).unwrap_or_else(|error| failed(&error)),
        // What is no command may be a program that has a profile.
        Err(error) if error.kind() == ErrorKind::InvalidSubcommand => {
            match commands::wrap::by_profile(args) {
                Ok(Some(meant)) => parsed(&meant),
                Ok(None) => usage(&error),
                Err(error) => failed(&error),
            }
        }
        Err(error) => usage(&error),
    }
}

fn failed(error: &error::Error) -> i32 {
    ui::error(error);
    error.exit_code()
}

/// Help and version are answers; everything else that clap says is an error of ours.
fn usage(error: &clap::Error) -> i32 {
    let text = error.render().to_string();
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked {
        return match ui::output(&text) {
            Ok(()) => 0,
            Err(error) => error.exit_code(),
        };
    }
    // `casemate` alone is told what there is, which is not a message about a word.
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        ui::usage_page(&text);
    } else {
        ui::usage(&text);
    }
    Exit::Failed.code()
}
