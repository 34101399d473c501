//! Ids: a range of them in a box, who gives it, and one that passes for root. The suite's user has
//! subordinate ids and newuidmap is there; nsresourced is tested in the guest (tests/vm).

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod backends;
mod fake;
mod many;
mod packages;

use std::ffi::OsStr;

use common::{Run, Workspace, casemate};

/// A user's settings and runtime directory of a test's own, so that each has its own holder.
struct Scene {
    space: Workspace,
}

impl Scene {
    /// One where newuidmap may be started.
    fn new() -> Scene {
        Scene::with("allow-setuid-helper = true\n")
    }

    /// One with these settings.
    fn with(settings: &str) -> Scene {
        let space = Workspace::new();
        space.file("config/casemate/config.toml", settings);
        let runtime = space.directory("run");
        Run::new("chmod").args(["700", &runtime]).output().succeeds();
        Scene { space }
    }

    /// The command in this scene.
    fn at_home(&self, run: Run) -> Run {
        run.env("XDG_CONFIG_HOME", self.space.at("config"))
            .env("XDG_RUNTIME_DIR", self.space.at("run"))
    }

    /// `casemate` with these words.
    fn casemate<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Run {
        self.at_home(casemate(words)).with_fuse()
    }

    /// A shell script in a box with these options.
    fn shell(&self, options: &[&str], script: &str) -> Run {
        self.casemate(["run"]).args(options).args(["--", "sh", "-c", script])
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.at_home(casemate(["holder", "stop"])).output().succeeds();
        }
    }
}
