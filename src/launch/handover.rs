//! What the supervisor hands to the box's first process, and that to the program's.

use std::path::PathBuf;

use super::message::Channel;
use crate::sys::seccomp::Instruction;

/// What crosses the clone beside the plan: the compiled filters and the descriptors.
pub(super) struct Inherited {
    /// The program's filter.
    pub(super) filter: Option<Vec<Instruction>>,
    /// The filter of PID 1.
    pub(super) init_filter: Vec<Instruction>,
    /// The way to the supervisor.
    pub(super) channel: Channel,
    /// Where the network namespace comes from, unless the box has the host's.
    pub(super) network: Option<Channel>,
    /// Where the word comes from that the ids are mapped, where the box has many.
    pub(super) mapped: Option<Channel>,
    /// The way to the overlay's server, where there is one.
    pub(super) overlay: Option<Way>,
    /// The writable layer on disk, where the plan has one: its `upper` and `work`.
    pub(super) scratch: Option<PathBuf>,
}

/// A way to the root's server.
pub(super) enum Way {
    /// To the box's own, which needs the device of the mount that is made here.
    Own(Channel),
    /// To the one of all boxes over the same layers, which gives a mount.
    Shared(Channel),
}
