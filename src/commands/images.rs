//! `casemate images`: lists what is in the store.

use std::path::Path;

use serde_json::json;

use crate::cli::ImagesArgs;
use crate::error::Result;
use crate::image::{Digest, Reference, timestamp};
use crate::store::{Store, Summary};
use crate::ui;

/// Prints the images as a table, as ids, or as a JSON array.
pub(super) fn images(args: &ImagesArgs, data_home: &Path) -> Result<()> {
    let filter = args.name.as_deref().map(Filter::parse).transpose()?;
    let mut summaries = match Store::find(data_home)? {
        Some(store) => store.images()?,
        None => Vec::new(),
    };
    summaries.retain(|summary| filter.as_ref().is_none_or(|filter| filter.matches(summary)));
    if args.json {
        return ui::json(&summaries.iter().map(object).collect::<Vec<_>>());
    }
    let id = |digest: &Digest| match args.no_trunc {
        true => digest.to_string(),
        false => digest.hex()[..12].to_owned(),
    };
    if args.quiet {
        let mut text = String::new();
        for (number, summary) in summaries.iter().enumerate() {
            if summaries[..number].iter().all(|before| before.digest != summary.digest) {
                text.push_str(&id(&summary.digest));
                text.push('\n');
            }
        }
        return ui::output(&text);
    }
    let row = |summary: &Summary| {
        let created = summary.created.as_deref().unwrap_or_default();
        vec![
            summary.name.clone(),
            id(&summary.digest),
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
        "used": summary.used.map(timestamp),
        "size": summary.size,
        "layers": summary.layers,
    })
}

/// A name; without tag and digest it stands for all of its repository.
struct Filter {
    reference: Reference,
    whole_repository: bool,
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        let reference = Reference::parse(text)?;
        let last = text.rsplit('/').next().unwrap_or_default();
        Ok(Filter { reference, whole_repository: !last.contains([':', '@']) })
    }

    fn matches(&self, summary: &Summary) -> bool {
        let Ok(name) = Reference::parse(&summary.name) else { return false };
        match self.whole_repository {
            true => name.repository() == self.reference.repository(),
            false => name == self.reference,
        }
    }
}
