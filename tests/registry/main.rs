//! The client of registries: against a real one, and against servers that mean ill or break.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod authorization;
mod hostile;
mod login;
mod real;
mod server;

use std::path::Path;

use casemate::image::Reference;
use casemate::registry::{Access, Environment, Options, Registries, Remote};

/// Settings in this directory and nowhere else.
fn environment(home: &Path) -> Environment {
    Environment {
        home: Some(home.to_owned()),
        config: Some(home.join("config")),
        system: Some(home.join("etc")),
        ..Environment::default()
    }
}

/// Options that know nothing and call nothing insecure.
fn strict(home: &Path) -> Options {
    Options { environment: environment(home), ..Options::default() }
}

/// Options that call every registry insecure.
fn insecure(home: &Path) -> Options {
    Options { tls_verify: Some(false), ..strict(home) }
}

fn open(options: Options, name: &str, access: Access) -> (Remote, Reference) {
    let reference = Reference::parse(name).unwrap();
    let remote = Registries::load(options).unwrap().open(&reference, access).unwrap();
    (remote, reference)
}

/// Writes a file of settings, with the directories above it.
fn write(home: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = home.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
