//! File systems that are full, or cannot be written.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount, umount};

use crate::archives::{Entry, archive};
use crate::common::{require_root, user};
use crate::images::Layer;
use crate::scene::Scene;

fn layer(name: &str, size: usize) -> Layer {
    Layer::gzip(archive([Entry::file(name, "x".repeat(size))]))
}

/// A small file system in a file, mounted where the store goes, until it is dropped.
struct Small(String);

impl Small {
    fn at(scene: &Scene) -> Self {
        let (image, data) = (scene.home.0.at("disk"), scene.home.0.at("data"));
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let owner = format!("root_owner={}:{}", user().uid, user().gid);
        let run = |program: &str, words: &[&str]| {
            let output = Command::new(program).args(words).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run("mkfs.ext4", &["-q", "-m", "0", "-N", "2000", "-E", &owner, &image]);
        run("mount", &["-o", "loop", &image, &data]);
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Small(data)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _mounted_no_more = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk() {
    if !require_root() {
        return;
    }
    let scene = Scene::new();
    let _small = Small::at(&scene);
    let (one, two) = (layer("one", 1 << 20), layer("two", 2 << 20));
    let name = scene.put("fits", &[one.clone(), two.clone()]);
    scene.pull(&name);
    let has = [one.clone(), two.clone()];
    // One layer fits besides, and one does not: in bytes, and in files.
    let third = layer("third", 100_000);
    let many = (0..4000).map(|file| Entry::file(format!("f{file}"), "x"));
    for (repository, large) in
        [("large", layer("large", 40 << 20)), ("many", Layer::gzip(archive(many)))]
    {
        let name = scene.put(repository, &[one.clone(), third.clone(), large]);
        let output = scene.home.casemate(["pull", "-q", &name]).output();
        output
            .refuses(125, &["layer 3 of 3", "No space left on device", "hint: ", "casemate prune"]);
        scene.home.is_clean();
        let there = scene.home.on_disk("layers");
        assert!(there.len() <= 3, "{there:?}");
        assert!(scene.home.on_disk("staging").is_empty());
        assert_eq!(scene.home.names(), [scene.name("fits")]);
    }
    scene.home.casemate(["prune"]).output().succeeds();
    scene.home.has_just(&has);
    // There is room again.
    scene.pull(&scene.put("third", &[one, third]));
    scene.home.is_clean();
}

#[test]
fn a_store_that_cannot_be_written() {
    if !require_root() {
        return;
    }
    let scene = Scene::new();
    let busybox = fs::read("/bin/busybox").unwrap();
    let layers = [Layer::gzip(archive([Entry::file("bin/true", busybox).mode(0o755)]))];
    let name = scene.put("app", &layers);
    let other = scene.put("other", &[layer("other", 10)]);
    scene.pull(&name);
    let data = scene.home.0.at("data");
    let (path, no) = (Path::new(&data), None::<&str>);
    mount(Some(path), path, no, MsFlags::MS_BIND, no).unwrap();
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(no, path, no, flags, no).unwrap();
    let before = scene.registry.requests().len();
    let refused = ["Read-only file system", "hint: "];
    let pulls = [
        scene.home.casemate(["pull", &other]),
        scene.home.casemate(["run", "--image", &other, "true"]),
    ];
    let outputs = pulls.map(|pull| pull.output());
    let run = |policy: &str| {
        scene
            .home
            .casemate(["run", "--scratch", "memory", "--pull", policy, "--image", &name, "true"])
            .output()
    };
    let runs = ["missing", "newer"].map(run);
    umount(path).unwrap();
    outputs.into_iter().for_each(|output| drop(output.refuses(125, &refused)));
    assert_eq!(scene.registry.requests().len(), before, "nothing is asked in vain");
    // What is there runs.
    runs.into_iter().for_each(|output| drop(output.succeeds()));
    scene.home.has_just(&layers);
}
