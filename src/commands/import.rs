//! `casemate import`: puts an image or a root file system into the store.

use std::path::Path;

use crate::error::Result;
use crate::image::Reference;
use crate::store::{self, Imported, Store};
use crate::ui;

/// Imports `source` as `name`. Standard output gets the name alone, for scripts.
pub(super) fn import(name: &str, source: &Path, data_home: &Path, quiet: bool) -> Result<()> {
    let reference = Reference::parse(name)?;
    let store = Store::open(data_home)?;
    let imported = store::import(&store, &reference, source)?;
    if !quiet {
        ui::note(&format!("imported {}: {}", source.display(), summary(&imported)));
    }
    ui::output(&format!("{}\n", imported.name))
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
