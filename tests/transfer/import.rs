//! The ways into the store beside plain files.

use std::fs;
use std::io::BufWriter;

use casemate::index::{self as layer_index, LayerIndex};
use serde_json::{Value, json};

use crate::common::Image;
use crate::home::{Home, empty_layer, layer, noise};

fn text(path: std::path::PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn standard_input_may_be_each_kind_of_archive() {
    let home = Home::new();
    let expected = |kind: Image| {
        home.done(&["import", "expected", &text(kind.archive())]);
        home.diff_ids("expected")
    };
    for kind in [Image::Small, Image::SmallDocker, Image::RootfsGz, Image::RootfsZst] {
        let (archive, ids) = (text(kind.archive()), expected(kind));
        for script in ["cat {} | \"$casemate\" import a -", "\"$casemate\" import a - < {}"] {
            let other = Home::new();
            other.bash(&script.replace("{}", &archive)).output().succeeds();
            assert_eq!(other.diff_ids("a"), ids, "{script} {archive}");
        }
        if kind == Image::RootfsZst {
            continue;
        }
        let plain = "case {} in *.gz) zcat {};; *.zst) zstdcat {};; *) cat {};; esac";
        for packer in ["cat", "gzip -1", "zstd -q"] {
            let other = Home::new();
            let script = format!("({plain}) | {packer} | \"$casemate\" import a -");
            other.bash(&script.replace("{}", &archive)).output().succeeds();
            assert_eq!(other.diff_ids("a"), ids, "{packer} {archive}");
        }
    }
}

/// What the unpacker wrote beside each layer of the real images is what a walk over its tree gives.
#[test]
fn the_indexes_of_real_images_say_what_their_trees_are() {
    let home = Home::new();
    for kind in
        [Image::Debian, Image::Small, Image::RootfsGz, Image::Static, Image::Hostile("suid")]
    {
        home.done(&["import", "image", &text(kind.archive())]);
    }
    let (mut layers, mut nodes) = (0, 0);
    for layer in fs::read_dir(home.work.path().join("data/casemate/store/layers")).unwrap() {
        let layer = layer.unwrap().path();
        let open = |path: &str| fs::File::open(layer.join(path)).unwrap();
        let made = LayerIndex::open(&open("index")).unwrap();
        let mut file = BufWriter::new(tempfile::tempfile().unwrap());
        layer_index::walk(&open("fs").into()).unwrap().write(&mut file).unwrap();
        let walked = LayerIndex::open(&file.into_inner().unwrap()).unwrap();
        assert_eq!(layer_index::differences(&made, &walked), [""; 0], "{}", layer.display());
        assert_eq!((made.len(), made.names()), (walked.len(), walked.names()));
        (layers, nodes) = (layers + 1, nodes + made.len());
    }
    assert!(layers >= 6 && nodes > 5000, "{layers} layers, {nodes} nodes");
}

#[test]
fn standard_input_that_is_no_archive_is_refused() {
    let home = Home::new();
    let refused = |input: Vec<u8>, words: &[&str]| {
        home.run(&["import", "a", "-"]).stdin(input).output().refuses(125, words);
    };
    refused(Vec::new(), &["standard input", "empty"]);
    refused(noise(100_000), &["standard input"]);
    // A root file system that is cut short, with and without much before.
    let tree = |size| layer("etc/file", &noise(size));
    refused(tree(1000)[..1500].to_vec(), &["import standard input"]);
    let large = tree(3_000_000);
    refused(large[..large.len() - 1024].to_vec(), &["import standard input", "end marker"]);
    refused(large[..2_000_000].to_vec(), &["import standard input"]);
    let nameless = home.run(&["import", "-"]).stdin(tree(1000)).output();
    nameless.refuses(125, &["no name of its own", "import NAME SOURCE"]);
    home.run(&["import", "a", "-"]).stdin(large).output().succeeds();
    let staging = home.work.path().join("data/casemate/store/staging");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
    let script = "script -qec '\"$casemate\" import a -' /dev/null < /dev/null";
    assert!(home.bash(script).output().out().contains("standard input: it is a terminal"));
}

fn index(home: &Home, layout: &str) -> Value {
    serde_json::from_str(&home.work.read(&format!("{layout}/index.json"))).unwrap()
}

#[test]
fn a_name_chooses_among_the_images_of_a_source() {
    let home = Home::new();
    for name in ["one", "two"] {
        home.layout(name, &[layer(name, name.as_bytes())]);
        let target = format!("oci:both:{name}:latest");
        let source = format!("oci:{name}-layout:latest");
        home.tool(&["skopeo", "--insecure-policy", "copy", "-q", &source, &target]);
    }
    let refused = home.run(&["import", "a", "both"]).output();
    refused.refuses(125, &["holds 2 images", "one:latest, two:latest", "oci:DIR:NAME"]);
    let refused = home.run(&["import", "oci:both:three"]).output();
    refused.refuses(125, &["no image \"three\"", "one:latest, two:latest"]);
    assert_eq!(home.done(&["import", "oci:both:two:latest"]).text(), "two");
    assert_eq!(home.done(&["import", "b", "oci:both:one"]).text(), "b");
    assert_eq!(home.diff_ids("b"), home.diff_ids("one"));
    // A layout keeps the older image without a name.
    home.layout("three", &[layer("three", b"3")]);
    let copy = ["skopeo", "--insecure-policy", "copy", "-q"];
    home.tool(&[&copy[..], &["oci:one-layout:latest", "oci:old:x"]].concat());
    home.tool(&[&copy[..], &["oci:three-layout:latest", "oci:old:x"]].concat());
    assert!(index(&home, "old")["manifests"].as_array().unwrap().len() == 2);
    assert_eq!(home.done(&["import", "old"]).text(), "x");
    assert_eq!(home.diff_ids("x"), home.diff_ids("three"));
    // A tag alone names nothing.
    let refused = home.run(&["import", "one-layout"]).output();
    refused.refuses(125, &["no name of its own"]);
}

#[test]
fn a_prefix_is_held_to_and_a_path_with_a_colon_can_be_said() {
    let home = Home::new();
    home.layout("a", &[layer("f", b"f")]);
    home.done(&["save", "-o", "a.tar", "a"]);
    let script = "mv a-layout oci:x && cp a.tar oci:y:z";
    home.bash(script).output().succeeds();
    assert_eq!(home.done(&["import", "b", "./oci:x"]).text(), "b");
    assert_eq!(home.done(&["import", "b", "./oci:y:z"]).text(), "b");
    assert_eq!(home.done(&["import", "oci-archive:a.tar"]).text(), "a");
    assert_eq!(home.done(&["import", "docker-archive:a.tar:a"]).text(), "a");
    let script = "cat a.tar | \"$casemate\" import c oci-archive:-:a";
    assert_eq!(home.bash(script).text(), "c");
    home.work.file("root/bin/sh", "");
    for (source, words) in [
        ("oci:a.tar", &["oci: is not a directory"][..]),
        ("oci:root", &["oci: is not an OCI image layout"]),
        ("dir:root", &["manifest.json is missing"]),
        ("oci-archive:root", &["oci-archive: is not a file"]),
        ("docker-archive:none.tar", &["none.tar", "No such file"]),
        ("dir:a.tar", &["dir: is not a directory"]),
    ] {
        home.run(&["import", "z", source]).output().refuses(125, words);
    }
    home.run(&["import", "docker://debian"]).output().refuses(125, &["casemate pull"]);
    home.run(&["import"]).output().fails(125);
}

/// An index of two images, of which one is for this machine.
#[test]
fn a_platform_chooses_in_an_index() {
    let home = Home::new();
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut entries = Vec::new();
    for (name, architecture) in [("here", host), ("there", "s390x")] {
        home.layout(name, &[layer(name, b"x"), empty_layer()]);
        let copy = ["skopeo", "--insecure-policy", "copy", "-q"];
        let source = format!("oci:{name}-layout:latest");
        home.tool(&[&copy[..], &[&source, &format!("oci:multi:{name}")]].concat());
        let mut entry = index(&home, "multi")["manifests"][entries.len()].take();
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry.as_object_mut().unwrap().remove("annotations");
        entries.push(entry);
    }
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(home.work.path().join("multi/index.json"), index.to_string()).unwrap();
    home.done(&["import", "a", "multi"]);
    assert_eq!(home.diff_ids("a"), home.diff_ids("here"));
    let platform = format!("linux/{host}");
    home.done(&["import", "--platform", &platform, "a", "oci:multi"]);
    assert_eq!(home.diff_ids("a"), home.diff_ids("here"));
    home.run(&["import", "--platform", "linux/mips", "a", "multi"])
        .output()
        .refuses(125, &["no image for linux/mips, only for"]);
    // One that stands alone is held to it too.
    home.run(&["import", "--platform", "linux/mips", "a", "here-layout"])
        .output()
        .refuses(125, &["no image for linux/mips"]);
}

/// skopeo's directory, with one image and with an index.
#[test]
fn skopeos_directories_are_read() {
    let home = Home::new();
    home.layout("a", &[layer("a", b"a"), layer("b", b"b")]);
    let copy = ["skopeo", "--insecure-policy", "copy", "-q"];
    for option in [&[][..], &["--dest-compress"], &["--format", "v2s2"]] {
        let words = [&copy[..], option, &["oci:a-layout:latest", "dir:d"]].concat();
        home.tool(&words);
        home.done(&["import", "b", "dir:d"]);
        assert_eq!(home.diff_ids("b"), home.diff_ids("a"), "{option:?}");
        home.tool(&["rm", "-r", "d"]);
    }
    home.run(&["import", "b", "dir:a-layout"]).output().refuses(125, &["manifest.json is missing"]);
    home.tool(&[&copy[..], &["oci:a-layout:latest", "dir:d"]].concat());
    home.run(&["import", "dir:d"]).output().refuses(125, &["no name of its own"]);
    // As `copy --all` writes it.
    let manifest = home.work.read("d/manifest.json");
    let digest = casemate::image::Digest::of(manifest.as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let entry = json!({ "mediaType": kind, "digest": digest, "size": manifest.len() });
    let all = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    home.tool(&["cp", "-r", "d", "e"]);
    home.work.file(&format!("e/{}.manifest.json", digest.hex()), &manifest);
    fs::remove_file(home.work.path().join("e/manifest.json")).unwrap();
    home.work.file("e/manifest.json", all);
    home.done(&["import", "c", "dir:e"]);
    assert_eq!(home.digest("c"), digest.to_string());
    // A blob that is another one.
    let id =
        home.inspect("a")["layers"][1]["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let blob = home.work.path().join("d").join(id);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[600] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let other = Home::new();
    let source = format!("dir:{}", home.work.at("d"));
    other.run(&["import", "b", &source]).output().refuses(125, &["layer 2 of 2", "digest"]);
}
