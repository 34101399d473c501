//! The system call filter: which calls a box may make, and the BPF program that says so.
//!
//! [`Policy`] is plain data: an action for each call by name, a default for the rest. It prints,
//! compares and serialises; nothing in it depends on the machine. [`Policy::compile`] turns it into
//! a classic BPF program for seccomp(2); for the default policy that was done when casemate was
//! built ([`Filter`]).
//!
//! libseccomp supplies the numbers of the names and nothing else. Its generator cannot say "allow,
//! unless the masked argument is one of these" under a default other than allow (a rule on a value
//! only adds an exception to the default), and its programs are longer; length is what seccomp(2)
//! takes its time for, on every start.

mod arch;
mod assemble;
mod compile;
mod defaults;
mod describe;
mod disassemble;
mod filter;
mod init;
mod names;
mod oci;
mod policy;
mod tables;
mod verify;
mod workers;

pub use arch::Architecture;
pub use disassemble::disassemble;
pub use filter::{Filter, default_program, encode, init_program};
pub use names::{errno, resolve};
pub use oci::{Given, from_oci};
pub use policy::{Action, Clause, Condition, Name, Operator, Policy, Rule};
pub use tables::{group, groups, reason};
pub use verify::{MAX_INSTRUCTIONS, verify};
