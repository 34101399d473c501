//! `casemate rmi`: removes images.

use serde_json::json;

use super::registries;
use crate::cli::RmiArgs;
use crate::error::{Error, Exit, Result};
use crate::host::Directories;
use crate::store::{Removed, Store, Wanted};
use crate::ui;

/// Tries each name; the exit code tells whether one failed.
pub(super) fn rmi(args: &RmiArgs, directories: &Directories) -> Result<i32> {
    let data_home = directories.store()?;
    let mut errors = Vec::new();
    let mut wanted = Vec::new();
    for word in &args.images {
        match Wanted::parse(word) {
            Ok(image) => {
                let candidates = registries::candidates(image.reference(), directories);
                wanted.push((image, candidates));
            }
            Err(error) => errors.push(error),
        }
    }
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(image, candidates)| image.clone().with_candidates(candidates))
        .collect();
    let mut removed = Removed::default();
    // A store is not made to remove something from it.
    if Store::find(data_home)?.is_none() {
        errors.extend(wanted.iter().map(|image| none(image)));
    } else if !wanted.is_empty() {
        let (done, failed) = Store::open(data_home)?.remove(&wanted, args.force)?;
        removed = done;
        errors.extend(failed);
    }
    for error in &errors {
        ui::error(error);
    }
    say_in_use(&removed);
    if args.json {
        ui::json(&object(&removed))?;
    } else {
        ui::output(&lines(&removed, false))?;
    }
    Ok(if errors.is_empty() { 0 } else { Exit::Failed.code() })
}

fn none(wanted: &Wanted<'_>) -> Error {
    crate::store::missing(wanted.reference(), std::iter::empty())
}

/// A line for everything that went.
pub(super) fn lines(removed: &Removed, would: bool) -> String {
    let (untagged, deleted) =
        if would { ("would untag", "would delete") } else { ("untagged", "deleted") };
    let names = removed.names.iter().map(|name| format!("{untagged}: {}\n", ui::escape(name)));
    let digests = removed.images.iter().chain(&removed.layers).chain(&removed.documents);
    names.chain(digests.map(|digest| format!("{deleted}: {digest}\n"))).collect()
}

/// The same for programs.
pub(super) fn object(removed: &Removed) -> serde_json::Value {
    json!({
        "names": removed.names,
        "images": removed.images,
        "layers": removed.layers,
        "documents": removed.documents,
        "in_use": removed.in_use,
    })
}

/// Says what could not be removed now.
pub(super) fn say_in_use(removed: &Removed) {
    let layers = match removed.in_use.len() {
        0 => return,
        1 => "1 layer is in use by a running box or an import and stays".to_owned(),
        count => format!("{count} layers are in use by a running box or an import and stay"),
    };
    ui::note(&format!("{layers}; `casemate prune` removes what is not needed later"));
}
