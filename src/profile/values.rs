//! The values of the profile language: each knows its own syntax, so that a wrong one is an error
//! at its place, whether it came from a file or from an option.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::amounts::{Amount, Count, CpuSet, Cpus, Weight};
use super::filters::{Bits, Comparison, ErrnoName, RuleAction, SeccompBase};
use super::ids::Ids;
use super::names::{CommandName, Port, SecurityLabel};
use super::protected::Protected;
use crate::image::Reference;

/// A key that belongs to the language and that this version cannot enforce. Saying it is an error:
/// a control is applied or refused, never skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved(());

impl<'de> Deserialize<'de> for Reserved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Err(de::Error::custom(
            "this key is reserved: this version of casemate cannot enforce it, and ignores nothing",
        ))
    }
}

/// Deserializes through a parser of text. The parser runs inside the visitor, so that its error
/// gets the place of this very value, also within a list.
struct Text<F>(&'static str, bool, F);

impl<T, F: FnOnce(&str) -> Result<T, String>> de::Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        (self.2)(value).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        if self.1 {
            return self.visit_str(&value.to_string());
        }
        Err(E::invalid_type(de::Unexpected::Signed(value), &self))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        if self.1 {
            return self.visit_str(&value.to_string());
        }
        Err(E::invalid_type(de::Unexpected::Float(value), &self))
    }
}

/// An image's name.
pub(super) fn reference<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Reference>, D::Error> {
    let parse = |text: &str| Reference::parse(text).map(Some).map_err(|error| error.to_string());
    deserializer.deserialize_any(Text("the name of an image", false, parse))
}

/// Implements `Deserialize` through `FromStr`, so that files and options share one syntax;
/// `or number` also takes an integer.
macro_rules! from_text {
    ($($type:ty: $expected:literal $(or $number:ident)?;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = false $(|| stringify!($number) == "number")?;
                deserializer.deserialize_any(Text($expected, number, str::parse))
            }
        }
    )*};
}

from_text! {
    Amount: "an amount (1048576, \"512m\", \"50%\", \"unlimited\")" or number;
    Capability: "the name of a capability";
    CommandName: "the name of a program";
    Control: "the name of a control";
    Count: "a number, or \"unlimited\"" or number;
    CpuSet: "a list of processors (\"0-3,6\")" or number;
    Cpus: "a number of processors (2, 0.5)" or number;
    EnvName: "the name of an environment variable";
    EnvValue: "text";
    Hostname: "a host name";
    Ids: "a word";
    NetworkMode: "a word";
    Overlay: "a word";
    Port: "a port, 1 to 65535" or number;
    Pull: "a word";
    Pattern: "the name of an environment variable, or its beginning and `*`";
    Protected: "the name of a protected path";
    ResourceName: "the name of a limit";
    Scratch: "a word";
    SeccompBase: "a word or a path";
    RuleAction: "a word";
    Comparison: "a comparison";
    ErrnoName: "the name of an errno";
    Bits: "a number" or number;
    SecurityLabel: "a name";
    Terminal: "a word";
    UserSpec: "a user: a number or \"name[:group]\"" or number;
    Duration: "a time span (30, \"30s\", \"5m\", \"2h\", \"30d\")" or number;
    Weight: "a weight from 1 to 10000" or number;
    Size: "a size (1048576, \"512m\", \"2GiB\", \"50%\")" or number;
    ResourceLimit: "a limit (1024, \"1024:4096\", \"unlimited\")" or number;
}

/// An enumeration of words, with the words that other versions will know.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal {
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*
    } $(later { $($later:literal),* })?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The word in profiles and on the command line.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($name::$variant),)*
                    $($($later)|* => Err(format!(
                        "{} {text:?} is reserved: this version of casemate does not have it", $what
                    )),)?
                    _ => Err(format!(
                        "unknown {} {text:?}, expected one of {}",
                        $what,
                        [$($word),*].join(", ")
                    )),
                }
            }
        }
    };
}

words! {
    /// Which overlay assembles the layers of an image.
    Overlay, "overlay" {
        /// The cheapest that gives what the plan needs.
        Auto = "auto",
        /// The kernel's overlayfs on the layers.
        Kernel = "kernel",
        /// The kernel's overlayfs on the merged layers as casemate's own FUSE server shows them.
        Hybrid = "hybrid",
        /// casemate's own FUSE server alone.
        Fuse = "fuse",
    }
}

words! {
    /// Where writes to the root go until the box ends.
    Scratch, "scratch" {
        /// In memory where the kernel's tmpfs can hold an upper layer, else on disk.
        Auto = "auto",
        /// In memory (tmpfs).
        Memory = "memory",
        /// On disk, below the store; removed when the box ends.
        Disk = "disk",
    }
}

words! {
    /// When the image is pulled from its registry.
    Pull, "pull policy" {
        /// Every time; what cannot be pulled is not run.
        Always = "always",
        /// When the store does not have it.
        Missing = "missing",
        /// Not at all.
        Never = "never",
        /// When the registry has another one by now, as far as it can be asked.
        Newer = "newer",
    }
}

words! {
    /// What the program can reach.
    NetworkMode, "network" {
        /// A network namespace of its own with nothing but loopback.
        None = "none",
        /// The host's network, as any program of the user has it.
        Host = "host",
    }
}

words! {
    /// Whether the program gets a pseudo-terminal of its own.
    Terminal, "terminal" {
        /// When standard input and output are terminals.
        Auto = "auto",
        /// Always.
        Always = "always",
        /// Never: standard input, output and error are passed as they are.
        Never = "never",
    }
}

words! {
    /// A control that a profile may be willing to lose.
    Control, "control" {
        /// The Landlock rules that follow from the file grants.
        Landlock = "landlock",
        /// Landlock's wall before the host's abstract sockets, which matters with its network.
        AbstractSockets = "abstract-sockets",
        /// The session keyring of the box's own.
        Keyring = "keyring",
        /// `network.tcp-connect` and `tcp-bind`.
        TcpPorts = "tcp-ports",
        /// `[lsm]`.
        Lsm = "lsm",
        /// Many ids; what is left is one, with changes of owner that succeed without effect.
        Ids = "ids",
        /// Limits of the box in total whose controllers are not delegated to the user.
        Limits = "limits",
    }
}

/// The capabilities by number (capabilities(7)), up to CAP_CHECKPOINT_RESTORE (Linux 5.9).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// A capability by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(pub u32);

impl FromStr for Capability {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("cap_").unwrap_or(&lower);
        CAPABILITIES
            .iter()
            .position(|known| *known == name)
            .and_then(|number| u32::try_from(number).ok())
            .map(Capability)
            .ok_or_else(|| format!("unknown capability {text:?} (see capabilities(7))"))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = usize::try_from(self.0).ok().and_then(|number| CAPABILITIES.get(number));
        write!(f, "CAP_{}", name.unwrap_or(&"?").to_ascii_uppercase())
    }
}

impl Serialize for Capability {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Who the program is: `uid[:gid]` or `name[:group]`. Numbers are decimal digits and nothing else
/// (CVE-2026-30892 was a lenient parser).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// The user.
    pub user: Id,
    /// The group, when it was named.
    pub group: Option<Id>,
}

/// A user or group by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// By number.
    Number(u32),
    /// By name, looked up in the box's own /etc/passwd or /etc/group.
    Name(String),
}

impl FromStr for Id {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The last value is (uid_t)-1, which system calls read as "leave it" (chown(2)).
            return match text.parse() {
                Ok(number) if number != u32::MAX => Ok(Id::Number(number)),
                _ => Err(format!("id {text:?} is out of range")),
            };
        }
        // shadow's rule for names, with the trailing `$` of machine accounts.
        let mut bytes = text.strip_suffix('$').unwrap_or(text).bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if first && rest && text.len() <= 32 {
            Ok(Id::Name(text.to_owned()))
        } else {
            Err(format!("{text:?} is neither a number nor a user or group name"))
        }
    }
}

impl FromStr for UserSpec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group.parse()?)),
            None => (text, None),
        };
        Ok(UserSpec { user: user.parse()?, group })
    }
}

/// A host name: at most 64 bytes of letters, digits, dashes and dots (sethostname(2), RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname(pub String);

impl FromStr for Hostname {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 64 && text.split('.').all(label) {
            Ok(Hostname(text.to_owned()))
        } else {
            Err(format!("{text:?} is not a host name"))
        }
    }
}

/// The name of an environment variable: not empty, no `=`, no NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvName(pub String);

impl FromStr for EnvName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains(['=', '\0']) {
            return Err(format!("{text:?} is not the name of an environment variable"));
        }
        Ok(EnvName(text.to_owned()))
    }
}

/// What an environment variable is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// This value.
    Is(OsString),
    /// The caller's value, where the caller has one (`--env NAME`).
    FromCaller,
}

impl FromStr for EnvValue {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("a value must not hold a NUL byte".to_owned());
        }
        Ok(EnvValue::Is(text.into()))
    }
}

/// Which variables are passed on: a name, or a beginning followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Exactly this one.
    Name(EnvName),
    /// Every one that begins so.
    Prefix(String),
}

impl FromStr for Pattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('*') {
            Some("") => Err("\"*\" would pass on every variable; name what is needed".to_owned()),
            Some(prefix) if !prefix.contains(['*', '=', '\0']) => {
                Ok(Pattern::Prefix(prefix.to_owned()))
            }
            Some(_) => Err(format!("{text:?}: only one `*`, at the end")),
            None if text.contains('*') => Err(format!("{text:?}: only one `*`, at the end")),
            None => text.parse().map(Pattern::Name),
        }
    }
}

/// A time span in seconds: a number, or a number with `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Duration(pub u64);

impl FromStr for Duration {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3600),
            Some(b'd') => (&text[..text.len() - 1], 86400),
            _ => (text, 1),
        };
        let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        seconds.filter(|_| digits.bytes().all(|b| b.is_ascii_digit())).map(Duration).ok_or_else(
            || format!("{text:?} is not a time span (30, \"30s\", \"5m\", \"2h\", \"30d\")"),
        )
    }
}

/// A size: bytes, with an optional unit (`k`, `M`, `MiB`, `GB` …: all powers of 1024, as podman
/// reads them), or a percentage of the machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the memory.
    Percent(u8),
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size (1048576, \"512m\", \"2GiB\", \"50%\")");
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse() {
                Ok(percent @ 1..=100) => Ok(Size::Percent(percent)),
                _ => Err(wrong()),
            };
        }
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        let count = digits.parse::<u64>().map_err(|_| wrong())?;
        count.checked_mul(1 << shift).filter(|n| *n > 0).map(Size::Bytes).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    /// As the `size=` option of tmpfs takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Bytes(bytes) => write!(f, "{bytes}"),
            Size::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The resources of setrlimit(2), by podman's `--ulimit` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ResourceName(pub &'static str);

const RESOURCES: [&str; 15] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

impl FromStr for ResourceName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        RESOURCES.iter().find(|known| **known == text).map(|known| ResourceName(known)).ok_or_else(
            || format!("unknown limit {text:?}, expected one of {}", RESOURCES.join(", ")),
        )
    }
}

/// A soft and a hard limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ResourceLimit {
    /// What applies.
    pub soft: Option<u64>,
    /// How far the program may raise it.
    pub hard: Option<u64>,
}

impl FromStr for ResourceLimit {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let one = |word: &str| match word {
            "unlimited" | "-1" => Ok(None),
            digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map(Some).map_err(|_| format!("limit {digits} is out of range"))
            }
            _ => Err(format!("{word:?} is not a limit (a number or \"unlimited\")")),
        };
        let (soft, hard) = match text.split_once(':') {
            Some((soft, hard)) => (one(soft)?, one(hard)?),
            None => (one(text)?, one(text)?),
        };
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(format!("limit {text:?}: the soft one is above the hard one"));
        }
        Ok(ResourceLimit { soft, hard })
    }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
