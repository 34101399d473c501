//! What the commands that speak to registries have in common.

use std::sync::Arc;

use crate::cli::RegistryArgs;
use crate::host::Directories;
use crate::image::Reference;
use crate::registry::{Configuration, Environment, Notice, Options};
use crate::ui;

/// The user's settings with what the command line says; notices are printed, unless `quiet`.
pub(super) fn options(args: &RegistryArgs, directories: &Directories, quiet: bool) -> Options {
    let tell = |notice: &Notice<'_>| match notice {
        Notice::Retrying { wait, error } => {
            ui::note(&format!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
        }
        Notice::Passing { error } => ui::note(&format!("{error}; going on without this mirror")),
        Notice::Exposed { path } => ui::warning(&format!(
            "{} holds credentials and can be read by others; chmod 600 it",
            path.display()
        )),
    };
    Options {
        environment: Environment::find(directories.caller.home.as_deref()),
        auth_file: args.authfile.clone(),
        tls_verify: args.tls_verify,
        notify: if quiet { None } else { Some(Arc::new(tell)) },
    }
}

/// What registries.conf makes of a short name, for looking it up in the store. A configuration that
/// cannot be read is an error when something is to be pulled, not there.
pub(super) fn candidates(reference: &Reference, directories: &Directories) -> Vec<Reference> {
    if !reference.is_short() {
        return Vec::new();
    }
    let environment = Environment::find(directories.caller.home.as_deref());
    Configuration::load(&environment)
        .and_then(|configuration| configuration.candidates(reference))
        .unwrap_or_default()
}
