//! `casemate images`: lists what is in the store.

use std::path::Path;

use serde_json::json;

use crate::error::{Error, Result};
use crate::store::{Store, Summary};
use crate::ui;

/// Prints the images as a table, or as a JSON array.
pub(super) fn images(data_home: &Path, json: bool) -> Result<()> {
    let summaries = match Store::find(data_home)? {
        Some(store) => store.images()?,
        None => Vec::new(),
    };
    if json {
        let text = serde_json::to_string_pretty(&summaries.iter().map(object).collect::<Vec<_>>())
            .map_err(|error| Error::new(format!("write JSON: {error}")))?;
        return ui::output(&format!("{text}\n"));
    }
    let row = |summary: &Summary| {
        let created = summary.created.as_deref().unwrap_or_default();
        vec![
            summary.name.clone(),
            summary.digest.hex()[..12].to_owned(),
            // The day says enough; `--json` has it all.
            created.chars().take(10).collect(),
            ui::bytes(summary.size),
            summary.layers.to_string(),
        ]
    };
    let rows: Vec<_> = summaries.iter().map(row).collect();
    ui::output(&ui::table(&["NAME", "ID", "CREATED", "SIZE", "LAYERS"], &rows))
}

fn object(summary: &Summary) -> serde_json::Value {
    json!({
        "name": summary.name,
        "digest": summary.digest,
        "created": summary.created,
        "size": summary.size,
        "layers": summary.layers,
    })
}
