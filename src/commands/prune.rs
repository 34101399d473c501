//! `casemate prune`: removes what no image needs, and images by age or size.

use std::path::Path;

use serde_json::{Value, json};

use super::rmi::{lines, object, say_in_use};
use crate::cli::PruneArgs;
use crate::error::Result;
use crate::store::{Prune, Removed, Store};
use crate::ui;

pub(super) fn prune(args: &PruneArgs, data_home: &Path) -> Result<()> {
    let wanted = Prune {
        older_than: args.older_than.map(|age| age.0),
        max_size: args.max_size.map(|size| size.0),
        all: args.all,
    };
    // A store is not made to remove something from it.
    let removed = match Store::find(data_home)? {
        Some(_) => Store::open(data_home)?.prune(&wanted, args.dry_run)?,
        None => Removed::default(),
    };
    say_in_use(&removed);
    if let (Some(left), Some(limit)) = (removed.left, wanted.max_size)
        && left > limit
    {
        ui::warning(&format!(
            "images that are in use take {}, which is more than --max-size",
            ui::bytes(left)
        ));
    }
    if args.json {
        let mut report = object(&removed);
        if let Value::Object(report) = &mut report {
            report.insert("freed".to_owned(), json!(removed.freed));
            report.insert("dry_run".to_owned(), json!(args.dry_run));
        }
        return ui::json(&report);
    }
    let freed = if args.dry_run { "would free" } else { "freed" };
    let lines = lines(&removed, args.dry_run);
    ui::output(&format!("{lines}{freed}: {}\n", ui::bytes(removed.freed)))
}
