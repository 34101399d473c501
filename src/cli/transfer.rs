//! The commands that bring images from registries.

use clap::Args;

use super::RegistryArgs;
use crate::image::Platform;

/// `casemate pull`
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Pull the image for this platform instead of this machine's: OS/ARCHITECTURE[/VARIANT].
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,

    /// Print no progress.
    #[arg(short, long)]
    pub quiet: bool,

    /// How.
    #[command(flatten)]
    pub registry: RegistryArgs,

    /// What to pull; without a tag and digest, the tag latest.
    #[arg(value_name = "NAME[:TAG][@DIGEST]", required = true)]
    pub images: Vec<String>,
}
