//! docker-registry, filled and emptied by skopeo too.

use std::io::Read;

use casemate::image::{Digest, Manifest};
use casemate::registry::{Access, Registries};
use serde_json::json;

use crate::common::registry::{Demands, PASSWORD, Registry, USER, layout};
use crate::{insecure, open, strict, write};

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn an_image_is_read_as_skopeo_wrote_it() {
    let registry = Registry::plain();
    let home = tempfile::tempdir().unwrap();
    let layers = [noise(3 << 20, 1), noise(10, 2)];
    let place = layout(&home.path().join("image"), &[&layers[0], &layers[1]]);
    registry.push(&format!("oci:{}:latest", place.display()), "team/tool:1.0");
    let name = format!("{}/team/tool:1.0", registry.host());
    let (remote, reference) = open(insecure(home.path()), &name, Access::Pull);

    let before = registry.requests().len();
    let digest = remote.head(&reference).unwrap().unwrap();
    let asked = &registry.requests()[before..];
    assert_eq!(asked, ["HEAD /v2/team/tool/manifests/1.0"], "one request");

    let document = remote.manifest(&reference).unwrap();
    assert_eq!(document.digest, digest);
    assert_eq!(remote.manifest_at(digest).unwrap(), document);
    let manifest = Manifest::parse(&document.bytes, &document.media_type).unwrap();
    let config = remote.document(&manifest.config, manifest.config_size).unwrap();
    assert_eq!(Digest::of(&config), manifest.config);
    for layer in &manifest.layers {
        let mut content = Vec::new();
        let mut blob = remote.blob(&layer.digest, layer.size, &[]).unwrap();
        blob.read_to_end(&mut content).unwrap();
        assert_eq!(Digest::of(&content), layer.digest);
    }
}

#[test]
fn what_is_put_there_is_what_skopeo_reads() {
    let registry = Registry::plain();
    let home = tempfile::tempdir().unwrap();
    let name = format!("{}/team/new", registry.host());
    let (remote, reference) = open(insecure(home.path()), &name, Access::Push);
    let layer = noise(2_500_000, 3);
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } })
    .to_string();
    let digest = Digest::of(&layer);
    assert!(!remote.has_blob(&digest).unwrap());
    remote.upload(Some(layer.len() as u64), &digest, &layer[..]).unwrap();
    assert!(remote.has_blob(&digest).unwrap());
    // Without a size, as a stream.
    remote.upload(None, &Digest::of(config.as_bytes()), config.as_bytes()).unwrap();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config.as_bytes()), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest, "size": layer.len() }] })
    .to_string();
    let put = remote.put_manifest(&reference, media_type, manifest.as_bytes()).unwrap();
    assert_eq!(put, Digest::of(manifest.as_bytes()));
    registry.pull("team/new", &format!("dir:{}", home.path().join("out").display()));
    assert_eq!(std::fs::read(home.path().join("out").join(digest.hex())).unwrap(), layer);

    // The same layer in another repository, without sending it.
    let (other, _) = open(insecure(home.path()), &format!("{name}-two"), Access::Push);
    assert!(other.mount_blob(&digest, "team/new").unwrap());
    assert!(other.has_blob(&digest).unwrap());
    assert!(!other.mount_blob(&Digest::of(b"nowhere"), "team/new").unwrap());
}

#[test]
fn wrong_uploads_are_errors() {
    let registry = Registry::plain();
    let home = tempfile::tempdir().unwrap();
    let name = format!("{}/x", registry.host());
    let (remote, reference) = open(insecure(home.path()), &name, Access::Push);
    let digest = Digest::of(b"right");
    let fails = |size, content: &[u8], words: &str| {
        let error = remote.upload(size, &digest, content).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    fails(Some(5), b"wrong", "digest");
    fails(None, b"wrong", "digest");
    fails(Some(9), b"right", "ends after 5 bytes");
    assert!(!remote.has_blob(&digest).unwrap());
    fails(Some(5), b"right and more", "goes on after its size");
    let error = remote.put_manifest(&reference, "application/json", b"{}").unwrap_err().to_string();
    assert!(error.contains("write the manifest"), "{error}");
}

#[test]
fn what_is_not_there_is_said_so() {
    let registry = Registry::plain();
    let home = tempfile::tempdir().unwrap();
    let name = format!("{}/none:1", registry.host());
    let (remote, reference) = open(insecure(home.path()), &name, Access::Pull);
    let error = remote.manifest(&reference).unwrap_err();
    assert!(
        error.to_string().contains("not found: manifest unknown (MANIFEST_UNKNOWN)"),
        "{error}"
    );
    assert!(error.hints()[0].contains("check the name"), "{:?}", error.hints());
    assert!(remote.head(&reference).unwrap_err().to_string().contains("not found"));
    assert!(remote.blob(&Digest::of(b""), 0, &[]).err().unwrap().to_string().contains("not found"));
}

#[test]
fn a_certificate_must_be_signed_by_somebody_known() {
    let registry = Registry::tls();
    let home = tempfile::tempdir().unwrap();
    let host = registry.host();
    let place = layout(&home.path().join("image"), &[b"layer"]);
    registry.push(&format!("oci:{}:latest", place.display()), "x");
    let head = |options| {
        let (remote, reference) = open(options, &format!("{host}/x"), Access::Pull);
        remote.head(&reference)
    };
    let error = head(strict(home.path())).unwrap_err();
    assert!(error.to_string().contains("not signed by an authority"), "{error}");
    assert!(error.hints()[0].contains(&format!("certs.d/{host}/ca.crt")), "{:?}", error.hints());
    assert!(head(insecure(home.path())).unwrap().is_some());

    for place in ["config/containers", "etc/containers", "etc/docker"] {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), &format!("{place}/certs.d/{host}/ca.crt"), registry.authority());
        assert!(head(strict(home.path())).unwrap().is_some(), "{place}");
    }
    write(home.path(), &format!("etc/containers/certs.d/{host}/ca.crt"), "no certificate");
    assert!(head(strict(home.path())).unwrap_err().to_string().contains("has no certificate"));
}

#[test]
fn a_registry_may_want_a_certificate_of_ours() {
    let registry =
        Registry::start(Demands { tls: true, client_certificate: true, ..Demands::default() });
    let home = tempfile::tempdir().unwrap();
    let host = registry.host();
    let certs = format!("config/containers/certs.d/{host}");
    write(home.path(), &format!("{certs}/ca.crt"), registry.authority());
    let ask = || {
        let (remote, reference) = open(strict(home.path()), &format!("{host}/x"), Access::Pull);
        remote.head(&reference).unwrap_err()
    };
    let error = ask();
    assert!(error.hints().iter().any(|hint| hint.contains("client.cert")), "{error} {error:?}");
    let (certificate, key) = registry.client();
    write(home.path(), &format!("{certs}/client.cert"), &certificate);
    assert!(ask().to_string().contains("there is no client.key beside it"));
    write(home.path(), &format!("{certs}/client.key"), &key);
    assert!(ask().to_string().contains("not found"), "it answers");
    // A key of another certificate is found before anything is sent.
    write(home.path(), &format!("{certs}/client.cert"), registry.authority());
    assert!(ask().to_string().contains("client certificate"));
}

#[test]
fn without_tls_only_where_that_was_said() {
    let registry = Registry::plain();
    let home = tempfile::tempdir().unwrap();
    let host = registry.host();
    let head = |options| {
        let (remote, reference) = open(options, &format!("{host}/x"), Access::Pull);
        remote.head(&reference).unwrap_err().to_string()
    };
    let error = head(strict(home.path()));
    assert!(error.contains("does not speak TLS"), "{error}");
    assert_eq!(registry.requests(), [] as [&str; 0]);
    let conf = format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n");
    write(home.path(), "config/containers/registries.conf", conf);
    assert!(head(strict(home.path())).contains("not found"));
    // The option goes before the file.
    let demanding = casemate::registry::Options { tls_verify: Some(true), ..strict(home.path()) };
    assert!(head(demanding).contains("does not speak TLS"));
}

#[test]
fn a_password_is_wanted_and_found() {
    let registry = Registry::with_password();
    let home = tempfile::tempdir().unwrap();
    let host = registry.host();
    write(home.path(), &format!("config/containers/certs.d/{host}/ca.crt"), registry.authority());
    let place = layout(&home.path().join("image"), &[b"layer"]);
    registry.push(&format!("oci:{}:latest", place.display()), "team/x");
    let head = || {
        let (remote, reference) =
            open(strict(home.path()), &format!("{host}/team/x"), Access::Pull);
        remote.head(&reference)
    };
    let error = head().unwrap_err();
    assert!(error.to_string().contains("unauthorized"), "{error}");
    assert!(error.hints()[0].contains(&format!("casemate login {host}")), "{:?}", error.hints());

    let options = strict(home.path());
    let file = home.path().join("config/containers/auth.json");
    casemate::registry::keep(&options, &format!("{host}/team"), USER, PASSWORD).unwrap();
    assert!(file.exists() && head().unwrap().is_some());
    casemate::registry::keep(&options, &format!("{host}/team"), USER, "wrong").unwrap();
    assert!(head().unwrap_err().to_string().contains("unauthorized"));
    // Docker's file, last of all.
    std::fs::rename(&file, home.path().join("config.json")).unwrap();
    casemate::registry::keep(&options, &host, USER, PASSWORD).unwrap();
    assert!(head().unwrap().is_some());
}

#[test]
fn a_mirror_is_asked_first_and_need_not_answer() {
    let (mirror, own) = (Registry::plain(), Registry::plain());
    let home = tempfile::tempdir().unwrap();
    let place = layout(&home.path().join("image"), &[b"layer"]);
    let source = format!("oci:{}:latest", place.display());
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let conf = format!(
        "[[registry]]\nprefix = \"hub.example/team\"\nlocation = \"{}/group\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{dead}/none\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}/copy\"\ninsecure = true\n",
        own.host(),
        mirror.host()
    );
    write(home.path(), "config/containers/registries.conf", conf);
    own.push(&source, "group/x");
    let pull = || {
        let (remote, reference) = open(strict(home.path()), "hub.example/team/x", Access::Pull);
        let document = remote.manifest(&reference).unwrap();
        let manifest = Manifest::parse(&document.bytes, &document.media_type).unwrap();
        remote.document(&manifest.config, manifest.config_size).unwrap();
    };
    let before = own.requests().len();
    pull();
    assert_eq!(own.requests().len() - before, 2, "the mirrors have nothing");
    mirror.push(&source, "copy/x");
    let before = own.requests().len();
    pull();
    assert_eq!(own.requests().len(), before, "the mirror has it");
    let registries = Registries::load(strict(home.path())).unwrap();
    let reference = casemate::image::Reference::parse("hub.example/team/y").unwrap();
    let remote = registries.open(&reference, Access::Push).unwrap();
    remote.upload(Some(1), &Digest::of(b"y"), &b"y"[..]).unwrap();
    assert!(own.requests().last().unwrap().starts_with("PUT /v2/group/y/"), "push goes home");
}
