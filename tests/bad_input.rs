//! What goes wrong before the program runs: each case has its exit code and one clear message, and
//! leaves nothing behind.

// The helpers of the tests are tests too; clippy.toml exempts test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::process::Command;

use common::{Image, Leftovers, Run, Workspace, casemate, control, image, require_root, user};

/// Runs it, demands the refusal, and that nothing is left.
#[track_caller]
fn refuses(run: Run, code: i32, words: &[&str]) {
    let watch = Leftovers::watch();
    run.output().refuses(code, words);
    watch.none();
}

/// The same for a script in which `$casemate` is the program. Its exit code is casemate's.
#[track_caller]
fn script_refuses(script: &str, code: i32, words: &[&str]) {
    refuses(Run::bash(script), code, words);
}

#[test]
fn an_image_that_is_not_there() {
    refuses(casemate(["run", "--image", "no-such-image", "--", "true"]), 125, &["no-such-image"]);
    refuses(
        casemate(["explain", "--image", "no-such-image", "--", "true"]),
        125,
        &["no-such-image"],
    );
    // Names that would be paths.
    for name in ["../store", "/etc", "a/../../b", "", ".", "..", "a\nb"] {
        refuses(casemate(["run", "--image", name, "--", "true"]), 125, &[]);
    }
}

#[test]
fn a_command_that_is_not_there() {
    refuses(casemate(["run", "--", "no-such-command"]), 127, &["no-such-command", "not found"]);
    let name = image(Image::Small);
    let run = casemate(["run", "--image", &name, "--", "/no/such"]);
    refuses(run, 127, &["/no/such", "No such file or directory"]);
}

#[test]
fn a_command_without_the_execute_bit() {
    let space = Workspace::new();
    let file = space.file("plain", "#!/bin/sh\n");
    let run = casemate(["run", "-v", &format!("{file}:/opt/plain:ro,exec"), "--", "/opt/plain"]);
    refuses(run, 126, &["/opt/plain", "Permission denied"]);
}

#[test]
fn a_directory_as_the_command() {
    refuses(casemate(["run", "--", "/usr/bin"]), 126, &["/usr/bin"]);
    refuses(casemate(["run", "--", "/"]), 126, &["/"]);
}

#[test]
fn a_script_whose_interpreter_is_not_there() {
    let space = Workspace::new();
    let script = space.script("script", "#!/no/such/interpreter\n");
    let run =
        casemate(["run", "-v", &format!("{script}:/opt/script:ro,exec"), "--", "/opt/script"]);
    refuses(run, 127, &["/opt/script"]);
}

#[test]
fn a_file_that_is_no_program() {
    let space = Workspace::new();
    let file = space.script("garbage", "\x7fELF and no more");
    let run =
        casemate(["run", "-v", &format!("{file}:/opt/garbage:ro,exec"), "--", "/opt/garbage"]);
    refuses(run, 126, &["/opt/garbage", "Exec format error"]);
}

#[test]
fn no_command_at_all() {
    refuses(casemate(["run", "--"]), 125, &["command"]);
}

#[test]
fn options_that_do_not_exist_or_do_not_fit() {
    for arguments in [
        &["run", "--no-such-option", "true"][..],
        &["run", "--image"],
        &["no-such-subcommand"],
        &["run", "--timeout", "soon", "--", "true"],
        &["run", "--timeout", "-1", "--", "true"],
        &["run", "--network", "sometimes", "--", "true"],
        &["run", "--ulimit", "nofile", "--", "true"],
        &["run", "--tmpfs", "relative", "--", "true"],
        &["run", "--tmpfs", "/x:size=huge", "--", "true"],
        &["run", "-v", "only-one-part", "--", "true"],
        &["run", "-v", "/usr:/x:nonsense", "--", "true"],
        &["run", "-v", "/usr:relative", "--", "true"],
        &["run", "-w", "relative", "--", "true"],
        &["run", "-e", "=x", "--", "true"],
        &["run", "--hostname", "", "--", "true"],
        &["run", "--hostname", "not a name", "--", "true"],
    ] {
        let words: Vec<&str> =
            arguments.iter().copied().filter(|w| w.contains("no-such")).collect();
        refuses(casemate(arguments), 125, &words);
    }
}

#[test]
fn a_profile_with_an_unknown_key_or_a_wrong_type() {
    let space = Workspace::new();
    for (text, words) in [
        ("[files]\nraed = [\"/usr\"]\n", ["raed", ":2:1"]),
        ("[network]\nmode = 7\n", ["mode = 7", ":2:8"]),
        ("[nonsense]\n", ["nonsense", ":1:2"]),
        ("[files\n", ["[files", ":1:"]),
        ("[network]\nmode = \"sometimes\"\n", ["sometimes", ":2:8"]),
        ("[capabilities]\nkeep = [\"CAP_NOTHING\"]\n", ["CAP_NOTHING", ":2:"]),
    ] {
        let profile = space.file("profile.toml", text);
        let run = casemate(["run", "-p", &profile, "--", "true"]);
        refuses(run, 125, &[&profile, words[0], words[1]]);
    }
    // A name that only the filter's compiler can judge.
    let profile = space.file("profile.toml", "[seccomp]\nallow = [\"no_such_call\"]\n");
    refuses(casemate(["run", "-p", &profile, "--", "true"]), 125, &["seccomp", "no_such_call"]);
    let missing = space.at("missing.toml");
    let run = casemate(["run", "-p", &missing, "--", "true"]);
    refuses(run, 125, &[&missing, "No such file or directory"]);
    refuses(casemate(["run", "-p", "no-such-profile", "--", "true"]), 125, &["no-such-profile"]);
    let directory = space.directory("directory.toml");
    refuses(casemate(["run", "-p", &directory, "--", "true"]), 125, &[&directory]);
    let binary = space.file("binary.toml", b"[files]\nread = [\"\xff\xfe\"]\n");
    refuses(casemate(["run", "-p", &binary, "--", "true"]), 125, &[&binary]);
}

#[test]
fn a_volume_whose_source_is_missing_or_closed() {
    let space = Workspace::new();
    let missing = space.at("missing");
    let run = casemate(["run", "-v", &format!("{missing}:/x:ro"), "--", "true"]);
    refuses(run, 125, &[&missing, "No such file or directory"]);
    let run = casemate(["run", "-v", "/root/x:/x:ro", "--", "true"]);
    refuses(run, 125, &["/root/x", "Permission denied"]);
}

#[test]
fn a_working_directory_that_is_not_there() {
    let run = casemate(["run", "-w", "/no/such/place", "--", "true"]);
    refuses(run, 125, &["/no/such/place", "No such file or directory"]);
    let run = casemate(["run", "-w", "/etc/passwd", "--", "true"]);
    refuses(run, 125, &["/etc/passwd", "Not a directory"]);
}

#[test]
fn the_callers_directory_was_removed() {
    let space = Workspace::new();
    let gone = space.directory("gone");
    let script = "cd \"$gone\" && rmdir \"$gone\" && exec \"$casemate\" run -- echo ran";
    let output = Run::bash(script).env("gone", gone).output();
    assert_eq!(output.succeeds().text(), "ran");
}

#[test]
fn a_home_that_cannot_be_written() {
    // With nothing to write to it, a box needs no home.
    let space = Workspace::new();
    let home = space.directory("home");
    Run::new("chmod").args(["500", &home]).output().succeeds();
    let run = |arguments: &[&str]| {
        casemate(arguments)
            .env("HOME", &home)
            .without_env("XDG_DATA_HOME")
            .without_env("XDG_CACHE_HOME")
            .directory("/")
    };
    let output = run(&["run", "--", "echo", "ran"]).output().succeeds();
    assert_eq!(output.text(), "ran");
    let archive = Image::Small.archive();
    let import = run(&["import", "small"]).arg(archive);
    refuses(import, 125, &[&home, "Permission denied"]);
    Run::new("chmod").args(["700", &home]).output().succeeds();
}

#[test]
fn without_home_or_runtime_directory() {
    let bare = |name: &str| {
        let run = casemate(["run", "--", "echo", "ran"]).without_env(name);
        let output = run.without_env("XDG_DATA_HOME").without_env("XDG_CACHE_HOME").output();
        assert_eq!(output.succeeds().text(), "ran", "without {name}");
    };
    bare("HOME");
    bare("XDG_RUNTIME_DIR");
    bare("PATH");
    bare("USER");
    let script = "exec env -i \"$casemate\" run -- /bin/echo ran";
    assert_eq!(Run::bash(script).text(), "ran");
    // The value is used and not trusted.
    for value in ["", "relative", "/no/such/home"] {
        let output = casemate(["run", "--", "echo", "ran"]).env("HOME", value).output();
        assert_eq!(output.succeeds().text(), "ran", "HOME={value}");
    }
}

#[test]
fn an_empty_user_table() {
    if !require_root() {
        return;
    }
    // A mount namespace of root's, in which /etc/passwd has 0 bytes.
    let space = Workspace::new();
    let empty = space.file("empty", "");
    let script = format!(
        "mount --bind {empty} /etc/passwd && exec setpriv --reuid {} --regid {} --clear-groups \
         \"$casemate\" run -- echo ran",
        user().uid,
        user().gid
    );
    let watch = Leftovers::watch();
    let run = Run::new("unshare").args(["-m", "bash", "-c", &script]).by_root();
    let output = run.env("casemate", user().casemate()).output();
    assert_eq!(output.succeeds().text(), "ran");
    watch.none();
}

/// Runs the command as a plain id of a user namespace in which no further ones can be made.
fn without_user_namespaces(command: &str) -> Run {
    // The outer namespace's root writes the limit of the namespace, then steps down to an ordinary id
    // in a namespace below, which is the last one that is allowed.
    let script = format!(
        "exec unshare --user --map-root-user bash -c '\
         echo 1 >/proc/sys/user/max_user_namespaces && \
         exec unshare --user --map-user=1000 --map-group=1000 bash -c \"{command}\"'"
    );
    Run::bash(&script)
}

#[test]
fn no_user_namespaces() {
    let plain = without_user_namespaces("id -u; unshare -U true").output();
    let holds = plain.text() == "1000" && plain.err().contains("No space left on device");
    let reason = format!("user namespaces cannot be exhausted here: {plain:?}");
    if !control("max_user_namespaces", holds, &reason) {
        return;
    }
    let run = without_user_namespaces("exec \\$casemate run -- true");
    refuses(run, 125, &["user namespace", "max_user_namespaces"]);
    let doctor = without_user_namespaces("exec \\$casemate doctor").output();
    assert_ne!(doctor.code(), Some(0));
    assert!(doctor.out().contains("max_user_namespaces"), "{doctor:?}");
}

#[test]
fn a_kernel_overlay_that_refuses() {
    // The layers lie on a file system that cannot be part of an overlay's lower tree any more: the store
    // is below an overlay that is stacked as deep as the kernel allows.
    let archive = Image::Small.archive();
    let space = Workspace::new();
    for directory in ["a", "b", "c", "d", "one", "two"] {
        space.directory(directory);
    }
    let script = r#"
        mount -t overlay -o userxattr,lowerdir=a:b none one &&
        mount -t overlay -o userxattr,lowerdir=one:c none two &&
        ! mount -t overlay -o userxattr,lowerdir=two:d none a 2>/dev/null && echo stacked
    "#;
    let stacked =
        Run::new("unshare").args(["-Urm", "bash", "-c", script]).directory(space.path()).output();
    let reason = format!("overlays cannot be stacked to the kernel's limit here: {stacked:?}");
    if !control("overlay-stack", stacked.out().contains("stacked"), &reason) {
        return;
    }
    let home = space.directory("store");
    casemate(["import", "stacked"]).arg(archive).env("XDG_DATA_HOME", &home).output().succeeds();
    let script = r#"
        mount -t overlay -o userxattr,lowerdir=store:b none one &&
        mount -t overlay -o userxattr,lowerdir=one:c none two &&
        exec unshare --user --map-user=1000 --map-group=1000 "$casemate" run --image stacked -- true
    "#;
    let run = Run::new("unshare")
        .args(["-Urm", "bash", "-c", script])
        .directory(space.path())
        .env("casemate", user().casemate())
        .env("XDG_DATA_HOME", space.at("two"));
    refuses(run, 125, &["overlay"]);
}

#[test]
fn an_image_without_a_shell() {
    let name = image(Image::Static);
    refuses(
        casemate(["run", "--image", &name, "--", "sh", "-c", "true"]),
        127,
        &["sh", "not found"],
    );
    refuses(
        casemate(["run", "--image", &name, "--", "/bin/sh"]),
        127,
        &["/bin/sh", "No such file or directory"],
    );
}

/// A file system of that size, mounted for the value's life.
struct SmallDisk(String);

impl SmallDisk {
    fn new(space: &Workspace, options: &str) -> Self {
        let path = space.directory("disk");
        let (uid, gid) = (user().uid, user().gid);
        let options = format!("{options},uid={uid},gid={gid},mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none", &path]).status();
        assert!(mounted.unwrap().success());
        SmallDisk(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[test]
fn a_full_disk_at_an_import() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    for options in ["size=1m", "nr_inodes=100"] {
        let disk = SmallDisk::new(&space, options);
        let run = casemate(["import", "small"]).arg(Image::Small.archive());
        let run = run.env("XDG_DATA_HOME", format!("{}/data", disk.0));
        refuses(run, 125, &["No space left on device"]);
        // Nothing half done is listed, or fills the disk.
        let listing =
            casemate(["images"]).env("XDG_DATA_HOME", format!("{}/data", disk.0)).output();
        assert!(!listing.succeeds().out().contains("small"));
        let staging = format!("{}/data/casemate/store/staging", disk.0);
        let left = fs::read_dir(staging).map(|entries| entries.count()).unwrap_or_default();
        assert_eq!(left, 0, "the staging area is empty");
    }
}

#[test]
fn a_full_disk_as_the_cache_does_not_stop_a_box() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    let disk = SmallDisk::new(&space, "size=4k");
    Run::bash("head -c 100k /dev/zero >\"$0\"/full").arg(&disk.0).output();
    let run = casemate(["run", "--", "echo", "ran"]).env("XDG_CACHE_HOME", &disk.0);
    assert_eq!(run.output().succeeds().text(), "ran");
}

#[test]
fn a_full_output() {
    // What casemate itself prints does not reach a full device: it says so.
    script_refuses(
        "exec \"$casemate\" explain -- true >/dev/full",
        125,
        &["No space left on device"],
    );
    // What the program prints is the program's business.
    let output = Run::bash("exec \"$casemate\" run -- echo x >/dev/full").output();
    assert_eq!(output.code(), Some(1));
    assert!(output.err().contains("No space left on device"), "{output:?}");
}

#[test]
fn a_closed_output() {
    // In the box it is the null device, so that no file that is opened later can take its place.
    let watch = Leftovers::watch();
    let script = "exec \"$casemate\" run -- sh -c 'echo x; one=$(readlink /proc/$$/fd/1); echo $one >&2' >&-";
    let boxed = Run::bash(script).output().succeeds();
    assert_eq!(boxed.err(), "/dev/null\n");
    watch.none();
    // The reader of a list goes away: no message, and no other harm.
    let output = Run::bash("\"$casemate\" images | true; \"$casemate\" --help | true").output();
    assert!(!output.err().contains("panicked"), "{output:?}");
}

#[test]
fn started_with_closed_streams() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let watch = Leftovers::watch();
        let script = format!("exec \"$casemate\" run -- sh -c 'exit 23' {closed}");
        let output = Run::bash(&script).output();
        assert_eq!(output.code(), Some(23), "{closed}: {output:?}");
        // And a failure has its code, even where nobody can be told.
        let script = format!("exec \"$casemate\" run -- no-such-command {closed}");
        assert_eq!(Run::bash(&script).output().code(), Some(127), "{closed}");
        watch.none();
    }
    // No descriptor of casemate's lands in the place of a closed one, where the program would write to it.
    let script = "\"$casemate\" run -v /proc/self:/x:ro -- true <&- 2>/dev/null; \
                  exec \"$casemate\" run -- sh -c 'readlink /proc/self/fd/0 2>/dev/null; true' <&-";
    let text = Run::bash(script).output().text();
    assert!(text.is_empty() || text.contains("/dev/null"), "{text}");
}

#[test]
fn untrusted_text_in_messages_is_escaped() {
    for name in ["\x1b]0;title\x07", "a\x1b[31mred", "line\nbreak", "\u{202e}reversed"] {
        let output = casemate(["run", "--", name]).output();
        assert_eq!(output.code(), Some(127), "{output:?}");
        let err = output.err();
        assert!(
            !err.contains('\x1b') && !err.contains('\x07') && !err.contains('\u{202e}'),
            "{err:?}"
        );
        assert!(
            err.lines().all(|line| line.starts_with("casemate: ") || line.starts_with("hint: ")),
            "{err:?}"
        );
    }
}

#[test]
fn archives_that_are_none() {
    let space = Workspace::new();
    let name = Image::Small.archive();
    let whole = fs::read(name).unwrap();
    for (file, bytes) in [
        ("empty.tar", Vec::new()),
        ("text.tar", b"this is no archive\n".repeat(100)),
        ("cut.tar", whole[..whole.len() / 2].to_vec()),
        ("cut.tar.gz", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]),
    ] {
        let path = space.file(file, bytes);
        refuses(casemate(["import", "broken", &path]), 125, &[&path]);
    }
    let missing = space.at("missing.tar");
    let run = casemate(["import", "broken", &missing]);
    refuses(run, 125, &[&missing, "No such file or directory"]);
    refuses(casemate(["import", "../broken", &missing]), 125, &["../broken"]);
    assert!(!casemate(["images"]).output().out().contains("broken"));
}
