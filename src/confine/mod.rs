//! What a program may do once it runs: capabilities, Landlock, system calls, limits.

pub mod capabilities;
pub mod landlock;
pub mod lsm;
pub mod rlimits;
pub mod seccomp;
