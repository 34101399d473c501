//! What a check of the store finds, what is mended, and what must be brought again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use casemate::image::{Compression, Digest};
use casemate::registry::{Environment, Options, Registries};
use casemate::store::{Fault, Place, Prune, Remedy, Report, State, Store, Wanted};
use casemate::transfer::{self, Platforms, Unwatched};
use serde_json::Value;

use crate::common::*;
use crate::formats::layout;

fn check(home: &Path) -> Report {
    open(home).check(&[], &Silent).unwrap()
}

/// Checks, mends, and says what came of each fault.
fn repair(home: &Path) -> Vec<Fault> {
    let store = Store::open(&home.join("data")).unwrap();
    let mut report = store.check(&[], &Silent).unwrap();
    store.repair(&mut report, &|_| ()).unwrap();
    store.confirm(&mut report).unwrap();
    report.faults
}

/// The only fault.
fn fault(home: &Path) -> Fault {
    let mut faults = check(home).faults;
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.remove(0)
}

fn places(faults: &[Fault]) -> BTreeMap<String, State> {
    faults.iter().map(|fault| (fault.place.to_string(), fault.state.clone())).collect()
}

/// An image `test` of two layers.
fn two_layers(home: &Path) -> (PathBuf, [PathBuf; 2], [Digest; 2]) {
    let layers = [
        archive([Entry::dir("d"), Entry::file("d/f", "first"), Entry::file("a", "a")]),
        archive([Entry::dir("d"), Entry::file("d/g", "second"), Entry::file("b", "b")]),
    ];
    layout(&home.join("oci"), &layers);
    let (store, image) = import(home, "test", &home.join("oci"));
    let ids = [image.layers[0], image.layers[1]];
    (home.join("data/casemate/store"), ids.map(|id| store.layer_path(&id)), ids)
}

fn casemate(home: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
    command.args(words).env("XDG_DATA_HOME", home.join("data")).env("HOME", home);
    command.env("XDG_CONFIG_HOME", home.join("config")).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces a file, with the time that it had.
fn change(path: &Path, content: &str) {
    let stat = fs::symlink_metadata(path).unwrap();
    fs::write(path, content).unwrap();
    let file = fs::File::open(path).unwrap();
    casemate::sys::fs::set_mtime_of(&file, stat.mtime(), stat.mtime_nsec()).unwrap();
}

user_tests! {
    fn a_tree_is_made_anew_from_its_own_stream(home) {
        let (_, [first, second], [id, _]) = two_layers(home);
        let info = fs::read(first.parent().unwrap().join("info")).unwrap();
        let before = describe(&first);
        fs::set_permissions(first.join("d/f"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(first.join("d/new"), "new").unwrap();
        let other = fs::metadata(&second).unwrap().ino();
        let found = fault(home);
        assert_eq!((found.place.clone(), found.remedy), (Place::Layer(id), Remedy::Unpack));
        assert_eq!(found.images, ["test"]);
        assert!(found.what.contains(&"/d/new: is not in the layer".to_owned()), "{found:?}");
        // Looking changes nothing.
        assert!(first.join("d/new").exists());
        assert_eq!(fault(home), found);
        // A box that uses it keeps it.
        let held = open(home).hold(&Wanted::parse("test").unwrap()).unwrap();
        let faults = repair(home);
        assert!(matches!(&faults[0].state, State::Stays(why) if why.contains("in use")), "{faults:?}");
        assert!(first.join("d/new").exists());
        drop(held);
        assert_eq!(repair(home)[0].state, State::Mended);
        assert_eq!(describe(&first), before);
        let mut known: serde_json::Value = serde_json::from_slice(&info).unwrap();
        // It was put in its place when the disk had it.
        known.as_object_mut().unwrap().remove("boot").unwrap();
        let info = fs::read(first.parent().unwrap().join("info")).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&info).unwrap(), known);
        assert_eq!(fs::metadata(&second).unwrap().ino(), other);
        assert_whole(home);
        assert_eq!(fs::read_dir(home.join("data/casemate/store/staging")).unwrap().count(), 0);
    }

    fn what_is_lost_goes_and_its_names_stay(home) {
        let (store, [first, _], [id, _]) = two_layers(home);
        let blobs = store.join("oci/blobs/sha256");
        let digest = open(home).image(&reference("test")).unwrap().digest;
        let manifest: Value = serde_json::from_slice(&fs::read(blobs.join(digest.hex())).unwrap()).unwrap();
        let config = Digest::parse(manifest["config"]["digest"].as_str().unwrap()).unwrap();
        let layer = first.parent().unwrap().to_owned();
        let rewrite = |path: &Path, from: &str, to: &str| {
            let content = fs::read_to_string(path).unwrap();
            assert!(content.contains(from));
            fs::write(path, content.replacen(from, to, 1)).unwrap();
        };
        let cases: [(Place, &str, &dyn Fn()); 9] = [
            (Place::Layer(id), "have the digest", &|| change(&first.join("d/f"), "FIRST")),
            (Place::Layer(id), "shorter", &|| change(&first.join("d/f"), "f")),
            (Place::Layer(id), "No such file", &|| fs::remove_file(first.join("d/f")).unwrap()),
            (Place::Layer(id), "skeleton", &|| fs::write(layer.join("skeleton"), [0xff; 9]).unwrap()),
            (Place::Layer(id), "format 1 is not known", &|| rewrite(&layer.join("info"), "\"format\":2", "\"format\":1")),
            (Place::Layer(id), "is missing", &|| fs::remove_dir_all(&layer).unwrap()),
            (Place::Layer(id), "its record is missing", &|| fs::remove_file(layer.join("info")).unwrap()),
            (Place::Document(digest), "its content has the digest", &|| rewrite(&blobs.join(digest.hex()), "{", " {")),
            (Place::Document(config), "is missing", &|| fs::remove_file(blobs.join(config.hex())).unwrap()),
        ];
        for (place, words, damage) in cases {
            damage();
            let found = fault(home);
            assert_eq!((&found.place, found.remedy), (&place, Remedy::Bring), "{words}");
            assert!(found.what[0].contains(words), "{words}: {found:?}");
            assert_eq!(found.images, ["test"], "{words}");
            let faults = repair(home);
            assert_eq!(places(&faults)[&place.to_string()], State::Missing, "{words}");
            assert_eq!(open(home).images().unwrap().len(), 1, "{words}");
            let error = open(home).image(&reference("test")).unwrap_err();
            assert!(error.exit_code() == 125, "{words}");
            // What it is now is missing, and the same image brings it back.
            assert_eq!(fault(home).what, ["is missing"], "{words}");
            import(home, "test", &home.join("oci"));
            assert_whole(home);
        }
    }

    fn what_no_image_needs_goes(home) {
        let (store, [first, _], [id, _]) = two_layers(home);
        let digest = Digest::of(b"other");
        let dangling = store.join("layers").join(format!("sha256-{}", digest.hex()));
        tool("cp", &["-a".as_ref(), first.parent().unwrap().as_os_str(), dangling.as_os_str()], home);
        fs::write(store.join("oci/blobs/sha256").join(Digest::of(b"x").hex()), "y").unwrap();
        fs::write(store.join("oci/oci-layout"), "{}").unwrap();
        for stray in ["stray", "oci/stray", "oci/blobs/sha256/short", "oci/blobs/sha512", "layers/sha256-12", "layers/stray"] {
            fs::write(store.join(stray), "").unwrap();
        }
        fs::create_dir_all(first.parent().unwrap().join("more/of/it")).unwrap();
        fs::create_dir_all(store.join("staging/0123456789abcdef/layer-0/fs")).unwrap();
        fs::write(store.join("staging/file"), "").unwrap();
        let report = check(home);
        let own = format!("layers/sha256-{}/more", id.hex());
        let mut expected = vec![
            "oci/oci-layout".to_owned(), digest.to_string(), Digest::of(b"x").to_string(), own,
            "staging/0123456789abcdef".to_owned(), "staging/file".to_owned(),
        ];
        expected.extend(["stray", "oci/stray", "oci/blobs/sha256/short", "oci/blobs/sha512", "layers/sha256-12", "layers/stray"].map(str::to_owned));
        expected.sort();
        assert_eq!(places(&report.faults).into_keys().collect::<Vec<_>>(), expected);
        assert!(report.faults.iter().all(|fault| fault.images.is_empty()), "{report:#?}");
        // Images by name are none of these.
        let wanted = [Wanted::parse("test").unwrap()];
        assert_eq!(open(home).check(&wanted, &Silent).unwrap().faults.len(), 1);
        let faults = repair(home);
        assert!(faults.iter().all(Fault::is_mended), "{faults:#?}");
        assert_whole(home);
        assert!(!dangling.exists());
        // Staging of a process that runs is nobody's to remove.
        fs::create_dir(store.join("staging/mine")).unwrap();
        let lock = nix::fcntl::Flock::lock(fs::File::open(store.join("staging/mine")).unwrap(), nix::fcntl::FlockArg::LockExclusive).unwrap();
        assert_whole(home);
        drop(lock);
        assert_eq!(fault(home).place, Place::Staging("staging/mine".into()));
    }

    fn what_was_packed_for_sending_is_casemates(home) {
        let (_, _, [id, _]) = two_layers(home);
        open(home).spool().pack(&id, Compression::Gzip).unwrap();
        assert_whole(home);
    }

    fn what_only_has_the_name_of_a_layer_goes(home) {
        let (store, [first, _], [id, _]) = two_layers(home);
        let precious = home.join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("keep"), "mine").unwrap();
        let other = store.join("layers").join(format!("sha256-{}", Digest::of(b"x").hex()));
        std::os::unix::fs::symlink(&precious, &other).unwrap();
        fs::rename(first.parent().unwrap(), home.join("aside")).unwrap();
        fs::write(first.parent().unwrap(), "").unwrap();
        Store::open(&home.join("data")).unwrap().prune(&Prune::default(), false).unwrap();
        let faults = places(&repair(home));
        let name = |path: &Path| format!("layers/{}", path.file_name().unwrap().to_str().unwrap());
        assert_eq!(faults[&name(&other)], State::Mended);
        assert_eq!(faults[&name(first.parent().unwrap())], State::Mended);
        assert_eq!(faults[&id.to_string()], State::Missing);
        assert_eq!(fs::read(precious.join("keep")).unwrap(), b"mine");
        import(home, "test", &home.join("oci"));
        assert_whole(home);
    }

    fn what_lies_in_a_layer_goes_with_it(home) {
        let (store, [first, _], [id, _]) = two_layers(home);
        fs::write(first.with_file_name("stray"), "").unwrap();
        change(&first.join("d/f"), "FIRST");
        let faults = places(&repair(home));
        assert_eq!(faults[&id.to_string()], State::Missing);
        assert_eq!(faults[&format!("layers/sha256-{}/stray", id.hex())], State::Mended);
        assert!(!store.join("layers").join(format!("sha256-{}", id.hex())).exists());
    }

    fn a_store_of_the_version_before_is_listed(home) {
        let (store, [first, _], _) = two_layers(home);
        let info = first.with_file_name("info");
        fs::write(&info, fs::read_to_string(&info).unwrap().replace("\"format\":2", "\"format\":1")).unwrap();
        let index = fs::read_to_string(store.join("oci/index.json")).unwrap();
        fs::write(store.join("oci/index.json"), index.replace("casemate.size", "casemate.none")).unwrap();
        assert_eq!(open(home).images().unwrap().len(), 1);
        assert!(fault(home).what[0].contains("format 1 is not known"));
    }

    fn names_that_cannot_be_read_are_told_and_nothing_goes(home) {
        let (store, [first, _], _) = two_layers(home);
        let index = fs::read(store.join("oci/index.json")).unwrap();
        fs::write(store.join("oci/index.json"), "{").unwrap();
        change(&first.join("d/f"), "FIRST");
        let faults = repair(home);
        assert_eq!(faults.len(), 2, "{faults:#?}");
        assert!(faults.iter().all(|fault| fault.state == State::Found), "{faults:#?}");
        assert!(first.exists());
        assert_eq!(casemate(home, &["store", "check", "-q", "--repair"]).status.code(), Some(1));
        fs::write(store.join("oci/index.json"), index).unwrap();
        assert_eq!(repair(home)[0].state, State::Missing);
    }

    fn the_command_says_what_and_the_exit_code_whether(home) {
        let clean = casemate(home, &["store", "check"]);
        assert_eq!((clean.status.code(), text(&clean.stdout)), (Some(0), "checked 0 layers and 0 documents: 0 faults\n".to_owned()));
        assert_eq!(casemate(home, &["store", "check", "test"]).status.code(), Some(125));
        let (_, [first, _], [id, _]) = two_layers(home);
        let clean = casemate(home, &["store", "check", "test"]);
        assert_eq!((clean.status.code(), text(&clean.stdout)), (Some(0), "checked 2 layers and 2 documents: 0 faults\n".to_owned()));
        assert!(text(&clean.stderr).contains("casemate: checking layer 1 of 2: sha256:"), "{}", text(&clean.stderr));
        let quiet = casemate(home, &["store", "check", "-q"]);
        assert_eq!((quiet.status.code(), text(&quiet.stdout), text(&quiet.stderr)), (Some(0), String::new(), String::new()));
        let mode = fs::metadata(first.join("d/f")).unwrap().permissions();
        fs::set_permissions(first.join("d/f"), fs::Permissions::from_mode(0o777)).unwrap();
        let found = casemate(home, &["store", "check", "-q"]);
        assert_eq!(found.status.code(), Some(1));
        let told = format!("layer {id}: /d/f: has another mode\n    images: test\n    way out: `casemate store check --repair`\n");
        assert_eq!(text(&found.stdout), told);
        let json = casemate(home, &["store", "check", "-q", "--json", "--repair"]);
        assert_eq!(json.status.code(), Some(0), "{}", text(&json.stderr));
        let report: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(report["faults"][0]["state"], "mended");
        assert_eq!(report["layers"], 2);
        assert_eq!(fs::metadata(first.join("d/f")).unwrap().permissions(), mode);
        // What was imported must be imported again.
        change(&first.join("d/f"), "FIRST");
        let lost = casemate(home, &["store", "check", "-q", "--repair"]);
        assert_eq!(lost.status.code(), Some(1));
        let told = text(&lost.stdout);
        assert!(told.contains("now: missing") && told.contains("`casemate import`") && told.contains("`casemate rmi test`"), "{told}");
        let missing = casemate(home, &["inspect", "test"]);
        assert!(text(&missing.stderr).contains("`casemate store check --repair`"), "{}", text(&missing.stderr));
        import(home, "test", &home.join("oci"));
        assert_whole(home);
        // A store that cannot be written cannot be checked.
        let staging = home.join("data/casemate/store/staging");
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o500)).unwrap();
        assert_eq!(casemate(home, &["store", "check"]).status.code(), Some(125));
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o700)).unwrap();
    }

    fn checks_beside_imports_and_removals_find_nothing(home) {
        two_layers(home);
        let source = home.join("other.tar");
        fs::write(&source, archive((0..200).map(|i| Entry::file(format!("f{i}"), "x".repeat(5000))))).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..8 {
                    assert!(casemate(home, &["import", "-q", "other", source.to_str().unwrap()]).status.success());
                    assert!(casemate(home, &["rmi", "other"]).status.success());
                }
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let checked = casemate(home, &["store", "check", "-q"]);
                assert_eq!((checked.status.code(), text(&checked.stdout)), (Some(0), String::new()), "{}", text(&checked.stderr));
            }
        });
        // A layer that was being checked stays for the next prune.
        assert!(casemate(home, &["prune"]).status.success());
        assert_whole(home);
    }

    // Whatever moment it is killed at, the layer is the old one or the new one.
    fn killed_repairs_lose_nothing(home) {
        let source = home.join("many.tar");
        fs::write(&source, archive((0..400).map(|i| Entry::file(format!("f{i}"), i.to_string().repeat(2000))))).unwrap();
        let (store, image) = import(home, "test", &source);
        let tree = store.layer_path(&image.layers[0]);
        let damage = || fs::set_permissions(tree.join("f7"), fs::Permissions::from_mode(0o600)).unwrap();
        let start = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
            command.args(["store", "check", "--repair", "-q"]);
            command.env("XDG_DATA_HOME", home.join("data")).env("HOME", home).stdout(Stdio::null());
            command.spawn().unwrap()
        };
        damage();
        let began = std::time::Instant::now();
        assert!(start().wait().unwrap().success());
        let whole = began.elapsed();
        let (mut cut_short, mut mended) = (0, 0);
        for round in 0..12 {
            damage();
            let mut child = start();
            std::thread::sleep(whole * round / 6);
            cut_short += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            let faults = check(home).faults;
            let damaged = faults.iter().any(|fault| matches!(fault.place, Place::Layer(_)));
            mended += u32::from(!damaged);
            for fault in &faults {
                let foreseen = matches!((&fault.place, fault.remedy), (Place::Layer(_), Remedy::Unpack) | (Place::Staging(_), _));
                assert!(foreseen, "round {round}: {fault:#?}");
            }
        }
        assert!(cut_short > 2 && mended > 0, "{cut_short} cut short, {mended} mended");
        repair(home);
        assert_whole(home);
    }

    // What was pulled is pulled again.
    fn a_lost_layer_of_a_pulled_image_comes_back(home) {
        let registry = Registry::start(home);
        let (_, _, ids) = two_layers(home);
        tool("skopeo", &["copy", "-q", "--dest-tls-verify=false", "oci:oci", &format!("docker://{}/test:latest", registry.host)], home);
        let config = home.join("config/containers");
        fs::create_dir_all(&config).unwrap();
        let insecure = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host);
        fs::write(config.join("registries.conf"), insecure).unwrap();
        fs::remove_dir_all(home.join("data")).unwrap();
        let name = format!("{}/test", registry.host);
        let store = Store::open(&home.join("data")).unwrap();
        let mut environment = Environment::find(Some(home));
        environment.config = Some(home.join("config"));
        let registries = Registries::load(Options { environment, ..Options::default() }).unwrap();
        transfer::pull(&store, &registries, &reference(&name), &Platforms::Host, &Unwatched).unwrap();
        store.tag(&Wanted::parse(&name).unwrap(), &[reference("other")]).unwrap();
        let first = store.layer_path(&ids[0]);
        change(&first.join("d/f"), "FIRST");
        let digest = store.image(&reference("other")).unwrap().digest;
        fs::remove_file(home.join("data/casemate/store/oci/blobs/sha256").join(digest.hex())).unwrap();
        let mended = casemate(home, &["store", "check", "--repair"]);
        assert_eq!(mended.status.code(), Some(0), "{}{}", text(&mended.stdout), text(&mended.stderr));
        assert_eq!(fs::read_to_string(first.join("d/f")).unwrap(), "first");
        assert_whole(home);
        // Without the registry the names stay, and a later try mends it.
        change(&first.join("d/f"), "FIRST");
        drop(registry);
        let failed = casemate(home, &["store", "check", "--repair", "-q"]);
        assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
        assert!(text(&failed.stdout).contains("now: missing"), "{}", text(&failed.stdout));
        assert_eq!(store.images().unwrap().len(), 2);
    }
}

/// docker-registry on loopback, without TLS.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    fn start(home: &Path) -> Self {
        let config = home.join("registry.yml");
        let root = home.join("registry");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\n  formatter: text\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            root.display()
        );
        fs::File::create(&config).unwrap().write_all(text.as_bytes()).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve".as_ref(), config.as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.trim_end_matches('"').split('"').next().unwrap().to_owned();
            }
        };
        // It must be able to go on writing its log.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Registry { child, host }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
