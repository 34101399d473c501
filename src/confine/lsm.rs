//! The system's own security modules, where a profile names what they know: an AppArmor profile that
//! is stacked on whatever applies already, so that it can only take away, or a SELinux label. Both
//! count from execve(2) on.

use std::io::Write;

use serde::Serialize;

use crate::error::{During, Error, Result};

/// What is asked of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Labels {
    /// The name of an AppArmor profile that is loaded.
    pub apparmor: Option<String>,
    /// A SELinux context.
    pub selinux: Option<String>,
}

/// Whether AppArmor is there and switched on (apparmor(7)).
pub fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether SELinux is there; its file system is mounted where it is (selinux(8)).
pub fn has_selinux() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
}

impl Labels {
    /// Lets the next execve(2) of this thread enter them. What the kernel refuses is an error.
    pub fn on_exec(&self) -> Result<()> {
        if let Some(name) = &self.apparmor {
            // Its own directory is since Linux 5.1; the older file belongs to the first module.
            let own = write("/proc/thread-self/attr/apparmor/exec", &format!("stack {name}"));
            match own {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    write("/proc/thread-self/attr/exec", &format!("stack {name}"))
                }
                done => done,
            }
            .during("stack AppArmor profile", name)
            .map_err(|error| {
                hint(error, "it must be loaded, and allow stacking: aa-status lists them")
            })?;
        }
        if let Some(label) = &self.selinux {
            write("/proc/thread-self/attr/exec", label)
                .during("set SELinux label", label)
                .map_err(|error| {
                    hint(error, "the policy must allow the transition without new privileges")
                })?;
        }
        Ok(())
    }
}

fn hint(error: Error, text: &str) -> Error {
    error.hint(text)
}

/// One write(2), as the kernel demands.
fn write(path: &str, text: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}
