//! `casemate push`: sends an image to a registry.

use super::pull::Watched;
use super::{registries, save};
use crate::cli::PushArgs;
use crate::error::{During, Result};
use crate::host::Directories;
use crate::image::Reference;
use crate::registry::Registries;
use crate::store::Store;
use crate::transfer::{self, Push, Pushed};
use crate::ui;

/// Pushes one image; standard output gets the digest alone, for scripts.
pub(super) fn push(args: &PushArgs, directories: &Directories) -> Result<()> {
    let destination = args.destination.as_deref().map(|name| {
        // As podman and skopeo write it.
        Reference::parse(name.strip_prefix("docker://").unwrap_or(name))
    });
    let destination = destination.transpose()?;
    let store = Store::find(directories.store()?)?;
    let image = save::outgoing(store.as_ref(), &args.image, directories)?;
    let Some(store) = store else { return Ok(()) };
    let unsaid = destination.is_none() && image.reference.is_short();
    let destination = destination.unwrap_or_else(|| image.reference.clone());
    let registries =
        Registries::load(registries::options(&args.registry, directories, args.quiet))?;
    let watched = Watched::new("pushing", destination.to_string(), args.quiet);
    let push = Push {
        image: &image,
        destination: &destination,
        compression: args.compression.map(Into::into),
    };
    let pushed =
        transfer::push(&store, &registries, &push, &watched).map_err(|error| match unsaid {
            true => error.hint(format!(
                "{destination} names no registry, so that docker.io was meant; another: `casemate \
                 push {} HOST/{destination}`",
                args.image
            )),
            false => error,
        })?;
    drop(watched);
    if !args.quiet {
        ui::note(&format!("pushed {destination}: {}", summary(&pushed)));
    }
    // The image is there, whatever becomes of the file.
    let noted = args.digestfile.as_ref().map_or(Ok(()), |path| {
        std::fs::write(path, pushed.digest.to_string())
            .at("write", path)
            .map_err(|error| error.hint("--digestfile names a file that you can write to"))
    });
    ui::output(&format!("{}\n", pushed.digest))?;
    noted
}

fn summary(pushed: &Pushed) -> String {
    let many = |count: usize, what: &str| match count {
        1 => format!("1 layer {what}"),
        count => format!("{count} layers {what}"),
    };
    let mut text = format!(
        "{} ({}), {}",
        many(pushed.uploaded, "uploaded"),
        ui::bytes(pushed.bytes),
        many(pushed.present, "there already"),
    );
    if !pushed.unchanged {
        text.push_str("; with layers packed anew it has a digest of its own");
    }
    text
}
