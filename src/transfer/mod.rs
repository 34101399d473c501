//! Images on the move: from a registry into the store, from the store to a registry or a file. The
//! one room that knows both sides.

mod import;
mod output;
mod pull;
mod push;
mod save;
mod watch;

pub use import::import;
pub use output::Output;
pub use pull::{Platforms, Pulled, pull};
pub use push::{Push, Pushed, push};
pub use save::{Saved, save};
pub use watch::{Unwatched, Watch};
