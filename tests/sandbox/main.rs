//! What a box is and does, on the real kernel, as an unprivileged user.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod exits;
mod files;
mod identity;
mod images;
mod limits;
mod network;
mod odd;
mod overlay;
mod signals;
mod streams;
mod terminal;
mod work;
