//! The tree that the program sees.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use crate::common::probe::INSIDE;
use crate::common::{Image, Run, Workspace, boxed_probe, casemate, image, probe, user};

fn shell(options: &[&str], script: &str) -> Run {
    casemate(["run"]).args(options).args(["--", "/bin/sh", "-c", script])
}

#[test]
fn nothing_of_the_home_is_in_a_box() {
    let space = Workspace::new();
    let secret = space.file("secret", "of the user");
    Run::bash("echo secret >~/casemate-test-secret").output().succeeds();
    let home = user().home.display().to_string();
    let text =
        shell(&[], &format!("cat {secret} {home}/casemate-test-secret; ls -A \"$HOME\" /home"))
            .output();
    Run::bash("rm ~/casemate-test-secret").output().succeeds();
    assert_eq!(text.code().map(|_| text.out().contains("secret")), Some(false), "{text:?}");
    // The home is there, is the user's, is empty and can be written to.
    let empty = shell(&[], "cd && ls -A && echo x >file && cat file && stat -c %u .").text();
    assert_eq!(empty, format!("x\n{}", user().uid));
    assert!(!std::path::Path::new(&home).join("file").exists());
}

#[test]
fn the_hosts_system_is_there_and_cannot_be_written() {
    let output = shell(&[], "ls /usr/bin/env /bin/sh && echo x >/usr/made").output();
    assert!(output.err().contains("Read-only file system"), "{}", output.err());
    for path in ["/usr/made", "/etc/made", "/bin/made"] {
        assert_eq!(boxed_probe(&[], &["write", path, "x"]), "EROFS", "{path}");
    }
}

#[test]
fn only_the_expected_names_are_at_the_root() {
    let text = shell(&[], "ls -A /").text();
    let expected = [
        "bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "root", "run",
        "sbin", "sys", "tmp", "usr", "var", "opt", "mnt", "srv", "media", "boot",
    ];
    // The test user's home is under /home, or its parents are shown.
    let home_root = user().home.components().nth(1).unwrap().as_os_str().to_str().unwrap();
    for name in text.lines() {
        assert!(expected.contains(&name) || name == home_root, "/{name} is in the box:\n{text}");
    }
}

#[test]
fn secrets_of_the_system_are_not_in_the_short_list_of_etc() {
    let outside: BTreeSet<String> = std::fs::read_dir("/etc")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_string())
        .collect();
    let text = shell(&[], "ls -A /etc").text();
    let inside: BTreeSet<String> = text.lines().map(String::from).collect();
    assert!(inside.len() < outside.len(), "all of /etc is in the box:\n{text}");
    for name in ["shadow", "gshadow", "ssh", "sudoers", "sudoers.d", "cron.d", "apt", "machine-id"]
    {
        assert!(!inside.contains(name), "/etc/{name} is in the box");
    }
    for name in ["passwd", "group"] {
        assert!(inside.contains(name), "/etc/{name} is missing:\n{text}");
    }
}

#[test]
fn the_devices_are_the_few_that_programs_need() {
    let text = shell(&["-it"], "ls -A /dev").output();
    let text = if text.code() == Some(0) { text.out() } else { shell(&[], "ls -A /dev").text() };
    let expected = [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd",
        "stdin", "stdout", "stderr", "console",
    ];
    let names: Vec<&str> = text.split_whitespace().collect();
    assert!(names.iter().all(|name| expected.contains(name)), "{text}");
    for name in ["null", "zero", "full", "random", "urandom", "shm", "fd"] {
        assert!(names.contains(&name), "/dev/{name} is missing:\n{text}");
    }
    let script = "echo x >/dev/null && head -c 3 /dev/zero | od -An -tx1 && \
                  head -c 4 /dev/urandom | wc -c && head -c 1 /dev/zero >/dev/full";
    let output = shell(&[], script).output();
    assert!(output.out().contains("00 00 00\n4\n"), "{output:?}");
    assert!(output.err().contains("No space left on device"), "{output:?}");
}

#[test]
fn scratch_places_are_private_and_empty() {
    let marker = format!("/tmp/casemate-test-{}", std::process::id());
    Run::bash("echo x >\"$0\"").arg(&marker).output().succeeds();
    let text = shell(
        &[],
        "ls -A /tmp /var/tmp /run; echo y >/tmp/a && echo z >/var/tmp/b && cat /tmp/a /var/tmp/b",
    )
    .text();
    Run::new("rm").arg(&marker).output().succeeds();
    assert!(!text.contains("casemate-test") && text.ends_with("y\nz"), "{text}");
    assert!(!std::path::Path::new("/tmp/a").exists());
    assert_eq!(shell(&[], "stat -c %a /tmp").text(), "1777");
}

#[test]
fn a_volume_is_written_read_and_barred_as_asked() {
    let space = Workspace::new();
    space.file("data/file", "from outside");
    space.script("data/tool", "#!/bin/sh\necho ran\n");
    let data = space.at("data");
    let with = |flags: &str, script: &str| {
        shell(&["-v", &format!("{data}:/data{flags}")], script).output()
    };

    assert_eq!(with(":ro", "cat /data/file").text(), "from outside");
    let refused = with(":ro", "echo x >/data/made");
    assert!(refused.err().contains("Read-only file system"), "{refused:?}");
    assert!(!space.path().join("data/made").exists());

    with(":rw", "echo inside >/data/made").succeeds();
    assert_eq!(space.read("data/made"), "inside\n");
    let owner = std::fs::metadata(space.path().join("data/made")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (user().uid, user().gid));

    assert_eq!(with(":rw,exec", "/data/tool").text(), "ran");
    let barred = with(":rw,noexec", "/data/tool");
    assert_eq!(barred.code(), Some(126));
    assert!(barred.err().contains("Permission denied"), "{barred:?}");
}

#[test]
fn a_volume_may_be_a_file_or_the_working_directory() {
    let space = Workspace::new();
    space.file("one", "single");
    let one = format!("{}:/etc/one:ro", space.at("one"));
    assert_eq!(shell(&["-v", &one], "cat /etc/one").text(), "single");
    let here = casemate(["run", "-v", ".", "--", "sh", "-c", "pwd; cat one; echo x >made"])
        .directory(space.path())
        .text();
    assert_eq!(here, format!("{}\nsingle", space.path().display()));
    assert_eq!(space.read("made"), "x\n");
    let ungranted = casemate(["run", "--", "sh", "-c", "cat one 2>/dev/null || echo none"])
        .directory(space.path());
    assert_eq!(ungranted.text(), "none");
}

#[test]
fn volumes_nest_and_a_later_one_covers() {
    let space = Workspace::new();
    space.file("outer/inner/covered", "");
    space.file("inner/shown", "");
    let (outer, inner) = (space.at("outer"), space.at("inner"));
    let (outer, inner) = (format!("{outer}:/data:ro"), format!("{inner}:/data/inner:rw"));
    for order in [[&outer, &inner], [&inner, &outer]] {
        let run =
            shell(&["-v", order[0], "-v", order[1]], "ls /data/inner; touch /data/x 2>/dev/null");
        let output = run.output();
        assert_eq!((output.text().as_str(), output.code()), ("shown", Some(1)), "{output:?}");
    }
}

#[test]
fn links_in_a_volume_do_not_lead_out() {
    let space = Workspace::new();
    space.file("secret", "of the user");
    space.directory("data");
    space.symlink(space.at("secret"), "data/absolute");
    space.symlink("../secret", "data/relative");
    space.symlink("/proc/self/root/../../secret", "data/proc");
    let volume = format!("{}:/data:rw", space.at("data"));
    let script = "cat /data/absolute /data/relative /data/proc /data/../secret";
    let output = shell(&["-v", &volume], script).output();
    assert_eq!(output.out(), "");
    assert_eq!(output.err().matches("No such file").count(), 4, "{}", output.err());
}

#[test]
fn a_tmpfs_is_empty_sized_and_gone_afterwards() {
    let script = "ls -A /scratch; dd if=/dev/zero of=/scratch/big bs=1M count=3 2>&1; ls /scratch";
    let output = shell(&["--tmpfs", "/scratch:size=2m"], script).output();
    assert!(output.out().contains("No space left on device"), "{output:?}");
    let text = shell(
        &["--tmpfs", "/deep/er/scratch"],
        "echo x >/deep/er/scratch/y && cat /deep/er/scratch/y",
    );
    assert_eq!(text.text(), "x");
}

#[test]
fn the_working_directory_is_the_one_asked_for() {
    assert_eq!(casemate(["run", "-w", "/usr/share", "--", "pwd"]).text(), "/usr/share");
    let name = image(Image::Debian);
    let run = casemate(["run", "--image", &name, "-w", "/usr/lib", "--", "pwd"]);
    assert_eq!(run.text(), "/usr/lib");
}

#[test]
fn an_image_can_be_written_and_forgets() {
    let name = image(Image::Debian);
    let run = |options: &[&str], script: &str| {
        casemate(["run", "--image", &name]).args(options).args(["--", "sh", "-c", script]).output()
    };
    let script = "echo x >/etc/made && rm /etc/hostname 2>/dev/null; rm -r /usr/share/zoneinfo; \
                  mkdir -p /usr/share/zoneinfo/new && ls /usr/share/zoneinfo && cat /etc/made";
    assert_eq!(run(&[], script).succeeds().text(), "new\nx");
    let after = run(&[], "ls /usr/share/zoneinfo | head -n 1; ls /etc/made").text();
    assert!(after != "new" && !after.contains("/etc/made"), "{after}");

    let refused = run(&["--read-only"], "echo x >/etc/made");
    assert!(refused.err().contains("Read-only file system"), "{refused:?}");
    run(&["--read-only"], "echo x >/tmp/made").succeeds();
}

#[test]
fn a_probe_is_where_its_volume_says() {
    let volume = format!("{}:{INSIDE}:ro,exec", probe().display());
    assert_eq!(casemate(["run", "-v", &volume, "--", INSIDE, "fds"]).text(), "0 1 2");
}
