//! The command line: syntax only. No file is opened and no environment read here.

mod boxes;
mod holder;
mod overlay;
mod profile;
mod registry;
mod seccomp;
mod shim;
mod store;
mod transfer;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use boxes::{
    BlkioWeight, BoxName, KillArgs, LimitArgs, PauseArgs, PsArgs, Shares, SignalArg, StatsArgs,
    UpdateArgs,
};
pub use holder::{HolderArgs, HolderCommand};
pub use profile::{
    ProfileArgs, ProfileCheckArgs, ProfileCommand, ProfileDiffArgs, ProfileEditArgs,
    ProfileListArgs, ProfileNewArgs, ProfilePathArgs, ProfileShowArgs, TrustArgs,
};
pub use registry::{LoginArgs, LogoutArgs, RegistryArgs};
pub use seccomp::{FilterForm, SeccompArgs, SeccompCommand, SeccompGroupsArgs, SeccompShowArgs};
pub use shim::{
    AliasArgs, ShimArgs, ShimCommand, ShimDoctorArgs, ShimInstallArgs, ShimListArgs, ShimRemoveArgs,
};
pub use store::{
    CheckArgs, CompleteArgs, CompletionArgs, ImagesArgs, InspectArgs, PruneArgs, RmiArgs, Shell,
    StoreArgs, StoreCommand, TagArgs, UsageArgs,
};
pub use transfer::{ImportArgs, Packing, PullArgs, PushArgs, SaveArgs};
pub use values::{ByteCount, EnvArg, UlimitArg, Volume};

use crate::profile::protected::Protected;
use crate::profile::{
    Control, Duration, Hostname, Ids, MapLine, NetworkMode, Overlay, Pull, Scratch, TmpfsGrant,
    UserSpec,
};

/// Run a program in a box that you build alone: no root, no daemon, no setuid helper.
#[derive(Debug, Parser)]
#[command(name = "casemate", version, about, disable_help_subcommand = true)]
#[command(
    after_help = "`casemate PROGRAM …` runs a program that has a profile. `casemate COMMAND --help` tells \
        about one command; the manual is casemate(1)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program in a new box.
    Run(RunArgs),
    /// Print what `run` with the same arguments would do.
    Explain(ExplainArgs),
    /// List the boxes that run.
    Ps(PsArgs),
    /// Print what running boxes use.
    Stats(StatsArgs),
    /// Send a signal to the program of running boxes.
    Kill(KillArgs),
    /// Let running boxes stand still.
    Pause(PauseArgs),
    /// Let boxes that stand still go on.
    Resume(PauseArgs),
    /// Change the limits of a running box.
    Update(UpdateArgs),
    /// Bring an image from a file, a directory or another tool's store into this one.
    Import(ImportArgs),
    /// Bring an image from a registry into the store.
    Pull(PullArgs),
    /// Send an image to a registry.
    Push(PushArgs),
    /// Write images into an archive, for casemate, podman, docker and others.
    Save(SaveArgs),
    /// List the images in the store.
    Images(ImagesArgs),
    /// Tell a registry who you are, and keep it for the commands that speak to it.
    Login(LoginArgs),
    /// Forget the credential for a registry.
    Logout(LogoutArgs),
    /// Print what is known of an image: its program, its layers, what it shares.
    Inspect(InspectArgs),
    /// Give an image more names.
    Tag(TagArgs),
    /// Remove images.
    Rmi(RmiArgs),
    /// Remove what no image needs, and images by age or size.
    Prune(PruneArgs),
    /// Look after the store.
    Store(StoreArgs),
    /// Look after profiles: what programs may do.
    Profile(ProfileArgs),
    /// Let the profile of a project, .casemate.toml, allow more than the one that was named.
    Trust(TrustArgs),
    /// Look at system call filters.
    Seccomp(SeccompArgs),
    /// Let programs start in their boxes wherever they are called by name.
    Shim(ShimArgs),
    /// Print shell aliases that start programs in their boxes.
    Alias(AliasArgs),
    /// Look after the process that keeps a range of ids between boxes.
    Holder(HolderArgs),
    /// Try on this machine each thing that a box needs, and say what to change.
    Doctor(DoctorArgs),
    /// Print a script that completes words in a shell.
    Completion(CompletionArgs),
    /// Complete a word, for the scripts of `completion`.
    #[command(name = "__complete", hide = true)]
    Complete(CompleteArgs),
}

/// `casemate run`
#[derive(Debug, Args)]
#[command(after_help = "Everything from the first word that is not an option belongs to the \
    command. The exit code is the command's own; 128+N when signal N ended it; 124 after --timeout; \
    125 when casemate failed; 126 when the command cannot be executed; 127 when it is not found.")]
pub struct RunArgs {
    /// Start from the image NAME instead of the host's own system.
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,

    /// Pull the image: when it is missing (the default), always, never, or when the registry has a
    /// newer one.
    #[arg(long, value_name = "POLICY")]
    pub pull: Option<Pull>,

    /// The profile: the name of one of yours or a shipped one, or a file (with a slash, or ending
    /// in .toml).
    #[arg(short, long, value_name = "FILE|NAME")]
    pub profile: Option<String>,

    /// Do not look for the profile of the project, .casemate.toml.
    #[arg(long)]
    pub no_project: bool,

    /// Bring a file or directory of the host into the box: SRC[:DST[:OPTIONS]], options ro, rw,
    /// exec, noexec (rw and exec if not said). Without DST it keeps its path.
    #[arg(short, long = "volume", value_name = "SRC[:DST[:OPTS]]")]
    pub volumes: Vec<Volume>,

    /// Let the program change this although other programs obey it: a name that casemate.toml(5)
    /// lists, such as .git, or all.
    #[arg(long, value_name = "NAME")]
    pub unprotect: Vec<Protected>,

    /// An empty file system in memory at PATH (options size=, mode=, exec, noexec).
    #[arg(long, value_name = "PATH[:OPTS]")]
    pub tmpfs: Vec<TmpfsGrant>,

    /// Start in this directory of the box.
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,

    /// Set a variable (NAME=VALUE), or pass on the caller's (NAME, or PREFIX*).
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<EnvArg>,

    /// Set variables from a file of NAME=VALUE lines.
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,

    /// Run as this user of the box: a number or a name, with an optional group. Root needs many
    /// ids, or --fake-root.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<UserSpec>,

    /// The ids of the box: auto, single (your own), many (a range of subordinate ids), or keep-id
    /// (a range, and your own as the program's).
    #[arg(long, value_name = "IDS")]
    pub userns: Option<Ids>,

    /// Map user ids: INSIDE:OUTSIDE[:COUNT]; outside, 0 is your own and 1 the first subordinate one.
    #[arg(long = "uidmap", value_name = "IN:OUT[:COUNT]")]
    pub uid_map: Vec<MapLine>,

    /// Map group ids; as --uidmap where it is not given.
    #[arg(long = "gidmap", value_name = "IN:OUT[:COUNT]")]
    pub gid_map: Vec<MapLine>,

    /// With one id, let changes of owner and id succeed without effect, so that package managers
    /// run; the program is root by name only.
    #[arg(long)]
    pub fake_root: bool,

    /// The host name in the box.
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<Hostname>,

    /// The network: none, or the host's.
    #[arg(long, visible_alias = "net", value_name = "none|host")]
    pub network: Option<NetworkMode>,

    /// Make the root read-only; /tmp, /var/tmp, /run, /dev/shm and a home that the image does not
    /// have stay writable.
    #[arg(long)]
    pub read_only: bool,

    /// Keep standard input open. It always is; accepted because fingers know it from podman.
    #[arg(short, long)]
    pub interactive: bool,

    /// Give the program a terminal of its own also where input and output are none.
    #[arg(short, long)]
    pub tty: bool,

    /// End the box after this time (seconds, or 30s, 5m, 2h): SIGTERM, two seconds later SIGKILL.
    /// 0 is no limit.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Duration>,

    /// Limit each process: NAME=SOFT[:HARD], such as nofile=1024:4096.
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<UlimitArg>,

    /// Limits of the box in total.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Refuse to run where these limits can only be weaker than said.
    #[arg(long)]
    pub require_limits: bool,

    /// The name of the box while it runs, for `ps`, `kill` and others.
    #[arg(long, value_name = "NAME")]
    pub name: Option<BoxName>,

    /// Run this instead of the image's entrypoint; an empty word drops it.
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<OsString>,

    /// What assembles an image's layers: auto, kernel, hybrid or fuse.
    #[arg(long, value_name = "MODE")]
    pub overlay: Option<Overlay>,

    /// Keep extended attributes in a root of --overlay fuse, where they are kept anyway if a layer of
    /// the image has some. With =false there are none, which is faster.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub xattrs: Option<bool>,

    /// Where writes to an image's root go: auto, memory or disk. They are thrown away either way.
    #[arg(long, value_name = "WHERE")]
    pub scratch: Option<Scratch>,

    /// Run although this control cannot be applied here (landlock, abstract-sockets, keyring, ids,
    /// tcp-ports, lsm, limits).
    #[arg(long, value_name = "CONTROL")]
    pub may_degrade: Vec<Control>,

    /// Print no warnings.
    #[arg(short, long)]
    pub quiet: bool,

    /// The command and its arguments.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `casemate explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// What would run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// `casemate doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Try nothing; print an AppArmor profile that allows casemate user namespaces, to install where
    /// the system restricts them.
    #[arg(long, conflicts_with = "json")]
    pub apparmor: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> RunArgs {
        let words = ["casemate", "run"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_end_at_the_first_word() {
        let args = run(&["-q", "ls", "-q", "--image", "x"]);
        assert!(args.quiet && args.image.is_none());
        assert_eq!(args.command, ["ls", "-q", "--image", "x"]);
        assert_eq!(run(&["--", "--image", "x"]).command, ["--image", "x"]);
        assert_eq!(run(&["ls", "--", "-l"]).command, ["ls", "--", "-l"]);
        assert!(Cli::try_parse_from(["casemate", "run", "--netwrok", "none", "ls"]).is_err());
    }

    #[test]
    fn podmans_short_forms_work() {
        let args = run(&["-it", "-v", "/a:/b:ro", "-e", "A=1", "-u", "5:6", "-w", "/w", "sh"]);
        assert!(args.interactive && args.tty);
        assert_eq!(args.workdir.as_deref(), Some(std::path::Path::new("/w")));
    }
}
