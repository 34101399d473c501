//! Limits of a box in total, and the boxes that run, where no systemd is: a cgroup that an
//! administrator gave to the user, a manager that is not systemd, and some
//! that are none. The real one is in the guest.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod delegated;
mod managers;
mod running;
mod scope;
