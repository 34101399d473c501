//! The commands that look after the store.

use clap::{Args, Subcommand, ValueEnum};

use super::values::ByteCount;
use crate::profile::Duration;

/// `casemate images`
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Print ids and nothing else, each once.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,

    /// Print ids in full.
    #[arg(long)]
    pub no_trunc: bool,

    /// Only images of this name; without a tag, of all its tags.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// `casemate inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Print a JSON array with an object for each image.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Print one value of each image: config.env.0, or the JSON pointer /config/env/0.
    #[arg(short, long, value_name = "PATH")]
    pub format: Option<String>,

    /// Names, or at least six digits of the id that `images` shows.
    #[arg(value_name = "NAME", required = true)]
    pub images: Vec<String>,
}

/// `casemate tag`
#[derive(Debug, Args)]
pub struct TagArgs {
    /// The image: a name, or at least six digits of its id.
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// The names that it gets as well. Another image that has one of them loses it.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// `casemate rmi`
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Remove an image that is named by its id also when it has several names.
    #[arg(short, long)]
    pub force: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Names, or at least six digits of the id that `images` shows.
    #[arg(value_name = "NAME", required = true)]
    pub images: Vec<String>,
}

/// `casemate prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Also images that were not run, pulled or imported for this time (12h, 30d).
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<Duration>,

    /// Also the images used least recently, until the layers of the others fit into this (10GiB).
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<ByteCount>,

    /// Also every image that no running box uses.
    #[arg(short, long, conflicts_with_all = ["older_than", "max_size"])]
    pub all: bool,

    /// Remove nothing, and print what would be removed.
    #[arg(long)]
    pub dry_run: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `casemate store`
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// The commands below `casemate store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Verify what is in it, and mend what is damaged.
    Check(CheckArgs),
    /// Print what takes how much room on disk.
    Usage(UsageArgs),
}

/// `casemate store check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Mend what is damaged: unpack again, remove, pull again.
    #[arg(long)]
    pub repair: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Print nothing but faults.
    #[arg(short, long)]
    pub quiet: bool,

    /// Only these images, and their layers; otherwise all of the store.
    #[arg(value_name = "NAME")]
    pub images: Vec<String>,
}

/// `casemate store usage`
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `casemate completion`
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// Which shell reads the script.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Shells that complete the words of casemate's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash, 4.4 or newer.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// What the scripts of `casemate completion` call.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// The words after `casemate` up to the cursor; the last one is being typed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<std::ffi::OsString>,
}
