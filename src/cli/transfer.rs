//! The commands that bring images from elsewhere, and send them there.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RegistryArgs;
use crate::image::{Compression, Location, Platform};

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

/// `casemate push`
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Pack what the registry does not have in this way; without it, as the image has it.
    #[arg(long, value_name = "COMPRESSION")]
    pub compression: Option<Packing>,

    /// Write the digest of the manifest into FILE, too.
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,

    /// Print no progress. The digest is printed.
    #[arg(short, long)]
    pub quiet: bool,

    /// How.
    #[command(flatten)]
    pub registry: RegistryArgs,

    /// The image: a name, or at least six digits of its id.
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// The name that it gets, with the registry; without it, its own.
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
}

/// `casemate save`
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Write to FILE, which is there whole or not at all; - is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// How layers are packed.
    #[arg(long, value_name = "COMPRESSION", default_value = "none")]
    pub compression: Packing,

    /// Print no summary.
    #[arg(short, long)]
    pub quiet: bool,

    /// Names, or at least six digits of the id that `images` shows.
    #[arg(value_name = "NAME", required = true)]
    pub images: Vec<String>,
}

/// `casemate import`
#[derive(Debug, Args)]
// NAME may be left out, and is still the first of two.
#[command(allow_missing_positional = true)]
pub struct ImportArgs {
    /// Of images for several platforms, take the one for this: OS/ARCHITECTURE[/VARIANT].
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,

    /// Print no summary.
    #[arg(short, long)]
    pub quiet: bool,

    /// The name that the image gets, with an optional :TAG. Without it, the one that it has in the
    /// source.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// An OCI image layout (directory or tar), a `docker save` archive, or a root file system
    /// (directory, or tar, plain or compressed with gzip or zstd); - for one of the tars at standard
    /// input; or one of oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG],
    /// dir:DIR, containers-storage:NAME, docker-daemon:NAME.
    #[arg(value_name = "SOURCE")]
    pub source: Location,
}

/// How layers can be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Packing {
    /// As they are.
    None,
    /// What every tool reads.
    Gzip,
    /// Smaller and faster; docker reads it since version 23.
    Zstd,
}

impl From<Packing> for Compression {
    fn from(packing: Packing) -> Self {
        match packing {
            Packing::None => Compression::None,
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd => Compression::Zstd,
        }
    }
}
