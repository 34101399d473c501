//! The system call filter: its programs run in an interpreter, against a golden table, against
//! libseccomp and against the policy itself; and one is loaded into the kernel.

// clippy.toml allows it in test functions only, not in what they share.
#![allow(clippy::unwrap_used)]

mod compiled;
mod equivalence;
mod golden;
mod interpreter;
mod kernel;
mod policy;
mod random;
