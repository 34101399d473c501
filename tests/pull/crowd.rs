//! Several commands at once: pulls of one image, a box that runs while its name moves, removals
//! beside pulls.

use std::fs;

use crate::archives::{Entry, archive};
use crate::common::Running;
use crate::common::command::Output;
use crate::images::Layer;
use crate::link::Link;
use crate::scene::Scene;

/// A layer of some files that no other number has.
fn layer(number: usize) -> Layer {
    Layer::gzip(archive(
        (0..12).map(|file| Entry::file(format!("l{number}/f{file}"), "x".repeat(3000))),
    ))
}

#[test]
fn two_pulls_of_one_image_at_once() {
    let scene = Scene::new();
    for round in 0..4 {
        let layers = [layer(0), layer(2 * round + 1), layer(2 * round + 2)];
        let name = scene.put(&format!("app-{round}"), &layers);
        let pulls: Vec<Running> =
            (0..4).map(|_| scene.home.casemate(["pull", "-q", &name]).spawn()).collect();
        for pull in pulls {
            assert_eq!(pull.wait().succeeds().text(), name);
        }
        assert!(scene.home.on_disk("staging").is_empty());
        assert_eq!(scene.home.on_disk("layers").len(), 2 * round + 3);
    }
    scene.home.is_clean();
}

#[test]
fn a_box_keeps_its_files_while_its_name_moves() {
    let scene = Scene::new();
    let busybox = fs::read("/bin/busybox").unwrap();
    let version = |text: &str| {
        let program = Entry::file("bin/sh", &busybox).mode(0o755);
        Layer::gzip(archive([program, Entry::file("version", text)]))
    };
    let (old, new) = (version("old"), version("new"));
    let name = scene.put("app", std::slice::from_ref(&old));
    let script = "read x; echo started; read x; echo $(/bin/sh -c 'read v < /version; echo $v')";
    let words = ["run", "--pull", "always", "--image", &name, "/bin/sh", "-c", script];
    let mut first = scene.home.casemate(words).open_stdin().spawn();
    first.write("\n");
    first.expect("started");
    scene.put("app", std::slice::from_ref(&new));
    let mut second = scene.home.casemate(words).open_stdin().spawn();
    second.write("\n");
    second.expect("started");
    // The old image has no name any more, and is needed nevertheless.
    scene.home.casemate(["prune"]).output().succeeds();
    assert_eq!(scene.home.on_disk("layers").len(), 2);
    for (running, text) in [(&mut first, "old"), (&mut second, "new")] {
        running.write("\n");
        running.expect(text);
    }
    first.wait().succeeds();
    second.wait().succeeds();
    scene.home.casemate(["prune"]).output().succeeds();
    scene.home.has_just(&[new]);
}

#[test]
fn removals_and_prunes_beside_pulls_lose_nothing() {
    let scene = Scene::new();
    let link = Link::new(scene.registry.host(), 0, 300 << 10);
    scene.home.insecure(&[&scene.registry.host(), &link.host()]);
    let names: Vec<String> = (1..4)
        .map(|number| {
            scene.put(&format!("app-{number}"), &[layer(0), layer(number), layer(number + 10)])
        })
        .collect();
    let slow = scene
        .put("slow", &[layer(0), Layer::noise("slow", 600_000), layer(1)])
        .replace(&scene.registry.host(), &link.host());
    // It holds what it found there, whatever is removed around it.
    let slow_pull = scene.home.casemate(["pull", "-q", &slow]).spawn();
    let mut done = 0;
    let mut slow_pull = Some(slow_pull);
    for round in 0..12 {
        let pulls: Vec<Running> = names
            .iter()
            .take(2)
            .map(|name| scene.home.casemate(["pull", "-q", name]).spawn())
            .collect();
        let others = [
            scene.home.casemate(["prune"]).spawn(),
            scene.home.casemate(["rmi", "--force", &names[round % 3]]).spawn(),
        ];
        for pull in pulls {
            pull.wait().succeeds();
        }
        let [prune, rmi] = others.map(Running::wait);
        prune.succeeds();
        removed(&rmi);
        if let Some(mut running) = slow_pull.take() {
            if running.has_ended() {
                assert_eq!(running.wait().succeeds().text(), slow);
                done += 1;
            } else {
                slow_pull = Some(running);
            }
        }
    }
    if let Some(running) = slow_pull {
        assert_eq!(running.wait().succeeds().text(), slow);
        done += 1;
    }
    assert_eq!(done, 1);
    scene.home.is_clean();
    scene.home.casemate(["prune"]).output().succeeds();
    assert!(scene.home.on_disk("staging").is_empty());
    assert!(scene.home.names().contains(&slow));
}

/// It removed the name, or there was none.
#[track_caller]
fn removed(output: &Output) {
    let fine = output.code() == Some(0) || output.err().contains("not in the store");
    assert!(fine, "{}", output.err());
}
