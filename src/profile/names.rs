//! Names and numbers that mean something outside of casemate.

use std::str::FromStr;

use serde::Serialize;

/// A TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Port(pub u16);

impl FromStr for Port {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let port = text.parse().ok().filter(|port| digits && *port > 0);
        port.map(Port).ok_or_else(|| format!("{text:?} is not a port (1 to 65535)"))
    }
}

/// The name of an AppArmor profile, or a SELinux context: one word, since the kernel's interface
/// separates by spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityLabel(pub String);

impl FromStr for SecurityLabel {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |c: char| c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > 4000 || text.contains(wrong) {
            return Err(format!("{text:?} is not the name of a profile or a label"));
        }
        Ok(SecurityLabel(text.to_owned()))
    }
}

/// The name of a program as a shell finds it: no path, and nothing that reads as an option.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandName(pub String);

impl FromStr for CommandName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = text.is_empty()
            || text.len() > 255
            || text.starts_with(['-', '.'])
            || text.contains(['/', '\0', '=']);
        if wrong {
            return Err(format!("{text:?} is not the name of a program"));
        }
        Ok(CommandName(text.to_owned()))
    }
}
