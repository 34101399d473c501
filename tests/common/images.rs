//! Real images, built once for a recipe and imported once for a casemate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::command::casemate;
use super::leftovers::Shared;
use super::user::{is_root, lock, user};

const RECIPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images");

/// The images that the recipes in tests/images know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// Debian with a shell, git, gcc, make, python and node; an OCI layout as a directory.
    Debian,
    /// Busybox in three layers, with Cmd, User, WorkingDir and Env; an OCI layout as a tar.
    Small,
    /// Busybox with an Entrypoint and a Cmd.
    Entry,
    /// The same as `docker save` writes it.
    SmallDocker,
    /// A plain root file system, without a configuration.
    RootfsGz,
    RootfsZst,
    /// One static program and nothing else.
    Static,
    /// An image with a trap of that name.
    Hostile(&'static str),
    /// Debian of about 170 MB in one layer, in the forms that tests/images/measured.sh lists.
    Base,
    /// Debian with compilers, python, git and node, about 870 MB in three layers, in those forms.
    Big,
    /// Debian in three layers, with tools that work on many files: git, gcc, make, python with its own
    /// tests, sqlite, node, npm and rsync; an OCI layout as a directory.
    Tools,
    /// A minimal Debian with a package source of its own, and files of five owners; an OCI layout as a
    /// directory.
    Repository,
}

impl Image {
    /// The name for the recipe, and the ending of the file.
    fn recipe(self) -> (String, &'static str) {
        match self {
            Image::Debian => ("debian".into(), ""),
            Image::Small => ("small".into(), ".tar"),
            Image::Entry => ("entry".into(), ".tar"),
            Image::SmallDocker => ("small-docker".into(), ".tar"),
            Image::RootfsGz => ("rootfs".into(), ".tar.gz"),
            Image::RootfsZst => ("rootfs".into(), ".tar.zst"),
            Image::Static => ("static".into(), ".tar"),
            Image::Hostile(trap) => (format!("hostile-{trap}"), ".tar"),
            Image::Base => ("base".into(), ""),
            Image::Big => ("big".into(), ""),
            Image::Tools => ("tools".into(), ""),
            Image::Repository => ("repository".into(), ""),
        }
    }

    /// The script that builds it, and what else the result depends on.
    fn script(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Image::Base | Image::Big => ("measured.sh", &["apt.sh", "difference.py"]),
            Image::Tools => ("tools.sh", &["apt.sh", "difference.py"]),
            Image::Repository => ("repository.sh", &["apt.sh"]),
            _ => ("build.sh", &["apt.sh", "hello.c", "effective.c"]),
        }
    }

    /// A name for the state of the recipe.
    fn recipe_hash(self) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        let (script, others) = self.script();
        for file in std::iter::once(&script).chain(others) {
            hash.update(fs::read(Path::new(RECIPES).join(file)).unwrap());
        }
        hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The name it is imported under.
    pub fn name(self) -> String {
        let (name, ending) = self.recipe();
        format!("{name}{}", ending.strip_prefix(".tar").unwrap_or_default()).replace('.', "-")
    }

    /// The built image, as a file or directory that `casemate import` takes.
    pub fn archive(self) -> PathBuf {
        // Not while a test looks for leftovers: building mounts and makes files.
        let _shared = Shared::take();
        let (name, ending) = self.recipe();
        let cache = cache();
        let built = cache.join(format!("{name}-{}{ending}", self.recipe_hash()));
        let _lock = lock(&format!("build-{name}"));
        if built.exists() {
            return built;
        }
        fs::create_dir_all(&cache).unwrap();
        let partial = cache.join(format!("partial-{name}{ending}"));
        let script = Path::new(RECIPES).join(self.script().0);
        let output = Command::new(script).arg(&name).arg(&partial).output().expect("bash starts");
        assert!(
            output.status.success(),
            "building the image {name} failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::rename(&partial, &built).unwrap();
        built
    }
}

/// The name of the image in the user's store; built and imported at the first call.
pub fn image(image: Image) -> String {
    // Before the file locks, so that a test that watches never waits for one that waits for it.
    let _shared = Shared::take();
    let name = image.name();
    let archive = image.archive();
    let marker = user().base.join("imported").join(archive.file_name().unwrap());
    let _lock = lock("import");
    if !marker.exists() {
        casemate(["import", &name])
            .arg(&archive)
            .timeout(Duration::from_secs(180))
            .output()
            .succeeds();
        fs::write(marker, "").unwrap();
    }
    name
}

/// Where what takes long to build, images above all, is kept between runs of the suite.
pub fn cache() -> PathBuf {
    if let Some(chosen) = std::env::var_os("CASEMATE_TEST_CACHE") {
        return chosen.into();
    }
    match is_root() {
        true => PathBuf::from("/var/cache/casemate-test"),
        false => user().home.join(".cache/casemate-test"),
    }
}
