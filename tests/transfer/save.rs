//! What `save` writes, and that it writes it wholly or not at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::require_root;
use crate::home::{Home, empty_layer, layer, noise, sources};

const PACKINGS: [&str; 3] = ["none", "gzip", "zstd"];

#[test]
fn every_form_of_image_comes_back_from_every_packing() {
    let home = Home::new();
    for (name, source) in sources(&home) {
        home.done(&["import", name, &source]);
        let ids = home.diff_ids(name);
        assert_eq!(ids.len(), 3);
        for packing in PACKINGS {
            let other = Home::new();
            let file = home.work.at("saved.tar");
            home.done(&["save", "--compression", packing, "-o", &file, name]);
            let said = other.done(&["import", &file]);
            assert_eq!(said.text(), name);
            assert_eq!(other.diff_ids(name), ids, "{name} {packing}");
            let (here, there) = (home.inspect(name), other.inspect(name));
            assert_eq!(here["config"], there["config"]);
            assert_eq!(there["media_type"], "application/vnd.oci.image.manifest.v1+json");
            for layer in there["layers"].as_array().unwrap() {
                assert_eq!(layer["compression"], packing);
            }
            // Without a packing these are the image's own bytes.
            let same = here["digest"] == there["digest"];
            assert_eq!(same, name == "plain" && packing == "none", "{name} {packing}");
        }
    }
}

#[test]
fn the_same_image_is_the_same_archive() {
    let home = Home::new();
    home.layout("a", &[layer("f", &noise(700_000)), empty_layer(), layer("g", b"")]);
    for packing in PACKINGS {
        let save = |home: &Home, file: &str| {
            home.done(&["save", "--compression", packing, "-o", file, "a"]);
            fs::read(home.work.path().join(file)).unwrap()
        };
        let first = save(&home, "1.tar");
        assert!(first == save(&home, "2.tar"), "{packing}");
        // Once packed by casemate, an image keeps its digest for ever.
        let other = Home::new();
        other.work.file("1.tar", &first);
        other.done(&["import", "1.tar"]);
        assert!(first == save(&other, "2.tar"), "{packing}");
    }
}

#[test]
fn odd_layers_and_many_of_them() {
    let home = Home::new();
    let many: Vec<_> =
        (0..60).map(|n| layer(&format!("f{n}"), format!("{n}").as_bytes())).collect();
    home.layout("many", &many);
    let twice = layer("same", &noise(300_000));
    home.layout("odd", &[twice.clone(), empty_layer(), twice.clone(), Vec::new(), empty_layer()]);
    home.done(&["tag", "odd", "odd:again"]);
    home.done(&["save", "-q", "-o", "all.tar", "many", "odd", "odd:again", "odd"]);
    let length = fs::metadata(home.work.path().join("all.tar")).unwrap().len();
    let once = many.iter().chain([&twice]).map(|layer| layer.len() as u64).sum::<u64>();
    assert!(length < once + 100_000, "what is shared is there once: {length}");
    let other = Home::new();
    let file = home.work.at("all.tar");
    for (name, tag) in [("many", "many"), ("odd", "odd:latest"), ("odd", "odd:again")] {
        let said = other.done(&["import", &format!("oci-archive:{file}:{tag}")]);
        assert!(said.text().starts_with(name), "{}", said.text());
        assert_eq!(other.diff_ids(name), home.diff_ids(name));
        other.done(&["import", "d", &format!("docker-archive:{file}:{tag}")]);
        assert_eq!(other.diff_ids("d"), home.diff_ids(name));
    }
    let error = other.run(&["import", &file]).output();
    error.refuses(125, &["holds 2 images", "many", "oci-archive:FILE:NAME"]);
}

#[test]
fn a_layer_that_was_changed_is_not_sent() {
    let home = Home::new();
    home.layout("a", &[layer("f", &noise(600_000)), layer("g", b"x")]);
    let ids = home.diff_ids("a");
    let file = home.layer(&ids[0]).join("f");
    let whole = fs::read(&file).unwrap();
    home.work.file("out.tar", "old");
    let changes: [(&str, &dyn Fn()); 3] = [
        ("one byte", &|| {
            let mut changed = whole.clone();
            changed[300_000] ^= 1;
            fs::write(&file, changed).unwrap();
        }),
        ("cut short", &|| fs::write(&file, &whole[..1000]).unwrap()),
        ("gone", &|| fs::remove_file(&file).unwrap()),
    ];
    for (what, change) in changes {
        change();
        for packing in PACKINGS {
            let words = ["save", "--compression", packing, "-o", "out.tar", "a"];
            let output = home.run(&words).output();
            output.refuses(125, &[&ids[0], "casemate store check"]);
            assert_eq!(home.work.read("out.tar"), "old", "{what} {packing}");
            // What goes into a pipe stops before the blob is whole, and is no archive.
            let words = ["save", "--compression", packing, "a"];
            let output = home.run(&words).output().fails(125);
            let other = Home::new();
            other.run(&["import", "b", "-"]).stdin(output.stdout).output().fails(125);
        }
        fs::write(&file, &whole).unwrap();
    }
    home.done(&["save", "-o", "out.tar", "a"]);
    assert!(!home.layer(&ids[0]).with_file_name("packed.json").exists());
}

#[test]
fn an_archive_is_there_whole_or_not_at_all() {
    let home = Home::new();
    home.layout("a", &[layer("f", &noise(3_000_000))]);
    let names = || {
        let entries = fs::read_dir(home.work.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    // A reader that goes away.
    let output = home.bash("set -o pipefail; \"$casemate\" save a | head -c 1000 | wc -c").output();
    let output = output.fails(125);
    assert_eq!(output.text(), "1000");
    assert!(output.err().contains("standard output: Broken pipe"), "{}", output.err());
    home.run(&["save", "-o", "/dev/full", "a"])
        .output()
        .refuses(125, &["No space left", "make room"]);
    // Killed by the kernel in the middle (SIGXFSZ).
    home.bash("ulimit -f 1000; \"$casemate\" save -o x.tar a; true").output().succeeds();
    assert_eq!(names(), before);
    let shut = home.work.path().join("shut");
    home.work.directory("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o555)).unwrap();
    home.run(&["save", "-o", "shut/x.tar", "a"]).output().refuses(125, &["Permission denied"]);
    home.run(&["save", "-o", "shut", "a"]).output().refuses(125, &["Is a directory"]);
    home.run(&["save", "-o", "no/x.tar", "a"]).output().refuses(125, &["No such file"]);
    assert_eq!(fs::read_dir(&shut).unwrap().count(), 0);
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o755)).unwrap();
    // What a link leads to is replaced, and not the link; a pipe is written to.
    home.work.file("old.tar", "old");
    home.work.symlink("old.tar", "link.tar");
    home.done(&["save", "-o", "link.tar", "a"]);
    assert!(fs::symlink_metadata(home.work.path().join("link.tar")).unwrap().is_symlink());
    assert!(fs::metadata(home.work.path().join("old.tar")).unwrap().len() > 3_000_000);
    home.bash("\"$casemate\" save -o >(tar -t > list) a; sleep 0.2; grep -q index.json list")
        .text();
}

#[test]
fn a_full_disk_leaves_nothing() {
    if !require_root() {
        return;
    }
    let home = Home::new();
    home.layout("a", &[layer("f", &noise(3_000_000))]);
    let place = home.work.directory("full");
    let mount = |words: &[&str]| {
        assert!(std::process::Command::new(words[0]).args(&words[1..]).status().unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "none", &place]);
    let output = home.run(&["save", "-o", "full/x.tar", "a"]).output();
    let left = fs::read_dir(&place).unwrap().count();
    mount(&["umount", &place]);
    output.refuses(125, &["full/x.tar: No space left on device", "make room"]);
    assert_eq!(left, 0);
}

#[test]
fn a_terminal_is_no_place_for_an_archive() {
    let home = Home::new();
    home.layout("a", &[empty_layer()]);
    let script = "script -qec '\"$casemate\" save a' /dev/null | head -c 300";
    let output = home.bash(script).output();
    assert!(output.out().contains("standard output is a terminal"), "{}", output.out());
    home.run(&["save", "a", "nothing"]).output().refuses(125, &["nothing", "not in the store"]);
}

/// A store that cannot be written gives its images away all the same.
#[test]
fn a_read_only_store_can_be_saved_from() {
    let home = Home::new();
    home.layout("a", &[layer("f", b"x")]);
    let staging = home.work.path().join("data/casemate/store/staging");
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o500)).unwrap();
    home.done(&["save", "-o", "a.tar", "a"]);
    let words = ["save", "--compression", "gzip", "-o", "b.tar", "a"];
    home.run(&words).output().refuses(125, &["Permission denied", "XDG_DATA_HOME"]);
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o700)).unwrap();
}
