//! The limits of boxes, and the commands for boxes that run.

use std::str::FromStr;

use clap::Args;
use nix::sys::signal::Signal;

use crate::profile::{Amount, Count, CpuSet, Cpus, Weight};
use crate::running::is_name;

/// How much a box may use in total.
#[derive(Debug, Default, Args)]
pub struct LimitArgs {
    /// Memory of the whole box (512m, 2g, 50%), at least 6m. 0 is no limit.
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<Amount>,

    /// Memory above which the box is slowed down.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_high: Option<Amount>,

    /// Memory and swap together, as podman counts them. Without it a box with a limit of memory has
    /// no swap.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<Amount>,

    /// Processes and threads of the program. -1 is no limit.
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    pub pids_limit: Option<Count>,

    /// Processors, with decimals (0.5). 0 is no limit.
    #[arg(long, value_name = "COUNT")]
    pub cpus: Option<Cpus>,

    /// Share of the processors, from 1 to 10000; others have 100.
    #[arg(long, value_name = "WEIGHT")]
    pub cpu_weight: Option<Weight>,

    /// As --cpu-weight, in podman's measure: from 2 to 262144; others have 1024.
    #[arg(short, long, value_name = "SHARES", conflicts_with = "cpu_weight")]
    pub cpu_shares: Option<Shares>,

    /// Share of the disks, from 1 to 10000; others have 100.
    #[arg(long, value_name = "WEIGHT")]
    pub io_weight: Option<Weight>,

    /// As --io-weight, in podman's measure: from 10 to 1000.
    #[arg(long, value_name = "WEIGHT", conflicts_with = "io_weight")]
    pub blkio_weight: Option<BlkioWeight>,

    /// The processors that it may use (0-3,6).
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<CpuSet>,
}

/// `casemate ps`
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Print names and nothing else.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// `casemate stats`
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Print JSON, once.
    #[arg(long)]
    pub json: bool,

    /// Print once, also on a terminal.
    #[arg(long)]
    pub no_stream: bool,

    /// Names of boxes; all that run where none is given.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// `casemate kill`
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Which signal: a name or a number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: SignalArg,

    /// Names of boxes.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// `casemate pause` and `casemate resume`
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Names of boxes.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// `casemate update`
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// What it may use from now on.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// The name of the box.
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// The name of a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxName(pub String);

impl FromStr for BoxName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if is_name(text) {
            return Ok(BoxName(text.to_owned()));
        }
        Err("a name has letters, digits, '_', '.' and '-', begins with a letter or a digit, and is not longer than 64"
            .to_owned())
    }
}

/// Shares of the processors as the first version of cgroups counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares(pub Weight);

impl FromStr for Shares {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shares = within(text, 2, 262_144)?;
        // The curve through 2 and 1, 1024 and 100, 262144 and 10000, as newer OCI runtimes have it
        // (crun 1.23, runc 1.3.2): what others have is the same in both measures.
        let log = (shares as f64).log2();
        let weight = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
        // Whole numbers come out a little above themselves.
        Ok(Shares(Weight((weight - 1e-6).ceil().clamp(1.0, 10_000.0) as u16)))
    }
}

/// A weight of the disks as the first version of cgroups counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlkioWeight(pub Weight);

impl FromStr for BlkioWeight {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // The whole range onto that of weights, as the OCI runtimes do it (crun(1), "CGROUP v2").
        let weight = 1 + (within(text, 10, 1000)? - 10) * 9999 / 990;
        Ok(BlkioWeight(Weight(u16::try_from(weight).unwrap_or(u16::MAX))))
    }
}

fn within(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{text:?} is not a number from {least} to {most}"))
}

/// A signal by its number or its name, with or without `SIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalArg(pub i32);

impl FromStr for SignalArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(number) = number {
            return if (1..=64).contains(&number) {
                Ok(SignalArg(number))
            } else {
                Err("a signal has a number from 1 to 64".to_owned())
            };
        }
        let upper = text.to_ascii_uppercase();
        let name = format!("SIG{}", upper.strip_prefix("SIG").unwrap_or(&upper));
        let signal = name.parse::<Signal>();
        signal
            .map(|signal| SignalArg(signal as i32))
            .map_err(|_| "no signal has this name (see signal(7))".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_shares_are_scaled() {
        assert_eq!("2".parse(), Ok(Shares(Weight(1))));
        assert_eq!("512".parse(), Ok(Shares(Weight(59))));
        assert_eq!("1024".parse(), Ok(Shares(Weight(100))));
        assert_eq!("2048".parse(), Ok(Shares(Weight(174))));
        assert_eq!("262144".parse(), Ok(Shares(Weight(10_000))));
        assert_eq!("10".parse(), Ok(BlkioWeight(Weight(1))));
        assert_eq!("500".parse(), Ok(BlkioWeight(Weight(4950))));
        assert_eq!("1000".parse(), Ok(BlkioWeight(Weight(10_000))));
        for bad in ["", "1", "262145", "-2", "+2"] {
            assert!(bad.parse::<Shares>().is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("usr1", 10), ("64", 64)] {
            assert_eq!(text.parse(), Ok(SignalArg(number)), "{text}");
        }
        for bad in ["", "0", "65", "-9", "+9", "SIGNONE", "SIGSIGKILL"] {
            assert!(bad.parse::<SignalArg>().is_err(), "{bad}");
        }
    }
}
