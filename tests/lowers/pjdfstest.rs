//! The crate pjdfstest: some four hundred tests of what POSIX says of files, made for file systems of
//! all kinds, in a box with many ids.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::images::cache;
use crate::common::user::lock;
use crate::many::{as_root, in_box_of_many_ids};
use crate::scene::USER;

const VERSION: &str = "0.2.2";
/// How many tests it has.
const TESTS: usize = 398;

/// What the suite is told: which features there are, and three users beside root.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"], ["news", "news"]]
[settings]
naptime = 0.01
allow_remount = false
"#;

/// The program, built from crates.io at the first call and kept: that takes some minutes.
fn program() -> PathBuf {
    let root = cache().join(format!("pjdfstest-{VERSION}"));
    let program = root.join("bin/pjdfstest");
    let _lock = lock("pjdfstest");
    if !program.exists() {
        let status = Command::new(env!("CARGO"))
            .args(["install", "--quiet", "--locked", "pjdfstest", "--version"])
            .arg(format!("={VERSION}"))
            .arg("--root")
            .arg(&root)
            // Not among the artefacts of casemate, nor by its settings.
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .current_dir("/")
            .status()
            .unwrap();
        assert!(status.success(), "cargo install pjdfstest {VERSION}");
    }
    program
}

#[test]
fn a_box_with_many_ids_does_what_posix_says() {
    as_root("pjdfstest::a_box_with_many_ids_does_what_posix_says", |home| {
        let own = home.join("pjdfstest");
        crate::common::user::install_program(&program(), &own, 0o755);
        let configuration = home.join("configuration");
        fs::create_dir(home.join("second")).unwrap();
        fs::write(&configuration, CONFIGURATION).unwrap();
        let layer = home.join("layer");
        fs::create_dir(&layer).unwrap();
        let log = home.join("log");
        fs::File::create(&log).unwrap();
        nix::unistd::chown(&log, Some(USER.into()), None).unwrap();
        in_box_of_many_ids(home, &[layer], |root| {
            let output = Command::new(&own)
                .arg("-c")
                .arg(&configuration)
                .args(["-p", ".", "-s"])
                .arg(home.join("second"))
                .current_dir(root)
                .output()
                .unwrap();
            fs::write(&log, [output.stdout, output.stderr].concat()).unwrap();
        });
        let log = fs::read(&log).unwrap();
        let log = String::from_utf8_lossy(&log);
        let mut wrong = Vec::new();
        let mut count = 0;
        for (name, answer) in answers(&log) {
            count += 1;
            if answer != expected(name) {
                wrong.push(format!("{name}: {answer}, not {}", expected(name)));
            }
        }
        assert_eq!((count, wrong), (TESTS, Vec::new()), "{log}");
    });
}

/// Each test's name and what became of it.
fn answers(log: &str) -> impl Iterator<Item = (&str, &str)> {
    log.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, answer) = (words.next()?, words.next()?);
        let is_one = words.next().is_none() && matches!(answer, "ok" | "FAILED" | "skipped");
        (is_one && name.contains("::")).then_some((name, answer))
    })
}

fn expected(name: &str) -> &'static str {
    let last = name.rsplit("::").next().unwrap();
    match last {
        // In a user namespace nobody makes a block device (mknod(2), EPERM). Of character devices only
        // 0:0, which is the one that the suite makes, and which to an overlay is a whiteout.
        "block" | "char" => "FAILED",
        // A file system that is read-only for a while: the box has no way to make one of this.
        _ if last.starts_with("erofs_") => "skipped",
        // pathconf(3) does not know it of FUSE.
        "link_count_max" => "skipped",
        _ => "ok",
    }
}
