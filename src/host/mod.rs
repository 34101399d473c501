//! What is true of this machine and this caller, found out by trying.

mod diagnosis;
pub mod doctor;
mod facts;
mod world;

pub use diagnosis::{Clues, Diagnosis, diagnose};
pub use facts::{Directories, Host};
pub use world::{Live, Source, World};
