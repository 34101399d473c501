//! Mount points that are not what they seem, and mounts that should not be there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::probe::{INSIDE, volume};
use crate::common::user::remove_tree;
use crate::common::{
    Image, Run, Workspace, boxed_probe, casemate, image, probe, require_root, user,
};

/// Where the hostile images' links lead to on the host.
const TRAP: &str = "/var/tmp/casemate-trap";

/// The trap, empty and writable by the test user; one test at a time has it.
struct Trap(#[allow(dead_code)] nix::fcntl::Flock<fs::File>);

impl Trap {
    fn set() -> Self {
        let lock = crate::common::user::lock("trap");
        remove_tree(Path::new(TRAP));
        fs::create_dir(TRAP).unwrap();
        user().own(Path::new(TRAP));
        Trap(lock)
    }

    fn contents(&self) -> Vec<PathBuf> {
        fs::read_dir(TRAP).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        remove_tree(Path::new(TRAP));
    }
}

/// The image's root as a naive runtime would have it: its one layer, unpacked.
fn unpacked(image: Image, space: &Workspace) -> String {
    let root = space.directory("root");
    let archive = image.archive();
    Run::bash(
        "mkdir layout && tar -xf \"$archive\" -C layout && for blob in layout/blobs/sha256/*; do \
         if gzip -t \"$blob\" 2>/dev/null; then tar -xzf \"$blob\" -C root; fi; done",
    )
    .env("archive", archive)
    .directory(space.path())
    .output()
    .succeeds();
    root
}

#[test]
fn escape_12_the_images_proc_is_not_believed() {
    for (trap, what) in [("proc-link", "a link"), ("proc-file", "a file")] {
        let space = Workspace::new();
        let root = unpacked(Image::Hostile(trap), &space);
        let kind = fs::symlink_metadata(format!("{root}/proc")).unwrap();
        assert!(!kind.is_dir(), "the control: /proc of the image is {what}");

        let name = image(Image::Hostile(trap));
        let output =
            casemate(["run", "--image", &name, "--", "/bin/cat", "/proc/self/status"]).output();
        if output.code() == Some(0) {
            assert!(output.out().contains("Seccomp:\t2"), "{}", output.out());
            let passwd =
                casemate(["run", "--image", &name, "--", "/bin/cat", "/etc/passwd"]).text();
            assert!(passwd.starts_with("root:x:0:0:"), "{passwd}");
        } else {
            output.refuses(125, &["/proc"]);
        }
    }
}

#[test]
fn escape_13_a_link_for_dev_null_does_not_reach_its_target() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let space = Workspace::new();
    let root = unpacked(Image::Hostile("null-link"), &space);
    let naive = ["--unshare-all", "--bind", &root, "/", "--proc", "/proc", "/bin/cat", "/dev/null"];
    assert_eq!(Run::new("bwrap").args(naive).output().succeeds().out(), pattern, "the control");

    let name = image(Image::Hostile("null-link"));
    let inside = |command: &str| {
        casemate(["run", "--image", &name, "--", "/bin/sh", "-c", command]).output().text()
    };
    assert_eq!(inside("stat -c '%F %t:%T' /dev/null"), "character special file 1:3");
    assert_eq!(inside("echo hostile >/dev/null; cat /dev/null"), "");
    assert_eq!(inside("test -L /dev/null && echo link"), "");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

#[test]
fn escape_14_links_for_dev_and_tmp_do_not_reach_the_host() {
    for (kind, at) in [("dev-link", "dev"), ("tmp-link", "tmp")] {
        let trap = Trap::set();
        let space = Workspace::new();
        let root = unpacked(Image::Hostile(kind), &space);
        Run::bash("exec unshare -Urm mkdir \"$root/$at/naive\"")
            .env("root", &root)
            .env("at", at)
            .output()
            .succeeds();
        assert_eq!(trap.contents(), [Path::new(TRAP).join("naive")], "the control");
        fs::remove_dir(Path::new(TRAP).join("naive")).unwrap();

        let name = image(Image::Hostile(kind));
        let command = format!("echo x >/{at}/written; ls /dev");
        let output = casemate(["run", "--image", &name, "--", "/bin/sh", "-c", &command]).output();
        match output.code() {
            Some(125) => drop(output.refuses(125, &[at])),
            _ => assert!(output.out().contains("null"), "{output:?}"),
        }
        assert_eq!(trap.contents(), Vec::<PathBuf>::new(), "/{at} was followed to the host");
    }
}

#[test]
fn escape_14_a_link_for_the_user_table_is_not_read_from_the_host() {
    let trap = Trap::set();
    fs::write(Path::new(TRAP).join("passwd"), "outsider:x:4242:4242::/:/bin/sh\n").unwrap();
    let space = Workspace::new();
    let root = unpacked(Image::Hostile("passwd-link"), &space);
    let naive = fs::read_to_string(format!("{root}/etc/passwd")).unwrap();
    assert!(naive.contains("outsider"), "the control");

    let name = image(Image::Hostile("passwd-link"));
    let output =
        casemate(["run", "--image", &name, "-u", "outsider", "--", "/bin/id", "-u"]).output();
    output.refuses(125, &["outsider"]);
    drop(trap);
}

#[test]
fn escape_18_mount_points_are_not_made_through_links() {
    let space = Workspace::new();
    let source = space.directory("source");
    let names = ["/oldroot", "/newroot", "/.old", "/old", "/proc/1/root", "/proc/self/root", ""];
    let writable = space.directory("writable");
    let victim = space.directory("victim");
    for (number, prefix) in names.iter().enumerate() {
        space.symlink(format!("{prefix}{victim}"), &format!("writable/cache{number}"));
    }
    // The control: bubblewrap up to 0.11 makes the mount point on the host.
    let below = "/w/cache0/made";
    Run::new("bwrap")
        .args(["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib"])
        .args(["--symlink", "usr/lib64", "/lib64", "--bind", &writable, "/w"])
        .args(["--bind", &source, below, "/usr/bin/true"])
        .output();
    let made = Path::new(&victim).join("made");
    let vulnerable = made.exists();
    let _ = fs::remove_dir(&made);
    let reason = "this bubblewrap does not make mount points on the host (0.12 and later do not)";
    let _ = crate::common::control("bubblewrap-mountpoint", vulnerable, reason);

    // Without a link the same two volumes are mounted.
    let options = ["-v", &format!("{writable}:/w:rw"), "-v", &format!("{source}:/w/plain/made")];
    let listing = casemate(["run"]).args(options).args(["--", "ls", "/w/plain"]).text();
    assert_eq!(listing, "made");

    for (number, name) in names.iter().enumerate() {
        let at = format!("{source}:/w/cache{number}/made");
        let output =
            casemate(["run", "-v", &format!("{writable}:/w:rw"), "-v", &at, "--", "true"]).output();
        assert!([Some(0), Some(125)].contains(&output.code()), "{output:?}");
        let found: Vec<_> = fs::read_dir(&victim).unwrap().collect();
        assert!(found.is_empty(), "{name} led to the host");
    }
}

#[test]
fn escape_23_mounts_cannot_be_changed() {
    let control = "mount -t tmpfs none /mnt && \"$probe\" remount /mnt && \"$probe\" umount /mnt \
                   && \"$probe\" mount tmpfs /mnt && \"$probe\" bind /usr /mnt";
    let plain = Run::bash(&format!("exec unshare -Urm -- bash -c '{control}'")).text();
    assert_eq!(plain, "ok\nok\nok\nok", "the control");

    for command in [
        ["umount", "/proc", ""],
        ["umount", "/proc/keys", ""],
        ["umount", "/usr", ""],
        ["umount", "/tmp", ""],
        ["remount", "/usr", ""],
        ["remount", "/", ""],
        ["mount", "tmpfs", "/tmp"],
        ["mount", "proc", "/tmp"],
        ["bind", "/usr", "/tmp"],
        ["chroot", "/usr", ""],
    ] {
        let arguments: Vec<&str> = command.into_iter().filter(|word| !word.is_empty()).collect();
        assert_eq!(boxed_probe(&[], &arguments), "EPERM", "{arguments:?}");
    }
    assert_eq!(boxed_probe(&[], &["write", "/usr/bin/made", "x"]), "EROFS");
}

#[test]
fn escape_23_no_device_can_be_made() {
    if require_root() {
        let path = "/var/tmp/casemate-test-device";
        assert_eq!(Run::new(probe()).by_root().args(["mknod", path]).text(), "ok", "the control");
        fs::remove_file(path).unwrap();
    }
    // The first of three walls answers: Landlock, before the missing capability and before nodev.
    assert_eq!(boxed_probe(&[], &["mknod", "/tmp/device"]), "EACCES");
}

/// A directory on the host that is a shared mount of its own, which goes with the value.
struct SharedMount(String);

impl SharedMount {
    fn new(space: &Workspace) -> Self {
        let path = space.directory("shared");
        let run = |arguments: &[&str]| {
            assert!(Command::new("mount").args(arguments).status().unwrap().success());
        };
        run(&["--bind", &path, &path]);
        run(&["--make-shared", &path]);
        fs::create_dir(format!("{path}/sub")).unwrap();
        SharedMount(path)
    }

    fn mount_below(&self) {
        let sub = format!("{}/sub", self.0);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none", &sub]).status().unwrap();
        assert!(mounted.success());
        fs::write(format!("{sub}/secret"), "of the host").unwrap();
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").args(["-R", "-l", &self.0]).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn escape_24_a_later_mount_of_the_host_does_not_come_in() {
    if !require_root() {
        return;
    }
    let script =
        "echo ready; read -r _; if test -e \"$0/sub/secret\"; then echo seen; else echo unseen; fi";
    let see = |command: Run| {
        let space = Workspace::new();
        let shared = SharedMount::new(&space);
        let volume = format!("{}:{}:rw", shared.0, shared.0);
        let command = command.env("shared", &shared.0).env("script", script).env("volume", volume);
        let mut running = command.open_stdin().spawn();
        running.expect("ready");
        shared.mount_below();
        running.write("\n");
        running.expect("seen");
        running.wait().succeeds().text().lines().last().unwrap_or_default().to_string()
    };
    let plain = "exec unshare -Urm --propagation unchanged sh -c \"$script\" \"$shared\"";
    assert_eq!(see(Run::bash(plain)), "seen", "the control");
    let boxed = "exec \"$casemate\" run -i -v \"$volume\" -- sh -c \"$script\" \"$shared\"";
    assert_eq!(see(Run::bash(boxed)), "unseen");
}

#[test]
fn escape_25_every_mount_is_without_set_uid_and_devices() {
    let space = Workspace::new();
    let volume_rw = format!("{}:/data:rw", space.at(""));
    let debian = image(Image::Small);
    for root in [vec![], vec!["--image", debian.as_str()]] {
        let text = casemate(["run"])
            .args(&root)
            .args(["-v", &volume_rw, "-v", &volume(), "--tmpfs", "/scratch", "--"])
            .args(["/bin/cat", "/proc/self/mountinfo"])
            .text();
        assert!(text.contains(INSIDE) && text.contains("/scratch"), "{text}");
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (at, options) = (fields[4], fields[5].split(',').collect::<Vec<_>>());
            assert!(options.contains(&"nosuid"), "{line}");
            // The devices themselves are the exception.
            let device = at.starts_with("/dev/") && at != "/dev/shm" && at != "/dev/mqueue";
            assert!(device || options.contains(&"nodev"), "{line}");
            assert!(!line.contains(" shared:") && !line.contains(" master:"), "{line}");
        }
    }
}
