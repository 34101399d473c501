//! What several layers hold is stored once: by hard links where nothing else tells files apart, by
//! blocks where the file system shares them.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use casemate::store::{Prune, Store, Wanted};
use nix::unistd::{Gid, Uid, chown, geteuid};

use crate::common::*;
use crate::formats::layout;

/// Contents of this length that no other seed has.
fn noise(seed: u32, length: u32) -> String {
    let byte =
        |i: u32| char::from(b'a' + ((i ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8 % 26);
    format!("{seed}{}", (0..length).map(byte).collect::<String>())
}

fn bring(home: &Path, name: &str, entries: Vec<Entry>) -> PathBuf {
    let source = home.join(format!("{name}.tar"));
    fs::write(&source, archive(entries)).unwrap();
    let (store, image) = import(home, name, &source);
    store.layer_path(&image.layers[0])
}

fn stat(path: impl AsRef<Path>) -> fs::Metadata {
    fs::symlink_metadata(path).unwrap()
}

fn remove(home: &Path, name: &str) {
    let store = Store::open(&home.join("data")).unwrap();
    let (_, errors) = store.remove(&[Wanted::parse(name).unwrap()], false).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
}

fn links(path: impl AsRef<Path>) -> u64 {
    stat(path).nlink()
}

user_tests! {
    fn equal_files_of_two_layers_are_one(home) {
        let big = noise(1, 300_000);
        let common = || vec![
            Entry::dir("d").mode(0o755),
            Entry::file("d/same", &big),
            Entry::file("d/setuid", &big).mode(0o4755).owner(5, 6),
            Entry::file("d/colour", &big).pax("SCHILY.xattr.user.color", b"blue"),
            Entry::file("d/exact", noise(2, 4096)).pax("mtime", b"1234567.000000001"),
            Entry::file("d/small", noise(3, 4000)),
        ];
        let mut first = common();
        first.extend([
            Entry::file("mode", &big),
            Entry::file("owner", &big),
            Entry::file("time", &big).pax("mtime", b"1234567.5"),
            Entry::file("attribute", &big).pax("SCHILY.xattr.user.color", b"red"),
            Entry::file("content", noise(4, 9000)),
            Entry::file("elsewhere", noise(5, 9000)),
        ]);
        let mut second = common();
        second.extend([
            Entry::file("mode", &big).mode(0o600),
            Entry::file("owner", &big).owner(7, 7),
            Entry::file("time", &big).pax("mtime", b"1234567.6"),
            Entry::file("attribute", &big).pax("SCHILY.xattr.user.color", b"green"),
            Entry::file("content", noise(6, 9000)),
            Entry::file("another-name", noise(5, 9000)),
        ]);
        let first = bring(home, "first", first);
        let before = describe(&first);
        let second = bring(home, "second", second);
        let one = |name: &str| stat(first.join(name)).ino() == stat(second.join(name)).ino();
        for name in ["d/same", "d/setuid", "d/colour", "d/exact"] {
            assert!(one(name), "{name}");
            assert_eq!(links(first.join(name)), 2, "{name}");
        }
        for name in ["d/small", "mode", "owner", "time", "attribute", "content"] {
            assert!(!one(name), "{name}");
            assert_eq!(links(second.join(name)), 1, "{name}");
        }
        // Contents alone do not make a hard link, nor do they under another name.
        assert_eq!(links(second.join("another-name")), 1);
        assert_eq!(stat(second.join("d")).mtime(), 1_000_000_000);
        assert_whole(home);
        let saved = open(home).usage().unwrap().saved;
        assert!((900_000..1_000_000).contains(&saved), "{saved}");
        // What is left of one image when the other goes is whole.
        remove(home, "second");
        let after = describe(&first);
        assert!(before == after, "{before:?} {after:?}");
        assert_whole(home);
        assert_eq!(open(home).usage().unwrap().saved, 0);
        assert_eq!(Store::open(&home.join("data")).unwrap().prune(&Prune::default(), false).unwrap().freed, 0);
    }

    // Layers that come with one image share as well, before any of them is in its place.
    fn layers_of_one_image_share(home) {
        let layer = |seed| archive([Entry::file("f", noise(1, 9000)), Entry::file("own", noise(seed, 9000))]);
        layout(&home.join("oci"), &[layer(2), layer(3), layer(4)]);
        let (store, image) = import(home, "test", &home.join("oci"));
        for digest in &image.layers {
            assert_eq!(links(store.layer_path(digest).join("f")), 3);
            assert_eq!(links(store.layer_path(digest).join("own")), 1);
        }
        assert_whole(home);
    }

    // A box sees the layers of an image as one tree. Two names in it are one file only if they are
    // so in a layer.
    fn no_two_names_of_a_box_become_one_file(home) {
        let content = noise(1, 9000);
        let single = |name: &str| Entry::file(name, &content);
        let pair = bring(home, "pair", vec![single("a"), Entry::hard_link("b", "a"), single("c")]);
        assert_eq!((links(pair.join("a")), links(pair.join("c"))), (2, 1));
        let apart = bring(home, "apart", vec![single("a"), single("b"), single("x")]);
        for name in ["a", "b", "x"] {
            assert_eq!(links(apart.join(name)), 1, "{name}");
        }
        // The other way round, and where the second name is that of what was replaced.
        let again = bring(home, "again", vec![single("a"), Entry::hard_link("b", "a"), single("x"), single("y")]);
        assert_eq!((links(again.join("a")), links(again.join("x"))), (2, 2));
        let replaced = vec![single("x"), single("y"), Entry::hard_link("z", "x"), single("x"), single("y")];
        let replaced = bring(home, "replaced", replaced);
        assert_eq!(stat(replaced.join("y")).ino(), stat(again.join("y")).ino());
        assert_eq!(links(replaced.join("z")), 2);
        // And where a link takes the place of a file that was equal.
        let swapped = vec![single("m"), single("n"), Entry::hard_link("m", "n")];
        assert_eq!(links(bring(home, "swapped", swapped).join("m")), 2);
        assert_eq!(links(bring(home, "late", vec![single("m")]).join("m")), 1);
        assert_whole(home);
    }

    // What a list says is a hint: whatever is wrong with it, every file keeps what it holds.
    fn lists_that_lie_do_no_harm(home) {
        let (ours, theirs) = (noise(1, 9000), noise(2, 9000));
        let other = bring(home, "other", vec![Entry::file("f", &theirs), Entry::dir("d"), Entry::file("d/g", &theirs)]);
        let good = fs::read(other.parent().unwrap().join("files")).unwrap();
        let mine = bring(home, "mine", vec![Entry::file("f", &ours)]);
        let own_list = fs::read(mine.parent().unwrap().join("files")).unwrap();
        remove(home, "mine");
        let list = other.parent().unwrap().join("files");
        let lists: [&[u8]; 6] = [&own_list, b"", b"casemate files 2\nF", &good[..good.len() - 3], &[&good[..17], &[0xff; 900][..]].concat(), &[&own_list[..], &own_list[17..]].concat()];
        for text in lists {
            fs::write(&list, text).unwrap();
            let mine = bring(home, "mine", vec![Entry::file("f", &ours)]);
            assert_eq!(links(mine.join("f")), 1);
            assert_eq!(fs::read_to_string(mine.join("f")).unwrap(), ours);
            remove(home, "mine");
        }
        // A file that is a link by now, a directory, or gone.
        fs::write(&list, &own_list).unwrap();
        let broken: [&dyn Fn(); 3] = [
            &|| std::os::unix::fs::symlink("/etc/passwd", other.join("f")).unwrap(),
            &|| fs::create_dir(other.join("f")).unwrap(),
            &|| tool("mkfifo", &["f"], &other).truncate(0),
        ];
        for make in broken {
            let _either = fs::remove_file(other.join("f")).or_else(|_| fs::remove_dir(other.join("f")));
            make();
            let mine = bring(home, "mine", vec![Entry::file("f", &ours)]);
            assert_eq!(fs::read_to_string(mine.join("f")).unwrap(), ours);
            remove(home, "mine");
        }
    }

    // The most names that a file may have (65,000 on ext4) are no failure.
    fn a_file_without_room_for_names_stays(home) {
        let content = noise(1, 5000);
        let first = bring(home, "first", vec![Entry::file("f", &content), Entry::file("1", "1")]);
        let links_to = home.join("links");
        fs::create_dir(&links_to).unwrap();
        for number in 0.. {
            match fs::hard_link(first.join("f"), links_to.join(number.to_string())) {
                Ok(()) if number < 200_000 => (),
                Ok(()) => return,
                Err(error) => { assert_eq!(error.raw_os_error(), Some(libc::EMLINK)); break; }
            }
        }
        let second = bring(home, "second", vec![Entry::file("f", &content), Entry::file("2", "2")]);
        assert_eq!(links(second.join("f")), 1);
        assert_eq!(fs::read_to_string(second.join("f")).unwrap(), content);
    }

    // Whatever moment an import is killed at, all layers in their places are what they should be.
    fn killed_imports_harm_no_other_layer(home) {
        let files = |own: u32| (0..300).map(move |i| match i {
            0 => Entry::file("own", noise(own, 9000)),
            i => Entry::file(format!("d{}/f{i}", i % 7), noise(i, 5000)),
        }).collect::<Vec<_>>();
        let first = bring(home, "first", files(1000));
        let before = describe(&first).into_iter().map(|(path, what)| (path, what.replace("links", ""))).collect::<Vec<_>>();
        let mut came = 0;
        for round in 0..40 {
            let source = home.join("round.tar");
            fs::write(&source, archive(files(2000 + round))).unwrap();
            let mut child = Command::new(env!("CARGO_BIN_EXE_casemate"))
                .args(["import", "-q", "round"]).arg(&source)
                .env("XDG_DATA_HOME", home.join("data")).env("HOME", home)
                .stdout(Stdio::null()).stderr(Stdio::null())
                .spawn().unwrap();
            std::thread::sleep(Duration::from_micros(u64::from(round) * 2500));
            child.kill().unwrap();
            came += u32::from(child.wait().unwrap().success());
        }
        assert!(came < 40, "none was killed");
        // What was left in staging goes with the next command that writes.
        Store::open(&home.join("data")).unwrap();
        assert_whole(home);
        assert_eq!(fs::read_dir(home.join("data/casemate/store/staging")).unwrap().count(), 0);
        let after = describe(&first).into_iter().map(|(path, what)| (path, what.replace("links", ""))).collect::<Vec<_>>();
        let plain = |all: Vec<(PathBuf, String)>| all.into_iter().map(|(path, what)| {
            (path, what.split_whitespace().filter(|word| word.parse::<u64>().is_err()).collect::<Vec<_>>().join(" "))
        }).collect::<Vec<_>>();
        assert_eq!(plain(before), plain(after));
    }
}

/// A file system of this kind in a file, mounted; root alone can do that.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(kind: &str) -> Self {
        let home = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = home.path().join("disk");
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let image = image.to_str().unwrap();
        tool(&format!("mkfs.{kind}"), &["-q", image], home.path());
        fs::create_dir(home.path().join("mnt")).unwrap();
        tool("mount", &["-o", "loop", image, "mnt"], home.path());
        let user = (Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER)));
        chown(&home.path().join("mnt"), user.0, user.1).unwrap();
        chown(home.path(), user.0, user.1).unwrap();
        Mounted(home)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("mnt")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tool("umount", &["mnt"], self.0.path());
    }
}

/// Runs the body on a file system of this kind, as an ordinary user.
fn on(kind: &str, test: &str, body: impl FnOnce(&Path)) {
    if !geteuid().is_root() {
        return match std::env::var_os("CASEMATE_TEST_MOUNTED") {
            Some(home) => body(Path::new(&home)),
            None => assert!(!started_as_root()),
        };
    }
    let mounted = Mounted::new(kind);
    let mut command = again(test, &mounted.path());
    let output = command.env("CASEMATE_TEST_MOUNTED", mounted.path()).uid(USER).gid(USER).output();
    let output = output.unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{kind}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The bytes of the blocks that a file shares with others, by FIEMAP.
fn shared(path: &Path) -> u64 {
    let file = fs::File::open(path).unwrap();
    let extents = casemate::sys::extents::shared_extents(&file).unwrap();
    extents.into_iter().map(|(_, length)| length).sum()
}

fn blocks_are_shared(home: &Path) {
    let big = noise(1, 999_000);
    let files = |own, mode| {
        vec![
            Entry::file("same", &big),
            // Blocks are shared whatever else differs.
            Entry::file(format!("name-{own}"), noise(2, 300_000)).mode(mode).owner(own, 7),
            Entry::file("twice/a", noise(own, 50_000)),
            Entry::file("twice/b", noise(own, 50_000)).mode(0o600),
            Entry::file("own", noise(own + 1, 70_000)),
            Entry::file("small", "small"),
        ]
    };
    let first = bring(home, "first", files(10, 0o644));
    nix::unistd::sync();
    let second = bring(home, "second", files(20, 0o755));
    nix::unistd::sync();
    for (path, least) in
        [("same", 999_000), ("name-20", 300_000), ("twice/a", 50_000), ("twice/b", 50_000)]
    {
        assert!(shared(&second.join(path)) >= least, "{path}: {}", shared(&second.join(path)));
        assert_eq!(links(second.join(path)), 1, "{path}");
    }
    assert_eq!(shared(&second.join("own")), 0);
    // A change of one is none of the other, should somebody make it.
    assert_whole(home);
    let usage = open(home).usage().unwrap();
    assert!((1_380_000..1_500_000).contains(&usage.saved), "{}", usage.saved);
    let file = fs::File::options().write(true).open(second.join("same")).unwrap();
    file.write_all_at(b"changed", 5000).unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(first.join("same")).unwrap(), big);
    remove(home, "second");
    assert_whole(home);
}

#[test]
fn btrfs_shares_blocks() {
    on("btrfs", concat!(module_path!(), "::btrfs_shares_blocks"), blocks_are_shared);
}

#[test]
fn xfs_shares_blocks() {
    on("xfs", concat!(module_path!(), "::xfs_shares_blocks"), blocks_are_shared);
}
