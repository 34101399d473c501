//! What only the guest of tests/vm can show: a user manager, delegated cgroups, id ranges, AppArmor.
//! The tests are ignored elsewhere; `make test-vm` runs them, as an ordinary user in a session.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod apparmor;
mod cgroup;
mod ids;
mod system;

use common::{Run, user};

/// The command as it is in the user's session: with its runtime directory and its bus, where the tests
/// have their own otherwise.
fn in_session(command: Run) -> Run {
    let runtime = format!("/run/user/{}", user().uid);
    let bus = format!("unix:path={runtime}/bus");
    command.env("XDG_RUNTIME_DIR", runtime).env("DBUS_SESSION_BUS_ADDRESS", bus)
}

/// What only root can arrange in the guest.
fn as_root(script: &str) -> Run {
    Run::new("sudo").args(["-n", "sh", "-c", script])
}
