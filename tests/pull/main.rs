//! `casemate pull` and `run --pull`: the real binary as an ordinary user, against a real
//! docker-registry on loopback, over links that break, and killed at any moment.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

/// Archives made byte by byte, as the tests of the store have them.
#[path = "../store/common.rs"]
#[allow(dead_code)]
mod archives;
mod breaks;
mod crowd;
mod disk;
mod formats;
mod images;
mod kills;
mod link;
mod names;
mod policies;
mod progress;
mod scene;
#[path = "../registry/server.rs"]
#[allow(dead_code)]
mod server;
