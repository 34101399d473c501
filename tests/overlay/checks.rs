//! The checks of `probe/`, in each mode and, to prove the checks themselves, on a plain directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::probe::{INSIDE, compile_all};
use crate::common::{Output, Run, Workspace};
use crate::expectations::{EXCEPTIONS, PLAIN};
use crate::layers;
use crate::modes::MODES;

const SOURCES: [&str; 7] =
    ["main.c", "files.c", "links.c", "names.c", "directories.c", "attributes.c", "memory.c"];
/// How long all checks of one mode may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program, and the names of its checks.
pub(crate) fn probe() -> (PathBuf, Vec<String>) {
    let sources = SOURCES.map(|name| format!("tests/overlay/probe/{name}"));
    let program = compile_all("overlay-probe", &sources, &["tests/overlay/probe/probe.h".into()]);
    let checks = Run::new(&program).arg("list").text();
    (program, checks.lines().map(String::from).collect())
}

/// What each check said.
fn answers(output: &Output) -> BTreeMap<String, String> {
    let text = output.out();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, answer)| (name.to_string(), answer.to_string())).collect()
}

/// What is not as expected: every check is fine, but for the exceptions of that mode, which must be as
/// listed.
fn judge(mode: &str, checks: &[String], output: &Output) -> String {
    let answers = answers(output);
    let mut wrong = Vec::new();
    for check in checks {
        let answer = answers.get(check).map_or("did not run", String::as_str);
        let exception = EXCEPTIONS.iter().find(|e| e.check == check && e.modes.contains(&mode));
        let expected = exception.map_or("ok", |exception| exception.answer);
        if !answer.starts_with(expected) {
            wrong.push(format!("{check}: {answer}\n    expected: {expected}"));
        }
    }
    if wrong.is_empty() {
        return String::new();
    }
    let (number, all) = (wrong.len(), checks.len());
    format!("{mode}: {number} of {all}\n{}\n{}\n", wrong.join("\n"), output.err())
}

#[test]
fn every_mode_does_what_programs_expect() {
    let (program, checks) = probe();
    let image = layers::image(&program, &checks);
    let volume = format!("{}:{INSIDE}:ro,exec", program.display());
    let wrong: String = MODES
        .iter()
        .map(|mode| {
            let run = mode.run(&image, &["-v", &volume]).args([INSIDE, "run", "/t/checks"]);
            judge(mode.name, &checks, &run.timeout(PATIENCE).output())
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_plain_directory_does_too() {
    let (program, checks) = probe();
    let space = Workspace::new();
    let layout = layers::source(&program, &checks);
    let root = unpack(&layout, space.path());
    let run = Run::new(program).arg("run").arg(root.join("t/checks"));
    let wrong = judge(PLAIN, &checks, &run.timeout(PATIENCE).output());
    assert!(wrong.is_empty(), "{wrong}");
}

/// The layers of an OCI layout laid over each other in a directory. By tar, which keeps holes where umoci
/// writes 5 GiB of zeroes.
fn unpack(layout: &Path, into: &Path) -> PathBuf {
    const SCRIPT: &str = r#"
        set -eo pipefail
        export LC_ALL=C
        layout=$0 root=$1
        mkdir "$root"
        layers() { python3 -c '
import json, sys
def blob(digest): return sys.argv[1] + "/blobs/" + digest.replace(":", "/")
index = json.load(open(sys.argv[1] + "/index.json"))
for layer in json.load(open(blob(index["manifests"][0]["digest"])))["layers"]: print(blob(layer["digest"]))
' "$layout"; }
        for layer in $(layers); do
            tar -tf "$layer" >"$root.names"
            { grep -a '/\.wh\.' "$root.names" || true; } | while IFS= read -r mark; do
                dir=$root/${mark%/*} name=${mark##*/.wh.}
                case $name in
                .wh..opq) find "$dir" -mindepth 1 -delete ;;
                *) printf '%s\0' "$dir/$name" ;;
                esac
            done | xargs -0r rm -rf
            # A directory that became a file, which tar would not replace.
            comm -12 <(grep -av '/$' "$root.names" | sort) <(cd "$root" && find . -mindepth 1 -type d -printf '%P\n' | sort) |
                (cd "$root" && xargs -r rm -rf)
            tar -C "$root" --xattrs --xattrs-include='user.*' --exclude='.wh.*' -p -xf "$layer"
        done
    "#;
    let root = into.join("root");
    let run = Run::new("bash").args(["-c", SCRIPT]).arg(layout).arg(&root);
    run.timeout(Duration::from_secs(300)).output().succeeds();
    root
}

#[test]
fn the_exceptions_are_about_checks_and_modes_that_are_there() {
    let (_, checks) = probe();
    for exception in EXCEPTIONS {
        assert!(checks.iter().any(|check| check == exception.check), "{}", exception.check);
        for mode in exception.modes {
            let is_there = *mode == PLAIN || MODES.iter().any(|known| known.name == *mode);
            assert!(is_there, "{}: {mode}", exception.check);
        }
        assert!(!exception.reason.is_empty(), "{}", exception.check);
    }
}
