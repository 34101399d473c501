//! `casemate explain`

use super::plan;
use crate::cli::ExplainArgs;
use crate::error::{Error, Result};
use crate::host::Directories;
use crate::sandbox::explain;
use crate::ui;

pub(super) fn explain(args: &ExplainArgs, directories: &Directories) -> Result<()> {
    let planned = plan::plan(&args.run, directories, None)?;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&planned.sandbox)
            .map_err(|error| Error::new(format!("encode the plan: {error}")))?;
        format!("{json}\n")
    } else {
        explain::text(&planned.sandbox)
    };
    ui::output(&text)
}
