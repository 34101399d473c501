//! A store of one test, and the images that go into it.

use std::path::PathBuf;

use serde_json::Value;

use crate::common::command::Output;
use crate::common::{Run, Workspace, casemate};

/// A directory of the test's, with a store in it.
pub(crate) struct Home {
    pub(crate) work: Workspace,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Home { work: Workspace::new() };
        home.work.directory("data");
        home.work.directory("run");
        home
    }

    /// casemate with this home's store, in its directory.
    pub(crate) fn run(&self, words: &[&str]) -> Run {
        casemate(words.iter().copied())
            .env("XDG_DATA_HOME", self.work.at("data"))
            .env("XDG_RUNTIME_DIR", self.work.at("run"))
            .directory(self.work.path())
    }

    pub(crate) fn done(&self, words: &[&str]) -> Output {
        self.run(words).output().succeeds()
    }

    /// Another program, in this home's directory.
    pub(crate) fn tool(&self, words: &[&str]) -> Output {
        self.tool_run(words).output().succeeds()
    }

    pub(crate) fn tool_run(&self, words: &[&str]) -> Run {
        Run::new(words[0])
            .args(&words[1..])
            .env("XDG_RUNTIME_DIR", self.work.at("run"))
            .env("XDG_DATA_HOME", self.work.at("podman"))
            .directory(self.work.path())
    }

    pub(crate) fn bash(&self, script: &str) -> Run {
        Run::bash(script)
            .env("XDG_DATA_HOME", self.work.at("data"))
            .env("XDG_RUNTIME_DIR", self.work.at("run"))
            .directory(self.work.path())
    }

    pub(crate) fn inspect(&self, name: &str) -> Value {
        let output = self.done(&["inspect", "--json", name]);
        serde_json::from_str::<Value>(&output.out()).unwrap()[0].take()
    }

    /// The digest of an image's manifest.
    pub(crate) fn digest(&self, name: &str) -> String {
        self.inspect(name)["digest"].as_str().unwrap().to_owned()
    }

    /// The digests of the layers' streams: with these equal, so are the trees.
    pub(crate) fn diff_ids(&self, name: &str) -> Vec<String> {
        let layers = self.inspect(name)["layers"].take();
        let id = |layer: &Value| layer["diff_id"].as_str().unwrap().to_owned();
        layers.as_array().unwrap().iter().map(id).collect()
    }

    /// The tree of a layer in the store.
    pub(crate) fn layer(&self, diff_id: &str) -> PathBuf {
        let name = diff_id.replace(':', "-");
        self.work.path().join("data/casemate/store/layers").join(name).join("fs")
    }

    /// Writes an OCI layout of layers that are not packed, and imports it.
    pub(crate) fn layout(&self, name: &str, layers: &[Vec<u8>]) {
        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let directory = format!("{name}-layout");
        self.work.directory(&directory);
        crate::common::registry::layout(&self.work.path().join(&directory), &layers);
        self.done(&["import", name, &directory]);
    }
}

/// A layer with one file.
pub(crate) fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_000_000_000);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

/// A layer without any entry.
pub(crate) fn empty_layer() -> Vec<u8> {
    vec![0; 1024]
}

/// Bytes that do not pack well.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| byte()).collect()
}

/// The small image of the suite, in the forms that tools make of it, as sources for an import.
pub(crate) fn sources(home: &Home) -> Vec<(&'static str, String)> {
    let small = crate::common::Image::Small.archive();
    let source = format!("oci-archive:{}", small.display());
    let copy = |words: &[&str], target: &str| {
        let mut all = vec!["skopeo", "--insecure-policy", "copy", "-q"];
        all.extend(words);
        all.extend([source.as_str(), target]);
        home.tool(&all);
    };
    copy(&["--format", "v2s2"], "dir:docker");
    copy(&["--dest-compress-format", "zstd", "--dest-compress"], "dir:zstd");
    copy(&["--dest-decompress"], "dir:plain");
    vec![
        ("gzip", small.to_str().unwrap().to_owned()),
        ("docker", "dir:docker".to_owned()),
        ("zstd", "dir:zstd".to_owned()),
        ("plain", "dir:plain".to_owned()),
    ]
}
