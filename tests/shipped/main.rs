//! The shipped profiles, each by really running its program: it does its job, it does not see a secret
//! in the home, and it has no network where that is not its purpose.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod compiled;
mod documents;
mod listed;
mod python;
mod scripts;
mod server;
mod transfer;
mod walls;

use common::{Run, Workspace, casemate};

/// What lies in the home, and no program may see.
const SECRET: &str = "the-secret-of-the-home";

/// A user with a home, a secret in it, and a project, in which everything is started.
struct Home {
    space: Workspace,
}

impl Home {
    fn new() -> Home {
        let home = Home { space: Workspace::new() };
        home.space.file("secret", SECRET);
        home.space.file(".ssh/id_ed25519", SECRET);
        home.space.directory("project");
        home
    }

    /// The path of a name in the home.
    fn at(&self, name: &str) -> String {
        self.space.at(name)
    }

    /// Writes a file of the project.
    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        self.space.file(&format!("project/{name}"), contents)
    }

    fn read(&self, name: &str) -> String {
        self.space.read(&format!("project/{name}"))
    }

    fn has(&self, name: &str) -> bool {
        self.space.path().join("project").join(name).exists()
    }

    /// A command in the project, with this home.
    fn placed(&self, run: Run) -> Run {
        run.env("HOME", self.space.path())
            .without_env("XDG_DATA_HOME")
            .without_env("XDG_CACHE_HOME")
            .directory(self.space.path().join("project"))
            .timeout(std::time::Duration::from_secs(180))
    }

    /// `casemate` with these words.
    fn casemate(&self, words: &[&str]) -> Run {
        self.placed(casemate(words.iter().copied()))
    }

    /// A script outside of any box, as the same user.
    fn outside(&self, script: &str) -> Run {
        self.placed(Run::bash(script))
    }

    /// A script in which `casemate` is in the path.
    fn script(&self, script: &str) -> Run {
        self.outside(&format!("set -e; casemate() {{ \"$casemate\" \"$@\"; }}\n{script}"))
    }

    /// Demands that what a program printed has the words and not the secret, where `control`, the same
    /// outside, has the secret.
    fn keeps_the_secret(&self, control: &str, boxed: Run) {
        assert!(self.outside(control).output().out().contains(SECRET), "{control}");
        let output = boxed.output();
        let all = output.out() + &output.err();
        assert!(!all.contains(SECRET), "{control}: {all}");
        assert!(!all.contains("casemate: "), "{control}: {all}");
    }
}
