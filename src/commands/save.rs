//! `casemate save`: writes images into an archive.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;

use super::registries;
use crate::cli::SaveArgs;
use crate::error::{During, Error, Result};
use crate::host::Directories;
use crate::store::{self, Outgoing, Store, Wanted};
use crate::transfer::{self, Output};
use crate::ui;

/// Writes all images that are named into one archive.
pub(super) fn save(args: &SaveArgs, directories: &Directories) -> Result<()> {
    let file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    if file.is_none() && std::io::stdout().is_terminal() {
        return Err(Error::new("save: standard output is a terminal")
            .hint("name a file with -o, or pipe the archive somewhere"));
    }
    let store = Store::find(directories.store()?)?;
    let images: Vec<_> = args
        .images
        .iter()
        .map(|name| outgoing(store.as_ref(), name, directories))
        .collect::<Result<_>>()?;
    let Some(store) = store else { return Ok(()) };
    let mut output = match file {
        Some(path) => Output::file(path)?,
        None => {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned();
            Output::stream(stdout.during("duplicate", "standard output")?, "standard output")
        }
    };
    let saved = transfer::save(&store, &images, args.compression.into(), &mut output)?;
    output.commit()?;
    if !args.quiet {
        let many = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        ui::note(&format!(
            "saved {}: {}, {}",
            many(saved.images, "image"),
            many(saved.layers, "layer"),
            ui::bytes(saved.size)
        ));
    }
    Ok(())
}

/// An image that is going to leave the store.
pub(super) fn outgoing(
    store: Option<&Store>,
    name: &str,
    directories: &Directories,
) -> Result<Outgoing> {
    let wanted = Wanted::parse(name)?;
    let candidates = registries::candidates(wanted.reference(), directories);
    match store {
        Some(store) => store.outgoing(&wanted.with_candidates(&candidates)),
        None => Err(store::missing(wanted.reference(), std::iter::empty())),
    }
}
