//! What is true of this machine and this caller, found out by trying.

mod diagnosis;
pub mod doctor;
mod facts;
pub mod overlay;
mod settings;
mod step;
mod world;

pub use diagnosis::{Clues, Diagnosis, diagnose};
pub use facts::{Directories, Host};
pub use settings::Settings;
pub use step::Step;
pub use world::{Live, Source, World};
