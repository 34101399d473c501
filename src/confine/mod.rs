//! What the payload is refused once it runs: one module for each kernel mechanism.

pub mod seccomp;
