//! The commands that look after profiles.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `casemate profile`
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ProfileCommand,
}

/// The commands below `casemate profile`.
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List the profiles that have a name.
    List(ProfileListArgs),
    /// Print what a profile says, with all that it builds on.
    Show(ProfileShowArgs),
    /// Read profiles as strictly as `run` does, and name what in them is dangerous.
    Check(ProfileCheckArgs),
    /// Print what is different in a second profile.
    Diff(ProfileDiffArgs),
    /// Make a profile of your own.
    New(ProfileNewArgs),
    /// Change a profile of your own in an editor.
    Edit(ProfileEditArgs),
    /// Print where a profile of your own is.
    Path(ProfilePathArgs),
}

/// `casemate profile list`
#[derive(Debug, Args)]
pub struct ProfileListArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Print names and nothing else.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// `casemate profile show`
#[derive(Debug, Args)]
pub struct ProfileShowArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Print the profile's own text, without what it builds on.
    #[arg(long, conflicts_with = "json")]
    pub source: bool,

    /// A name, or a file.
    #[arg(value_name = "FILE|NAME")]
    pub profile: String,
}

/// `casemate profile check`
#[derive(Debug, Args)]
pub struct ProfileCheckArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Names, or files; without any, all profiles of your own.
    #[arg(value_name = "FILE|NAME")]
    pub profiles: Vec<String>,
}

/// `casemate profile diff`
#[derive(Debug, Args)]
pub struct ProfileDiffArgs {
    /// Print only what the second one grants beyond the first, and fail if it does.
    #[arg(long)]
    pub widening: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// A name, or a file.
    #[arg(value_name = "A")]
    pub profile: String,

    /// A name, or a file.
    #[arg(value_name = "B")]
    pub other_profile: String,
}

/// `casemate profile new`
#[derive(Debug, Args)]
pub struct ProfileNewArgs {
    /// Build on this profile.
    #[arg(long = "from", value_name = "NAME")]
    pub base_profile: Option<String>,

    /// The name.
    #[arg(value_name = "NAME")]
    pub new_name: String,
}

/// `casemate profile edit`
#[derive(Debug, Args)]
pub struct ProfileEditArgs {
    /// The name. For a shipped profile, one of your own is made that builds on it.
    #[arg(value_name = "NAME")]
    pub profile: String,
}

/// `casemate profile path`
#[derive(Debug, Args)]
pub struct ProfilePathArgs {
    /// The name; without it, the directory.
    #[arg(value_name = "NAME")]
    pub profile: Option<String>,
}

/// `casemate trust`
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,

    /// End the trust in the file.
    #[arg(long, conflicts_with = "yes")]
    pub revoke: bool,

    /// Print the files that are trusted.
    #[arg(long, conflicts_with_all = ["yes", "revoke", "project"])]
    pub list: bool,

    /// The file; without it, the .casemate.toml of this directory or of the nearest above.
    #[arg(value_name = "FILE")]
    pub project: Option<PathBuf>,
}
