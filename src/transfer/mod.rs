//! Images on the move: from a registry into the store, from the store to a registry or a file. The
//! one room that knows both sides.

mod pull;
mod watch;

pub use pull::{Platforms, Pulled, pull};
pub use watch::{Unwatched, Watch};
