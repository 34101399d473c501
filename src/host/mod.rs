//! What is true of this machine and this caller, found out by trying.

pub mod apparmor;
mod clues;
mod diagnosis;
pub mod doctor;
mod facts;
mod home;
mod look;
mod notes;
pub mod overlay;
mod settings;
mod step;
mod world;

pub use clues::{Around, Clues};
pub use diagnosis::{Finding, IDS, Level, diagnose, note};
pub use facts::{Directories, Host};
pub use look::{Here, Look};
pub use settings::Settings;
pub use step::Step;
pub use world::{Live, Source, World};
