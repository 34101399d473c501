//! What a program may expect of the root of an image, in every mode of the root: one suite over all.
//!
//! `modes.rs` names the modes, `layers.rs` makes an image for the checks of `probe/`, `expectations.rs`
//! lists where a mode differs from a plain file system, and why.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../store/common.rs"]
#[allow(dead_code, unused_macros)]
mod archive;
#[path = "../common/mod.rs"]
mod common;

mod attributes;
mod checks;
mod expectations;
mod inner;
mod layers;
mod limits;
mod modes;
mod random;
mod together;
mod trees;
mod work;
