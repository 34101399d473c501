//! The commands that put programs into boxes by their own names.

use clap::{Args, Subcommand};

use super::Shell;

/// `casemate shim`
#[derive(Debug, Args)]
pub struct ShimArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ShimCommand,
}

/// The commands below `casemate shim`.
#[derive(Debug, Subcommand)]
pub enum ShimCommand {
    /// Let programs start in their boxes wherever they are called by name.
    Install(ShimInstallArgs),
    /// List the programs that do.
    List(ShimListArgs),
    /// Let programs start as they did before.
    Remove(ShimRemoveArgs),
    /// Try whether the programs really start in their boxes, and say what to change.
    Doctor(ShimDoctorArgs),
}

/// `casemate shim install`
#[derive(Debug, Args)]
pub struct ShimInstallArgs {
    /// Names of programs that have a profile.
    #[arg(value_name = "PROGRAM", required = true)]
    pub programs: Vec<String>,
}

/// `casemate shim list`
#[derive(Debug, Args)]
pub struct ShimListArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `casemate shim remove`
#[derive(Debug, Args)]
pub struct ShimRemoveArgs {
    /// All of them.
    #[arg(short, long, conflicts_with = "programs")]
    pub all: bool,

    /// Names of programs.
    #[arg(value_name = "PROGRAM", required_unless_present = "all")]
    pub programs: Vec<String>,
}

/// `casemate shim doctor`
#[derive(Debug, Args)]
pub struct ShimDoctorArgs {}

/// `casemate alias`
#[derive(Debug, Args)]
pub struct AliasArgs {
    /// Which shell reads them.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,

    /// Names of programs that have a profile; without any, all that are installed.
    #[arg(value_name = "PROGRAM")]
    pub programs: Vec<String>,
}
