//! Profiles from outside: where they are found, what they build on, what comes of them in a box, and
//! the commands for them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod files;
mod filters;
mod project;
mod protected;
mod wrap;

use std::path::{Path, PathBuf};

use common::{Run, Workspace, casemate};

/// A place with a configuration directory of its own.
struct Place {
    space: Workspace,
}

impl Place {
    fn new() -> Place {
        let place = Place { space: Workspace::new() };
        place.space.directory("config/casemate/profiles");
        place
    }

    fn config(&self) -> PathBuf {
        self.space.path().join("config")
    }

    fn profile(&self, name: &str, text: &str) -> String {
        self.space.file(&format!("config/casemate/profiles/{name}.toml"), text)
    }

    fn casemate(&self, words: &[&str]) -> Run {
        casemate(words.iter().copied())
            .env("XDG_CONFIG_HOME", self.config())
            .directory(self.space.path())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
