//! Archives made byte by byte, directories to compare, and a change of user.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use casemate::error::Error;
use casemate::image::Reference;
use casemate::index::{self, LayerIndex};
use casemate::store::{self, Image, Imported, Store};
use nix::unistd::{Gid, Uid, chown, geteuid};

/// An ordinary user that owns nothing else.
pub(crate) const USER: u32 = 64321;

/// Runs a test's body with an empty directory of its own, as an ordinary user.
pub(crate) fn as_user(test: &str, body: impl FnOnce(&Path)) {
    if !geteuid().is_root() {
        let home = tempfile::tempdir().unwrap();
        return body(home.path());
    }
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    let output = again(test, home.path()).uid(USER).gid(USER).output().unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "as user {USER}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether the suite was started as root, which some tests need to set their scene. Without it they
/// fail, unless `CASEMATE_TEST_SKIP` names `root`.
pub(crate) fn started_as_root() -> bool {
    let skip = std::env::var("CASEMATE_TEST_SKIP").unwrap_or_default();
    let skipped = skip.split([',', ' ']).any(|name| name == "root");
    assert!(geteuid().is_root() || skipped, "needs root, or CASEMATE_TEST_SKIP=root");
    geteuid().is_root()
}

/// This test program again, for one test.
pub(crate) fn again(test: &str, home: &Path) -> Command {
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--include-ignored"]);
    command.current_dir("/").env("TMPDIR", home).env("HOME", home).env("XDG_RUNTIME_DIR", home);
    command
}

/// Runs a tool, which must succeed; returns its standard output.
pub(crate) fn tool(program: &str, arguments: &[impl AsRef<OsStr>], dir: &Path) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir);
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn reference(name: &str) -> Reference {
    Reference::parse(name).unwrap()
}

pub(crate) fn try_import(home: &Path, name: &str, source: &Path) -> Result<Imported, Error> {
    let store = Store::open(&home.join("data"))?;
    let imported = store::import(&store, &reference(name), source)?;
    wait_for_the_disk(home);
    Ok(imported)
}

/// What the directory of a layer is marked with.
pub(crate) fn mark(layer: &Path) -> Option<String> {
    xattr(layer, c"user.casemate.disk")
}

/// Waits until every layer is marked as being on disk: that happens behind the import.
pub(crate) fn wait_for_the_disk(home: &Path) {
    let layers = home.join("data/casemate/store/layers");
    let deadline = Instant::now() + Duration::from_secs(60);
    for layer in fs::read_dir(&layers).unwrap() {
        let layer = layer.unwrap().path();
        while mark(&layer).as_deref() != Some("written") {
            assert!(Instant::now() < deadline, "{} has no mark", layer.display());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(crate) fn open(home: &Path) -> Store {
    Store::find(&home.join("data")).unwrap().unwrap()
}

pub(crate) fn import(home: &Path, name: &str, source: &Path) -> (Store, Image) {
    try_import(home, name, source).unwrap_or_else(|e| panic!("{e} {:?}", e.hints()));
    let store = open(home);
    let image = store.image(&reference(name)).unwrap();
    for layer in &image.layers {
        assert!(is_indexed(&store.layer_path(layer)), "layer {layer} has no index");
    }
    (store, image)
}

/// The index that a walk over the tree of a layer gives.
pub(crate) fn walked(tree: &Path) -> LayerIndex {
    let builder = index::walk(&fs::File::open(tree).unwrap().into()).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut out = std::io::BufWriter::new(&mut file);
    builder.write(&mut out).unwrap();
    std::io::Write::flush(&mut out).unwrap();
    drop(out);
    LayerIndex::open(&file).unwrap()
}

/// Whether an index lies beside the tree of a layer. It must be the one that a walk gives.
pub(crate) fn is_indexed(tree: &Path) -> bool {
    let Ok(file) = fs::File::open(tree.with_file_name("index")) else { return false };
    let (made, walked) = (LayerIndex::open(&file).unwrap(), walked(tree));
    assert_eq!(index::differences(&made, &walked), [""; 0], "{}", tree.display());
    assert_eq!((made.len(), made.names()), (walked.len(), walked.names()));
    assert_eq!(made.any_xattrs(), walked.any_xattrs());
    assert!(!made.is_walked() && walked.is_walked());
    for node in (0..made.len()).map(index::Node) {
        let blocks = |index: &LayerIndex| index.attributes(node).unwrap().blocks;
        assert_eq!(blocks(&made), blocks(&walked), "{:?}", made.path(node));
    }
    true
}

/// Imports an archive of one layer; the tree of that layer.
pub(crate) fn import_tree(home: &Path, archive: &[u8]) -> PathBuf {
    let source = home.join("source.tar");
    fs::write(&source, archive).unwrap();
    let (store, image) = import(home, "test", &source);
    store.layer_path(&image.layers[0])
}

/// Nothing of a failed import may be left: no layer, no staging, no image.
pub(crate) fn assert_nothing_left(home: &Path) {
    for place in ["layers", "staging", "oci/blobs/sha256"] {
        let place = home.join("data/casemate/store").join(place);
        let left: Vec<_> = fs::read_dir(&place).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "left: {left:?}");
    }
    assert!(open(home).images().unwrap().is_empty());
}

/// Nobody looks at the progress of a check.
pub(crate) struct Silent;

impl store::Progress for Silent {
    fn begin(&self, _: usize, _: u64) {}
    fn layer(&self, _: usize, _: &casemate::image::Digest) {}
    fn read(&self, _: u64) {}
}

/// The whole store is what it should be.
pub(crate) fn assert_whole(home: &Path) {
    let report = open(home).check(&[], &Silent).unwrap();
    assert!(report.faults.is_empty(), "{:#?}", report.faults);
}

/// A tar entry under construction.
pub(crate) struct Entry {
    header: tar::Header,
    records: Vec<u8>,
    data: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(path: impl AsRef<[u8]>, kind: u8) -> Self {
        let path = path.as_ref();
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[156] = kind;
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        Entry { header, records: Vec::new(), data: Vec::new() }
    }

    pub(crate) fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Entry::new(path, b'0').data(data)
    }

    /// With this content.
    pub(crate) fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data = data.as_ref().to_vec();
        self.header.set_size(self.data.len() as u64);
        self
    }

    pub(crate) fn dir(path: impl AsRef<[u8]>) -> Self {
        Entry::new(path, b'5')
    }

    pub(crate) fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Entry::new(path, b'2').link(target)
    }

    pub(crate) fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Entry::new(path, b'1').link(target)
    }

    pub(crate) fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        let target = target.as_ref();
        self.header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target);
        self
    }

    /// Other bytes in the header, from a place on; the checksum comes after.
    pub(crate) fn field(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn kind(mut self, kind: u8) -> Self {
        self.header.as_mut_bytes()[156] = kind;
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.header.set_mode(mode);
        self
    }

    pub(crate) fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.header.set_uid(uid.into());
        self.header.set_gid(gid.into());
        self
    }

    pub(crate) fn device(mut self, major: u32, minor: u32) -> Self {
        self.header.set_device_major(major).unwrap();
        self.header.set_device_minor(minor).unwrap();
        self
    }

    pub(crate) fn size(mut self, size: u64) -> Self {
        self.header.set_size(size);
        self
    }

    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.records.extend_from_slice(&record(key, value.as_ref()));
        self
    }

    fn write(mut self, archive: &mut Vec<u8>) {
        if !self.records.is_empty() {
            let mut pax = Entry::new("pax", b'x').size(self.records.len() as u64);
            pax.data = std::mem::take(&mut self.records);
            pax.write(archive);
        }
        self.header.set_cksum();
        archive.extend_from_slice(self.header.as_bytes());
        archive.extend_from_slice(&self.data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
}

/// A PAX record.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// A whole archive with its end marker.
pub(crate) fn archive(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut archive = Vec::new();
    entries.into_iter().for_each(|entry| entry.write(&mut archive));
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// What a tree looks like: by path, type, size or target, modification time and content.
pub(crate) fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let what = if stat.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if stat.is_file() {
                let content = fs::read(&path).unwrap();
                let digest = casemate::image::Digest::of(&content);
                format!("file {} {digest} links {}", stat.size(), stat.nlink())
            } else {
                format!("type {:o}", stat.mode() & libc::S_IFMT)
            };
            let time = format!("{}.{:09}", stat.mtime(), stat.mtime_nsec());
            found.insert(path.strip_prefix(root).unwrap().to_owned(), format!("{what} {time}"));
            if stat.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// The mode that an image means: the attribute's, or the file's own.
pub(crate) fn true_mode(path: &Path) -> u32 {
    match xattr(path, c"user.containers.override_stat") {
        Some(text) => u32::from_str_radix(text.split(':').nth(2).unwrap(), 8).unwrap(),
        None => fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777,
    }
}

/// An extended attribute as text.
pub(crate) fn xattr(path: &Path, name: &std::ffi::CStr) -> Option<String> {
    let file = fs::File::open(path).unwrap();
    casemate::sys::fs::get_xattr(&file, name).unwrap().map(|v| String::from_utf8(v).unwrap())
}
