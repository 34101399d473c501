//! Which image a name stands for, and whom it is asked of.

use std::os::unix::fs::PermissionsExt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;

use crate::archives::{Entry, archive};
use crate::common::registry::{Demands, PASSWORD, Registry, USER};
use crate::images::{DOCKER_LIST, Layer, Made, OCI_INDEX, host, put_index};
use crate::scene::{Home, Scene, insecure};

fn layer(name: &str) -> Layer {
    Layer::gzip(archive([Entry::file("name", name)]))
}

fn made(name: &str) -> Made {
    Made::new(&[layer(name)])
}

#[test]
fn an_index_gives_the_image_for_the_platform() {
    let scene = Scene::new();
    let own = made("own");
    let other = made("other").for_machine("linux", "s390x");
    // What buildkit attests lies in the index as if it were an image.
    let attested = made("attested").for_machine("unknown", "unknown");
    for image in [&own, &other, &attested] {
        image.put(&scene.registry, "app", None);
    }
    let mut attestation = attested.entry();
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": own.digest() });
    let entries = [attestation, other.entry(), own.entry()];
    let put = |tag, media_type, entries: &[_]| {
        put_index(&scene.registry, "app", tag, media_type, entries)
    };
    put(Some("latest"), OCI_INDEX, &entries);
    put(Some("docker"), DOCKER_LIST, &entries);
    let nested = put(None, OCI_INDEX, &entries);
    put(Some("nested"), OCI_INDEX, &[nested]);
    let app = scene.name("app");
    for name in [app.clone(), format!("{app}:docker"), format!("{app}:nested")] {
        scene.pull(&name);
        assert_eq!(architecture(&scene, &name), host(), "{name}");
        scene.home.has_just(&[layer("own")]);
        // Again is one request, though what the name leads to is in the index only.
        let before = scene.registry.requests().len();
        scene.pull(&name);
        let after = scene.registry.requests();
        assert_eq!(after.len(), before + 1, "{after:#?}");
    }
    let pull = |platform: &str| scene.home.casemate(["pull", "--platform", platform, &app]);
    assert_eq!(pull("linux/s390x").text(), app);
    assert!(scene.home.tree(&layer("other")).join("name").exists());
    // What is there is for another platform than the one that is wanted now.
    scene.pull(&app);
    assert_eq!(architecture(&scene, &app), host());
    pull("linux/riscv64").output().refuses(125, &["no image for linux/riscv64", "linux/s390x"]);
    pull("nonsense").output().fails(125);
    assert_eq!(scene.home.names().len(), 3);
}

fn architecture(scene: &Scene, name: &str) -> String {
    scene.home.casemate(["inspect", "-f", "config.architecture", name]).text()
}

#[test]
fn an_image_for_another_machine_is_refused_in_words() {
    let scene = Scene::new();
    let image = made("far").for_machine("linux", "s390x");
    image.put(&scene.registry, "far", Some("latest"));
    let name = scene.name("far");
    let words = [
        &format!("the image is for linux/s390x, not for linux/{}", host())[..],
        "hint: --platform linux/s390x pulls it; programs in it may not run",
    ];
    scene.home.casemate(["pull", &name]).output().refuses(125, &words);
    scene.home.casemate(["run", "--image", &name, "true"]).output().refuses(125, &words);
    scene.home.has_just(&[]);
    let pull = ["pull", "--platform", "linux/s390x", &name];
    assert_eq!(scene.home.casemate(pull).text(), name);
    let pull = ["pull", "--platform", "linux/arm64", &name];
    let hint = "--platform linux/s390x pulls this one";
    scene.home.casemate(pull).output().refuses(125, &["not for linux/arm64", hint]);
}

#[test]
fn by_digest_by_tag_and_by_both() {
    let scene = Scene::new();
    let (old, new) = (made("old"), made("new"));
    old.put(&scene.registry, "app", Some("1"));
    let digest = old.digest();
    let app = scene.name("app");
    let both = format!("{app}:1@{digest}");
    let by_digest = format!("{app}@{digest}");
    // The digest is what counts, also while the tag moves on.
    let pull = |name: &str| scene.home.casemate(["pull", "-q", name]).text();
    assert_eq!(pull(&both), by_digest);
    new.put(&scene.registry, "app", Some("1"));
    let requests = scene.registry.requests().len();
    assert_eq!(pull(&both), by_digest);
    assert_eq!(scene.registry.requests().len(), requests, "a digest never changes");
    scene.pull(&by_digest);
    scene.pull(&format!("{app}:1"));
    scene.home.has_just(&[layer("old"), layer("new")]);
    let inspect = |name: &str| scene.home.casemate(["inspect", "-f", "digest", name]).text();
    assert_eq!(inspect(&by_digest), digest.to_string());
    assert_eq!(inspect(&format!("{app}:1")), new.digest().to_string());
    let none = format!("{app}@sha256:{}", "a".repeat(64));
    scene.home.casemate(["pull", &none]).output().refuses(125, &["unknown", "check the name"]);
    scene.home.casemate(["pull", &format!("{app}:2")]).output().refuses(125, &["app:2", "unknown"]);
}

#[test]
fn short_names_are_what_registries_conf_says() {
    let (first, second) = (Registry::plain(), Registry::plain());
    let home = Home::new();
    let both = insecure(&[&first.host(), &second.host()]);
    let (a, b) = (first.host(), second.host());
    home.settings(&format!(
        "unqualified-search-registries = [\"{a}\", \"{b}\"]\n{both}[aliases]\n\"tool\" = \"{b}/deep/tool-1\"\n"
    ));
    made("app").put(&second, "app", Some("latest"));
    made("tool").put(&second, "deep/tool-1", Some("2"));
    // The first has not got it.
    let full = format!("{b}/app");
    assert_eq!(home.casemate(["pull", "-q", "app"]).text(), full);
    assert_eq!(first.requests(), ["GET /v2/app/manifests/latest"]);
    assert_eq!(home.casemate(["pull", "-q", "tool:2"]).text(), format!("{b}/deep/tool-1:2"));
    assert_eq!(first.requests().len(), 1, "an alias is not searched");
    // Again, and as what `run` names it: it is in the store by its full name.
    assert_eq!(home.casemate(["pull", "-q", "app"]).text(), full);
    let before = (first.requests().len(), second.requests().len());
    home.casemate(["explain", "--image", "app", "true"]).output().succeeds();
    home.casemate(["run", "--image", "app", "/true"]).output().fails(127);
    assert_eq!((first.requests().len(), second.requests().len()), before);
    // Neither has it: both are named.
    let output = home.casemate(["pull", "none"]).output();
    output.refuses(125, &[&format!("{a}/none"), &format!("{b}/none")]);
    // One that cannot be reached may have it: the second is not asked in its place.
    let before = second.requests().len();
    let mut first = first;
    first.stop();
    home.casemate(["rmi", &full]).output().succeeds();
    home.casemate(["pull", "-q", "app"]).output().refuses(125, &[&a, "refused"]);
    assert_eq!(second.requests().len(), before);
}

#[test]
fn mirrors_serve_and_are_passed_over() {
    let (own, mirror) = (Registry::plain(), Registry::plain());
    let home = Home::new();
    made("app").put(&own, "app", Some("latest"));
    made("app").put(&mirror, "copy/app", Some("latest"));
    made("only").put(&own, "only", Some("latest"));
    let settings = |mirror: &str| {
        home.settings(&format!(
            "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n",
            own.host()
        ));
    };
    settings(&format!("{}/copy", mirror.host()));
    let name = |repository: &str| format!("{}/{repository}", own.host());
    assert_eq!(home.casemate(["pull", "-q", &name("app")]).text(), name("app"));
    assert!(own.requests().is_empty(), "{:?}", own.requests());
    let output = home.casemate(["pull", &name("only")]).output().succeeds();
    assert!(output.err().contains("going on without this mirror"), "{}", output.err());
    // One that is not there at all.
    settings("127.0.0.1:1");
    made("more").put(&own, "more", Some("latest"));
    home.casemate(["pull", &name("more")]).output().succeeds();
    assert_eq!(home.names().len(), 3);
}

/// Makes the registry's authority known.
fn trust(home: &Home, registry: &Registry) {
    let place = format!(".config/containers/certs.d/{}/ca.crt", registry.host());
    home.0.file(&place, registry.authority());
}

#[test]
fn certificates_are_verified() {
    let registry = Registry::tls();
    let home = Home::new();
    made("app").put(&registry, "app", Some("latest"));
    let name = format!("{}/app", registry.host());
    let pull = || home.casemate(["pull", "-q", &name]);
    pull().output().refuses(125, &["certificate", &format!("certs.d/{}", registry.host())]);
    home.casemate(["run", "--image", &name, "true"]).output().refuses(125, &["certificate"]);
    home.has_just(&[]);
    trust(&home, &registry);
    assert_eq!(pull().text(), name);
    // The authority of another registry is of no use.
    let other = Registry::tls();
    made("app").put(&other, "app", Some("latest"));
    let elsewhere = format!("{}/app", other.host());
    home.0
        .file(&format!(".config/containers/certs.d/{}/ca.crt", other.host()), registry.authority());
    home.casemate(["pull", &elsewhere]).output().refuses(125, &["certificate"]);
    // Not verified only where that is said.
    home.insecure(&[&other.host()]);
    assert_eq!(home.casemate(["pull", "-q", &elsewhere]).text(), elsewhere);
    let strict = ["pull", "-q", "--tls-verify", &elsewhere];
    home.casemate(strict).output().refuses(125, &["certificate"]);
    home.settings("");
    let loose = ["pull", "-q", "--tls-verify=false", &elsewhere];
    assert_eq!(home.casemate(loose).text(), elsewhere);
}

#[test]
fn credentials_come_from_the_files_that_podman_keeps() {
    let registry = Registry::with_password();
    let home = Home::new();
    trust(&home, &registry);
    made("app").put(&registry, "app", Some("latest"));
    let name = format!("{}/app", registry.host());
    let pull = || home.casemate(["pull", "-q", &name]).output();
    let refused = ["unauthorized", "casemate login"];
    pull().refuses(125, &refused);
    let auth = |password: &str| {
        let basic = BASE64_STANDARD.encode(format!("{USER}:{password}"));
        json!({ "auths": { registry.host(): { "auth": basic } } }).to_string()
    };
    let write = |place: &str, password: &str| {
        let path = home.0.file(place, auth(password));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("run/containers/auth.json", "wrong");
    let output = pull().refuses(125, &["unauthorized"]);
    assert!(!output.err().contains("wrong"), "a password is never shown: {}", output.err());
    write("run/containers/auth.json", PASSWORD);
    pull().succeeds();
    std::fs::remove_file(home.0.at("run/containers/auth.json")).unwrap();
    write("elsewhere.json", PASSWORD);
    pull().fails(125);
    let file = home.0.at("elsewhere.json");
    home.casemate(["pull", "-q", "--authfile", &file, &name]).output().succeeds();
    let words = ["pull", "-q", "--authfile", "none.json", &name];
    home.casemate(words).output().refuses(125, &["open none.json", "--authfile"]);
    // And through the front door.
    let login = ["login", "-u", USER, "--password-stdin", &registry.host()];
    home.casemate(login).stdin(PASSWORD).output().succeeds();
    pull().succeeds();
    let demanding = Demands { tls: true, client_certificate: true, ..Demands::default() };
    let demanding = Registry::start(demanding);
    made("app").put(&demanding, "app", Some("latest"));
    trust(&home, &demanding);
    let name = format!("{}/app", demanding.host());
    home.casemate(["pull", &name]).output().fails(125);
    let (certificate, key) = demanding.client();
    let place = |name: &str| format!(".config/containers/certs.d/{}/{name}", demanding.host());
    home.0.file(&place("me.cert"), certificate);
    home.0.file(&place("me.key"), key);
    home.casemate(["pull", &name]).output().succeeds();
}
