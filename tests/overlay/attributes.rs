//! Extended attributes by the plan: where casemate's own server is all of the root they are there if a
//! layer has some, or if they are asked for; overlayfs has them always.

use crate::checks::probe;
use crate::common::probe::INSIDE;
use crate::common::{Image, Run, casemate, image};
use crate::layers;
use crate::modes::{MODES, Mode};

/// Tries each call on a file of the image, one that is new and a directory; prints what it said.
const TRY: &str = r#"
import errno, os
def said(call, *words):
    try: return call(*words)
    except OSError as error: return errno.errorcode[error.errno]
open("/work/new", "w").close()
for path in ["/usr/bin/env", "/work/new", "/work"]:
    before = said(os.getxattr, path, "user.mine")
    was_set = said(os.setxattr, path, "user.mine", b"1")
    after = said(os.getxattr, path, "user.mine"), said(os.listxattr, path)
    print(before, was_set, *after, said(os.removexattr, path, "user.mine"))
"#;

/// What it prints where there are none, and where there are.
const NONE: &str = "ENOTSUP ENOTSUP ENOTSUP ENOTSUP ENOTSUP";
const KEPT: &str = "ENODATA None b'1' ['user.mine'] None";
/// Of a file that a server has for overlayfs, until it is copied up: the server says that there are none.
const ONCE_SET: &str = "ENOTSUP None b'1' ['user.mine'] None";

fn tried(mode: Mode, option: &[&str]) -> Vec<String> {
    let script = format!("mkdir -p /work && python3 -c '{TRY}'");
    let run = mode.run(&image(Image::Tools), option).args(["bash", "-c", &script]);
    // The kernel's overlay on the layers lists casemate's own mark with them.
    let text = run.text().replace("'user.containers.override_stat', ", "");
    text.replace(", 'user.containers.override_stat'", "").lines().map(String::from).collect()
}

#[test]
fn a_root_without_any_has_those_that_are_asked_for() {
    for mode in MODES {
        for option in [&["--xattrs"][..], &[], &["--xattrs=false"]] {
            let expected = match mode.name.split('-').next().unwrap() {
                "kernel" => [KEPT; 3],
                "hybrid" => [ONCE_SET, KEPT, KEPT],
                _ if option == ["--xattrs"] => [KEPT; 3],
                _ => [NONE; 3],
            };
            assert_eq!(tried(mode, option), expected, "{} {option:?}", mode.name);
        }
    }
}

/// A check that reads what the layers have, and one that sets more.
const CHECKS: [&str; 2] = ["attributes_are_read", "attributes_are_set_and_removed"];

#[test]
fn a_root_with_some_has_them_unless_refused() {
    let (program, checks) = probe();
    let image = layers::image(&program, &checks);
    let volume = format!("{}:{INSIDE}:ro,exec", program.display());
    let said = |mode: Mode, option: &[&str]| {
        let options = [&["-v", &volume], option].concat();
        let run = mode.run(&image, &options).args([INSIDE, "run", "/t/checks"]).args(CHECKS);
        run.output().out()
    };
    let fine: String = CHECKS.map(|check| format!("{check} ok\n")).concat();
    for mode in MODES {
        assert_eq!(said(mode, &[]), fine, "{}", mode.name);
        let without = said(mode, &["--xattrs=false"]);
        if mode.name.starts_with("fuse") {
            let lines: Vec<&str> = without.lines().collect();
            assert!(lines[0].starts_with(&format!("{} not: getxattr", CHECKS[0])), "{without}");
            let refused = format!("{} EOPNOTSUPP: setxattr", CHECKS[1]);
            assert!(lines[1].starts_with(&refused), "{without}");
        } else {
            assert_eq!(without, fine, "{}", mode.name);
        }
    }
}

#[test]
fn the_plan_says_what_holds() {
    let (program, checks) = probe();
    let with = layers::image(&program, &checks);
    let without = image(Image::Tools);
    for (image, option, expected) in [
        (&without, None, "none; no layer has any"),
        (&without, Some("--xattrs"), "kept; asked for"),
        (&with, None, "kept; a layer has some"),
        (&with, Some("--xattrs=false"), "none; asked for"),
    ] {
        let run = casemate(["explain", "--overlay", "fuse", "--image", image]).args(option);
        let text = run.args(["--", "true"]).with_fuse().text();
        let line = text.lines().find_map(|line| line.strip_prefix("  xattrs    "));
        assert!(line.is_some_and(|line| line.starts_with(expected)), "{option:?}: {text}");
    }
}

/// What copies trees with all that it can says nothing where there are none.
#[test]
fn tools_do_not_miss_them() {
    let script = r#"
        set -euo pipefail
        mkdir /work; cd /work; exec 2>&1
        cp -a /etc copied; cp -a copied again; install -m 600 /etc/debian_version installed
        rsync -a copied/ synced/; mv installed moved
        tar -c copied | (mkdir out; tar -x -C out)
        for copy in out/copied again synced; do diff -r --no-dereference copied $copy; done
        ls -lR . >list; grep -c debian_version list
    "#;
    for mode in MODES.iter().filter(|mode| mode.name.starts_with("fuse")) {
        let run: Run = mode.run(&image(Image::Tools), &[]);
        assert_eq!(run.args(["bash", "-c", script]).text(), "4", "{}", mode.name);
    }
}
