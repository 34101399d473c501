//! Images go to a real registry, and come back from there.

use serde_json::Value;

use crate::common::registry::{PASSWORD, Registry, USER};
use crate::home::{Home, empty_layer, layer, noise, sources};

const INSECURE: &str = "--tls-verify=false";

/// Requests that change something.
fn writes(requests: &[String]) -> Vec<&String> {
    requests.iter().filter(|r| !r.starts_with("GET ") && !r.starts_with("HEAD ")).collect()
}

fn blobs(requests: &[String]) -> usize {
    let is_upload = |r: &&String| r.starts_with("PUT ") && r.contains("/blobs/uploads/");
    requests.iter().filter(is_upload).count()
}

fn raw_manifest(home: &Home, name: &str) -> Value {
    let name = format!("docker://{name}");
    let output = home.tool(&["skopeo", "inspect", INSECURE, "--raw", &name]);
    serde_json::from_str(&output.out()).unwrap()
}

#[test]
fn what_is_pushed_comes_back_and_is_not_sent_again() {
    let registry = Registry::plain();
    let home = Home::new();
    for (name, source) in sources(&home) {
        home.done(&["import", name, &source]);
        let ids = home.diff_ids(name);
        let packings: &[&str] =
            if name == "docker" { &["", "none", "gzip", "zstd"] } else { &["", "none"] };
        for packing in packings {
            let target = format!("{}/{name}/{packing}x:1", registry.host());
            let option = format!("--compression={packing}");
            let mut words = vec!["push", INSECURE, "--digestfile", "digest"];
            if !packing.is_empty() {
                words.push(&option);
            }
            words.extend([name, &target]);
            let digest = home.done(&words).text();
            assert_eq!(home.work.read("digest"), digest);
            // An image that was not packed keeps its digest.
            let same = digest == home.digest(name);
            assert_eq!(
                same,
                name == "plain" && matches!(*packing, "" | "none"),
                "{name} {packing}"
            );
            let before = registry.requests().len();
            assert_eq!(home.done(&words).text(), digest);
            let again = registry.requests()[before..].to_vec();
            assert_eq!(writes(&again), Vec::<&String>::new(), "{name} {packing}");
            let other = Home::new();
            other.done(&["pull", "-q", INSECURE, &target]);
            assert_eq!((other.digest(&target), other.diff_ids(&target)), (digest, ids.clone()));
            let manifest = raw_manifest(&home, &target);
            let docker = name == "docker" && matches!(*packing, "" | "gzip");
            let config = if docker { "docker.container.image.v1" } else { "oci.image.config.v1" };
            let kind = manifest["config"]["mediaType"].as_str().unwrap();
            assert!(kind.contains(config), "{manifest}");
            // What is noted of the packing is casemate's own.
            home.done(&["store", "check", "-q"]);
            if packing.is_empty() {
                let path = target.split_once('/').unwrap().1;
                registry.pull(path, &format!("dir:{}", other.work.at("s")));
            }
        }
    }
}

#[test]
fn a_pulled_image_keeps_its_digest_wherever_it_goes() {
    let (first, second) = (Registry::plain(), Registry::with_password());
    let small = crate::common::Image::Small.archive();
    first.push(&format!("oci-archive:{}", small.display()), "a/small:1");
    let home = Home::new();
    let name = format!("{}/a/small:1", first.host());
    home.done(&["pull", "-q", INSECURE, &name]);
    let before = home.inspect(&name);
    // Onto itself: one request.
    let count = first.requests().len();
    home.done(&["push", "-q", INSECURE, &name]);
    assert_eq!(first.requests().len(), count + 1, "{:?}", &first.requests()[count..]);
    // To a sibling: what is there is mounted, and nothing is sent.
    let count = first.requests().len();
    let sibling = format!("{}/b/other:2", first.host());
    let digest = home.done(&["push", "-q", INSECURE, &name, &sibling]).text();
    let requests = first.requests()[count..].to_vec();
    // The config is no layer, and is written as it is.
    assert_eq!((digest.as_str(), blobs(&requests)), (before["digest"].as_str().unwrap(), 1));
    assert!(requests.iter().any(|request| request.contains("mount=")), "{requests:?}");
    // Elsewhere, with a password. What it was packed to is another digest there; but from there on
    // it stays.
    let elsewhere = format!("{}/c:1", second.host());
    home.run(&["push", "-q", INSECURE, &name, &elsewhere])
        .output()
        .refuses(125, &["push", "unauthorized"]);
    let login = ["login", INSECURE, "-u", USER, "--password-stdin", &second.host()];
    home.run(&login).stdin(PASSWORD).output().succeeds();
    let digest = home.done(&["push", "-q", INSECURE, &name, &elsewhere]).text();
    let third = Home::new();
    third.run(&login).stdin(PASSWORD).output().succeeds();
    third.done(&["pull", "-q", INSECURE, &elsewhere]);
    let back = format!("{}/d:1", first.host());
    assert_eq!(third.done(&["push", "-q", INSECURE, &elsewhere, &back]).text(), digest);
    // The store's entry is as it was.
    assert_eq!(home.inspect(&name), before);
}

#[test]
fn odd_layers_and_many_of_them_are_pushed() {
    let registry = Registry::plain();
    let home = Home::new();
    let many: Vec<_> =
        (0..60).map(|n| layer(&format!("f{n}"), format!("{n}").as_bytes())).collect();
    home.layout("many", &many);
    let twice = layer("same", &noise(300_000));
    home.layout("odd", &[twice.clone(), empty_layer(), twice, empty_layer()]);
    for (name, layers) in [("many", 60), ("odd", 2)] {
        for packing in ["none", "gzip"] {
            let count = registry.requests().len();
            let target = format!("{}/{name}-{packing}", registry.host());
            home.done(&["push", "-q", INSECURE, "--compression", packing, name, &target]);
            assert_eq!(blobs(&registry.requests()[count..]), layers + 1, "{name} {packing}");
            let other = Home::new();
            other.done(&["pull", "-q", INSECURE, &target]);
            assert_eq!(other.diff_ids(&target), home.diff_ids(name));
        }
    }
}

/// What casemate made the manifest of need not keep its digest, and is packed.
#[test]
fn a_root_file_system_is_packed_on_its_way() {
    let registry = Registry::plain();
    let home = Home::new();
    home.work.file("root/etc/os-release", "ID=test\n");
    home.work.file("root/big", "x".repeat(1 << 20));
    home.done(&["import", "rootfs", "root"]);
    let target = format!("{}/rootfs", registry.host());
    home.done(&["push", "-q", INSECURE, "rootfs", &target]);
    let manifest = raw_manifest(&home, &target);
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert!(layer["size"].as_u64().unwrap() < 100_000);
    // To another registry: it is remembered what it was packed to.
    let second = Registry::plain();
    let digest = home.done(&["push", "-q", INSECURE, "rootfs", &format!("{}/r", second.host())]);
    let inspected = raw_manifest(&home, &format!("{}/r@{}", second.host(), digest.text()));
    assert_eq!(inspected, manifest);
}

#[test]
fn a_layer_that_was_changed_is_not_pushed() {
    let registry = Registry::plain();
    let home = Home::new();
    home.layout("a", &[layer("f", &noise(3_000_000))]);
    let ids = home.diff_ids("a");
    let file = home.layer(&ids[0]).join("f");
    let mut content = std::fs::read(&file).unwrap();
    content[1] ^= 1;
    std::fs::write(&file, content).unwrap();
    for packing in ["none", "gzip"] {
        let target = format!("{}/a", registry.host());
        home.run(&["push", "-q", INSECURE, "--compression", packing, "a", &target])
            .output()
            .refuses(125, &[&ids[0], "casemate store check"]);
    }
    assert!(
        !registry
            .requests()
            .iter()
            .any(|request| request.contains("/manifests/") && request.starts_with("PUT"))
    );
}

#[test]
fn what_cannot_be_pushed_is_said() {
    let home = Home::new();
    home.layout("a", &[empty_layer()]);
    let refused = |words: &[&str], said: &[&str]| {
        home.run(words).output().refuses(125, said);
    };
    refused(&["push", "none", "localhost:1/x"], &["none", "not in the store"]);
    refused(&["push", "-q", INSECURE, "a", "127.0.0.1:1/x"], &["push 127.0.0.1:1/x", "refused"]);
    refused(&["push", "a", "A B"], &["image name"]);
}
