//! The commands, one file each.

pub mod images;
pub mod import;
