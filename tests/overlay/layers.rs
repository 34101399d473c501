//! An image of three layers with something of everything, for the checks of `probe/`: `/t/checks` has a
//! directory for each of them, all alike, `/t/big` what is too large to have so often.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::archive::{Entry, archive};
use crate::common::registry::layout;
use crate::common::user::lock;
use crate::common::{casemate, user};

/// How many files `/t/big/many` has in its two layers; the third removes every hundredth.
const MANY: u32 = 100_000;
const NAME: &str = "overlay-checks";

/// The name of the image in the user's store; made and imported at the first call.
pub(crate) fn image(probe: &Path, checks: &[String]) -> String {
    source(probe, checks);
    NAME.into()
}

/// The image as an OCI layout, after it was imported.
pub(crate) fn source(probe: &Path, checks: &[String]) -> PathBuf {
    let _lock = lock("overlay-checks");
    let recipe =
        format!("{}{}{checks:?}", include_str!("layers.rs"), include_str!("../store/common.rs"));
    let digest = casemate::image::Digest::of(recipe.as_bytes());
    let place = user().base.join("imported").join(format!("{NAME}-{}", &digest.hex()[..12]));
    if !place.exists() {
        let partial = place.with_extension("partial");
        let layers = [first(probe, checks), second(checks), third(checks)];
        layout(&partial, &[&layers[0], &layers[1], &layers[2]]);
        let import = casemate(["import", NAME]).arg(&partial);
        import.timeout(Duration::from_secs(300)).output().succeeds();
        fs::rename(&partial, &place).unwrap();
    }
    place
}

/// An entry of any name, whose header has no room for long ones.
fn named(path: &[u8], kind: u8) -> Entry {
    match path.len() {
        0..100 => Entry::new(path, kind),
        _ => Entry::new("long", kind).pax("path", path),
    }
}

fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    named(path.as_ref(), b'0').data(data)
}

/// A directory, whose name ends with a slash as tar writes it.
fn dir(path: impl AsRef<[u8]>) -> Entry {
    let path = path.as_ref();
    named(&[path.strip_suffix(b"/").unwrap_or(path), b"/"].concat(), b'5')
}

/// A file of this size with 4096 bytes at each of these places, of that letter; in the form that GNU tar
/// writes, where a map comes before the data.
fn sparse(path: &str, size: u64, places: &[(u64, u8)]) -> Entry {
    let extents: String = places.iter().map(|(at, _)| format!("{at}\n4096\n")).collect();
    // The last extent says where the file ends.
    let mut data = format!("{}\n{extents}{size}\n0\n", places.len() + 1).into_bytes();
    data.resize(data.len().next_multiple_of(512), 0);
    data.extend(places.iter().flat_map(|(_, letter)| [*letter; 4096]));
    // tar looks for a map only behind a header of POSIX's form.
    file(path, data)
        .field(257, b"ustar\x0000")
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.name", path)
        .pax("GNU.sparse.realsize", size.to_string())
}

fn first(probe: &Path, checks: &[String]) -> Vec<u8> {
    let data: Vec<u8> = (0..65536_u32).map(|at| (at % 251) as u8).collect();
    let mut all = vec![dir("t"), dir("t/checks"), dir("t/big")];
    for check in checks {
        let at = |name: &str| format!("t/checks/{check}/{name}");
        all.extend([
            dir(at("")),
            file(at("file"), "lower one\n")
                .pax("mtime", b"1000000000.123456789")
                .pax("SCHILY.xattr.user.first", b"one")
                .pax("SCHILY.xattr.user.second", b"2"),
            file(at("data"), &data).mode(0o640),
            file(at("hard-a"), "hard\n"),
            Entry::hard_link(at("hard-b"), at("hard-a")),
            Entry::symlink(at("link"), "file").pax("mtime", b"1000000000.000000005"),
            Entry::symlink(at("dangling"), "nowhere"),
            Entry::new(at("fifo"), b'6'),
            dir(at("dir"))
                .pax("mtime", b"1000000000.987654321")
                .pax("SCHILY.xattr.user.of-dir", b"dir"),
            file(at("dir/a"), "a\n"),
            file(at("dir/b"), "b\n"),
            dir(at("dir/sub")),
            file(at("dir/sub/x"), "x\n"),
            file(at("gone"), "first\n"),
            dir(at("gonedir")),
            file(at("gonedir/one"), "first\n"),
            file(at("changed"), "first\n"),
            dir(at("opaque")),
            file(at("opaque/hidden"), "first\n"),
            file(at("opaque/shared"), "first\n"),
            dir(at("merged")),
            file(at("merged/one"), "first\n"),
            dir(at("again")),
            file(at("again/old"), "first\n"),
            dir(at("empty")),
            file(at("setuid"), "x").mode(0o4755),
            file(at("script"), "#!/bin/sh\n").mode(0o755),
            dir(at("sticky")).mode(0o1777),
            file(at("read-only"), "x").mode(0o444),
            file(at("before-1970"), "x").pax("mtime", b"-100"),
            sparse(&at("sparse"), 16 << 20, &[(0, b's'), (8 << 20, b'm')]),
            dir(at("became-file")),
            file(at("became-file/in"), "first\n"),
            file(at("became-dir"), "first\n"),
        ]);
    }
    all.extend(random("first", &["own-0", "own-1", "own-2", "own-3"], &["a", "b", "c"]));
    let program = fs::read(probe).unwrap();
    let size = 5 << 30;
    all.extend([
        file("t/big/program", &program).mode(0o755),
        file("t/big/replaced", &program).mode(0o755),
        sparse("t/big/five-gibibytes", size, &[(0, b's'), (5 << 29, b'm'), (size - 4096, b'e')]),
        dir("t/big/names"),
        file(b"t/big/names/\xff\xfe\x80 bytes", "bytes\n"),
        file(format!("t/big/names/{}", "l".repeat(255)), "longest\n"),
        file("t/big/names/a\nb", "newline\n"),
        file("t/big/names/-n", "dash\n"),
        dir("t/big/many"),
    ]);
    let mut deep = "t/big/deep".to_string();
    all.push(dir(&deep));
    for _ in 0..200 {
        deep += "/d";
        all.push(dir(&deep));
    }
    all.push(file(format!("{deep}/bottom"), "bottom\n"));
    all.extend((0..MANY / 2).map(|number| file(format!("t/big/many/f{number:05}"), "")));
    archive(all)
}

/// What the random operations begin with, smaller than what the store shares: in each directory, and as names of each thread in the common
/// one, some directories with files, a link and directories in them.
fn random(layer: &str, places: &[&str], names: &[&str]) -> Vec<Entry> {
    let mut all = vec![dir("t/random"), dir("t/random/shared")];
    all.extend(places.iter().map(|place| dir(format!("t/random/{place}"))));
    let own = places.iter().enumerate().map(|(thread, place)| format!("{place}/{thread}-"));
    let shared = (0..places.len()).map(|thread| format!("shared/{thread}-"));
    for place in own.chain(shared) {
        for name in names {
            let at = format!("t/random/{place}{name}");
            all.extend([
                dir(&at),
                file(format!("{at}/a"), format!("{layer} {at}\n").repeat(120)),
                file(format!("{at}/b"), layer).pax("SCHILY.xattr.user.random.one", layer),
                Entry::symlink(format!("{at}/{layer}-link"), "a"),
                dir(format!("{at}/c")),
                file(format!("{at}/c/a"), "deep"),
                file(format!("{at}/c/{layer}"), ""),
            ]);
        }
    }
    all
}

fn second(checks: &[String]) -> Vec<u8> {
    let mut all = vec![dir("t"), dir("t/checks"), dir("t/big"), dir("t/big/many")];
    for check in checks {
        let at = |name: &str| format!("t/checks/{check}/{name}");
        all.extend([
            dir(at("")),
            file(at("changed"), "second\n").pax("mtime", b"1000000001.000000001"),
            file(at(".wh.gone"), ""),
            file(at(".wh.gonedir"), ""),
            file(at(".wh.again"), ""),
            dir(at("opaque")),
            file(at("opaque/.wh..wh..opq"), ""),
            file(at("opaque/shared"), "second\n"),
            dir(at("merged")),
            file(at("merged/two"), "second\n"),
            file(at("became-file"), "second\n"),
            dir(at("became-dir")),
            file(at("became-dir/in"), "second\n"),
        ]);
    }
    all.extend(random("second", &["own-0", "own-1", "own-2", "own-3"], &["b", "d"]));
    all.extend((MANY / 2..MANY).map(|number| file(format!("t/big/many/f{number:05}"), "")));
    archive(all)
}

fn third(checks: &[String]) -> Vec<u8> {
    let mut all = vec![dir("t"), dir("t/checks"), dir("t/big"), dir("t/big/many")];
    for check in checks {
        let at = |name: &str| format!("t/checks/{check}/{name}");
        all.extend([
            dir(at("")),
            dir(at("merged")).pax("mtime", b"1000000002.000000002"),
            file(at("merged/three"), "third\n"),
            dir(at("again")),
            file(at("again/new"), "third\n"),
        ]);
    }
    all.extend(["1-a/a", "1-b/c", "1-c"].map(|gone| {
        let (dir, name) =
            gone.rsplit_once('/').map_or((String::new(), gone), |(d, n)| (format!("{d}/"), n));
        file(format!("t/random/own-1/{dir}.wh.{name}"), "")
    }));
    let removed = (0..MANY).step_by(100);
    all.extend(removed.map(|number| file(format!("t/big/many/.wh.f{number:05}"), "")));
    archive(all)
}
