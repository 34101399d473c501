//! The commands that look at system call filters.

use clap::{Args, Subcommand, ValueEnum};

/// `casemate seccomp`
#[derive(Debug, Args)]
pub struct SeccompArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SeccompCommand,
}

/// The commands below `casemate seccomp`.
#[derive(Debug, Subcommand)]
pub enum SeccompCommand {
    /// Print the system call filter of a profile.
    Show(SeccompShowArgs),
    /// Print the groups of system calls, and what is in each.
    Groups(SeccompGroupsArgs),
}

/// `casemate seccomp show`
#[derive(Debug, Args)]
pub struct SeccompShowArgs {
    /// How: what each call gets, the compiled program in words, or its bytes.
    #[arg(long, value_name = "FORM", default_value = "rules")]
    pub form: FilterForm,

    /// A name, or a file; without it, what every box gets.
    #[arg(value_name = "FILE|NAME")]
    pub profile: Option<String>,
}

/// `casemate seccomp groups`
#[derive(Debug, Args)]
pub struct SeccompGroupsArgs {
    /// Only this group.
    #[arg(value_name = "GROUP")]
    pub group: Option<String>,
}

/// How a filter is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FilterForm {
    /// A line for each call.
    Rules,
    /// A line for each instruction.
    Pseudo,
    /// struct sock_filter, eight bytes an instruction, as seccomp(2) takes it.
    Raw,
    /// JSON.
    Json,
}
