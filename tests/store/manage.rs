//! Names, lookup, removal and what is left behind: many images that share layers, several processes
//! at once, and crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use casemate::image::Digest;
use casemate::store::{Prune, Removed, Store, Wanted};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount, umount};
use nix::unistd::{Gid, Uid, chown};
use serde_json::{Value, json};

use crate::common::*;
use crate::formats::layout;

/// A layer of this many files that no other number has.
fn layer(number: usize, files: usize) -> Vec<u8> {
    let content = "x".repeat(5000);
    archive((0..files).map(|file| Entry::file(format!("l{number}/f{file}"), &content)))
}

/// Imports an image of these layers.
fn make(home: &Path, name: &str, layers: &[&Vec<u8>]) {
    let source = home.join(format!("source-{}", name.replace([':', '/', '@'], "-")));
    let layers: Vec<_> = layers.iter().map(|layer| layer.to_vec()).collect();
    layout(&source, &layers);
    import(home, name, &source);
    fs::remove_dir_all(source).unwrap();
}

fn writable(home: &Path) -> Store {
    Store::open(&home.join("data")).unwrap()
}

fn rmi(home: &Path, name: &str) -> Removed {
    let (removed, errors) = writable(home).remove(&[wanted(name)], false).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    removed
}

fn prune(home: &Path, prune: &Prune) -> Removed {
    let store = writable(home);
    let foretold = store.prune(prune, true).unwrap();
    let removed = store.prune(prune, false).unwrap();
    assert_eq!(foretold, removed, "a dry run says what the real one does");
    removed
}

fn wanted(name: &str) -> Wanted<'static> {
    Wanted::parse(name).unwrap()
}

fn names(home: &Path) -> Vec<String> {
    open(home).images().unwrap().into_iter().map(|image| image.name).collect()
}

fn on_disk(home: &Path, place: &str) -> BTreeSet<String> {
    let path = home.join("data/casemate/store").join(place);
    let entries = fs::read_dir(path).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn layer_names(layers: &[&Vec<u8>]) -> BTreeSet<String> {
    layers.iter().map(|layer| format!("sha256-{}", Digest::of(layer).hex())).collect()
}

fn index_path(home: &Path) -> std::path::PathBuf {
    home.join("data/casemate/store/oci/index.json")
}

fn read_index(home: &Path) -> Value {
    serde_json::from_slice(&fs::read(index_path(home)).unwrap()).unwrap()
}

fn used_days_ago(home: &Path, name: &str, days: u64) {
    let digest = open(home).image(&reference(name)).unwrap().digest;
    let path = home.join("data/casemate/store/oci/blobs/sha256").join(digest.hex());
    let time = SystemTime::now() - Duration::from_secs(days * 86400);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

user_tests! {
    fn layers_go_with_the_last_image_that_needs_them(home) {
        let (a, b, c) = (layer(1, 2), layer(2, 2), layer(3, 2));
        make(home, "low", &[&a, &b]);
        make(home, "high", &[&a, &c]);
        let low = open(home).image(&reference("low")).unwrap().digest;
        let removed = rmi(home, "low");
        assert_eq!((removed.names, removed.images), (vec!["low".to_owned()], vec![low]));
        assert_eq!(removed.layers, [Digest::of(&b)]);
        assert_eq!(on_disk(home, "layers"), layer_names(&[&a, &c]));
        assert_eq!(on_disk(home, "oci/blobs/sha256").len(), 2);
        rmi(home, "high");
        assert_nothing_left(home);
    }

    fn an_image_with_two_names_stays_with_one(home) {
        let a = layer(1, 2);
        make(home, "first", &[&a]);
        writable(home).tag(&wanted("first"), &[reference("second:2"), reference("x.y/third")]).unwrap();
        assert_eq!(names(home), ["first", "second:2", "x.y/third"]);
        let digest = open(home).image(&reference("second:2")).unwrap().digest;
        assert_eq!(digest, open(home).image(&reference("first")).unwrap().digest);
        let removed = rmi(home, "first");
        assert!(removed.images.is_empty() && removed.layers.is_empty());
        // By id it takes all names, and only when told so.
        let id = &digest.hex()[..6];
        let (removed, errors) = writable(home).remove(&[wanted(id)], false).unwrap();
        assert!(removed.names.is_empty());
        assert!(errors[0].to_string().contains("it has several names"), "{errors:?}");
        assert!(errors[0].hints()[0].contains("second:2, x.y/third"));
        let (removed, errors) = writable(home).remove(&[wanted(id)], true).unwrap();
        assert!(errors.is_empty() && removed.names.len() == 2);
        assert_nothing_left(home);
    }

    // What it needs is not known, so that nothing else goes either; the name itself does.
    fn a_digest_of_another_program_removes_nothing_but_its_name(home) {
        make(home, "image", &[&layer(1, 2)]);
        let layers = on_disk(home, "layers");
        let mut index = read_index(home);
        index["manifests"].as_array_mut().unwrap().push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha512:{}", "a".repeat(128)),
            "size": 3,
            "annotations": { "org.opencontainers.image.ref.name": "odd:latest" },
        }));
        fs::write(index_path(home), index.to_string()).unwrap();
        let error = writable(home).prune(&Prune::default(), false).unwrap_err();
        assert!(error.to_string().contains("only sha256"), "{error}");
        assert!(!error.hints().is_empty());
        let (removed, errors) = writable(home).remove(&[wanted("image")], false).unwrap();
        assert_eq!((removed.names.as_slice(), errors.len()), (&["image".to_owned()][..], 1));
        assert_eq!(on_disk(home, "layers"), layers);
        let (removed, errors) = writable(home).remove(&[wanted("odd")], false).unwrap();
        assert!(errors.is_empty() && removed.names == ["odd"], "{errors:?}");
        prune(home, &Prune::default());
        assert_nothing_left(home);
    }

    fn what_lost_its_name_is_pruned(home) {
        let (a, b) = (layer(1, 3), layer(2, 3));
        make(home, "image", &[&a]);
        make(home, "other", &[&a, &b]);
        make(home, "image", &[&b]);
        // What no name leads to, and what is none of ours.
        let stray = home.join("data/casemate/store/oci/blobs/sha256").join(Digest::of(b"x").hex());
        fs::write(stray, "x").unwrap();
        fs::write(home.join("data/casemate/store/oci/blobs/sha256/note"), "x").unwrap();
        let removed = prune(home, &Prune::default());
        assert!(removed.names.is_empty() && removed.layers.is_empty());
        assert_eq!(removed.documents.len(), 3);
        rmi(home, "other");
        make(home, "other", &[&a]);
        make(home, "other", &[&b]);
        let removed = prune(home, &Prune::default());
        assert_eq!(removed.layers, [Digest::of(&a)]);
        // Three files of 5000 bytes in blocks, and the directories.
        assert!((15_000..200_000).contains(&removed.freed), "{}", removed.freed);
        assert_eq!(names(home), ["image", "other"]);
        assert!(prune(home, &Prune::default()) == Removed::default());
        assert!(on_disk(home, "oci/blobs/sha256").contains("note"));
    }

    fn images_go_by_age_and_by_size(home) {
        let layers: Vec<_> = (0..5).map(|number| layer(number, 40)).collect();
        for (number, layer) in layers.iter().enumerate() {
            make(home, &format!("i{number}"), &[layer]);
        }
        used_days_ago(home, "i3", 40);
        used_days_ago(home, "i1", 20);
        used_days_ago(home, "i4", 10);
        let older = Prune { older_than: Some(30 * 86400), ..Prune::default() };
        let removed = prune(home, &older);
        assert_eq!(removed.names, ["i3"]);
        assert!(removed.freed > 40 * 5000);
        let usage = open(home).usage().unwrap();
        let room = usage.images[0].total * 5 / 2;
        let removed = prune(home, &Prune { max_size: Some(room), ..Prune::default() });
        assert_eq!(removed.names, ["i1", "i4"]);
        assert!(removed.left.unwrap() <= room);
        // Used again, it is the last to go.
        open(home).mark_used(&open(home).image(&reference("i0")).unwrap().digest);
        used_days_ago(home, "i2", 1);
        let removed = prune(home, &Prune { max_size: Some(room / 2), ..Prune::default() });
        assert_eq!(removed.names, ["i2"]);
        assert_eq!(prune(home, &Prune { all: true, ..Prune::default() }).names, ["i0"]);
        assert_nothing_left(home);
    }

    fn what_is_held_stays(home) {
        let (a, b) = (layer(1, 2), layer(2, 2));
        make(home, "base", &[&a]);
        make(home, "image", &[&a, &b]);
        let (image, held) = open(home).hold(&wanted("image")).unwrap();
        let all = Prune { all: true, ..Prune::default() };
        // The base is no image in use, although its layer is.
        assert_eq!(prune(home, &all).names, ["base"]);
        let removed = rmi(home, "image");
        assert!(removed.layers.is_empty());
        assert_eq!(removed.in_use.len(), 2);
        assert_eq!(prune(home, &all).in_use.len(), 2);
        assert!(open(home).layer_path(&image.layers[1]).join("l2/f1").exists());
        drop(held);
        assert_eq!(prune(home, &Prune::default()).layers.len(), 2);
        assert_nothing_left(home);
    }

    fn a_name_is_looked_for_in_one_order(home) {
        let (a, b) = (layer(1, 1), layer(2, 1));
        make(home, "debian", &[&a]);
        let id = open(home).image(&reference("debian")).unwrap().digest.hex();
        // A name that could be the id of another goes first.
        make(home, &id[..8], &[&b]);
        make(home, "reg.example/team/tool", &[&b]);
        let store = open(home);
        let find = |name: &str| store.lookup(&wanted(name)).map(|image| image.name);
        assert_eq!(find("docker.io/library/debian:latest").unwrap(), "debian");
        assert_eq!(find(&id[..8]).unwrap(), id[..8]);
        assert_eq!(find(&id[..9]).unwrap(), "debian");
        assert_eq!(find(&format!("sha256:{id}")).unwrap(), "debian");
        assert!(find(&id[..5]).unwrap_err().to_string().contains("not in the store"));
        assert_eq!(find(&format!("debian@sha256:{id}")).unwrap(), "debian");
        assert!(find(&format!("other@sha256:{id}")).is_err());
        // A short name means what the configuration says, unless it is there itself.
        let candidates = [reference("nowhere.example/tool"), reference("reg.example/team/tool")];
        let tool = store.lookup(&wanted("tool").with_candidates(&candidates)).unwrap();
        assert_eq!(tool.name, "reg.example/team/tool");
        let own = store.lookup(&wanted("debian").with_candidates(&candidates)).unwrap();
        assert_eq!(own.name, "debian");
        let full = wanted("x.y/tool").with_candidates(&candidates);
        assert!(store.lookup(&full).is_err(), "a full name has no candidates");
    }

    fn ids_that_begin_alike_are_told_apart(home) {
        let a = layer(1, 1);
        make(home, "one", &[&a]);
        // The same digits in front, which no two real digests will show in a test.
        let mut index = read_index(home);
        let mut other = index["manifests"][0].clone();
        let digest = other["digest"].as_str().unwrap().to_owned();
        let end = if digest.ends_with('0') { "1" } else { "0" };
        other["digest"] = json!(format!("{}{end}", &digest[..70]));
        other["annotations"]["org.opencontainers.image.ref.name"] = json!("two:latest");
        index["manifests"].as_array_mut().unwrap().push(other);
        fs::write(index_path(home), index.to_string()).unwrap();
        let id = &digest["sha256:".len()..][..8];
        let error = open(home).lookup(&wanted(id)).unwrap_err();
        assert!(error.to_string().contains("several images"), "{error}");
        assert!(error.hints()[0].contains("one (") && error.hints()[0].contains("two ("));
        assert_eq!(open(home).lookup(&wanted(&digest)).unwrap().name, "one");
        // An image that cannot be read could need anything: nothing else goes with it.
        let error = writable(home).prune(&Prune::default(), false).unwrap_err();
        assert!(error.to_string().starts_with("image two: "), "{error}");
        assert!(error.hints().iter().any(|hint| hint.contains("casemate rmi two")));
        rmi(home, "two");
        prune(home, &Prune::default());
        assert_eq!(open(home).lookup(&wanted("one")).unwrap().name, "one");
    }

    fn annotations_of_others_are_kept(home) {
        let (a, b) = (layer(1, 1), layer(2, 1));
        make(home, "pulled", &[&a]);
        let mut index = read_index(home);
        let pulled = Digest::of(b"index");
        let annotations = &mut index["manifests"][0]["annotations"];
        annotations["casemate.pulled-digest"] = json!(pulled);
        annotations["casemate.pulled-from"] = json!("docker.io/library/pulled:latest");
        annotations["org.example.note"] = json!("kept");
        index["annotations"] = json!({ "org.example.whole": "kept" });
        fs::write(index_path(home), index.to_string()).unwrap();
        make(home, "other", &[&b]);
        writable(home).tag(&wanted("pulled"), &[reference("copy")]).unwrap();
        rmi(home, "pulled");
        let index = read_index(home);
        assert_eq!(index["annotations"]["org.example.whole"], "kept");
        let copy = index["manifests"].as_array().unwrap().last().unwrap();
        assert_eq!(copy["annotations"]["org.example.note"], "kept");
        let image = open(home).lookup(&wanted(&format!("copy@{pulled}"))).unwrap();
        assert_eq!(image.origin.digest, Some(pulled));
        assert_eq!(image.origin.from.as_deref(), Some("docker.io/library/pulled:latest"));
        assert!(Wanted::parse("copy@sha256:00").is_err());
        let to = reference(&format!("copy@{pulled}"));
        let error = writable(home).tag(&wanted("copy"), &[to]).unwrap_err();
        assert!(error.to_string().contains("a name with a digest"), "{error}");
    }

    fn a_missing_layer_is_named(home) {
        let (a, b) = (layer(1, 1), layer(2, 1));
        make(home, "image", &[&a, &b]);
        let store = open(home);
        let path = store.layer_path(&Digest::of(&a));
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        for error in [
            store.image(&reference("image")).unwrap_err(),
            store.hold(&wanted("image")).unwrap_err(),
            store.inspect(&wanted("image")).unwrap_err(),
        ] {
            let words = format!("image image: layer {}: is missing", Digest::of(&a));
            assert!(error.to_string().starts_with(&words), "{error}");
            assert!(error.hints()[0].starts_with("`casemate store check --repair` "), "{error:?}");
        }
        // It can be listed and removed all the same.
        assert_eq!(store.images().unwrap().len(), 1);
        rmi(home, "image");
        assert_nothing_left(home);
    }

    fn an_older_index_is_listed_the_same(home) {
        let (a, b) = (layer(1, 3), layer(2, 1));
        make(home, "image", &[&a, &b]);
        let listed = open(home).images().unwrap();
        assert_eq!((listed[0].size, listed[0].layers), (20_000, 2));
        assert_eq!(listed[0].created.as_deref(), Some("2024-05-06T07:08:09Z"));
        let mut index = read_index(home);
        let annotations = index["manifests"][0]["annotations"].as_object_mut().unwrap();
        annotations.retain(|key, _| key == "org.opencontainers.image.ref.name");
        fs::write(index_path(home), index.to_string()).unwrap();
        assert_eq!(open(home).images().unwrap(), listed);
    }

    fn usage_counts_what_is_shared_once(home) {
        let (a, b, c) = (layer(1, 20), layer(2, 10), layer(3, 10));
        make(home, "one", &[&a, &b]);
        make(home, "two", &[&a, &c]);
        make(home, "gone", &[&layer(4, 30)]);
        make(home, "gone", &[&a]);
        let usage = open(home).usage().unwrap();
        let of = |name: &str| usage.images.iter().find(|image| image.names == [name]).unwrap();
        assert!(of("one").shared >= 100_000 && of("one").unique >= 50_000);
        assert_eq!(of("one").total, of("one").shared + of("one").unique);
        assert_eq!(of("gone").unique, 0);
        assert!(usage.dangling >= 150_000);
        let all: u64 = usage.images.iter().map(|image| image.unique).sum();
        assert_eq!(usage.layers, all + of("gone").shared + usage.dangling);
        assert_eq!(usage.total, usage.layers + usage.documents + usage.staging);
        assert_eq!(prune(home, &Prune::default()).layers.len(), 1);
        let after = open(home).usage().unwrap();
        assert_eq!((after.dangling, after.layers), (0, usage.layers - usage.dangling));
        // A file that two layers have as one.
        let file = |layer: &[u8], name: &str| open(home).layer_path(&Digest::of(layer)).join(name);
        fs::remove_file(file(&c, "l3/f0")).unwrap();
        fs::hard_link(file(&b, "l2/f0"), file(&c, "l3/f0")).unwrap();
        assert!(open(home).usage().unwrap().saved >= 5000);
    }

    fn inspect_tells_what_is_shared(home) {
        let (a, b, c) = (layer(1, 2), layer(2, 1), layer(3, 3));
        make(home, "one", &[&a, &b]);
        make(home, "two", &[&a, &c]);
        let details = open(home).inspect(&wanted("one")).unwrap();
        assert_eq!((details.size, details.shared_size, details.unique_size), (15_000, 10_000, 5000));
        assert_eq!(details.layers[0].shared_with, ["two"]);
        assert_eq!(details.layers[0].diff_id, Digest::of(&a));
        assert_eq!(details.layers[0].packed_size, a.len() as u64);
        assert!(details.layers[1].shared_with.is_empty());
        assert_eq!(details.config.env, ["A=b"]);
    }

    fn two_at_once_remove_everything_once(home) {
        let base = layer(0, 50);
        for number in 1..=8 {
            make(home, &format!("i{number}"), &[&base, &layer(number, 20)]);
        }
        let children: Vec<_> = (0..3).map(|_| worker(home, "remove")).collect();
        let mut gone = BTreeMap::new();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
            for name in text.lines().filter_map(|line| line.strip_prefix("gone: ")) {
                *gone.entry(name.to_owned()).or_insert(0) += 1;
            }
        }
        assert_eq!(gone.len(), 8, "{gone:?}");
        assert!(gone.values().all(|count| *count == 1), "{gone:?}");
        assert_nothing_left(home);
    }

    // Whatever moment a removal is killed at, every image that has a name is whole.
    fn killed_removals_leave_whole_images(home) {
        const FILES: usize = 25;
        let layers: Vec<_> = (0..6).map(|number| layer(number, FILES)).collect();
        let sources: Vec<_> = (1..6).map(|number| home.join(format!("s{number}"))).collect();
        for (number, source) in (1..6).zip(&sources) {
            layout(source, &[layers[0].clone(), layers[number].clone()]);
        }
        let mut seed = 88_172_645_463_325_252_u64;
        let mut cut_short = 0;
        for round in 0..50 {
            for (number, source) in sources.iter().enumerate() {
                import(home, &format!("i{number}"), source);
            }
            let what = if round % 2 == 0 { "remove" } else { "prune" };
            let mut child = worker(home, what);
            // From the start of the process to beyond its end.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            std::thread::sleep(Duration::from_micros(seed % 60_000));
            cut_short += i32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            let store = open(home);
            for image in store.images().unwrap() {
                let image = store.image(&reference(&image.name)).unwrap();
                assert_eq!(image.layers.len(), 2);
                for layer in &image.layers {
                    let found = describe(&store.layer_path(layer)).len();
                    assert_eq!(found, FILES + 1, "round {round}: {} {layer}", image.name);
                }
            }
            writable(home).prune(&Prune::default(), false).unwrap();
            assert!(on_disk(home, "staging").is_empty());
            let needed: BTreeSet<_> = store
                .images()
                .unwrap()
                .iter()
                .flat_map(|image| store.image(&reference(&image.name)).unwrap().layers)
                .map(|layer| format!("sha256-{}", layer.hex()))
                .collect();
            assert_eq!(on_disk(home, "layers"), needed);
        }
        assert!(cut_short > 10, "only {cut_short} of 50 were killed while they ran");
    }

    fn imports_beside_prune_lose_nothing(home) {
        let base = layer(0, 30);
        for number in 1..4 {
            layout(&home.join(format!("s{number}")), &[base.clone(), layer(number, 30)]);
        }
        // Garbage at every moment: names go from one image to the next.
        let importers = [worker(home, "import 1"), worker(home, "import 2")];
        let mut rounds = 0;
        let mut importers = importers.map(Some);
        while importers.iter().any(Option::is_some) {
            let _removed = writable(home).prune(&Prune::default(), false).unwrap();
            rounds += 1;
            for importer in &mut importers {
                let Some(child) = importer else { continue };
                if child.try_wait().unwrap().is_some() {
                    let output = importer.take().unwrap().wait_with_output().unwrap();
                    let words = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success(), "{words}");
                }
            }
        }
        assert!(rounds > 10, "{rounds}");
        for name in names(home) {
            open(home).hold(&wanted(&name)).unwrap();
        }
        assert!(on_disk(home, "staging").is_empty());
    }

    fn what_another_program_locks_is_an_error_and_no_wait(home) {
        make(home, "image", &[&layer(1, 1)]);
        let path = open(home).layer_path(&Digest::of(&layer(1, 1)));
        let dir = fs::File::open(path.parent().unwrap()).unwrap();
        let lock = Flock::lock(dir, FlockArg::LockExclusive).unwrap();
        let error = open(home).hold(&wanted("image")).unwrap_err();
        assert!(error.to_string().ends_with("another program has it locked"), "{error}");
        drop(lock);
        let start = Instant::now();
        let held: Vec<_> = (0..100).map(|_| open(home).hold(&wanted("image")).unwrap()).collect();
        println!("an image of one layer is found and held in {:?}", start.elapsed() / 100);
        drop(held);
    }

    fn a_closed_store_is_read_and_not_written(home) {
        make(home, "image", &[&layer(1, 1)]);
        let store = home.join("data/casemate/store");
        for place in ["staging", "layers", "oci/blobs/sha256", "oci", "."] {
            fs::set_permissions(store.join(place), fs::Permissions::from_mode(0o500)).unwrap();
        }
        let error = Store::open(&home.join("data")).err().unwrap();
        assert!(error.to_string().ends_with("store: Permission denied"), "{error}");
        assert!(error.to_string().starts_with("write to "), "{error}");
        assert!(error.hints()[0].contains("XDG_DATA_HOME"));
        reads(home);
        for place in [".", "oci", "oci/blobs/sha256", "layers", "staging"] {
            fs::set_permissions(store.join(place), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }

    fn two_hundred_images_are_listed_fast(home) {
        let base = layer(0, 1);
        for number in 1..=200 {
            make(home, &format!("registry.example/team/image:{number}"), &[&base, &layer(number, 1)]);
        }
        let store = open(home);
        assert_eq!(store.images().unwrap().len(), 200);
        let start = Instant::now();
        for _ in 0..20 {
            store.images().unwrap();
        }
        println!("200 images listed in {:?}", start.elapsed() / 20);
        let (_, held) = store.hold(&wanted("registry.example/team/image:7")).unwrap();
        assert_eq!(held.len(), 3);
        let start = Instant::now();
        prune(home, &Prune { all: true, ..Prune::default() });
        println!("199 images pruned, and foretold, in {:?}", start.elapsed());
        assert_eq!(names(home), ["registry.example/team/image:7"]);
    }
}

/// Everything that reads works.
fn reads(home: &Path) {
    let store = open(home);
    assert_eq!(store.images().unwrap().len(), 1);
    store.inspect(&wanted("image")).unwrap();
    store.usage().unwrap();
    let (image, held) = store.hold(&wanted("image")).unwrap();
    assert_eq!(held.len(), 2);
    store.mark_used(&image.digest);
}

/// A process of its own that removes images, one after the other.
fn worker(home: &Path, what: &str) -> Child {
    let mut command = again("store::manage::removals_for_another_test", home);
    command.env("CASEMATE_TEST_HOME", home).env("CASEMATE_TEST_WHAT", what);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Not a test of its own: what `worker` runs.
#[test]
#[ignore = "run by other tests"]
fn removals_for_another_test() {
    let Some(home) = std::env::var_os("CASEMATE_TEST_HOME") else { return };
    let home = Path::new(&home);
    if std::env::var_os("CASEMATE_TEST_WHAT").unwrap() == "prune" {
        let store = writable(home);
        for left in [200_000, 100_000, 1] {
            store.prune(&Prune { max_size: Some(left), ..Prune::default() }, false).unwrap();
        }
        return;
    }
    let what = std::env::var("CASEMATE_TEST_WHAT").unwrap();
    if let Some(name) = what.strip_prefix("import ") {
        let store = writable(home);
        for round in 0..30 {
            let source = home.join(format!("s{}", round % 3 + 1));
            casemate::store::import(&store, &reference(&format!("i{name}")), &source).unwrap();
            open(home).hold(&wanted(&format!("i{name}"))).unwrap();
        }
        return;
    }
    for name in names(home) {
        let (removed, errors) = writable(home).remove(&[wanted(&name)], false).unwrap();
        removed.names.iter().for_each(|name| println!("gone: {name}"));
        // Another process may have been faster, which is the only thing that may go wrong.
        assert!(errors.iter().all(|error| error.to_string().contains("not in the store")));
    }
}

#[test]
fn a_read_only_file_system_is_read_and_not_written() {
    const NAME: &str = "store::manage::a_read_only_file_system_is_read_and_not_written";
    if let Some(home) = std::env::var_os("CASEMATE_TEST_READ_ONLY") {
        let home = Path::new(&home);
        if std::env::var_os("CASEMATE_TEST_PREPARE").is_some() {
            return make(home, "image", &[&layer(1, 1)]);
        }
        let error = Store::open(&home.join("data")).err().unwrap();
        assert!(error.to_string().contains("Read-only file system"), "{error}");
        assert!(error.hints()[0].contains("the store cannot be changed"), "{error:?}");
        return reads(home);
    }
    if !started_as_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    let run = |prepare: bool| {
        use std::os::unix::process::CommandExt;
        let mut command = again(NAME, home.path());
        command.env("CASEMATE_TEST_READ_ONLY", home.path()).uid(USER).gid(USER);
        if prepare {
            command.env("CASEMATE_TEST_PREPARE", "1");
        }
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (prepared, words) = run(true);
    assert!(prepared, "{words}");
    let data = home.path().join("data");
    let no_type = None::<&str>;
    mount(Some(&data), &data, no_type, MsFlags::MS_BIND, no_type).unwrap();
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(no_type, &data, no_type, read_only, no_type).unwrap();
    let (reads, words) = run(false);
    umount(&data).unwrap();
    assert!(reads, "{words}");
}
