//! The user's own settings: `$XDG_CONFIG_HOME/casemate/config.toml`. They are about this machine and
//! not about a program, and no profile can say them: a profile may come with a project.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{During, Error, Result};
use crate::place::located;

/// More is no such file.
const LIMIT: u64 = 64 << 10;

/// What the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Whether newuidmap(1) and newgidmap(1), which are setuid, may be started for a range of ids.
    pub allow_setuid_helper: bool,
}

impl Settings {
    /// Where the file is, below the directory of all settings.
    pub fn path(config: &Path) -> PathBuf {
        config.join("casemate").join("config.toml")
    }

    /// Reads it. Without a file all is as if nothing was said. A file that another could have
    /// written is refused.
    pub fn read(config: Option<&Path>) -> Result<Settings> {
        let Some(config) = config else { return Ok(Settings::default()) };
        let path = Settings::path(config);
        let opened =
            File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(&path);
        let file = match opened {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Ok(Settings::default());
            }
            opened => opened.at("open", &path)?,
        };
        let found = file.metadata().at("look at", &path)?;
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        // Where every user has a group of the own, the usual mask is 002.
        let others = if found.gid() == own.1 { 0o002 } else { 0o022 };
        if !found.is_file() || ![0, own.0].contains(&found.uid()) || found.mode() & others != 0 {
            return Err(Error::new(format!(
                "{}: not a file that only you can write to",
                path.display()
            ))
            .hint(format!("chmod go-w {}", path.display())));
        }
        let mut text = String::new();
        file.take(LIMIT).read_to_string(&mut text).at("read", &path)?;
        Settings::parse(&path.display().to_string(), &text)
    }

    /// Parses the text of the file that goes by `name` in messages.
    pub fn parse(name: &str, text: &str) -> Result<Settings> {
        toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            located(name, text, span, error.message())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_setting_is_an_error() {
        assert_eq!(Settings::parse("c", "").unwrap(), Settings::default());
        let settings = Settings::parse("c", "allow-setuid-helper = true\n").unwrap();
        assert!(settings.allow_setuid_helper);
        for bad in ["allow_setuid_helper = true", "allow-setuid-helper = 1", "x", "[root]"] {
            assert!(
                Settings::parse("c", bad).unwrap_err().to_string().starts_with("c:1:"),
                "{bad}"
            );
        }
    }
}
