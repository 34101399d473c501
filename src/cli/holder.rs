//! `casemate holder`

use clap::{Args, Subcommand};

/// `casemate holder`
#[derive(Debug, Args)]
pub struct HolderArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: HolderCommand,
}

/// The commands below `casemate holder`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum HolderCommand {
    /// Say whether a holder runs, and which ids it keeps.
    Status,
    /// End it; boxes that run keep their ids.
    Stop,
}
