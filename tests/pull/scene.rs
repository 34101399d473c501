//! One test's registry, and a user with a store and settings that nobody else has.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use casemate::image::Digest;
use nix::unistd::geteuid;

use crate::archives::again;
use crate::common::registry::Registry;
use crate::common::{Run, Workspace, casemate, user};
use crate::images::{Layer, Made};

pub(crate) struct Scene {
    pub(crate) registry: Registry,
    pub(crate) home: Home,
}

impl Scene {
    /// A registry without TLS, which the user's settings call insecure.
    pub(crate) fn new() -> Self {
        let scene = Scene { registry: Registry::plain(), home: Home::new() };
        scene.home.insecure(&[&scene.registry.host()]);
        scene
    }

    /// The full name of a repository of the registry.
    pub(crate) fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.registry.host())
    }

    /// Puts an image of these layers there; its full name.
    pub(crate) fn put(&self, repository: &str, layers: &[Layer]) -> String {
        Made::new(layers).put(&self.registry, repository, Some("latest"));
        self.name(repository)
    }

    /// Pulls quietly; demands success, and that the name is said.
    #[track_caller]
    pub(crate) fn pull(&self, name: &str) {
        assert_eq!(self.home.casemate(["pull", "-q", name]).text(), name);
    }

    /// The requests for layers and configs since so many were answered.
    pub(crate) fn blobs_since(&self, count: usize) -> Vec<String> {
        let requests = self.registry.requests();
        requests[count..].iter().filter(|line| line.contains("/blobs/")).cloned().collect()
    }
}

/// A home directory with a store of its own.
pub(crate) struct Home(pub(crate) Workspace);

impl Home {
    pub(crate) fn new() -> Self {
        let home = Home(Workspace::new());
        for name in ["data", "run"] {
            let path = home.0.directory(name);
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(path, private).unwrap();
        }
        // Whatever this machine has in /etc/containers, it is not read.
        home.settings("");
        home
    }

    /// `casemate` in this home.
    pub(crate) fn casemate<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Run {
        self.dress(casemate(words))
    }

    /// Any command in this home.
    pub(crate) fn dress(&self, run: Run) -> Run {
        run.env("HOME", self.0.path())
            .env("XDG_DATA_HOME", self.0.at("data"))
            .env("XDG_RUNTIME_DIR", self.0.at("run"))
            .env("CONTAINERS_REGISTRIES_CONF", self.0.at("registries.conf"))
            .directory(self.0.path())
    }

    /// Writes registries.conf.
    pub(crate) fn settings(&self, text: &str) {
        self.0.file("registries.conf", text);
    }

    /// registries.conf that calls these insecure.
    pub(crate) fn insecure(&self, hosts: &[&str]) {
        self.settings(&insecure(hosts));
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.path().join("data/casemate/store")
    }

    /// The tree of a layer in the store.
    pub(crate) fn tree(&self, layer: &Layer) -> PathBuf {
        self.store().join("layers").join(directory(&layer.diff_id())).join("fs")
    }

    /// What lies in a directory of the store.
    pub(crate) fn on_disk(&self, place: &str) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.store().join(place)) else { return BTreeSet::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Demands that just these layers are there, and nothing in staging.
    #[track_caller]
    pub(crate) fn has_just(&self, layers: &[Layer]) {
        let expected: BTreeSet<_> =
            layers.iter().map(|layer| directory(&layer.diff_id())).collect();
        assert_eq!(self.on_disk("layers"), expected);
        assert_eq!(self.on_disk("staging"), BTreeSet::new());
    }

    /// The names of the images.
    pub(crate) fn names(&self) -> Vec<String> {
        let json = self.casemate(["images", "--json"]).text();
        let images: serde_json::Value = serde_json::from_str(&json).unwrap();
        let images = images.as_array().unwrap();
        images.iter().map(|image| image["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Demands that every layer of every image with a name is what its digest says.
    #[track_caller]
    pub(crate) fn is_clean(&self) {
        let mut command = again("pull::scene::check_for_another_test", self.0.path());
        command.env("CASEMATE_TEST_HOME", self.0.path());
        if geteuid().is_root() {
            command.uid(user().uid).gid(user().gid);
        }
        let output = command.output().unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
    }
}

/// Not a test of its own: what `is_clean` runs, as the user whose store it is.
#[test]
#[ignore = "run by other tests"]
fn check_for_another_test() {
    use casemate::store::{Progress, Store, Wanted};
    struct Silent;
    impl Progress for Silent {
        fn begin(&self, _: usize, _: u64) {}
        fn layer(&self, _: usize, _: &Digest) {}
        fn read(&self, _: u64) {}
    }
    let Some(home) = std::env::var_os("CASEMATE_TEST_HOME") else { return };
    let store = Store::find(&Path::new(&home).join("data")).unwrap().unwrap();
    let names = store.images().unwrap().into_iter().map(|image| image.name);
    let names: Vec<_> = names.collect();
    let wanted: Vec<_> = names.iter().map(|name| Wanted::parse(name).unwrap()).collect();
    let report = store.check(&wanted, &Silent).unwrap();
    assert!(report.faults.is_empty(), "{report:?}");
}

fn directory(layer: &Digest) -> String {
    format!("sha256-{}", layer.hex())
}

/// registries.conf(5) that calls these insecure.
pub(crate) fn insecure(hosts: &[&str]) -> String {
    hosts
        .iter()
        .map(|host| format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n"))
        .collect()
}
