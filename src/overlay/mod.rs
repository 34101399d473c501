//! casemate's own overlay file system, served by a process of its own through FUSE.

pub mod wire;
