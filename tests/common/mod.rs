//! What all of casemate's system tests share: the unprivileged user they run as, the real binary,
//! real images, a terminal, the attack probe, and the check that a box left nothing behind.
//!
//! The suite may be started by root, and then makes a user `casemate-test` and runs everything as it;
//! or by an ordinary user, and then runs as that one. Nothing here knows how casemate works inside.

// Each test binary uses its own part of this module.
#![allow(dead_code, unreachable_pub, unused_imports)]
// The exemption of clippy.toml reaches test functions only, and all of this is called by them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

pub mod command;
pub mod images;
pub mod leftovers;
pub mod probe;
pub mod pty;
pub mod registry;
pub mod requirements;
pub mod stream;
pub mod user;
pub mod workspace;

pub use command::{Output, Run, Running, casemate};
pub use images::{Image, image};
pub use leftovers::Leftovers;
pub use probe::{boxed_probe, compile, plain_probe, probe};
pub use pty::Pty;
pub use requirements::{control, require_root};
pub use user::user;
pub use workspace::Workspace;
