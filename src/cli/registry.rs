//! Registries: who the user is to them, and how they are spoken to.

use std::path::PathBuf;

use clap::Args;

/// The options of every command that speaks to registries.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistryArgs {
    /// The file of credentials, in place of all others.
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,

    /// Verify the registry's certificate, whatever registries.conf says of it. With =false it need
    /// not have one, nor speak TLS.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub tls_verify: Option<bool>,
}

/// `casemate login`
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The user name; without it casemate asks on the terminal.
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,

    /// The password. Others on this machine can see it; better let casemate ask.
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,

    /// Read the password from standard input.
    #[arg(long)]
    pub password_stdin: bool,

    /// How.
    #[command(flatten)]
    pub registry: RegistryArgs,

    /// The registry, with a path where the credential is for a part of it only.
    #[arg(value_name = "HOST[:PORT][/PATH]")]
    pub name: String,
}

/// `casemate logout`
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Forget the credentials of all registries.
    #[arg(short, long, conflicts_with = "name")]
    pub all: bool,

    /// Remove them from FILE.
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,

    /// The registry.
    #[arg(value_name = "HOST[:PORT][/PATH]", required_unless_present = "all")]
    pub name: Option<String>,
}
