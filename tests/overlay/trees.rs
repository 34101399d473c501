//! One tree in all modes, and as umoci unpacks it: three images, listed name by name.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate::sys::fs::{get_xattr, list_xattrs};

use crate::common::{Image, Run, Workspace, image};
use crate::inner;
use crate::modes::MODES;

const VARIABLE: &str = "CASEMATE_TEST_TREE";
/// What a box has of its own, and what is mounted in it.
const NOT_THE_IMAGES: &[&str] = &[
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/tmp",
    "home",
    "root",
    "work",
    "etc/passwd",
    "etc/group",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
];

/// Directories that a box makes something in.
const CHANGED: &[&str] = &["", "etc", "var"];

/// By path: what is there, its mode, and the time if it is a directory, which unpackers differ in.
type Listing = BTreeMap<String, [String; 3]>;

#[test]
fn all_modes_and_umoci_give_one_tree() {
    for kind in [Image::Debian, Image::Tools, Image::Small] {
        let name = image(kind);
        let expected = unpacked(kind);
        assert!(expected.len() > 100, "{name}: {} names", expected.len());
        let mut first: Option<Listing> = None;
        for mode in MODES {
            let run = inner::boxed(mode, &name, "trees::inside", (VARIABLE, "/"));
            let found = read(run, name == "small");
            let what = format!("{name}, {}", mode.name);
            compare(&what, &found, &expected, |[file, bits, _]| {
                let bits = if mode.has_own_modes { bits.clone() } else { for_the_owner(bits) };
                [file.clone(), bits, String::new()]
            });
            // Times of directories too: only between the modes, and not where the box makes something.
            match &first {
                Some(first) => compare(&what, &found, first, |[file, _, time]| {
                    [file.clone(), String::new(), time.clone()]
                }),
                None => first = Some(found),
            }
        }
    }
}

/// The mode of a file whose owner may read and write it, and which nobody can have the rights of.
fn for_the_owner(bits: &str) -> String {
    let mode = u32::from_str_radix(bits, 8).unwrap();
    let directory = if mode & libc::S_IFMT == libc::S_IFDIR { 0o100 } else { 0 };
    format!("{:o}", (mode & !0o6000) | 0o600 | directory)
}

fn compare(what: &str, one: &Listing, other: &Listing, part: impl Fn(&[String; 3]) -> [String; 3]) {
    let mut wrong = Vec::new();
    for path in one.keys().chain(other.keys().filter(|path| !one.contains_key(*path))) {
        let [one, other] = [one, other].map(|listing| listing.get(path).map(&part));
        if one != other {
            wrong.push(format!("{path}\n    {one:?}\n    {other:?}"));
        }
    }
    let shown = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{what}: {} differ\n{shown}", wrong.len());
}

/// The tree as umoci unpacks it for an ordinary user.
fn unpacked(kind: Image) -> Listing {
    let space = Workspace::new();
    let mut layout = kind.archive();
    if layout.is_file() {
        let to = space.directory("layout");
        Run::new("tar").args(["-xf"]).arg(&layout).args(["-C", &to]).output().succeeds();
        layout = to.into();
    }
    let root = space.at("root");
    let run = Run::new("umoci").args(["raw", "unpack", "--rootless", "--image"]);
    let run = run.arg(format!("{}:latest", layout.display())).arg(&root);
    run.timeout(Duration::from_secs(120)).output().succeeds();
    read(inner::plain("trees::inside", (VARIABLE, &root)), false)
}

/// What the other process lists. The working directory of the small image is the box's.
fn read(run: Run, has_work: bool) -> Listing {
    let output = run.timeout(Duration::from_secs(120)).output().succeeds();
    let text = output.out();
    let lines = text.lines().filter_map(|line| line.strip_prefix("entry\t"));
    lines
        .map(|line| {
            let fields: Vec<String> = line.split('\t').map(String::from).collect();
            let [path, file, mode, time] = fields.try_into().unwrap();
            (path, [file, mode, time])
        })
        .filter(|(path, _)| !(has_work && path == "work"))
        .collect()
}

/// The part in the other process: lists a tree.
#[test]
fn inside() {
    let Some(root) = std::env::var_os(VARIABLE) else { return };
    let mut lister = Lister { root: root.into(), seen: HashMap::new() };
    println!();
    lister.list(Path::new(""));
}

struct Lister {
    root: PathBuf,
    /// The first name of each file of several.
    seen: HashMap<(u64, u64), String>,
}

impl Lister {
    fn list(&mut self, at: &Path) {
        let path = self.root.join(at);
        let found = fs::symlink_metadata(&path).unwrap();
        let kind = found.file_type();
        let shown = at.as_os_str().as_bytes().escape_ascii().to_string();
        let time = format!("{}.{:09}", found.mtime(), found.mtime_nsec());
        let mut what = String::new();
        let mut of_directory = String::new();
        if kind.is_dir() {
            what += "directory";
            if !CHANGED.iter().any(|changed| Path::new(changed) == at) {
                of_directory.clone_from(&time);
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            what += &format!("-> {} {time}", target.as_os_str().as_bytes().escape_ascii());
        } else if kind.is_file() {
            let digest = casemate::image::Digest::of(&fs::read(&path).unwrap());
            let own = (found.dev(), found.ino());
            let first = self.seen.entry(own).or_insert_with(|| shown.clone());
            what += &format!("file {} {digest} {time} as {first}", found.size());
        } else {
            what += &format!("fifo {} socket {} {time}", kind.is_fifo(), kind.is_socket());
        }
        if kind.is_dir() || kind.is_file() {
            what += &attributes(&path);
        }
        let out = std::io::stdout();
        writeln!(out.lock(), "entry\t{shown}\t{what}\t{:o}\t{of_directory}", found.mode()).unwrap();
        if kind.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.collect();
            names.sort();
            for name in names {
                let below = at.join(name);
                if !NOT_THE_IMAGES.iter().any(|skipped| Path::new(skipped) == below) {
                    self.list(&below);
                }
            }
        }
    }
}

/// The attributes that are the image's: not the overlays' marks, nor umoci's.
fn attributes(path: &Path) -> String {
    let Ok(file) = fs::File::open(path) else { return " unreadable".into() };
    let marks: [&[u8]; 3] = [b"user.overlay.", b"user.containers.", b"user.rootlesscontainers"];
    let names = match list_xattrs(&file) {
        // Where no layer has any, a server may say once for all that there are none.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Vec::new(),
        names => names.unwrap(),
    };
    let mut all: Vec<String> = names
        .iter()
        .filter(|name| !marks.iter().any(|mark| name.to_bytes().starts_with(mark)))
        .map(|name| format!(" {name:?}={:?}", get_xattr(&file, name).unwrap()))
        .collect();
    all.sort();
    all.concat()
}
