//! What a machine is, in the words that images use (Go's).

use std::fmt;
use std::str::FromStr;

use oci_spec::image::Descriptor;

use crate::error::{Error, Result};

/// An operating system, a processor and its variant: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `riscv64`, …
    pub architecture: String,
    /// `v7` and the like; none where the processor has no variants that matter.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        Platform::new("linux", host_architecture(), None)
    }

    /// Brings what has several names to one: `aarch64` is arm64, which is v8 without saying so.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let variant = variant.filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "i686" | "x86", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", None) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", None) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            other => other,
        };
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// What a descriptor says, if it says it.
    pub(super) fn of(descriptor: &Descriptor) -> Option<Self> {
        let platform = descriptor.platform().as_ref()?;
        let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
        Some(Platform::new(&os, &architecture, platform.variant().as_deref()))
    }

    /// How well what is made for `made` runs here: the lower the better, `None` not at all.
    pub(super) fn distance(&self, made: &Platform) -> Option<u32> {
        if self.os != made.os || self.architecture != made.architecture {
            return None;
        }
        let level = |variant: &Option<String>| -> Option<u32> {
            variant.as_deref().map_or(Some(0), |text| text.strip_prefix('v')?.parse().ok())
        };
        if self.variant == made.variant {
            return Some(0);
        }
        // A processor runs what was made for its forerunners: v7 runs v6, amd64/v3 runs amd64.
        // Where the host's own variant is not known, only what asks for none is sure to run.
        let (ours, theirs) = (level(&self.variant)?, level(&made.variant)?);
        ours.checked_sub(theirs)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `OS/ARCHITECTURE[/VARIANT]`, or the architecture alone.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let is_word = |part: &&str| {
            let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            !part.is_empty() && part.len() <= 64 && part.bytes().all(known)
        };
        if !parts.iter().all(is_word) {
            return Err(unreadable(text));
        }
        match *parts.as_slice() {
            ["linux"] => Ok(Platform::host()),
            [architecture] => Ok(Platform::new("linux", architecture, None)),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(unreadable(text)),
        }
    }
}

fn unreadable(text: &str) -> Error {
    Error::new(format!("platform {text:?}: expected OS/ARCHITECTURE[/VARIANT]"))
        .hint("for example linux/amd64 or linux/arm/v7")
}

/// The processor of this host in Go's words, which images use.
pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn one_platform_has_one_name() {
        for (text, name) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(text).to_string(), name);
        }
        assert_eq!(platform("linux"), Platform::host());
        for wrong in ["", "/", "linux/", "a/b/c/d", "linux/a b", "linux/\u{1b}"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_processor_runs_what_was_made_for_its_forerunners() {
        let distance = |here: &str, made: &str| platform(here).distance(&platform(made));
        assert_eq!(distance("linux/arm/v7", "linux/arm/v7"), Some(0));
        assert_eq!(distance("linux/arm/v7", "linux/arm/v6"), Some(1));
        assert_eq!(distance("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(distance("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(distance("linux/amd64/v3", "linux/amd64"), Some(3));
        assert_eq!(distance("linux/amd64", "linux/arm64"), None);
        assert_eq!(distance("linux/amd64", "windows/amd64"), None);
    }
}
