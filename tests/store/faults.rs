//! What is broken, cut, full, foreign or killed: one clear error, and nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use casemate::image::Digest;
use casemate::store::Store;
use nix::mount::{MsFlags, mount, umount};
use nix::unistd::{Gid, Uid, chown};
use serde_json::json;

use crate::common::*;
use crate::formats::{blob, config, gzip, index, layout};

fn fails(home: &Path, source: &Path, expected: &str) {
    let error = try_import(home, "test", source).expect_err(expected);
    assert!(error.to_string().contains(expected), "expected {expected:?}: {error}");
    assert_nothing_left(home);
}

user_tests! {
    fn the_stores_directories_are_no_links(home) {
        import(home, "test", Path::new("/usr/share/common-licenses"));
        let store = home.join("data/casemate/store");
        let other = home.join("other");
        fs::create_dir_all(other.join("deep")).unwrap();
        fs::write(other.join("file"), "mine").unwrap();
        for name in ["staging", "layers", "oci/blobs/sha256", "oci/blobs", "oci"] {
            let (place, aside) = (store.join(name), home.join("aside"));
            fs::rename(&place, &aside).unwrap();
            std::os::unix::fs::symlink(&other, &place).unwrap();
            let error = Store::open(&home.join("data")).err().unwrap().to_string();
            assert!(error.ends_with("is a symbolic link"), "{name}: {error}");
            assert!(other.join("deep").is_dir() && other.join("file").is_file(), "{name}");
            fs::remove_file(&place).unwrap();
            fs::rename(&aside, &place).unwrap();
        }
        // The whole store may be elsewhere.
        fs::rename(&store, home.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(home.join("elsewhere"), &store).unwrap();
        Store::open(&home.join("data")).unwrap();
        assert_whole(home);
    }

    fn sources_that_are_none(home) {
        fails(home, &home.join("missing"), "missing: No such file or directory");
        fails(home, Path::new("/dev/null"), "not a file or directory");
        fs::write(home.join("empty"), "").unwrap();
        fails(home, &home.join("empty"), "it is empty");
        fs::write(home.join("text"), "no archive ".repeat(100)).unwrap();
        fails(home, &home.join("text"), "not a valid tar archive");
        fs::write(home.join("xz"), b"\xfd7zXZ\0\0\0").unwrap();
        fails(home, &home.join("xz"), "xz compression is not supported");
        tool("mkfifo", &["fifo"], home);
        fails(home, &home.join("fifo"), "not a file or directory");
    }

    fn archives_that_are_cut(home) {
        let noise: String = (0..400_000u32).map(|i| char::from(b'a' + (i.wrapping_mul(i) / 7 % 26) as u8)).collect();
        let whole = archive([Entry::file("a", &noise), Entry::file("b", "x")]);
        let source = home.join("source");
        let cut = |data: &[u8], keep: usize| fs::write(&source, &data[..keep]).unwrap();
        cut(&whole, whole.len() / 2);
        fails(home, &source, "the archive is cut short");
        // Between two entries, where only the end marker tells.
        cut(&whole, whole.len() - 1024 - 1024);
        fails(home, &source, "no end marker");
        let packed = gzip(&whole);
        for keep in [packed.len() / 2, packed.len() - 4] {
            cut(&packed, keep);
            fails(home, &source, "the gzip stream is cut short");
        }
        let packed = zstd::encode_all(&whole[..], 1).unwrap();
        cut(&packed, packed.len() / 2);
        fails(home, &source, "the zstd stream is cut short");
        let mut broken = gzip(&whole);
        let end = broken.len();
        broken[end - 6] ^= 1;
        fs::write(&source, &broken).unwrap();
        fails(home, &source, "the gzip stream is broken");
        layout(&home.join("oci"), &[whole]);
        tool("tar", &["-C", "oci", "-cf", "oci.tar", "."], home);
        let outer = fs::read(home.join("oci.tar")).unwrap();
        cut(&outer, outer.len() / 2);
        fails(home, &source, "cut short");
    }

    fn digests_sizes_and_kinds_that_are_wrong(home) {
        let layer = archive([Entry::file("file", "content")]);
        let oci = home.join("oci");
        let fresh = || {
            fs::remove_dir_all(&oci).ok();
            layout(&oci, std::slice::from_ref(&layer));
        };
        let path = |digest: Digest| oci.join("blobs/sha256").join(digest.hex());
        let flip = |path: &Path, at: usize| {
            let mut content = fs::read(path).unwrap();
            content[at] ^= 1;
            fs::write(path, content).unwrap();
        };
        let config_json = config(&[Digest::of(&layer)]).to_string();
        fresh();
        // Content, header and end: whatever the bytes look like, the digest is what is wrong.
        for at in [600, 3, layer.len() - 1] {
            fresh();
            flip(&path(Digest::of(&layer)), at);
            fails(home, &oci, "content has the digest");
        }
        fresh();
        flip(&path(Digest::of(config_json.as_bytes())), 30);
        fails(home, &oci, "content has the digest");
        fresh();
        fs::write(path(Digest::of(&layer)), "short").unwrap();
        fails(home, &oci, "its manifest says");
        fresh();
        fs::remove_file(path(Digest::of(&layer))).unwrap();
        fails(home, &oci, "is missing");
        let write = |config: serde_json::Value, kind: &str, content: &[u8]| {
            fresh();
            let config = blob(&oci, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
            let layers = [blob(&oci, kind, content)];
            let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
            index(&oci, &[blob(&oci, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())]);
        };
        let kind = "application/vnd.oci.image.layer.v1.tar";
        write(config(&[Digest::of(b"other")]), kind, &layer);
        fails(home, &oci, "the config says");
        write(config(&[]), kind, &layer);
        fails(home, &oci, "the manifest has 1 layers, the config 0");
        write(config(&[Digest::of(&layer)]), "application/x-squashfs", &layer);
        fails(home, &oci, "application/x-squashfs: not supported");
        write(config(&[Digest::of(&layer)]), &format!("{kind}+encrypted"), &layer);
        fails(home, &oci, "the layer is encrypted");
        // Good layers before a bad one are not left either.
        fs::remove_dir_all(&oci).unwrap();
        let bad = archive([Entry::file("../x", "")]);
        layout(&oci, &[layer.clone(), bad]);
        fails(home, &oci, "layer 2 of 2: entry ../x");
    }

    fn a_failed_import_leaves_the_image_of_that_name(home) {
        fs::write(home.join("good"), archive([Entry::file("f", "x")])).unwrap();
        let (_, before) = import(home, "test", &home.join("good"));
        fs::write(home.join("bad"), archive([Entry::file("../f", "x")])).unwrap();
        try_import(home, "test", &home.join("bad")).unwrap_err();
        assert_eq!(open(home).image(&reference("test")).unwrap(), before);
    }

    fn a_store_open_to_others_is_refused(home) {
        fs::create_dir_all(home.join("data/casemate")).unwrap();
        fs::set_permissions(home.join("data/casemate"), fs::Permissions::from_mode(0o755)).unwrap();
        for error in [Store::open(&home.join("data")).err(), Store::find(&home.join("data")).err()] {
            let error = error.unwrap();
            assert!(error.to_string().ends_with("open to other users (mode 0755)"), "{error}");
            assert!(error.hints()[0].starts_with("chmod 700 "));
        }
        fs::remove_dir(home.join("data/casemate")).unwrap();
        assert!(Store::find(&home.join("data")).unwrap().is_none());
        Store::open(&home.join("data")).unwrap();
        let mode = fs::metadata(home.join("data/casemate")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    fn a_store_that_cannot_be_written_says_so(home) {
        Store::open(&home.join("data")).unwrap();
        fs::write(home.join("good"), archive([Entry::file("f", "x")])).unwrap();
        let staging = home.join("data/casemate/store/staging");
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o500)).unwrap();
        let error = try_import(home, "test", &home.join("good")).unwrap_err();
        assert!(error.to_string().contains("Permission denied"), "{error}");
    }

    fn a_killed_import_leaves_staging_that_the_next_one_removes(home) {
        let many = (0..20_000).map(|i| Entry::file(format!("d{}/f{i}", i % 50), "x").mode(0));
        fs::write(home.join("many.tar"), archive(many)).unwrap();
        let staging = home.join("data/casemate/store/staging");
        let mut child = importer(home);
        let deadline = Instant::now() + Duration::from_secs(30);
        let under_way = || {
            let layer = fs::read_dir(&staging).ok()?.next()?.ok()?.path().join("layer-0/fs/d7");
            layer.exists().then_some(())
        };
        while under_way().is_none() {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "not caught");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(fs::read_dir(&staging).unwrap().next().is_some());
        let store = open(home);
        assert!(store.images().unwrap().is_empty());
        assert!(fs::read_dir(store.layers_dir()).unwrap().next().is_none());
        Store::open(&home.join("data")).unwrap();
        assert!(fs::read_dir(&staging).unwrap().next().is_none());
        import(home, "test", &home.join("many.tar"));
    }

    fn imports_at_the_same_time_are_fine(home) {
        let many = (0..3000).map(|i| Entry::file(format!("d{}/f{i}", i % 50), "x"));
        fs::write(home.join("many.tar"), archive(many)).unwrap();
        let children: Vec<_> = (0..4).map(|_| importer(home)).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let store = open(home);
        assert_eq!(store.images().unwrap().len(), 1);
        assert_eq!(fs::read_dir(store.layers_dir()).unwrap().count(), 1);
        assert!(fs::read_dir(home.join("data/casemate/store/staging")).unwrap().next().is_none());
        let layer = &store.image(&reference("test")).unwrap().layers[0];
        assert_eq!(describe(&store.layer_path(layer)).len(), 3050);
    }
}

/// An import of `many.tar` in a process of its own.
fn importer(home: &Path) -> std::process::Child {
    let mut command = again("store::faults::import_for_another_test", home);
    command.env("CASEMATE_TEST_IMPORT", home).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Not a test of its own: what `importer` runs.
#[test]
#[ignore = "run by other tests"]
fn import_for_another_test() {
    if let Some(home) = std::env::var_os("CASEMATE_TEST_IMPORT") {
        let home = Path::new(&home);
        import(home, "test", &home.join("many.tar"));
    }
}

/// What only root can set up: a foreign store, and a small file system.
#[test]
fn a_store_of_another_user_is_refused() {
    if !started_as_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let store = home.path().join("casemate");
    fs::create_dir(&store).unwrap();
    fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&store, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    let error = Store::open(home.path()).err().unwrap();
    assert!(
        error.to_string().ends_with(&format!("belongs to user {USER}, casemate runs as user 0"))
    );
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    const NAME: &str = "store::faults::a_full_disk_is_named_and_leaves_nothing";
    if let Some(home) = std::env::var_os("CASEMATE_TEST_FULL") {
        let home = Path::new(&home);
        let data = "x".repeat(3 << 20);
        let large = archive([Entry::file("small", "x"), Entry::file("dir/large", &data)]);
        fs::write(home.join("tar"), &large).unwrap();
        fs::write(home.join("tar.gz"), gzip(&large)).unwrap();
        fs::create_dir_all(home.join("tree/dir")).unwrap();
        fs::write(home.join("tree/dir/large"), data.repeat(3)).unwrap();
        let store = Store::open(&home.join("small/data")).unwrap();
        for source in ["tar", "tar.gz", "tree"] {
            let source = home.join(source);
            let error = casemate::store::import(&store, &reference("test"), &source).unwrap_err();
            let words = error.to_string();
            assert!(words.ends_with("entry dir/large: No space left on device"), "{words}");
            assert!(error.hints()[0].contains("XDG_DATA_HOME"));
            assert!(store.images().unwrap().is_empty());
            for place in ["layers", "staging"] {
                let place = home.join("small/data/casemate/store").join(place);
                assert!(fs::read_dir(place).unwrap().next().is_none());
            }
        }
        return;
    }
    // As a user, the same in a namespace of one's own would need no root, but tmpfs there may keep
    // no user attributes either; root only makes the mount.
    if !started_as_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let small = home.path().join("small");
    fs::create_dir(&small).unwrap();
    mount(Some("tmpfs"), &small, Some("tmpfs"), MsFlags::empty(), Some("size=1m,mode=777"))
        .unwrap();
    chown(home.path(), Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    let mut command = again(NAME, home.path());
    let output = command.env("CASEMATE_TEST_FULL", home.path()).uid(USER).gid(USER).output();
    umount(&small).unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
