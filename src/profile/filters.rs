//! The values of `[seccomp]`.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::Deserializer;
use toml::Spanned;

use super::Origin;
use super::places;

/// What a seccomp filter starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeccompBase {
    /// casemate's allow-list.
    Default,
    /// The same without what a program that works on files can do without.
    Strict,
    /// No filter at all.
    None,
    /// A profile as podman and docker read it: a path of the host.
    File(PathBuf),
}

impl SeccompBase {
    /// As profiles say it.
    pub fn words(&self) -> String {
        match self {
            SeccompBase::Default => "default".to_owned(),
            SeccompBase::Strict => "strict".to_owned(),
            SeccompBase::None => "none".to_owned(),
            SeccompBase::File(path) => {
                crate::text::plain(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
            }
        }
    }
}

impl FromStr for SeccompBase {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(SeccompBase::Default),
            "strict" => Ok(SeccompBase::Strict),
            "none" => Ok(SeccompBase::None),
            _ if (text.contains('/') || text.ends_with(".json")) && !text.contains('\0') => {
                places::start(text.as_ref())?;
                Ok(SeccompBase::File(text.into()))
            }
            _ => Err(format!(
                "unknown seccomp base {text:?}; a file is named by its path, otherwise expected one of default, strict, none"
            )),
        }
    }
}

/// What a rule does with the calls that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// They are made.
    Allow,
    /// They are made, and the kernel logs them.
    Log,
    /// They fail.
    Deny,
    /// They end the process.
    Kill,
}

impl RuleAction {
    /// As profiles say it.
    pub fn word(self) -> &'static str {
        match self {
            RuleAction::Allow => "allow",
            RuleAction::Log => "log",
            RuleAction::Deny => "deny",
            RuleAction::Kill => "kill",
        }
    }
}

impl FromStr for RuleAction {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        use RuleAction::{Allow, Deny, Kill, Log};
        [Allow, Log, Deny, Kill].into_iter().find(|action| action.word() == text).ok_or_else(|| {
            format!("unknown action {text:?}, expected one of allow, log, deny, kill")
        })
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison(pub &'static str);

impl FromStr for Comparison {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        ["==", "!=", "<", "<=", ">", ">="]
            .into_iter()
            .find(|known| *known == text)
            .map(Comparison)
            .ok_or_else(|| {
                format!("unknown comparison {text:?}, expected one of ==, !=, <, <=, >, >=")
            })
    }
}

/// The name of an errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrnoName {
    /// The name.
    pub name: String,
    /// Its number.
    pub number: u16,
}

impl FromStr for ErrnoName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = crate::confine::seccomp::errno(text).ok_or_else(|| {
            format!("{text:?} is not the name of an errno, such as EPERM (errno(3))")
        })?;
        Ok(ErrnoName { name: text.to_owned(), number })
    }
}

/// A number of 64 bits, without a sign; text may be hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits(pub u64);

impl FromStr for Bits {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
            _ => text.parse().ok().filter(|_| !text.starts_with('+')),
        };
        parsed
            .map(Bits)
            .ok_or_else(|| format!("{text:?} is not a number of 64 bits without a sign"))
    }
}

/// A condition on one argument.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleArgument {
    /// Which, 0 to 5.
    pub index: u8,
    /// How; equality if not said.
    #[serde(default)]
    pub op: Option<Comparison>,
    /// With what.
    pub value: Bits,
    /// The bits of the argument that are compared.
    #[serde(default)]
    pub mask: Option<Bits>,
}

/// `[[seccomp.rule]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompRule {
    /// The names of calls, or of groups.
    pub calls: Vec<String>,
    /// What happens to them.
    pub action: RuleAction,
    /// How they fail; EPERM if not said.
    pub errno: Option<ErrnoName>,
    /// All of them must hold.
    pub args: Vec<RuleArgument>,
    /// Where it was said.
    pub origin: Origin,
}

impl<'de> Deserialize<'de> for SeccompRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Table {
            calls: Vec<String>,
            action: RuleAction,
            #[serde(default)]
            errno: Option<ErrnoName>,
            #[serde(default)]
            args: Vec<RuleArgument>,
        }
        let spanned = Spanned::<Table>::deserialize(deserializer)?;
        let origin = Origin::Offset(spanned.span().start);
        let Table { calls, action, errno, args } = spanned.into_inner();
        let wrong = |words: &str| Err(serde::de::Error::custom(words));
        if calls.is_empty() {
            return wrong("a rule needs at least one call");
        }
        if errno.is_some() && action != RuleAction::Deny {
            return wrong("`errno` belongs to action = \"deny\"");
        }
        if args.iter().any(|argument| argument.index > 5) {
            return wrong("a system call has the arguments 0 to 5");
        }
        Ok(SeccompRule { calls, action, errno, args, origin })
    }
}
