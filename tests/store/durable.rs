//! Layers that are in their places before the disk has them, and a machine that stops meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use casemate::image::Digest;
use casemate::store::{Store, Wanted};
use serde_json::{Value, json};

fn two_files() -> Vec<u8> {
    archive([Entry::dir("d"), Entry::file("d/one", "first"), Entry::file("d/two", "second")])
}

/// As if the machine had been started anew before the layer was written out.
fn restart(tree: &Path) {
    let layer = tree.parent().unwrap();
    let info = layer.join("info");
    let mut record: Value = serde_json::from_slice(&fs::read(&info).unwrap()).unwrap();
    record["boot"] = json!("00000000-0000-0000-0000-000000000000");
    fs::write(&info, serde_json::to_vec(&record).unwrap()).unwrap();
    fs::remove_file(layer.join("on-disk")).unwrap();
}

fn uncertain(home: &Path) -> Vec<Digest> {
    let store = open(home);
    store.uncertain(&store.lookup(&Wanted::parse("test").unwrap()).unwrap()).unwrap()
}

fn verify(home: &Path) -> Result<(), String> {
    let store = Store::open(&home.join("data")).unwrap();
    let image = store.lookup(&Wanted::parse("test").unwrap()).unwrap();
    let layers = store.uncertain(&image).unwrap();
    store.verify(&image, &layers).map_err(|error| format!("{error} {:?}", error.hints()))
}

/// What it is called, and what it does to the layer of this tree.
type Damage = (&'static str, fn(&Path));

/// Ways in which a disk may have lost a part of a layer.
fn damages() -> [Damage; 7] {
    [
        ("a file is empty", |tree| fs::write(tree.join("d/one"), "").unwrap()),
        ("a file is zeroes", |tree| fs::write(tree.join("d/one"), [0; 5]).unwrap()),
        ("a file is missing", |tree| fs::remove_file(tree.join("d/two")).unwrap()),
        ("a directory is missing", |tree| fs::remove_dir_all(tree.join("d")).unwrap()),
        ("the record is empty", |tree| fs::write(tree.with_file_name("info"), "").unwrap()),
        ("the record is missing", |tree| fs::remove_file(tree.with_file_name("info")).unwrap()),
        ("the skeleton is cut", |tree| {
            let skeleton = tree.with_file_name("skeleton");
            let all = fs::read(&skeleton).unwrap();
            fs::write(skeleton, &all[..all.len() / 2]).unwrap();
        }),
    ]
}

fn described(tree: &Path) -> Vec<(PathBuf, String)> {
    describe(tree).into_iter().collect()
}

user_tests! {
    fn a_layer_is_marked_when_the_disk_has_it(home) {
        let tree = import_tree(home, &two_files());
        assert!(tree.with_file_name("on-disk").exists());
        // As long as the machine runs nothing else is asked.
        fs::remove_file(tree.with_file_name("on-disk")).unwrap();
        assert_eq!(uncertain(home), []);
        // The kernel said that the disk refused a part of it.
        fs::write(tree.with_file_name("refused"), "").unwrap();
        assert_eq!(uncertain(home).len(), 1);
        assert_whole(home);
    }

    fn a_layer_that_outlived_a_restart_is_verified_once(home) {
        let tree = import_tree(home, &two_files());
        let before = described(&tree);
        restart(&tree);
        assert_eq!(uncertain(home).len(), 1);
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        verify(home).unwrap();
        // What runs afterwards has the limits that it had.
        let now = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        assert_eq!(now, limit);
        assert_eq!(uncertain(home), []);
        assert!(tree.with_file_name("on-disk").exists());
        assert_eq!(described(&tree), before);
        assert_eq!(fs::read_dir(home.join("data/casemate/store/staging")).unwrap().count(), 0);
        assert_whole(home);
    }

    fn a_layer_that_a_restart_has_damaged_is_told_and_brought_again(home) {
        for (name, damage) in damages() {
            let tree = import_tree(home, &two_files());
            let before = described(&tree);
            restart(&tree);
            damage(&tree);
            assert_eq!(uncertain(home).len(), 1, "{name}");
            let error = verify(home).unwrap_err();
            assert!(error.contains("had not reached the disk"), "{name}: {error}");
            assert!(error.contains("pull or import test again"), "{name}: {error}");
            // Nothing is taken away by looking.
            assert_eq!(uncertain(home).len(), 1, "{name}");
            assert_eq!(import_tree(home, &two_files()), tree, "{name}");
            assert_eq!(described(&tree), before, "{name}");
            assert_eq!(uncertain(home), [], "{name}");
            assert_whole(home);
        }
    }

    fn a_whole_layer_is_kept_by_the_next_import(home) {
        use std::os::unix::fs::MetadataExt;
        let tree = import_tree(home, &two_files());
        let identity = fs::metadata(&tree).unwrap().ino();
        restart(&tree);
        assert_eq!(import_tree(home, &two_files()), tree);
        assert_eq!(fs::metadata(&tree).unwrap().ino(), identity);
        assert_eq!(uncertain(home), []);
    }

    fn a_damaged_layer_in_use_is_not_taken_away(home) {
        let tree = import_tree(home, &two_files());
        restart(&tree);
        fs::remove_file(tree.join("d/two")).unwrap();
        let held = open(home).hold(&Wanted::parse("test").unwrap()).unwrap();
        let error = try_import(home, "test", &home.join("source.tar")).unwrap_err();
        assert!(error.to_string().contains("is damaged, and in use"), "{error}");
        assert!(tree.join("d/one").exists());
        drop(held);
        import_tree(home, &two_files());
        assert_whole(home);
    }
}
