//! The images that there are in the world: of three tools, of both families, packed in every way.

use std::fs;
use std::time::Duration;

use crate::archives::{Entry, archive, describe};
use crate::common::user::is_root;
use crate::common::{Run, Workspace};
use crate::images::{DOCKER_LAYER, Layer, Made, OCI_LAYER};
use crate::scene::Scene;
use crate::server::{Server, reply};

/// A tree with an entry of each kind.
fn tree(mark: &str) -> Vec<u8> {
    archive([
        Entry::dir("etc"),
        Entry::file("etc/mark", mark),
        Entry::file("etc/private", "x").owner(7, 8).mode(0o4750),
        Entry::hard_link("etc/again", "etc/mark"),
        Entry::symlink("link", "etc/mark"),
        Entry::file("gone/.wh..wh..opq", ""),
        Entry::file("etc/.wh.removed", ""),
    ])
}

#[test]
fn layers_come_however_they_are_packed_and_called() {
    let scene = Scene::new();
    let docker = |end: &str| format!("{DOCKER_LAYER}{end}");
    let oci_old = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let oci = [
        Layer::plain(tree("oci plain")),
        Layer::gzip(tree("oci gzip")),
        Layer::zstd(tree("oci zstd")),
        Layer::gzip(tree("oci nondistributable")).typed(oci_old),
        // What is in it counts, and not how it is called.
        Layer::zstd(tree("oci misnamed")).typed(&format!("{OCI_LAYER}+gzip")),
    ];
    let dockers = [
        Layer::plain(tree("docker plain")).typed(&docker("")),
        Layer::gzip(tree("docker gzip")).typed(&docker(".gzip")),
        Layer::zstd(tree("docker zstd")).typed(&docker(".zstd")),
        Layer::gzip(tree("docker foreign")).typed(foreign),
        Layer::plain(tree("docker misnamed")).typed(&docker(".gzip")),
    ];
    Made::new(&oci).put(&scene.registry, "oci", Some("latest"));
    Made::new(&dockers).docker().put(&scene.registry, "docker", Some("latest"));
    for (name, layers) in [("oci", &oci), ("docker", &dockers)] {
        scene.pull(&scene.name(name));
        for layer in layers {
            let tree = describe(&scene.home.tree(layer));
            assert_eq!(tree.len(), 7, "{}: {tree:?}", layer.media_type);
            let mark = fs::read_to_string(scene.home.tree(layer).join("link")).unwrap();
            assert!(mark.starts_with(name), "{mark}");
        }
    }
    scene.home.has_just(&[&oci[..], &dockers].concat());
    scene.home.is_clean();
}

#[test]
fn foreign_layers_come_from_where_the_manifest_says() {
    let scene = Scene::new();
    let mut layer = Layer::gzip(tree("foreign"));
    let packed = layer.packed.clone();
    let elsewhere = Server::new(move |request, wire| {
        assert_eq!(request.header("authorization"), "");
        match request.path.as_str() {
            "/layer" => reply(wire, 200, &[], &packed),
            _ => reply(wire, 404, &[], b"no"),
        }
    });
    let at = |path: &str| format!("http://{}{path}", elsewhere.host());
    layer.urls = vec![at("/gone"), at("/layer")];
    let layer = layer.typed("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    let image = scene.put("windows", &[layer.clone(), Layer::plain(tree("own"))]);
    scene.pull(&image);
    assert_eq!(elsewhere.lines(), ["GET /gone", "GET /layer"]);
    assert!(scene.home.tree(&layer).join("etc/mark").exists());
    // Nowhere is an error that says where it was looked for.
    let mut lost = Layer::gzip(tree("lost"));
    lost.urls = vec![at("/lost")];
    let image = scene.put("lost", &[lost]);
    let output = scene.home.casemate(["pull", "-q", &image]).output();
    output.refuses(125, &["layer 1 of 1", &elsewhere.host(), "not found"]);
}

#[test]
fn empty_layers_and_layers_that_come_twice() {
    let scene = Scene::new();
    let nothing = Layer::plain(archive([]));
    // The layer that docker wrote for every line of a Dockerfile that changed no file.
    let docker = Layer::gzip(vec![0; 1024]).typed(&format!("{DOCKER_LAYER}.gzip"));
    assert_eq!(
        docker.diff_id().to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
    let twice = Layer::gzip(tree("twice"));
    let layers = [docker.clone(), twice.clone(), nothing, twice.clone(), docker.clone()];
    let image = scene.put("odd", &layers);
    let requests = scene.registry.requests().len();
    scene.pull(&image);
    let blobs = scene.blobs_since(requests);
    // The config, and each content once: an empty tar is the same as docker's.
    assert_eq!(blobs.len(), 3, "{blobs:?}");
    scene.home.has_just(&[docker, twice.clone()]);
    scene.home.is_clean();
    // The same content packed otherwise need not come again.
    let again = Layer::zstd(twice.tar.clone());
    let image = scene.put("again", &[again]);
    let requests = scene.registry.requests().len();
    let output = scene.home.casemate(["pull", &image]).output().succeeds();
    assert!(output.err().contains("0 layers new (0 B), 1 layer shared"), "{}", output.err());
    assert_eq!(scene.blobs_since(requests).len(), 1, "the config alone");
    // An image of no layers at all.
    let image = scene.put("none", &[]);
    scene.pull(&image);
}

#[test]
fn sixty_layers() {
    let scene = Scene::new();
    let layers: Vec<_> = (0..60)
        .map(|number| {
            let tar = archive([
                Entry::file(format!("only-{number}"), "x"),
                Entry::file("last", number.to_string()),
            ]);
            if number % 2 == 0 { Layer::gzip(tar) } else { Layer::zstd(tar) }
        })
        .collect();
    let image = scene.put("many", &layers);
    scene.pull(&image);
    scene.home.has_just(&layers);
    assert_eq!(fs::read_to_string(scene.home.tree(&layers[59]).join("last")).unwrap(), "59");
    scene.home.is_clean();
}

/// Two layers of umoci's, with all that an ordinary user can make; its own unpacking is in `oracle`.
const UMOCI: &str = r#"
umask 022; exec 2>log
umoci init --layout oci; umoci new --image oci:base
umoci unpack --rootless --image oci:base bundle
cd bundle/rootfs; mkdir -p bin etc var/replaced/deep "$(printf 'long-name/%.0s' {1..20})"
cp /bin/busybox bin/busybox; for name in sh cat ls find sort; do ln -s busybox bin/$name; done
seq 1 100000 > big; ln big etc/big-too; ln -s etc/passwd link; ln -s "$(printf 'l%.0s' {1..150})" long-link
echo root:x:0:0::/root:/bin/sh > etc/passwd; : > etc/empty; chmod 4711 etc/empty; chmod 2755 etc
truncate -s 9M sparse; printf data | dd of=sparse bs=1 seek=5M conv=notrunc
mkfifo fifo; echo x > "$(printf 'not-utf8-\377')"; echo old > var/replaced/deep/old; echo gone > var/gone
touch -h -d @1000000000 link; touch -d @1700000000.5 big
cd ../..; umoci repack --refresh-bundle --image oci:base bundle
cd bundle/rootfs; rm var/gone; rm -r var/replaced; mkdir var/replaced; echo new > var/replaced/new; echo changed > etc/passwd
cd ../..; umoci repack --refresh-bundle --image oci:base bundle
umoci config --image oci:base --architecture "$(dpkg --print-architecture)" --config.cmd cat --config.cmd /etc/passwd
umoci raw unpack --rootless --image oci:base oracle
"#;

/// Times of directories are left out: umoci changes them by what it unpacks later.
const FIND: &str = r"find . -mindepth 1 \( -type d -printf '%P|d\n' -o -printf '%P|%y|%T@|%l|%n|%s\n' \) | sort
    find . -type f -exec sha256sum {} + | sort";

#[test]
fn an_image_of_umocis_is_the_tree_that_umoci_makes() {
    let scene = Scene::new();
    let work = Workspace::new();
    Run::bash(UMOCI).directory(work.path()).env("HOME", work.path()).output().succeeds();
    // In umoci's own gzip, and as skopeo packs them anew.
    for (name, prepare, from) in [
        ("gzip", "true", "oci:oci:base"),
        ("zstd", "$copy --dest-decompress oci:oci:base dir:plain", "dir:plain"),
    ] {
        let copy = format!(
            "set -e; copy='skopeo --insecure-policy copy -q'; {prepare}
            # It remembers what it pushed before, and would push nothing else.
            export XDG_DATA_HOME=$PWD/{name}
            $copy --dest-tls-verify=false --dest-compress-format={name} {from} $to
            skopeo inspect --raw --tls-verify=false $to | grep -q {name}"
        );
        let to = format!("docker://{}/{name}", scene.registry.host());
        let copy = Run::bash(&copy).env("to", to);
        copy.directory(work.path()).env("HOME", work.path()).output().succeeds();
        let image = scene.name(name);
        scene.pull(&image);
        let inspect = ["inspect", "-f", "layers", &image];
        let layers: serde_json::Value =
            serde_json::from_str(&scene.home.casemate(inspect).text()).unwrap();
        let lower: Vec<String> = layers
            .as_array()
            .unwrap()
            .iter()
            .rev()
            .map(|layer| {
                let digest = layer["diff_id"].as_str().unwrap().replace(':', "-");
                format!("data/casemate/store/layers/{digest}/fs")
            })
            .collect();
        assert_eq!(lower.len(), 2);
        // The kernel's own overlay over our layers.
        let script = format!(
            "mkdir -p m; mount -t overlay overlay -o userxattr,lowerdir={} m; cd m; {FIND}",
            lower.join(":")
        );
        let ours =
            scene.home.dress(Run::new("unshare").args(["-Urm", "sh", "-ec", &script])).text();
        let theirs = Run::bash(FIND).directory(work.path().join("oracle")).text();
        assert_eq!(ours.lines().collect::<Vec<_>>(), theirs.lines().collect::<Vec<_>>(), "{name}");
        assert!(ours.contains("var/replaced/new") && !ours.contains("var/gone"));
        let run = scene.home.casemate(["run", "--pull", "never", "--image", &image]);
        assert_eq!(run.text().lines().next(), Some("changed"));
    }
    scene.home.is_clean();
}

#[test]
fn images_of_buildahs_run() {
    let scene = Scene::new();
    let work = Workspace::new();
    // Built from nothing, so that no registry is needed; `chroot` needs no runtime.
    let script = r#"
        set -e; exec 2>log
        run="buildah --root $PWD/storage --runroot $PWD/runroot --storage-driver vfs"
        mkdir context; cp /bin/busybox context; printf 'FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV K=V\nWORKDIR /srv\nRUN ["/bin/busybox", "touch", "/made"]\nENTRYPOINT ["/bin/busybox"]\nCMD ["env"]\n' > context/Containerfile
        for format in oci docker; do
            $run build --isolation chroot --layers --format $format -t localhost/$format context
            $run push --tls-verify=false --format $([ $format = docker ] && echo v2s2 || echo oci) localhost/$format docker://$registry/$format
        done"#;
    let build = Run::bash(script).env("registry", scene.registry.host()).env("HOME", work.path());
    let build = build.directory(work.path()).timeout(Duration::from_secs(120));
    // An ordinary user would need a range of ids for it.
    let output = if is_root() { build.by_root() } else { build }.output();
    let log = fs::read_to_string(work.path().join("log")).unwrap_or_default();
    assert_eq!(output.code(), Some(0), "{log}");
    for name in ["oci", "docker"] {
        let image = scene.name(name);
        let output = scene.home.casemate(["run", "-q", "--image", &image]).output().succeeds();
        assert!(output.out().contains("K=V\n"), "{}", output.out());
        let there = scene.home.casemate(["run", "--image", &image, "ls", "/made"]).text();
        assert_eq!(there, "/made");
    }
    scene.home.is_clean();
}
