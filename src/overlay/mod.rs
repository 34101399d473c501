//! casemate's own overlay file system, served by a process of its own through FUSE.
//!
//! [`wire`] is the protocol; [`Lowers`] the layers of an image as one tree; [`ReadOnly`] shows that
//! tree and no more, for the kernel's overlayfs to lay a writable layer over; [`serve`] is the
//! process. The device is opened and [`mount`] called in the user namespace of the box, and the
//! device is then handed to the server, which lives outside of it.

mod common;
mod files;
mod lowers;
mod mount;
mod owners;
mod readonly;
mod server;
mod turns;
pub mod wire;
mod writable;

pub use lowers::{Id, Listed, Lowers};
pub use mount::{Mounting, mount};
pub use owners::Owners;
pub use readonly::ReadOnly;
pub(crate) use server::give_up;
pub use server::{FileSystem, serve};
pub use writable::{Upper, Writable};
