//! Links that break and registries that serve wrong bytes: what comes is right, or it is an error
//! that names what is wrong, and what was complete is kept.

use std::fs;
use std::time::{Duration, Instant};

use casemate::image::Digest;
use serde_json::json;

use crate::archives::{Entry, archive, describe};
use crate::common::user::remove_tree;
use crate::images::{Layer, Made};
use crate::link::Link;
use crate::scene::Scene;

fn layer(name: &str) -> Layer {
    Layer::gzip(archive([Entry::file("name", name)]))
}

#[test]
fn a_second_pull_is_one_request() {
    let scene = Scene::new();
    let name = scene.put("app", &[layer("1"), layer("2")]);
    scene.pull(&name);
    let before = scene.registry.requests().len();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        scene.pull(&name);
        best = best.min(start.elapsed());
    }
    println!("a pull of what is there takes {best:?}");
    let after = scene.registry.requests();
    assert_eq!(after[before..], ["HEAD /v2/app/manifests/latest"; 5].map(str::to_owned));
    let output = scene.home.casemate(["pull", &name]).output().succeeds();
    assert!(output.err().contains("the registry has nothing newer"), "{}", output.err());
    // An image that lacks a layer is not what the registry has.
    remove_tree(scene.home.tree(&layer("2")).parent().unwrap());
    let run = ["run", "--image", &name, "true"];
    scene
        .home
        .casemate(run)
        .output()
        .refuses(125, &["is missing in the store", "casemate store check --repair"]);
    let output = scene.home.casemate(["pull", &name]).output().succeeds();
    assert!(output.err().contains("1 layer new"), "{}", output.err());
    scene.home.is_clean();
}

#[test]
fn a_registry_that_dies_and_comes_back() {
    let mut scene = Scene::new();
    let large = Layer::noise("large", 8 << 20);
    scene.put("app", &[layer("small"), large.clone()]);
    let link = Link::new(scene.registry.host(), 0, 5 << 20);
    scene.home.insecure(&[&link.host()]);
    let name = format!("{}/app", link.host());
    let running = scene.home.casemate(["pull", &name]).spawn();
    link.wait_for(1 << 20);
    scene.registry.stop();
    std::thread::sleep(Duration::from_millis(300));
    scene.registry.start_again();
    let output = running.wait().succeeds();
    assert!(output.err().contains("trying again in"), "{}", output.err());
    assert_eq!(output.text(), name);
    let blob = format!("/blobs/{} ", large.digest());
    let log = scene.registry.log();
    let part = log.lines().any(|line| line.contains(&blob) && line.contains("\" 206 "));
    assert!(part, "it went on where it was: {log}");
    assert!(link.passed() < (11 << 20), "{} bytes for 8 MiB", link.passed());
    scene.home.has_just(&[layer("small"), large]);
    scene.home.is_clean();
}

#[test]
fn a_link_that_breaks_all_the_time() {
    let scene = Scene::new();
    let layers = [Layer::noise("a", 5 << 20), Layer::zstd(Layer::noise("b", 2 << 20).tar)];
    scene.put("app", &layers);
    let link = Link::new(scene.registry.host(), 1 << 20, 0);
    scene.home.insecure(&[&link.host()]);
    let name = format!("{}/app", link.host());
    let output = scene.home.casemate(["pull", &name]).output().succeeds();
    assert_eq!(output.text(), name);
    assert!(link.cuts() >= 5, "{}", link.cuts());
    scene.home.has_just(&layers);
    scene.home.is_clean();
    let log = scene.registry.log();
    assert!(log.matches("\" 206 ").count() >= 5, "{log}");
    // One that gives next to nothing is given up, and says where it was.
    let next = Layer::noise("c", 1 << 20);
    scene.put("next", &[layers[0].clone(), next.clone()]);
    let name = format!("{}/next", link.host());
    link.fault.cut.store(60 << 10, std::sync::atomic::Ordering::Relaxed);
    let words = ["layer 2 of 2", &next.digest().to_string(), "the connection was closed"];
    scene.home.casemate(["pull", "-q", &name]).output().refuses(125, &words);
    scene.home.has_just(&layers);
}

#[test]
fn wrong_bytes_are_named_and_the_rest_is_kept() {
    let scene = Scene::new();
    let good = Layer::noise("good", 100_000);
    let bad = Layer::gzip(Layer::noise("bad", 300_000).tar);
    let name = scene.put("app", &[good.clone(), bad.clone()]);
    let path = scene.registry.blob_path(&bad.digest().hex());
    let mut wrong = bad.packed.clone();
    wrong[150_000] ^= 1;
    let (short, long) = (&bad.packed[..200_000], [&bad.packed[..], b"x"].concat());
    let digest = bad.digest().to_string();
    for (content, words) in [
        (&wrong[..], &["content has the digest", "should be"][..]),
        (short, &["it has 200000 bytes there, its descriptor says"]),
        (&long, &["bytes there, its descriptor says"]),
    ] {
        fs::write(&path, content).unwrap();
        let pull = scene.home.casemate(["pull", "-q", &name]);
        let words = [words, &["layer 2 of 2", &digest, &name]].concat();
        pull.output().refuses(125, &words);
        assert!(scene.home.names().is_empty());
        assert!(scene.home.on_disk("staging").is_empty());
    }
    // The good one may have been stopped by the bad one, but not for ever.
    fs::write(&path, &bad.packed).unwrap();
    scene.pull(&name);
    scene.home.has_just(&[good, bad]);
    scene.home.is_clean();
}

#[test]
fn what_was_complete_is_not_fetched_again() {
    let scene = Scene::new();
    let layers = [layer("1"), layer("2"), Layer::noise("3", 500_000)];
    let name = scene.put("app", &layers);
    let link = Link::new(scene.registry.host(), 0, 1 << 20);
    scene.home.insecure(&[&link.host()]);
    let name = name.replace(&scene.registry.host(), &link.host());
    let path = scene.registry.blob_path(&layers[2].digest().hex());
    let mut wrong = layers[2].packed.clone();
    wrong[400_000] ^= 1;
    fs::write(&path, wrong).unwrap();
    scene.home.casemate(["pull", "-q", &name]).output().refuses(125, &["layer 3 of 3"]);
    scene.home.has_just(&layers[..2]);
    assert!(scene.home.names().is_empty());
    fs::write(&path, &layers[2].packed).unwrap();
    let before = scene.registry.requests().len();
    let output = scene.home.casemate(["pull", &name]).output().succeeds();
    assert!(output.err().contains("(2 there already)"), "{}", output.err());
    let blobs = scene.blobs_since(before);
    let [config, third] = &blobs[..] else { panic!("{blobs:?}") };
    assert!(third.ends_with(&layers[2].digest().to_string()), "{config} {third}");
    scene.home.is_clean();
}

#[test]
fn documents_that_lie_are_refused() {
    let scene = Scene::new();
    let (one, two) = (layer("1"), layer("2"));
    let refuse = |name: &str, image: &Made, words: &[&str]| {
        image.put(&scene.registry, name, Some("latest"));
        let full = scene.name(name);
        let pull = scene.home.casemate(["pull", "-q", &full]);
        pull.output().refuses(125, &[words, &[&format!("pull {full}")]].concat());
        scene.home.has_just(&[]);
        assert!(scene.home.names().is_empty());
    };
    // Another content than the config says.
    let mut image = Made::new(std::slice::from_ref(&one));
    image.config["rootfs"]["diff_ids"] = json!([two.diff_id()]);
    let words = ["layer 1 of 1", &one.diff_id().to_string(), &two.diff_id().to_string()];
    refuse("diff", &image, &words);
    // The config of another image.
    let mut image = Made::new(&[one.clone(), two.clone()]);
    image.config["rootfs"]["diff_ids"] = json!([one.diff_id()]);
    refuse("count", &image, &["2", "1", "layers"]);
    // A size that is none of the blob's.
    let mut image = Made::new(std::slice::from_ref(&one));
    image.manifest["layers"][0]["size"] = json!(1_000_000_000_000u64);
    refuse("size", &image, &["layer 1 of 1", "its descriptor says 1000000000000"]);
    // A config that is something else than its digest says.
    let image = Made::new(std::slice::from_ref(&one));
    image.put(&scene.registry, "config", Some("latest"));
    let config = Digest::of(image.config.to_string().as_bytes());
    let path = scene.registry.blob_path(&config.hex());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("/bin/sh", "/bin/ah")).unwrap();
    let name = scene.name("config");
    let words = [&config.to_string()[..], "the content has the digest"];
    scene.home.casemate(["pull", &name]).output().refuses(125, &words);
    fs::write(&path, &text).unwrap();
    // A manifest that is something else than the registry promises.
    let image = Made::new(&[layer("manifest")]);
    image.put(&scene.registry, "manifest", Some("latest"));
    let path = scene.registry.blob_path(&image.digest().hex());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("gzip", "zstd")).unwrap();
    let name = scene.name("manifest");
    scene.home.casemate(["pull", &name]).output().fails(125);
    let by_digest = format!("{name}@{}", image.digest());
    scene.home.casemate(["pull", &by_digest]).output().fails(125);
    scene.home.has_just(&[]);
}

#[test]
fn a_layer_that_is_no_archive_is_refused() {
    let scene = Scene::new();
    let mut cut = layer("cut");
    cut.packed.truncate(cut.packed.len() - 10);
    let junk = Layer::plain(b"<html>not found</html>".repeat(100));
    let escape = Layer::gzip(archive([Entry::file("../../escaped", "x")]));
    let before = describe(scene.home.0.path());
    for (name, layer) in [("cut", cut), ("junk", junk), ("escape", escape)] {
        let image = scene.put(name, &[layer]);
        scene.home.casemate(["pull", "-q", &image]).output().refuses(125, &["layer 1 of 1"]);
        scene.home.has_just(&[]);
    }
    let now = describe(scene.home.0.path());
    let made: Vec<_> = now
        .keys()
        .filter(|path| !before.contains_key(*path) && !path.starts_with("data"))
        .collect();
    assert!(made.is_empty(), "{made:?}");
}
