//! The formats an image comes in, with the tools that write and read them as oracles.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use casemate::image::Digest;
use serde_json::{Value, json};

use crate::common::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(data).unwrap();
    packer.finish().unwrap()
}

/// Writes a blob; its descriptor.
pub(crate) fn blob(layout: &Path, media_type: &str, content: &[u8]) -> Value {
    let digest = Digest::of(content);
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("blobs/sha256").join(digest.hex()), content).unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
}

pub(crate) fn config(diff_ids: &[Digest]) -> Value {
    json!({ "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09Z",
        "config": { "Env": ["A=b"], "Cmd": ["/bin/sh"], "User": "1:2" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } })
}

/// Writes a manifest over layers that are as they are; its descriptor.
pub(crate) fn manifest(layout: &Path, layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = config(&diff_ids).to_string();
    let config = blob(layout, "application/vnd.oci.image.config.v1+json", config.as_bytes());
    let layers: Vec<_> = layers.iter().map(|layer| blob(layout, LAYER, layer)).collect();
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    blob(layout, MANIFEST, manifest.to_string().as_bytes())
}

pub(crate) fn index(layout: &Path, manifests: &[Value]) {
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// Writes an OCI layout of one image.
pub(crate) fn layout(layout: &Path, layers: &[Vec<u8>]) {
    let descriptor = manifest(layout, layers);
    index(layout, &[descriptor]);
}

/// A root file system with one of everything that an ordinary user can make.
fn sample(root: &Path) {
    let long = "long-name/".repeat(20);
    fs::create_dir_all(root.join(&long)).unwrap();
    fs::write(root.join(&long).join("x".repeat(200)), "deep").unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/empty"), "").unwrap();
    fs::write(
        root.join("big"),
        (0..3_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    fs::hard_link(root.join("big"), root.join("etc/big-too")).unwrap();
    std::os::unix::fs::symlink("etc/passwd", root.join("link")).unwrap();
    std::os::unix::fs::symlink("l".repeat(150), root.join("long-link")).unwrap();
    let mut sparse = fs::File::create(root.join("sparse")).unwrap();
    for offset in [1 << 20, 5 << 20] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 70_000], offset).unwrap();
    }
    sparse.flush().unwrap();
    sparse.set_len(9 << 20).unwrap();
    tool("mkfifo", &["fifo"], root);
    fs::write(root.join(std::ffi::OsString::from_vec(b"not-utf8-\xff".to_vec())), "x").unwrap();
    fs::set_permissions(root.join("etc/empty"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o2755)).unwrap();
    for time in ["@1000000000.123456789 etc", "@-77.5 link", "@1700000000.5 big"] {
        let (time, name) = time.split_once(' ').unwrap();
        tool("touch", &["-h", "-d", time, name], root);
    }
}

/// The tree of a layer against the one it was made from.
fn assert_same(made: &Path, original: &Path, whole_seconds: bool) {
    let strip = |tree: &Path| -> Vec<_> {
        let described = describe(tree).into_iter();
        described
            .map(|(path, text)| match text.rsplit_once('.') {
                Some((seconds, _)) if whole_seconds => (path, seconds.to_owned()),
                _ => (path, text),
            })
            .collect()
    };
    let (made_tree, original_tree) = (strip(made), strip(original));
    for (a, b) in made_tree.iter().zip(&original_tree) {
        assert_eq!(a, b);
    }
    assert_eq!(made_tree.len(), original_tree.len());
    for (path, _) in original_tree {
        let stat = fs::symlink_metadata(original.join(&path)).unwrap();
        if stat.is_file() || stat.is_dir() {
            assert_eq!(
                true_mode(&made.join(&path)),
                stat.permissions().mode() & 0o7777,
                "{path:?}"
            );
        }
    }
}

user_tests! {
    fn a_root_file_system_from_gnu_tar_is_what_it_was(home) {
        let root = home.join("root");
        fs::create_dir(&root).unwrap();
        sample(&root);
        for (format, pack) in [("--format=gnu", ""), ("--format=posix", ""), ("--format=pax", "gzip"), ("--format=gnu", "zstd")] {
            for sparse in [&["-S"][..], &["-S", "--sparse-version=0.0"], &["-S", "--sparse-version=0.1"], &[]] {
                if format.contains("gnu") && sparse.len() == 2 { continue; }
                let mut arguments = vec!["-C", "root", "--owner=0", "--group=0", "--sort=name", format];
                arguments.extend(sparse);
                arguments.extend(["-cf", "t", "."]);
                tool("tar", &arguments, home);
                let source = match pack {
                    "gzip" => { tool("gzip", &["-f", "t"], home); home.join("t.gz") }
                    "zstd" => { tool("zstd", &["-qf", "t"], home); home.join("t.zst") }
                    _ => home.join("t"),
                };
                // The name says nothing.
                fs::rename(source, home.join("source")).unwrap();
                let (store, image) = import(home, "test", &home.join("source"));
                assert_same(&store.layer_path(&image.layers[0]), &root, format.contains("gnu"));
                assert_eq!(image.config.os, "linux");
                fs::remove_dir_all(home.join("data")).unwrap();
            }
        }
    }

    fn a_directory_is_what_it_was_and_has_one_digest(home) {
        let root = home.join("root");
        fs::create_dir(&root).unwrap();
        sample(&root);
        let (store, image) = import(home, "one", &root);
        assert_same(&store.layer_path(&image.layers[0]), &root, false);
        assert_eq!(xattr(&store.layer_path(&image.layers[0]).join("big"), c"user.containers.override_stat").as_deref(), Some("0:0:0644:file"));
        let again = try_import(home, "two", &root).unwrap();
        assert_eq!((again.digest, again.layers_new, again.layers_shared), (image.digest, 0, 1));
        let images = store.images().unwrap();
        let names: Vec<_> = images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        assert!(images[0].size >= 12_000_000 && images[0].layers == 1);
    }

    fn umoci_layers_make_the_tree_that_umoci_makes(home) {
        let run = |arguments: &[&str]| tool("umoci", arguments, home);
        run(&["init", "--layout", "oci"]);
        run(&["new", "--image", "oci:base"]);
        run(&["unpack", "--rootless", "--image", "oci:base", "bundle"]);
        let root = home.join("bundle/rootfs");
        sample(&root);
        fs::create_dir_all(root.join("var/replaced/deep")).unwrap();
        fs::write(root.join("var/replaced/deep/old"), "old").unwrap();
        fs::write(root.join("var/gone"), "gone").unwrap();
        run(&["repack", "--refresh-bundle", "--image", "oci:base", "bundle"]);
        fs::remove_file(root.join("var/gone")).unwrap();
        fs::remove_dir_all(root.join("var/replaced")).unwrap();
        fs::create_dir(root.join("var/replaced")).unwrap();
        fs::write(root.join("var/replaced/new"), "new").unwrap();
        fs::write(root.join("etc/passwd"), "changed\n").unwrap();
        run(&["repack", "--refresh-bundle", "--image", "oci:base", "bundle"]);
        run(&["config", "--image", "oci:base", "--config.cmd", "sh", "--config.env", "K=V", "--config.workingdir", "/srv"]);
        run(&["raw", "unpack", "--rootless", "--image", "oci:base", "oracle"]);
        let (store, image) = import(home, "debian:test", &home.join("oci"));
        assert_eq!((image.layers.len(), image.name.as_str()), (2, "debian:test"));
        assert_eq!((image.config.cmd.as_slice(), image.config.working_dir.as_deref()), (&["sh".to_owned()][..], Some("/srv")));
        // The kernel's own overlay over our layers.
        let lower: Vec<_> = image.layers.iter().rev().map(|l| store.layer_path(l).display().to_string()).collect();
        // Times of directories are left out: umoci changes them by what it unpacks later.
        let find = r"find . -mindepth 1 \( -type d -printf '%P|d\n' -o -printf '%P|%y|%T@|%l|%n|%s\n' \) | sort;
            find . -type f -exec sha256sum {} + | sort";
        fs::create_dir(home.join("m")).unwrap();
        let script = format!("mount -t overlay overlay -o userxattr,lowerdir={} m; cd m; {find}", lower.join(":"));
        let ours = tool("unshare", &["-Urm", "sh", "-ec", &script], home);
        let theirs = tool("sh", &["-ec", find], &home.join("oracle"));
        assert_eq!(ours.lines().count(), theirs.lines().count());
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            assert_eq!(ours, theirs);
        }
        assert!(ours.contains("var/replaced/new") && !ours.contains("var/gone") && !ours.contains("old"));
    }

    fn every_archive_of_an_image_is_the_same_image(home) {
        let first = archive([Entry::file("etc/passwd", "first"), Entry::dir("bin")]);
        let second = archive([Entry::file("etc/.wh.passwd", ""), Entry::file("new", "x")]);
        layout(&home.join("oci"), &[first.clone(), second, first]);
        let (_, expected) = import(home, "test", &home.join("oci"));
        assert_eq!(expected.config.env, ["A=b"]);
        for (target, image) in [
            ("oci-archive:a.tar:x", "a.tar"), ("docker-archive:b.tar:x:y", "b.tar"), ("oci:c:x", "c"),
        ] {
            let arguments = ["--insecure-policy", "copy", "-q", "oci:oci", target];
            tool("skopeo", &arguments, home);
            let data = home.join("data");
            fs::rename(&data, home.join("kept")).unwrap();
            let (_, image_read) = import(home, "test", &home.join(image));
            assert_eq!(image_read.layers, expected.layers, "{target}");
            assert_eq!(image_read.config.cmd, expected.config.cmd, "{target}");
            assert_eq!(image_read.config.user.as_deref(), Some("1:2"), "{target}");
            fs::remove_dir_all(&data).unwrap();
            fs::rename(home.join("kept"), &data).unwrap();
            let shared = try_import(home, "again", &home.join(image)).unwrap();
            assert_eq!((shared.layers_new, shared.bytes), (0, 0), "{target}");
            if image.ends_with(".tar") {
                for (tool_name, ending) in [("gzip", "gz"), ("zstd", "zst")] {
                    tool(tool_name, &["-kqf", image], home);
                    let packed = home.join(format!("{image}.{ending}"));
                    assert_eq!(import(home, "packed", &packed).1.layers, expected.layers);
                }
            }
        }
        // Other tools read our layout's documents.
        let store = home.join("data/casemate/store/oci");
        let read = tool("skopeo", &["inspect", "--config", &format!("oci:{}:test:latest", store.display())], home);
        assert!(read.contains("A=b"));
    }

    fn packed_layers_are_verified_and_unpacked(home) {
        let plain = archive([Entry::file("file", "content")]);
        let more = archive([Entry::file("more", "content")]);
        let oci = home.join("oci");
        let config = config(&[Digest::of(&plain), Digest::of(&more)]).to_string();
        let layers = [
            blob(&oci, "application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip(&plain)),
            blob(&oci, &format!("{LAYER}+zstd"), &zstd::encode_all(&more[..], 1).unwrap()),
        ];
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let config = blob(&oci, "application/vnd.docker.container.image.v1+json", config.as_bytes());
        let json = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
        index(&oci, &[blob(&oci, kind, json.to_string().as_bytes())]);
        let (store, image) = import(home, "test", &oci);
        assert_eq!(image.digest, Digest::of(json.to_string().as_bytes()));
        let file = store.layer_path(&image.layers[1]).join("more");
        assert_eq!(fs::read_to_string(file).unwrap(), "content");
    }

    fn old_docker_archives_share_layers_by_links(home) {
        let layer = archive([Entry::file("file", "content")]);
        let config = config(&[Digest::of(&layer), Digest::of(&layer)]).to_string();
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
        let manifest = json!([{ "Config": name, "RepoTags": null,
            "Layers": [format!("{a}/layer.tar"), format!("{b}/layer.tar")] }]).to_string();
        let layer_text = String::from_utf8(layer).unwrap();
        let outer = archive([
            Entry::dir(format!("{a}/")),
            Entry::file(format!("{a}/VERSION"), "1.0"),
            Entry::file(format!("{a}/layer.tar"), &layer_text),
            Entry::symlink(format!("{b}/layer.tar"), format!("../{a}/layer.tar")),
            Entry::file(&name, &config),
            Entry::file("manifest.json", &manifest),
        ]);
        fs::write(home.join("saved"), &outer).unwrap();
        let (store, image) = import(home, "test", &home.join("saved"));
        assert_eq!(image.layers.len(), 2);
        assert!(store.layer_path(&image.layers[0]).join("file").exists());
    }

    fn an_index_gives_the_image_for_this_host(home) {
        let oci = home.join("oci");
        let make = |name: &str, os: &str, cpu: &str| {
            let mut descriptor = manifest(&oci, &[archive([Entry::file(name, "")])]);
            descriptor["platform"] = json!({ "os": os, "architecture": cpu });
            descriptor
        };
        let host = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let inner = json!({ "schemaVersion": 2, "manifests": [
            make("other", "linux", "s390x"), make("win", "windows", host), make("host", "linux", host),
            make("unknown", "unknown", "unknown")] });
        let kind = "application/vnd.oci.image.index.v1+json";
        let nested = blob(&oci, kind, inner.to_string().as_bytes());
        index(&oci, &[nested]);
        let (store, image) = import(home, "test", &oci);
        assert!(store.layer_path(&image.layers[0]).join("host").exists());
        let named = |name: &str| {
            let mut descriptor = manifest(&oci, &[archive([Entry::file(name, "")])]);
            descriptor["annotations"] = HashMap::from([("org.opencontainers.image.ref.name", name)]).into_iter().collect();
            descriptor
        };
        index(&oci, &[named("one"), named("two")]);
        let error = try_import(home, "test", &oci).unwrap_err();
        assert!(error.to_string().ends_with("holds 2 images: one, two"), "{error}");
        index(&oci, &[make("other", "linux", "s390x")]);
        let error = try_import(home, "test", &oci).unwrap_err();
        assert!(error.to_string().contains(&format!("no image for linux/{host}, only for linux/s390x")), "{error}");
    }

    fn an_import_replaces_the_name_and_listing_is_by_name(home) {
        for (name, content) in [("b", "1"), ("a:x", "22"), ("b:latest", "333")] {
            fs::write(home.join("t"), archive([Entry::file("f", content)])).unwrap();
            import(home, name, &home.join("t"));
        }
        let store = open(home);
        let images = store.images().unwrap();
        let seen: Vec<_> = images.iter().map(|i| (i.name.as_str(), i.size)).collect();
        assert_eq!(seen, [("a:x", 2), ("b", 3)]);
        let error = store.image(&reference("bb")).unwrap_err();
        assert_eq!(error.to_string(), "image bb: not in the store");
        assert_eq!(error.hints()[0], "did you mean b?");
        assert_eq!(error.exit_code(), 125);
    }
}
