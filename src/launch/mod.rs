//! Executing a [`Sandbox`](crate::sandbox::Sandbox): one file a process. The supervisor stays in
//! the host's namespaces; its child makes the box (`child`) and becomes its PID 1 (`init`); the
//! program's process (`payload`) is forked from that; the root's own server (`overlay`), where there
//! is one, is the supervisor's too, or is `shared` by boxes. They talk in `message`s.

mod child;
mod devices;
mod handover;
mod init;
mod maker;
mod message;
mod namespaces;
mod network;
mod overlay;
mod payload;
mod place;
mod placeholders;
mod proc;
mod ranged;
mod root;
mod shared;
mod signals;
mod supervisor;
mod tty;
mod verify;

pub use overlay::Layers;
pub use placeholders::Placeholders;
pub use shared::Sharing;
pub use supervisor::{Options, launch};
