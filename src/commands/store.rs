//! `casemate store`: looks after the store.

use std::path::Path;

use serde_json::json;

use crate::cli::UsageArgs;
use crate::error::Result;
use crate::store::{ImageUsage, Store};
use crate::ui;

/// Prints what takes how much room.
pub(super) fn usage(args: &UsageArgs, data_home: &Path) -> Result<()> {
    let usage = match Store::find(data_home)? {
        Some(store) => Some(store.usage()?),
        None => None,
    };
    if args.json {
        return match usage {
            Some(usage) => ui::json(&usage),
            None => ui::json(&json!({
                "images": [], "layers": 0, "documents": 0, "dangling": 0, "staging": 0,
                "total": 0, "saved": 0,
            })),
        };
    }
    let Some(usage) = usage else { return ui::output("there is no store yet\n") };
    let row = |image: &ImageUsage| {
        vec![
            image.names.join(" "),
            image.digest.hex()[..12].to_owned(),
            ui::bytes(image.total),
            ui::bytes(image.shared),
            ui::bytes(image.unique),
        ]
    };
    let rows: Vec<_> = usage.images.iter().map(row).collect();
    let mut text = ui::table(&["NAMES", "ID", "TOTAL", "SHARED", "UNIQUE"], &rows);
    text.push('\n');
    for (key, bytes) in [
        ("layers", usage.layers),
        ("documents", usage.documents),
        ("staging", usage.staging),
        ("total", usage.total),
        ("dangling", usage.dangling),
        ("saved", usage.saved),
    ] {
        text.push_str(&format!("{key:<10}  {}\n", ui::bytes(bytes)));
    }
    ui::output(&text)
}
