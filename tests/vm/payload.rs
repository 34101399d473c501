//! What the guest is given: the compiled programs, the images that their tests use, the files of the
//! checkout that they read, and the script that runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{Image, probe, user};

const CHECKOUT: &str = env!("CARGO_MANIFEST_DIR");

/// The programs, in the order in which they run. The first has the tests that only the guest can make,
/// which are ignored elsewhere.
const PROGRAMS: [&str; 3] = ["guest", "sandbox", "escape"];

/// The tests that act as root on the host's side: root runs these, everything else the user.
const BY_ROOT: [(&str, &[&str]); 2] = [
    (
        "sandbox",
        &[
            "identity::root_is_refused",
            "overlay::a_box_that_cannot_meet_others_has_a_server_of_its_own",
            "overlay::a_device_that_is_missing_or_closed_is_told_and_nothing_taken_instead",
            "overlay::a_keeper_that_is_stopped_is_told_in_bounded_time",
            "overlay::a_root_with_a_server_is_the_tree_of_the_image",
            "overlay::a_root_with_a_server_is_written_to_and_forgets",
            "overlay::a_server_that_hangs_does_not_keep_a_box_that_is_to_end",
            "overlay::a_shared_server_that_hangs_keeps_no_box_that_is_to_end",
            "overlay::boxes_go_on_without_the_keeper_and_others_start_another",
            "overlay::exit_codes_and_signals_are_the_programs",
            "overlay::fifty_boxes_have_one_server_which_ends_with_the_last",
            "overlay::the_end_of_the_server_ends_the_run_with_125",
            "overlay::the_server_ends_with_casemate",
            "overlay::the_server_is_confined",
        ],
    ),
    (
        "escape",
        &[
            "credentials::escape_25_a_set_uid_program_of_the_host_gives_nothing",
            "ipc::escape_49_sockets_of_the_host_are_not_in_the_tree",
            "mounts::escape_23_no_device_can_be_made",
            "mounts::escape_24_a_later_mount_of_the_host_does_not_come_in",
            "overlay::neither_the_device_of_the_root_nor_the_merged_layers_can_be_reached",
        ],
    ),
];

/// The tests that the guest does not make, and why. (None is about the kernel or systemd.)
const NOT_MADE: [&str; 4] = [
    // Compiles with the host's own compiler; the guest has none.
    "work::the_hosts_own_tools_work_in_a_box_without_an_image",
    // Minutes of a program's own computing under emulation.
    "streams::sixty_four_mebibytes_pass_through_both_ways",
    "work::git_clones_changes_and_pushes_a_local_repository",
    "work::node_runs_workers_children_and_crypto",
];

/// Controls that this system cannot give: its bubblewrap has the correction of CVE-2026-87766.
const WAIVED: &str = "bubblewrap-mountpoint";

/// The images that these programs use; they are built here, with this machine's tools.
const IMAGES: [Image; 15] = [
    Image::Debian,
    Image::Small,
    Image::Entry,
    Image::SmallDocker,
    Image::RootfsGz,
    Image::RootfsZst,
    Image::Static,
    Image::Hostile("dev-link"),
    Image::Hostile("null-link"),
    Image::Hostile("proc-link"),
    Image::Hostile("proc-file"),
    Image::Hostile("passwd-link"),
    Image::Hostile("tmp-link"),
    Image::Hostile("suid"),
    Image::Repository,
];

/// What the tests read of the checkout.
const FILES: [&str; 3] = ["tests/images", "tests/probe", "profiles"];

/// Fills the directory; the arguments are for every test program.
pub(super) fn gather(staging: &Path, arguments: &[String]) {
    let [bin, cache, checkout] = ["bin", "cache", "checkout"].map(|name| staging.join(name));
    for directory in [&bin, &cache, &checkout] {
        fs::create_dir(directory).unwrap();
    }
    for (name, path) in PROGRAMS.iter().zip(programs()) {
        strip(&path, &bin.join(name));
    }
    strip(&casemate(), &bin.join("casemate"));
    run(Command::new("cp").arg(probe()).arg(&bin));
    for image in IMAGES {
        run(Command::new("cp").arg("-a").arg(image.archive()).arg(&cache));
    }
    for file in FILES {
        let to = checkout.join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp").arg("-a").arg(Path::new(CHECKOUT).join(file)).arg(to));
    }
    let start = staging.join("start");
    fs::write(&start, script(arguments)).unwrap();
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The guest's programs, compiled as this one was.
fn programs() -> Vec<PathBuf> {
    let mut arguments = vec!["test", "--no-run"];
    if !cfg!(debug_assertions) {
        arguments.push("--release");
    }
    for name in PROGRAMS {
        arguments.extend(["--test", name]);
    }
    let made = compile(&arguments);
    PROGRAMS.iter().map(|name| find(&made, name, "test")).collect()
}

/// casemate itself, with the compiler's cheapest optimizations (Cargo.toml): a box is started some
/// thousand times, and each instruction is emulated.
fn casemate() -> PathBuf {
    if !cfg!(debug_assertions) {
        return PathBuf::from(env!("CARGO_BIN_EXE_casemate"));
    }
    find(&compile(&["build", "--profile", "guest", "--bin", "casemate"]), "casemate", "bin")
}

/// What cargo says of what it has made.
fn compile(arguments: &[&str]) -> Vec<Value> {
    let mut build = Command::new(env!("CARGO"));
    build.args(arguments).args(["--locked", "--message-format", "json"]).current_dir(CHECKOUT);
    // What cargo told this program of its package. Build scripts that look at that (ring's) would run
    // again, and all that depends on them would be compiled again, now and at cargo's next call.
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if told.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            build.env_remove(name);
        }
    }
    let output = build.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn find(made: &[Value], name: &str, kind: &str) -> PathBuf {
    let made = made
        .iter()
        .rfind(|message| message["target"]["name"] == name && message["target"]["kind"][0] == kind);
    let path = made.and_then(|message| message["executable"].as_str());
    PathBuf::from(path.unwrap_or_else(|| panic!("cargo built no program {name}")))
}

/// Copies a program without its debugging information, which is most of it.
fn strip(from: &Path, to: &Path) {
    run(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// The script: everything where the programs were told at their compilation that it is, then one
/// program after the other. Root's come from systemd, since sudo takes the right to dump core, which
/// casemate limits itself. Debian has the ioctl TIOCSTI off, which the attacks with it need on.
fn script(arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    let words = words.join(" ");
    // With CASEMATE_TEST_TIMES each test tells how long it took, which the compiler's test programs do
    // only where they are told that they may do what is not stable yet.
    let (times, unstable) = match std::env::var_os("CASEMATE_TEST_TIMES") {
        Some(_) => (" -Zunstable-options --report-time", "export RUSTC_BOOTSTRAP=1\n"),
        None => ("", ""),
    };
    let binary = Path::new(env!("CARGO_BIN_EXE_casemate"));
    let mut text = format!(
        "#!/bin/sh\n\
         sudo mkdir -p {checkout}/tests {directory}\n\
         for file in {files}; do sudo ln -s /payload/checkout/$file {checkout}/$file; done\n\
         sudo ln -s /payload/bin/casemate {binary}\n\
         export CASEMATE_TEST_CACHE=/payload/cache CASEMATE_TEST_SKIP={WAIVED}\n\
         export CASEMATE_TEST_SLOWNESS=4 RUST_TEST_THREADS=2\n\
         base=/var/tmp/casemate-test-$(id -u)/{base}\n\
         mkdir -p $base/bin\n\
         cp /payload/bin/probe $base/bin/\n\
         roots=/var/tmp/casemate-test/{base}\n\
         sudo mkdir -p $roots/bin\n\
         sudo cp /payload/bin/probe $roots/bin/\n\
         as_root() {{ sudo systemd-run --quiet --pipe --wait --collect -E HOME=/root -E LANG=C.UTF-8 \
         -E CASEMATE_TEST_CACHE=$CASEMATE_TEST_CACHE -E CASEMATE_TEST_SLOWNESS=4 \"$@\"; }}\n\
         sudo sysctl -qw dev.tty.legacy_tiocsti=1\n\
         failed=0\n\
         {ATTEMPT}",
        checkout = quoted(CHECKOUT),
        directory = quoted(binary.parent().unwrap().to_str().unwrap()),
        binary = quoted(binary.to_str().unwrap()),
        files = FILES.join(" "),
        base = user().base.file_name().unwrap().to_str().unwrap(),
    );
    for program in PROGRAMS {
        let by_root = BY_ROOT.iter().find(|(name, _)| *name == program).map_or(&[][..], |of| of.1);
        let skipped = NOT_MADE.iter().chain(by_root).map(|test| format!(" --skip {test}"));
        let skipped: String = skipped.collect();
        let ignored = if program == "guest" { " --ignored" } else { "" };
        text += &format!("attempt '' {program} '{ignored}'{times} {skipped} {words}\n");
        // The words that name tests choose among these too.
        let named: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
        let chosen = by_root.iter().filter(|test| {
            named.is_empty() || named.iter().any(|word| test.contains(word.as_str()))
        });
        let chosen: Vec<&str> = chosen.copied().collect();
        if !chosen.is_empty() {
            text += &format!("attempt as_root {program} '' --exact {}\n", chosen.join(" "));
        }
    }
    text.insert_str("#!/bin/sh\n".len(), unstable);
    text + "echo $failed >/dev/virtio-ports/casemate.status\n"
}

/// Runs a program's tests, and those that failed once more, alone: emulated processors run unevenly,
/// and what waits for another process may then wait too long. More than a few are no accident.
const ATTEMPT: &str = r#"attempt() {
    prefix=$1 program=$2 which=$3; shift 3
    echo "casemate-guest: program $program"
    { $prefix /payload/bin/$program $which "$@"; echo $? >/tmp/code; } | tee /tmp/output
    [ "$(cat /tmp/code)" = 0 ] && return
    names=$(sed -n 's/^test \(.*\) \.\.\. FAILED\( <.*>\)\{0,1\}$/\1/p' /tmp/output)
    case $(echo $names | wc -w) in [1-8]) ;; *) failed=1; return;; esac
    echo "casemate-guest: again $program"
    $prefix /payload/bin/$program $which --test-threads 1 --exact $names || failed=1
}
"#;

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
