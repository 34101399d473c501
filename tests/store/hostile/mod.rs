//! A corpus of archives that were made to do harm. Each is given to the built program, and each must
//! leave alone what lies beside the store and what the store has already, and end in bounded time,
//! memory and disk: with an error that names the reason, or where the archive is legal with the right
//! tree.
//!
//! The positive control: what harms a reader that follows names and links (GNU tar -P, Python's
//! tarfile without its filter) is given to those first, and must do its harm.

mod attributes;
mod bombs;
mod headers;
mod links;
mod markers;
mod names;
mod sparse;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use casemate::image::Digest;

use crate::common::*;

/// From the root of a layer that is being unpacked to the test's own directory; the control unpacks
/// as deep.
const UP: &str = "../../../../../../..";
/// The longest that one import may take, in a build without optimization on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// The most memory of any one process, in KiB.
const MEMORY: i64 = 64 << 10;
/// The longest message, in bytes: a path, escaped, and the reason.
const MESSAGES: usize = 4 * 4096 + 1024;
/// The most that an import may have on disk before it is refused, in bytes: a gibibyte unpacks
/// whatever the ratio, and what lies in buffers comes on top.
const DISK: u64 = (1 << 30) + (64 << 20);

/// One archive, and what must come of it.
struct Case {
    name: &'static str,
    source: Vec<u8>,
    expected: Expected,
    /// A reader that follows does harm with it.
    harmful: bool,
}

enum Expected {
    /// The error has these words, or others behind a `|`.
    Refused(&'static str),
    /// The tree of the layer passes this.
    Unpacked(Box<dyn Fn(&Path)>),
}

/// A legal archive, and a look at what it makes.
fn unpacked(name: &'static str, source: Vec<u8>, look: impl Fn(&Path) + 'static) -> Case {
    Case { name, source, expected: Expected::Unpacked(Box::new(look)), harmful: false }
}

/// An archive that is refused, and words of the reason.
fn refused(name: &'static str, words: &'static str, source: Vec<u8>) -> Case {
    Case { name, source, expected: Expected::Refused(words), harmful: false }
}

impl Case {
    /// It does harm where names and links are followed, which is shown.
    fn harmful(self) -> Self {
        Case { harmful: true, ..self }
    }
}

/// All cases; the outside is where some of them aim.
fn corpus(outside: &Path) -> Vec<Case> {
    let kinds = [
        names::cases(outside),
        links::cases(outside),
        markers::cases(),
        attributes::cases(),
        headers::cases(),
        sparse::cases(),
        bombs::cases(),
        bombs::too_many(),
    ];
    kinds.into_iter().flatten().collect()
}

/// A directory beside the store that nothing may touch.
struct Outside(PathBuf);

impl Outside {
    fn new(home: &Path) -> Self {
        let outside = Outside(home.join("outside"));
        outside.make();
        outside
    }

    fn make(&self) {
        fs::create_dir_all(self.0.join("directory")).unwrap();
        fs::write(self.0.join("victim"), "untouched").unwrap();
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o750)).unwrap();
    }

    /// Everything that an archive could change.
    fn seen(&self) -> Seen {
        seen(&self.0)
    }
}

/// What a tree looks like: [`describe`], and the modes.
type Seen = BTreeMap<PathBuf, String>;

fn seen(root: &Path) -> Seen {
    let mode = |path: &Path| format!(" mode {:o}", fs::symlink_metadata(path).unwrap().mode());
    let mut all = describe(root);
    for (path, what) in &mut all {
        *what += &mode(&root.join(path));
    }
    all.insert(PathBuf::new(), mode(root));
    all
}

/// The layers of the store.
fn layers(home: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(home.join("data/casemate/store/layers")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What the store holds: its documents and these layers.
fn contents(home: &Path, layers: &BTreeSet<PathBuf>) -> Seen {
    let documents = home.join("data/casemate/store/oci/blobs/sha256");
    let mut all = Seen::new();
    for place in layers.iter().chain([&documents]) {
        all.extend(seen(place).into_iter().map(|(path, what)| (place.join(path), what)));
    }
    all
}

/// How an import ended.
struct Ended {
    status: ExitStatus,
    messages: String,
    /// The most that lay in the staging directory, in bytes.
    disk: u64,
    /// The most memory of any one process, in KiB.
    memory: i64,
}

/// Runs a command and writes down the peak of its memory. The kernel counts for a process what its
/// parent had when it started, so that the parent is this small one and not the test.
const MEASURE: &str = "\
import os, sys
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
status, usage = os.wait4(child, 0)[1:]
open(sys.argv[1], 'w').write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) % 256)";

/// Imports the source with the built program, bounded in time.
fn import_in_child(home: &Path, case: &str, source: &Path) -> Ended {
    let (log, peak) = (home.join("messages"), home.join("peak"));
    let mut child = Command::new("python3")
        .args(["-c", MEASURE])
        .arg(&peak)
        .arg(env!("CARGO_BIN_EXE_casemate"))
        .args(["import", "hostile"])
        .arg(source)
        .env_clear()
        .env("HOME", home)
        .env("XDG_DATA_HOME", home.join("data"))
        .env("XDG_RUNTIME_DIR", home)
        .env("PATH", "/usr/bin:/bin")
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .process_group(0)
        .spawn()
        .unwrap();
    let staging = home.join("data/casemate/store/staging");
    let begin = Instant::now();
    let (mut disk, mut looked) = (0, begin);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > PATIENCE {
            give_up(&mut child, case);
        }
        std::thread::sleep(Duration::from_millis(2));
        // A walk of its own takes time; short imports hold little.
        if looked.elapsed() > Duration::from_millis(250) {
            disk = disk.max(size_on_disk(&staging));
            looked = Instant::now();
        }
    };
    let memory = fs::read_to_string(&peak).unwrap().parse().unwrap();
    Ended { status, messages: fs::read_to_string(&log).unwrap(), disk, memory }
}

fn give_up(child: &mut Child, case: &str) -> ! {
    killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    panic!("{case}: not over after {} seconds", PATIENCE.as_secs());
}

/// What a tree takes on disk; what goes away meanwhile does not count.
fn size_on_disk(path: &Path) -> u64 {
    let Ok(stat) = fs::symlink_metadata(path) else { return 0 };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    stat.blocks() * 512 + entries.map(|entry| size_on_disk(&entry.path())).sum::<u64>()
}

/// Shows that readers which follow names and links do harm with the archive.
fn control(home: &Path, outside: &Outside, case: &str, source: &Path) {
    let python = "import sys, tarfile\n\
        old = {} if not hasattr(tarfile, 'data_filter') else {'filter': 'fully_trusted'}\n\
        tarfile.open(sys.argv[1]).extractall(**old)";
    let readers = [vec!["tar", "-P", "-xf"], vec!["python3", "-c", python]];
    let before = outside.seen();
    let harmed = readers.iter().any(|reader| {
        let naive = home.join("naive");
        let inner = naive.join("2/3/4/5/6/7");
        fs::create_dir_all(&inner).unwrap();
        // It may well fail, as long as the harm is done.
        let mut command = Command::new(reader[0]);
        command.args(&reader[1..]).arg(source).current_dir(&inner).output().unwrap();
        fs::remove_dir_all(&naive).unwrap();
        outside.seen() != before
    });
    assert!(harmed, "{case}: no reader does harm with it, so that the case shows nothing");
    fs::remove_dir_all(&outside.0).unwrap();
    outside.make();
}

/// Imports every case beside an image that is there already, and holds it to its bounds. All are
/// tried; those that fail are listed.
fn hold(home: &Path, cases: Vec<Case>) {
    let outside = Outside::new(home);
    let first = home.join("first.tar");
    fs::write(&first, archive([Entry::file("first", "stays")])).unwrap();
    let mut failed = Vec::new();
    for case in cases {
        let name = case.name;
        // What the case before left, if it is not what it should, is not this one's fault.
        let _nothing_yet = fs::remove_dir_all(home.join("data"));
        import(home, "first", &first);
        let one = AssertUnwindSafe(|| hold_one(home, &outside, case));
        if catch_unwind(one).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

fn hold_one(home: &Path, outside: &Outside, case: Case) {
    let name = case.name;
    let source = home.join("source");
    fs::write(&source, case.source).unwrap();
    if case.harmful {
        control(home, outside, name, &source);
    }
    let there = layers(home);
    let before = (outside.seen(), contents(home, &there));

    let begin = Instant::now();
    let ended = import_in_child(home, name, &source);
    let (took, mebibytes) = (begin.elapsed().as_millis(), ended.disk >> 20);
    // Seen with --nocapture and where the test fails.
    println!("{name}: {took} ms, {} KiB of memory, {mebibytes} MiB of disk", ended.memory);

    assert_eq!(outside.seen(), before.0, "{name}: changed what lies outside");
    assert!(ended.memory <= MEMORY, "{name}: took {} KiB of memory", ended.memory);
    assert!(ended.disk <= DISK, "{name}: took {} bytes of disk", ended.disk);
    let staging = fs::read_dir(home.join("data/casemate/store/staging")).unwrap();
    assert_eq!(staging.count(), 0, "{name}: left something in staging");
    // A terminal would obey control characters of a name, and a user reads no pages of it.
    let messages: String = ended.messages.chars().take(500).collect();
    let clean = |c: char| c == '\n' || !c.is_control();
    assert!(ended.messages.chars().all(clean), "{name}: {messages:?}");
    assert!(ended.messages.len() <= MESSAGES, "{name}: {} bytes: {messages}", ended.messages.len());
    let mut after = contents(home, &there);
    match case.expected {
        Expected::Refused(words) => {
            assert_eq!(ended.status.code(), Some(125), "{name}: {messages}");
            let said = words.split('|').any(|words| ended.messages.contains(words));
            assert!(said, "{name}: no {words:?} in {messages}");
            assert_eq!((layers(home), after), (there, before.1), "{name}: changed the store");
            assert_eq!(open(home).images().unwrap().len(), 1, "{name}");
        }
        Expected::Unpacked(look) => {
            assert!(ended.status.success(), "{name}: {messages}");
            after.retain(|path, _| before.1.contains_key(path));
            assert_eq!(after, before.1, "{name}: changed what the store had");
            let store = open(home);
            let image = store.image(&reference("hostile")).unwrap();
            let tree = store.layer_path(&image.layers[0]);
            // Whatever it is, it may be too large for an index, or have times that are kept by few.
            println!("{name}: indexed: {}", is_indexed(&tree));
            look(&tree);
        }
    }
}

user_tests! {
    fn names_that_lead_out(home) {
        hold(home, names::cases(&home.join("outside")));
    }

    fn links_that_lead_out(home) {
        hold(home, links::cases(&home.join("outside")));
    }

    fn markers_and_types(home) {
        hold(home, markers::cases());
    }

    fn attributes_that_mean_something_to_the_kernel(home) {
        hold(home, attributes::cases());
    }

    fn headers_that_lie(home) {
        hold(home, headers::cases());
    }

    fn sparse_maps_that_lie(home) {
        hold(home, sparse::cases());
    }

    fn bombs_are_bounded(home) {
        hold(home, bombs::cases());
    }

    fn more_entries_than_a_layer_may_have(home) {
        hold(home, bombs::too_many());
    }
}

#[test]
fn the_corpus_is_large_and_no_case_comes_twice() {
    let all = corpus(Path::new("/outside"));
    let names: BTreeSet<_> = all.iter().map(|case| case.name).collect();
    let sources: BTreeSet<_> = all.iter().map(|case| Digest::of(&case.source)).collect();
    assert_eq!((names.len(), sources.len()), (all.len(), all.len()));
    assert!(all.len() >= 60, "{}", all.len());
    assert!(all.iter().filter(|case| case.harmful).count() >= 20);
}
