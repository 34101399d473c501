//! Images out of the store and into it, by every way that there is: archives, registries, pipes, and
//! the stores of other tools. The other tools are the oracles.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod home;
mod import;
mod push;
mod save;
mod tools;
