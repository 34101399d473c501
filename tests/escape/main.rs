//! Attacks. Each test first shows that the attack works on this machine, against a plain process or
//! against a plain namespace, and then that it fails in a box, with the exact errno.
//!
//! The numbers in the names are those of the catalogue of escapes that casemate is built against.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod arguments;
mod credentials;
mod descriptors;
mod grants;
mod ipc;
mod kernel;
mod mounts;
mod overlay;
mod processes;
mod terminal;
