//! `casemate import`: puts an image or a root file system into the store.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use crate::cli::ImportArgs;
use crate::error::Result;
use crate::image::{Form, Location, Reference};
use crate::store::{Imported, Store};
use crate::transfer;
use crate::ui;

/// Imports one source. Standard output gets the name alone, for scripts.
pub(super) fn import(args: &ImportArgs, data_home: &Path) -> Result<()> {
    let name = args.name.as_deref().map(Reference::parse).transpose()?;
    let store = Store::open(data_home)?;
    let imported = transfer::import(&store, name.as_ref(), &args.source, args.platform.as_ref())
        .map_err(|error| match args.name {
            // One word may be the name of an image that somebody expects to be fetched.
            None if error.errno() == Some(Errno::ENOENT) => error.hint(format!(
                "one word is the source; `casemate pull {}` would ask a registry for it",
                args.source
            )),
            _ if error.errno() == Some(Errno::ENOENT) && has_word(&args.source) => {
                error.hint(format!("the words before a colon are {}", Location::WORDS))
            }
            _ => error,
        })?;
    if !args.quiet {
        ui::note(&format!("imported {}: {}", args.source, summary(&imported)));
    }
    ui::output(&format!("{}\n", imported.name))
}

/// Whether a path begins like one of the words that say what a source is.
fn has_word(source: &Location) -> bool {
    let Location::File { form: Form::Any, path, .. } = source else { return false };
    let text = path.as_os_str().as_bytes();
    text.iter().find(|byte| !(byte.is_ascii_lowercase() || **byte == b'-')) == Some(&b':')
}

/// What came into the store.
pub(super) fn summary(imported: &Imported) -> String {
    let of = |count: usize, what: &str| match count {
        1 => format!("1 layer {what}"),
        count => format!("{count} layers {what}"),
    };
    format!(
        "{} ({}), {}",
        of(imported.layers_new, "new"),
        ui::bytes(imported.bytes),
        of(imported.layers_shared, "shared"),
    )
}
