//! `casemate holder`: the process that keeps a range of ids from one box to the next.

use std::fmt::Write as _;

use crate::cli::HolderCommand;
use crate::error::Result;
use crate::host::Directories;
use crate::identity::Extent;
use crate::identity::range::holder;
use crate::ui;

/// 0, or 1 where there is none to tell of.
pub(super) fn holder(command: HolderCommand, directories: &Directories) -> Result<i32> {
    let Some(holder) = holder::find(directories.runtime.as_deref())? else {
        return ui::output("no holder runs\n").map(|()| match command {
            HolderCommand::Status => 1,
            HolderCommand::Stop => 0,
        });
    };
    match command {
        HolderCommand::Status => {
            let mut text = format!("process {}, ids from {}\n", holder.pid(), holder.given_by);
            let facts = &holder.range.facts;
            for (name, map) in [("user ids", &facts.uids), ("group ids", &facts.gids)] {
                // Writing to a String cannot fail.
                let _infallible = writeln!(text, "{name:<9}  {}", extents(map));
            }
            ui::output(&text)
        }
        HolderCommand::Stop => holder.stop(),
    }
    .map(|()| 0)
}

fn extents(map: &[Extent]) -> String {
    let say = |extent: &Extent| {
        let last = |first: u32| u64::from(first) + u64::from(extent.count) - 1;
        format!(
            "{}-{} on the host {}-{}",
            extent.inside,
            last(extent.inside),
            extent.outside,
            last(extent.outside)
        )
    };
    map.iter().map(say).collect::<Vec<_>>().join(", ")
}
