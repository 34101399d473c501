//! Looking after the store from outside: listing, inspecting, naming and removing images, also under
//! a running box, and completion in real shells.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

use common::{Image, Pty, Run, Workspace, casemate};
use serde::Deserialize;

/// A store of a test's own.
struct Shop(Workspace);

impl Shop {
    fn new() -> Self {
        Shop(Workspace::new())
    }

    fn casemate(&self, words: &[&str]) -> Run {
        casemate(words).env("XDG_DATA_HOME", self.0.path())
    }

    fn import(&self, name: &str, image: Image) {
        self.casemate(&["import", "-q", name]).arg(image.archive()).output().succeeds();
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("casemate/store")
    }

    fn count(&self, place: &str) -> usize {
        std::fs::read_dir(self.store().join(place)).unwrap().count()
    }

    fn json<T: serde::de::DeserializeOwned>(&self, words: &[&str]) -> T {
        let text = self.casemate(words).output().succeeds().out();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}\n{text}"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    digest: String,
    created: Option<String>,
    used: Option<String>,
    size: u64,
    layers: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inspected {
    name: String,
    names: Vec<String>,
    digest: String,
    media_type: String,
    pulled_digest: Option<String>,
    pulled_from: Option<String>,
    used: Option<String>,
    size: u64,
    shared_size: u64,
    unique_size: u64,
    config: serde_json::Map<String, serde_json::Value>,
    labels: serde_json::Map<String, serde_json::Value>,
    exposed_ports: Vec<String>,
    layers: Vec<InspectedLayer>,
    history: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InspectedLayer {
    diff_id: String,
    digest: String,
    media_type: String,
    packed_size: u64,
    compression: String,
    size: u64,
    entries: u64,
    hidden: bool,
    shared_with: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    images: Vec<UsedImage>,
    layers: u64,
    documents: u64,
    dangling: u64,
    staging: u64,
    total: u64,
    saved: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedImage {
    names: Vec<String>,
    digest: String,
    total: u64,
    shared: u64,
    unique: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gone {
    names: Vec<String>,
    images: Vec<String>,
    layers: Vec<String>,
    documents: Vec<String>,
    in_use: Vec<String>,
    freed: Option<u64>,
    dry_run: Option<bool>,
}

fn is_digest(text: &str) -> bool {
    text.len() == 71 && text.starts_with("sha256:")
}

#[test]
fn without_a_store_there_is_nothing_and_none_is_made() {
    let shop = Shop::new();
    let heading = "NAME  ID  CREATED  SIZE  LAYERS\n";
    assert_eq!(shop.casemate(&["images"]).output().succeeds().out(), heading);
    assert_eq!(shop.casemate(&["images", "-q"]).output().succeeds().out(), "");
    assert_eq!(shop.casemate(&["prune", "--all"]).output().succeeds().out(), "freed: 0 B\n");
    assert!(shop.json::<Vec<Listed>>(&["images", "--json"]).is_empty());
    let used: Used = shop.json(&["store", "usage", "--json"]);
    assert_eq!((used.images.len(), used.total), (0, 0));
    for words in [&["rmi", "small"][..], &["tag", "small", "x"], &["inspect", "small"]] {
        let output = shop.casemate(words).output().fails(125);
        assert_eq!(output.out(), "");
        assert!(output.err().starts_with("casemate: image small: not in the store\nhint: "));
    }
    let words = ["__complete", "--", "rmi", ""];
    assert_eq!(shop.casemate(&words).output().succeeds().out(), ":words\n");
    assert_eq!(std::fs::read_dir(shop.0.path()).unwrap().count(), 0);
}

#[test]
fn names_are_given_listed_and_taken_away() {
    let shop = Shop::new();
    shop.import("small", Image::Small);
    shop.import("team/entry:2", Image::Entry);
    assert_eq!(shop.casemate(&["tag", "small", "copy:1", "copy:2"]).output().succeeds().out(), "");
    let all: Vec<Listed> = shop.json(&["images", "--json"]);
    let names: Vec<_> = all.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["copy:1", "copy:2", "small", "team/entry:2"]);
    for image in &all {
        assert!(is_digest(&image.digest) && image.size > 1 << 20 && image.layers > 0);
        assert!(image.created.is_some() && image.used.as_ref().unwrap().ends_with('Z'));
    }
    let of_copy: Vec<Listed> = shop.json(&["images", "--json", "copy"]);
    assert_eq!(of_copy.len(), 2);
    assert_eq!(shop.json::<Vec<Listed>>(&["images", "--json", "copy:2"]).len(), 1);
    assert_eq!(shop.json::<Vec<Listed>>(&["images", "--json", "nothing"]).len(), 0);
    let ids = shop.casemate(&["images", "-q"]).text();
    assert_eq!(ids.lines().map(str::len).collect::<Vec<_>>(), [12, 12]);
    let long = shop.casemate(&["images", "-q", "--no-trunc", "team/entry:2"]).text();
    assert!(is_digest(&long));
    let id = ids.lines().next().unwrap();
    assert_eq!(shop.casemate(&["run", "--image", id]).text(), "the default command");

    let output = shop.casemate(&["rmi", id]).output().fails(125);
    assert!(output.err().contains("it has several names\nhint: they are copy:1, copy:2, small\n"));
    // All are tried; one that fails is told.
    let output = shop.casemate(&["rmi", "copy:1", "nothing", "small", "A"]).output().fails(125);
    assert_eq!(output.out(), "untagged: copy:1\nuntagged: small\n");
    assert!(output.err().contains("casemate: image nothing: not in the store"));
    assert!(output.err().contains("casemate: image name \"A\": "), "{}", output.err());
    let digest = &all[0].digest;
    let output = shop.casemate(&["rmi", id]).output().succeeds();
    let lines: Vec<_> = output.out().lines().map(str::to_owned).collect();
    assert_eq!(lines[..2], ["untagged: copy:2".to_owned(), format!("deleted: {digest}")]);
    assert_eq!(lines.len(), 2 + 3);
    let gone: Gone = shop.json(&["rmi", "--json", "team/entry:2"]);
    assert_eq!(
        (gone.names.as_slice(), gone.images),
        (&["team/entry:2".to_owned()][..], vec![long])
    );
    assert!(gone.layers.len() == 1 && gone.documents.is_empty() && gone.in_use.is_empty());
    assert!(gone.freed.is_none() && gone.dry_run.is_none());
    for place in ["layers", "staging", "oci/blobs/sha256"] {
        assert_eq!(shop.count(place), 0, "{place}");
    }
}

#[test]
fn an_image_is_inspected_in_three_forms() {
    let shop = Shop::new();
    shop.import("small", Image::Small);
    let found: Vec<Inspected> = shop.json(&["inspect", "--json", "small"]);
    let small = &found[0];
    assert_eq!((small.name.as_str(), small.names.len()), ("small", 1));
    assert!(is_digest(&small.digest) && small.media_type.contains("manifest"));
    assert_eq!(small.size, small.shared_size + small.unique_size);
    assert_eq!(small.config["user"], "worker");
    assert!(small.pulled_digest.is_none() && small.pulled_from.is_none() && small.used.is_some());
    assert!(small.labels.is_empty() && small.exposed_ports.is_empty());
    assert!(small.history.iter().all(serde_json::Value::is_object));
    for layer in &small.layers {
        assert!(is_digest(&layer.diff_id) && is_digest(&layer.digest));
        assert!(layer.media_type.contains("layer") && layer.packed_size > 0 && layer.entries > 0);
        assert!(layer.compression == "gzip" && !layer.hidden && layer.shared_with.is_empty());
    }
    assert_eq!(small.layers.iter().map(|layer| layer.size).sum::<u64>(), small.size);
    let one = |path: &str| shop.casemate(&["inspect", "-f", path, "small"]).text();
    assert_eq!(one("config.user"), "worker");
    assert_eq!(one("/config/cmd/0"), "/bin/echo");
    assert_eq!(one(".config.cmd"), r#"["/bin/echo","the default command"]"#);
    assert_eq!(one("layers.0.diff_id"), small.layers[0].diff_id);
    let output = shop.casemate(&["inspect", "-f", "config.colour", "small"]).output().fails(125);
    assert!(
        output.err().starts_with("casemate: inspect small: config has no colour\nhint: it has ")
    );
    let page = shop.casemate(&["inspect", "small"]).text();
    for line in ["image       small", "user        worker", "env         EMPTY="] {
        assert!(page.lines().any(|shown| shown == line), "{line} is not in:\n{page}");
    }
    let output = shop.casemate(&["inspect", "small", "nothing", "--json"]).output().fails(125);
    assert_eq!(serde_json::from_str::<Vec<Inspected>>(&output.out()).unwrap().len(), 1);
}

#[test]
fn usage_and_prune_agree_about_what_dangles() {
    let shop = Shop::new();
    shop.import("image", Image::Small);
    shop.import("image", Image::Entry);
    shop.import("twin", Image::Entry);
    let used: Used = shop.json(&["store", "usage", "--json"]);
    assert_eq!(used.images.len(), 1);
    assert_eq!(used.images[0].names, ["image", "twin"]);
    assert!(is_digest(&used.images[0].digest));
    assert_eq!(used.images[0].total, used.images[0].shared + used.images[0].unique);
    assert!(used.dangling > 1 << 20 && used.documents > 0);
    assert_eq!(used.total, used.layers + used.documents + used.staging);
    assert_eq!(used.saved, 0);
    let page = shop.casemate(&["store", "usage"]).text();
    assert!(page.starts_with("NAMES  "), "{page}");
    assert!(page.lines().any(|line| line.starts_with("dangling  ")));

    let output = shop.casemate(&["prune", "--dry-run"]).output().succeeds();
    assert!(output.out().starts_with("would delete: sha256:"), "{}", output.out());
    assert!(output.out().lines().last().unwrap().starts_with("would free: "));
    let gone: Gone = shop.json(&["prune", "--json"]);
    assert_eq!((gone.names.len(), gone.layers.len(), gone.dry_run), (0, 3, Some(false)));
    assert_eq!(gone.documents.len(), 2);
    let freed = gone.freed.unwrap();
    assert!(freed >= used.dangling && freed < used.dangling + (64 << 10), "{freed} {used:?}");
    assert_eq!(shop.casemate(&["prune"]).output().succeeds().out(), "freed: 0 B\n");

    // Nothing is that old; everything is older than no time at all.
    shop.casemate(&["prune", "--older-than", "30d"]).output().succeeds();
    assert_eq!(shop.json::<Vec<Listed>>(&["images", "--json"]).len(), 2);
    for words in [
        &["prune", "--older-than", "yesterday"][..],
        &["prune", "--max-size", "10%"],
        &["prune", "--max-size", "0"],
        &["prune", "--all", "--max-size", "1G"],
    ] {
        shop.casemate(words).output().fails(125);
    }
    let output = shop.casemate(&["prune", "--max-size", "1k"]).output().succeeds();
    assert!(output.out().starts_with("untagged: image\nuntagged: twin\ndeleted: "));
    assert_eq!(shop.count("layers"), 0);
}

/// The box of the issue: it reads what it has not read before, whatever was removed meanwhile.
#[test]
fn a_box_keeps_its_files_while_its_image_is_removed() {
    let shop = Shop::new();
    shop.import("small", Image::Small);
    shop.import("entry", Image::Entry);
    let script = "echo ready; read go; cat /data/kept/file && ls -lR / >/dev/null 2>&1; \
        sha256sum /bin/busybox; echo done; read end";
    let words = ["run", "--image", "small", "--", "sh", "-c", script];
    let mut boxed = shop.casemate(&words).open_stdin().spawn();
    boxed.expect("ready");
    // Of two images only the other goes.
    let output = shop.casemate(&["prune", "--all"]).output().succeeds();
    assert!(output.out().starts_with("untagged: entry\n"), "{}", output.out());
    assert_eq!(shop.json::<Vec<Listed>>(&["images", "--json"]).len(), 1);
    let output = shop.casemate(&["rmi", "small"]).output().succeeds();
    assert!(output.err().contains("3 layers are in use by a running box"), "{}", output.err());
    assert_eq!(output.out().lines().count(), 2);
    let gone: Gone = shop.json(&["prune", "--all", "--json"]);
    assert_eq!((gone.in_use.len(), gone.layers.len(), gone.freed), (3, 0, Some(0)));
    assert_eq!(shop.count("layers"), 3);
    boxed.write("go\n");
    boxed.expect("done");
    boxed.write("end\n");
    boxed.wait().succeeds();
    let gone: Gone = shop.json(&["prune", "--json"]);
    assert_eq!((gone.in_use.len(), gone.layers.len()), (0, 3));
    assert_eq!(shop.count("layers"), 0);
}

/// What is held belongs to the supervisor alone: with it everything is let go, however it ends.
#[test]
fn a_killed_box_holds_nothing() {
    let shop = Shop::new();
    shop.import("small", Image::Small);
    let words = ["run", "--image", "small", "--", "sh", "-c", "echo ready; sleep 100"];
    let boxed = shop.casemate(&words).spawn();
    boxed.expect("ready");
    assert_eq!(shop.json::<Gone>(&["prune", "--all", "--json"]).names.len(), 0);
    boxed.signal(nix::sys::signal::Signal::SIGKILL);
    drop(boxed.stdout.wait_for("never", std::time::Duration::from_millis(300)));
    assert_eq!(shop.json::<Gone>(&["prune", "--all", "--json"]).names, ["small"]);
    assert_eq!(shop.count("layers"), 0);
}

#[test]
fn a_run_is_a_use_and_explain_is_none() {
    let shop = Shop::new();
    shop.import("small", Image::Small);
    let digest = shop.casemate(&["images", "-q", "--no-trunc"]).text();
    let path = shop.store().join("oci/blobs/sha256").join(&digest["sha256:".len()..]);
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
    let used = || shop.json::<Vec<Listed>>(&["images", "--json"])[0].used.clone().unwrap();
    shop.casemate(&["explain", "--image", "small"]).output().succeeds();
    assert_eq!(used(), "2001-09-09T01:46:40Z");
    shop.casemate(&["run", "--image", "small"]).output().succeeds();
    assert!(used().as_str() > "2026");
    assert!(std::fs::metadata(&path).unwrap().mtime() > 1_000_000_000);
}

#[test]
fn listing_two_hundred_images_takes() {
    let shop = Shop::new();
    shop.import("small", Image::Small);
    let names: Vec<String> = (1..200).map(|n| format!("registry.example/t/i{n}:{n}")).collect();
    shop.casemate(&["tag", "small"]).args(&names).output().succeeds();
    for words in [&["images"][..], &["images", "--json"], &["__complete", "--", "rmi", ""]] {
        let mut times: Vec<_> = (0..20)
            .map(|_| {
                let start = Instant::now();
                shop.casemate(words).output().succeeds();
                start.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("200 images, casemate {}: {:?}", words.join(" "), times[times.len() / 2]);
    }
}

/// A shop whose images have names to complete, and casemate in `$PATH`.
fn completing() -> (Shop, String) {
    let shop = Shop::new();
    shop.import("tool:1.2", Image::Small);
    shop.casemate(&["tag", "tool:1.2", "debian", "localhost:5000/team/x:9"]).output().succeeds();
    let path = format!("{}:/usr/bin:/bin", common::user().casemate().parent().unwrap().display());
    (shop, path)
}

#[test]
fn bash_completes_at_the_keyboard() {
    let (shop, path) = completing();
    shop.0.file("profile.toml", "");
    // Else bash writes a sequence before each line of output.
    let inputrc = shop.0.file("inputrc", "set enable-bracketed-paste off\n");
    let shell = Run::new("bash")
        .args(["--norc", "--noprofile", "-i"])
        .env("PS1", "ready> ")
        .env("PATH", &path)
        .env("HISTFILE", "")
        .env("INPUTRC", inputrc)
        .env("XDG_DATA_HOME", shop.0.path())
        .directory(shop.0.path());
    let mut bash = Pty::start(shell);
    bash.expect("ready> ");
    bash.line("source <(casemate completion bash); echo sourced");
    bash.expect("\nsourced");
    bash.expect("ready> ");
    // What is typed, and what the shell makes of it, as the command would get it.
    for (typed, completed) in [
        ("casemate insp\t", "casemate inspect"),
        ("casemate rmi too\t", "casemate rmi tool:1.2"),
        ("casemate rmi tool:\t", "casemate rmi tool:1.2"),
        ("casemate rmi debian local\t", "casemate rmi debian localhost:5000/team/x:9"),
        ("casemate rmi localhost:5000/t\t", "casemate rmi localhost:5000/team/x:9"),
        ("casemate run --image=deb\t", "casemate run --image=debian"),
        ("casemate run -e 'A=b c' --image deb\t", "casemate run -e A=b c --image debian"),
        ("casemate run --read\t", "casemate run --read-only"),
        ("casemate run -p def\t", "casemate run -p default"),
        ("casemate run -p prof\t", "casemate run -p profile.toml"),
        ("casemate run -- sha512s\t", "casemate run -- sha512sum"),
        ("casemate completion z\t", "casemate completion zsh"),
        ("casemate store us\t", "casemate store usage"),
    ] {
        bash.write(typed);
        // At the beginning of the line (Ctrl-A): it is printed and not run.
        bash.write("\u{1}echo \n");
        bash.expect(&format!("\n{completed}\r\n"));
        bash.expect("ready> ");
    }
}

#[test]
fn fish_completes() {
    let (shop, path) = completing();
    let ask = |line: &str| {
        let script = "casemate completion fish | source; complete -C \"$argv[1]\"";
        let fish = Run::new("fish").args(["--no-config", "-c", script, line]);
        let home = shop.0.at("home");
        fish.env("PATH", &path).env("HOME", &home).env("XDG_DATA_HOME", shop.0.path()).text()
    };
    shop.0.directory("home");
    assert_eq!(ask("casemate rmi too"), "tool:1.2");
    assert_eq!(ask("casemate rmi debian local"), "localhost:5000/team/x:9");
    assert!(ask("casemate insp").starts_with("inspect\tPrint what is known of an image"));
    assert!(ask("casemate run --read").starts_with("--read-only\t"));
    assert!(ask("casemate run -- sha512s").starts_with("sha512sum"));
    assert_eq!(ask("casemate run --image=deb"), "--image=debian");
}

#[test]
fn zsh_completes_at_the_keyboard() {
    let (shop, path) = completing();
    let shell = Run::new("zsh")
        .args(["-f", "-i"])
        .env("PATH", &path)
        .env("PS1", "ready> ")
        .env("HOME", shop.0.directory("home"))
        .env("XDG_DATA_HOME", shop.0.path());
    let mut zsh = Pty::start(shell);
    zsh.expect("ready> ");
    zsh.line(
        "unsetopt prompt_sp; PS1='ready> '; autoload -Uz compinit; compinit -D -u; echo loaded",
    );
    zsh.expect("\nloaded");
    zsh.expect("ready> ");
    zsh.line("source <(casemate completion zsh); echo sourced");
    zsh.expect("\nsourced");
    zsh.expect("ready> ");
    for (typed, completed) in [
        ("casemate insp\t", "inspect"),
        ("casemate rmi too\t", "tool:1.2"),
        ("casemate rmi debian local\t", "localhost:5000/team/x:9"),
        ("casemate run --image=deb\t", "--image=debian"),
        ("casemate run --read\t", "--read-only"),
    ] {
        // The line with quotes around: it is printed and not run.
        zsh.write(typed);
        zsh.write("\u{1}print -r -- '<\u{5}>'\n");
        zsh.expect("\n<");
        let line = zsh.expect(">");
        assert!(line.contains(completed), "{typed:?}: {line:?}");
        zsh.expect("ready> ");
    }
}

/// Root's shell, a home that is not there, a store that is broken: no message, no file, no failure.
#[test]
fn completion_is_silent() {
    let shop = Shop::new();
    let words = ["__complete", "--", "rmi", ""];
    shop.0.file("casemate/store/oci/index.json", "{");
    std::fs::set_permissions(
        shop.0.path().join("casemate"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let broken = shop.casemate(&words).output().succeeds();
    assert_eq!((broken.out().as_str(), broken.err().as_str()), (":words\n", ""));
    let homeless = casemate(words).env("XDG_DATA_HOME", "/nonexistent").env("HOME", "/nonexistent");
    let homeless = homeless.output().succeeds();
    assert_eq!((homeless.out().as_str(), homeless.err().as_str()), (":words\n", ""));
    if common::user::is_root() {
        let root = shop.casemate(&words).by_root().output().succeeds();
        assert_eq!((root.out().as_str(), root.err().as_str()), (":words\n", ""));
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(casemate(["completion", shell]).output().succeeds().out().contains("__complete"));
    }
    casemate(["completion", "tcsh"]).output().fails(125);
}
