//! kill -9 at any moment of whatever writes to the store.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::archives::{Entry, archive, describe};
use crate::common::Run;
use crate::images::Layer;
use crate::scene::{Home, Scene};

const ROUNDS: usize = 200;
const FILES: usize = 15;

fn layer(number: usize) -> Layer {
    let file = |file| Entry::file(format!("l{number}/f{file}"), "x".repeat(2000));
    Layer::gzip(archive((0..FILES).map(file)))
}

/// The names, and for each the layers, all of which must be whole.
fn whole(home: &Home) -> BTreeSet<String> {
    let text = std::fs::read(home.store().join("oci/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&text).unwrap();
    let document = |digest: &Value| -> Value {
        let (_, hex) = digest.as_str().unwrap().split_once(':').unwrap();
        let path = home.store().join("oci/blobs/sha256").join(hex);
        let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&text).unwrap()
    };
    let mut names = BTreeSet::new();
    for entry in index["manifests"].as_array().unwrap() {
        let annotations = entry["annotations"].as_object().unwrap();
        let name = annotations.values().filter_map(Value::as_str);
        let Some(name) = name.filter(|text| text.contains("app-")).max_by_key(|text| text.len())
        else {
            continue;
        };
        let config = document(&document(&entry["digest"])["config"]["digest"]);
        let layers = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(layers.len(), 3, "{name}");
        for layer in layers {
            let place = layer.as_str().unwrap().replace(':', "-");
            let tree = home.store().join("layers").join(place).join("fs");
            assert_eq!(describe(&tree).len(), FILES + 1, "{name}: {}", tree.display());
        }
        names.insert(name.to_owned());
    }
    names
}

#[test]
fn killed_at_any_moment_of_pull_import_rmi_and_prune() {
    let scene = Scene::new();
    let home = &scene.home;
    let image = |number: usize| [layer(0), layer(number), layer(number + 100)];
    let names: Vec<String> =
        (1..6).map(|number| scene.put(&format!("app-{number}"), &image(number))).collect();
    let oci = home.0.at("oci");
    let source = format!("docker://{}/app-5", scene.registry.host());
    let copy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &source];
    home.dress(Run::new("skopeo").args(copy).arg(format!("oci:{oci}:latest"))).output().succeeds();
    names[..2].iter().for_each(|name| scene.pull(name));
    let mut seed = 88_172_645_463_325_252_u64;
    let (mut killed, mut had) = ([0; 4], whole(home));
    assert_eq!(had.len(), 2);
    // How long each kind takes when nobody kills it, in microseconds; the kills are spread over it.
    let mut takes = [60_000u64; 4];
    for round in 0..ROUNDS {
        let kind = round % 4;
        let name = &names[(round / 4) % 4];
        let words = match kind {
            0 => vec!["pull", "-q", name],
            1 => vec!["import", "-q", "local/app-x", &oci],
            2 => vec!["rmi", name],
            _ => vec!["prune"],
        };
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let wait = seed % takes[kind];
        let mut running = home.casemate(&words).spawn();
        std::thread::sleep(Duration::from_micros(wait));
        let ended = running.has_ended();
        if !ended {
            running.signal(Signal::SIGKILL);
        }
        // The workers see that they are alone and end; the output is theirs too until then.
        let output = running.wait();
        if output.signal() == Some(libc::SIGKILL) {
            killed[kind] += 1;
            takes[kind] = (takes[kind] + takes[kind] / 16).min(400_000);
        } else {
            takes[kind] = (wait + wait / 4).max(4_000);
        }
        let now = whole(home);
        // Nothing else than what was asked for has changed.
        let lost: Vec<_> = had.difference(&now).collect();
        match kind {
            2 => assert!(
                lost.iter().all(|gone| gone.contains(&name[name.find("app-").unwrap()..])),
                "{lost:?}"
            ),
            _ => assert!(lost.is_empty(), "round {round}, {words:?}: lost {lost:?}"),
        }
        had = now;
        if kind == 3 {
            // The next command that writes clears up.
            home.casemate(["prune"]).output().succeeds();
            assert_eq!(home.on_disk("staging"), BTreeSet::new());
            // And what is needed can be had again, without what is there already.
            if round % 8 == 3 {
                scene.pull(name);
                home.casemate(["import", "-q", "local/app-x", &oci]).output().succeeds();
                had = whole(home);
            }
        }
        if round % 40 == 39 {
            home.is_clean();
        }
    }
    println!("killed while they ran: {killed:?} of {} each", ROUNDS / 4);
    assert!(killed.iter().all(|count| *count >= ROUNDS / 40), "{killed:?}");
    // As ever: what has a name is there, and nothing else after a prune.
    home.casemate(["prune"]).output().succeeds();
    let number = |name: &String| match &name[name.find("app-").unwrap() + 4..][..1] {
        "x" => 5,
        digit => digit.parse().unwrap(),
    };
    home.has_just(&had.iter().flat_map(|name| image(number(name))).collect::<Vec<_>>());
    home.is_clean();
    names.iter().for_each(|name| scene.pull(name));
    assert_eq!(whole(home).len(), 6);
    home.is_clean();
}
