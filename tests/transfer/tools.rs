//! Other tools take what casemate writes.

use std::fs;

use serde_json::Value;

use crate::common::registry::Registry;
use crate::home::{Home, empty_layer, layer};

/// A tree as `find` and `sha256sum` see it.
fn tree(home: &Home, path: &str) -> String {
    let script = format!(
        "cd {path} && find . ! -type d -printf '%P %y %m %s %T@ %l\\n' | sort && \
         find . -type f -exec sha256sum {{}} + | sort"
    );
    home.bash(&script).text()
}

#[test]
fn skopeo_and_umoci_take_an_archive() {
    let home = Home::new();
    let small = crate::common::Image::Small.archive();
    home.done(&["import", "small", small.to_str().unwrap()]);
    home.layout("odd", &[empty_layer(), layer("f", b"f"), empty_layer(), layer("g", b"g")]);
    home.work.directory("original");
    home.tool(&["tar", "-C", "original", "-xf", small.to_str().unwrap()]);
    let index: Value = serde_json::from_str(&home.work.read("original/index.json")).unwrap();
    let tag = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    let image = format!("original:{}", tag.as_str().unwrap());
    home.tool(&["umoci", "unpack", "--rootless", "--image", &image, "expected"]);
    let expected = tree(&home, "expected/rootfs");
    assert!(expected.lines().count() > 10, "{expected}");
    for packing in ["none", "gzip", "zstd"] {
        let at = |name: &str| format!("{packing}-{name}");
        let archive = at("saved.tar");
        home.done(&["save", "--compression", packing, "-o", &archive, "small", "odd"]);
        for (name, layers) in [("small", 3), ("odd", 4)] {
            for source in [
                format!("oci-archive:{archive}:{name}:latest"),
                format!("docker-archive:{archive}:{name}:latest"),
            ] {
                let target = at(&format!("{}-{name}", source.split(':').next().unwrap()));
                let words = ["skopeo", "--insecure-policy", "copy", "-q"];
                home.tool(&[&words[..], &[&source, &format!("dir:{target}")]].concat());
                let back = format!("dir:{target}");
                home.done(&["import", "back", &back]);
                assert_eq!(home.diff_ids("back").len(), layers);
                assert_eq!(home.diff_ids("back"), home.diff_ids(name), "{source}");
            }
        }
        // umoci 0.4.7 knows no zstd.
        if packing != "zstd" {
            let layout = home.work.directory(&at("layout"));
            home.tool(&["tar", "-C", &layout, "-xf", &archive]);
            let image = format!("{}:small:latest", at("layout"));
            home.tool(&["umoci", "unpack", "--rootless", "--image", &image, &at("unpacked")]);
            assert_eq!(tree(&home, &at("unpacked/rootfs")), expected, "{packing}");
            home.done(&["import", "l", &format!("oci:{}:small:latest", at("layout"))]);
            assert_eq!(home.diff_ids("l"), home.diff_ids("small"));
        }
    }
}

/// podman's rootless store, and the way back from there.
#[test]
fn podman_loads_an_archive_and_gives_it_back() {
    let home = Home::new();
    let small = crate::common::Image::Small.archive();
    home.done(&["import", "localhost/small:1", small.to_str().unwrap()]);
    let ids = home.diff_ids("localhost/small:1");
    let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    home.work.file("policy.json", policy);
    home.work.file(
        "storage.conf",
        format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n",
            home.work.at("run/containers"),
            home.work.at("podman/containers/storage")
        ),
    );
    home.work.directory("podman");
    let config = home.work.at("storage.conf");
    let podman = |words: &[&str]| {
        let base = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs"];
        let output = home
            .tool_run(&[&base[..], words].concat())
            .env("CONTAINERS_STORAGE_CONF", &config)
            .output()
            .succeeds();
        output.text()
    };
    for (number, packing) in ["none", "gzip", "zstd"].iter().enumerate() {
        home.done(&["save", "--compression", packing, "-o", "saved.tar", "localhost/small:1"]);
        let said = podman(&["load", "--signature-policy", "policy.json", "-i", "saved.tar"]);
        assert!(said.contains("localhost/small:1"), "{said}");
        let loaded = podman(&[
            "image",
            "inspect",
            "--format",
            "{{json .RootFS.Layers}}",
            "localhost/small:1",
        ]);
        assert_eq!(serde_json::from_str::<Vec<String>>(&loaded).unwrap(), ids, "{packing}");
        if number > 0 {
            podman(&["rmi", "localhost/small:1"]);
        }
    }
    let loaded = ["load", "--signature-policy", "policy.json", "-i", "saved.tar"];
    podman(&loaded);
    // Straight out of podman's store, into an empty one.
    let other = Home::new();
    let import = |words: &[&str]| {
        other
            .run(&[&["import"], words].concat())
            .env("CONTAINERS_STORAGE_CONF", &config)
            .env("XDG_RUNTIME_DIR", home.work.at("run"))
            .output()
    };
    let said = import(&["containers-storage:localhost/small:1"]).succeeds();
    assert_eq!(said.text(), "localhost/small:1");
    assert_eq!(other.diff_ids("localhost/small:1"), ids);
    import(&["own", "containers-storage:localhost/small:1"]).succeeds();
    assert_eq!(other.diff_ids("own"), ids);
    let missing = import(&["containers-storage:localhost/none"]);
    missing.refuses(125, &["containers-storage:localhost/none", "skopeo", "podman images"]);
    let staging = other.work.path().join("data/casemate/store/staging");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
    // What was pushed, it pulls.
    let registry = Registry::plain();
    let target = format!("{}/small", registry.host());
    home.done(&["push", "-q", "--tls-verify=false", "localhost/small:1", &target]);
    podman(&["pull", "-q", "--signature-policy", "policy.json", "--tls-verify=false", &target]);
    let pulled = podman(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", &target]);
    assert_eq!(serde_json::from_str::<Vec<String>>(&pulled).unwrap(), ids);
    // podman's files belong to ids of its own.
    podman(&["system", "reset", "-f"]);
}

#[test]
fn without_skopeo_or_docker_it_is_said() {
    let home = Home::new();
    let bin = home.work.directory("bin");
    let output = home.run(&["import", "containers-storage:a"]).env("PATH", bin).output();
    output.refuses(125, &["needs skopeo", "install the package skopeo"]);
    let output = home
        .run(&["import", "docker-daemon:a"])
        .env("DOCKER_HOST", format!("unix://{}", home.work.at("none.sock")))
        .output();
    output.refuses(125, &["docker-daemon:a", "skopeo: ", "docker images"]);
}
