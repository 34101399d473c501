//! What a box with many ids is.

use crate::Scene;
use crate::common::{Image, Leftovers, image, user};

/// The ways in which the root of such a box is made.
const WAYS: [&[&str]; 3] = [&[], &["--overlay", "fuse"], &["--scratch", "disk"]];

#[test]
fn files_of_five_owners_are_listed_right_and_change_their_owners() {
    let scene = Scene::new();
    let name = image(Image::Repository);
    for way in WAYS {
        let options = [&["--image", &name, "--userns", "many"], way].concat();
        let script = "cd /srv/owners && stat -c '%u %g %n' * && stat -c '%u %g %a' /etc/shadow && \
                      chown 5:6 33 && chmod 4755 33 && mkdir /srv/d && chown 40000 /srv/d && \
                      stat -c '%u %g %a %n' 33 /srv/d";
        let expected = "1 65534 1\n1000 64535 1000\n33 65502 33\n40000 25535 40000\n65534 1 65534\n\
                        0 42 640\n5 6 4755 33\n40000 0 755 /srv/d";
        assert_eq!(scene.shell(&options, script).text(), expected, "{way:?}");
    }
}

#[test]
fn another_user_has_the_rights_of_that_user_only() {
    let scene = Scene::new();
    let name = image(Image::Repository);
    let script = "useradd -m bob && su - bob -c 'id -u; id -G; touch mine; stat -c %u mine; \
                  grep -E \"Cap(Prm|Eff|Inh|Amb)\" /proc/self/status | tr -d \"\\n\\t\"; echo; \
                  cat /etc/shadow 2>&1; touch /etc/x 2>&1; kill -9 1 2>&1'; cat /etc/shadow | wc -c";
    let text = scene.shell(&["--image", &name, "-u", "root"], script).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["1000", "1000", "1000"], "{text}");
    assert_eq!(lines[3].matches("0000000000000000").count(), 4, "{text}");
    assert!(lines[4].contains("/etc/shadow: Permission denied"), "{text}");
    assert!(lines[5].contains("/etc/x") && lines[5].contains("Permission denied"), "{text}");
    assert!(lines[6].contains("not permitted"), "{text}");
    assert_ne!(lines[7], "0", "root reads it: {text}");
}

#[test]
fn the_programs_rights_on_the_host_are_nobodys() {
    let scene = Scene::new();
    let secret = scene.space.file("secret", "mine\n");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let grant = format!("{secret}:/secret");
    let read = |options: &[&str]| {
        let options = [&["-v", &grant], options].concat();
        scene.shell(&options, "cat /secret; grep Groups: /proc/self/status; id -u").output()
    };
    // The control: a box with one id, and one that keeps it among many.
    assert!(read(&["--userns", "single"]).succeeds().text().starts_with("mine\n"));
    let kept = read(&["--userns", "keep-id"]).succeeds().text();
    assert_eq!(kept, format!("mine\nGroups:\t \n{}", user().uid));
    for options in [&["-u", "root"][..], &["--userns", "many"], &["--userns", "many", "-u", "7"]] {
        let output = read(options);
        assert!(output.err().contains("/secret: Permission denied"), "{options:?} {output:?}");
        assert!(output.text().starts_with("Groups:\t \n"), "none of the user's: {output:?}");
    }
}

#[test]
fn outside_the_program_is_a_subordinate_id() {
    let scene = Scene::new();
    let running = scene.shell(&["-u", "root"], "echo here; sleep 61.5").spawn();
    running.expect("here");
    let find = "until p=$(pgrep -xf 'sleep 61.5'); do sleep 0.05; done; grep Uid: /proc/$p/status";
    let ids = crate::common::Run::bash(find).text();
    let ids: Vec<u32> = ids.split_whitespace().skip(1).map(|id| id.parse().unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]) && ids[0] != user().uid, "{ids:?}");
    assert!(ids[0] >= 65536, "{ids:?}");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    assert!(!running.wait().status.success());
}

#[test]
fn what_is_written_to_disk_belongs_to_the_user() {
    let scene = Scene::new();
    let name = image(Image::Repository);
    let options = ["--image", &name, "--userns", "many", "--scratch", "disk"];
    let script = "mkdir /srv/many && cd /srv/many && for i in 1 2 3 40000; do echo $i >f$i; \
                  chown $i:$i f$i; chmod 000 f$i; done; mkdir -m 700 d; chown 9 d; echo made; read x; \
                  stat -c '%u %a' f40000 d";
    let mut running = scene.shell(&options, script).open_stdin().spawn();
    running.expect("made");
    let staging = user().data().join("casemate/store/staging");
    let look = "find . ! -user \"$(id -un)\" && find . -name f40000 | wc -l && \
                find . -name f40000 -exec cat {} + && find . -name d -path '*many*' -exec ls -A {} +";
    let seen = crate::common::Run::bash(look).directory(staging).text();
    assert_eq!(seen, "1\n40000", "each is there, the user's own, and can be read");
    running.write("\n");
    let output = running.wait().succeeds();
    assert!(output.out().ends_with("40000 0\n9 700\n"), "{output:?}");
}

#[test]
fn a_kept_id_is_the_programs_and_makes_files_of_the_users() {
    let scene = Scene::new();
    let place = scene.space.directory("place");
    let grant = format!("{place}:/place");
    let script = "echo x >/place/$(id -u); id -u; id -g; stat -c %u /place";
    let kept = scene.shell(&["-v", &grant, "--userns", "keep-id:uid=77,gid=88"], script).text();
    assert_eq!(kept, "77\n88\n77");
    let made = std::fs::metadata(format!("{place}/77")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), user().uid);
    // Among many: root of the box can be become, and is another.
    let name = image(Image::Repository);
    let words = ["--image", &name, "--userns", "keep-id", "-u", "root"];
    let script =
        format!("id -u; su -s /bin/sh -c 'id -u' nobody; setpriv --reuid {} id -u", user().uid);
    let text = scene.shell(&words, &script).text();
    assert_eq!(text, format!("0\n65534\n{}", user().uid));
}

#[test]
fn a_map_of_ones_own_is_what_the_box_has() {
    let scene = Scene::new();
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '";
    let words = ["--uidmap", "0:1:10", "--uidmap", "100:0", "-u", "100:5"];
    let text = scene.shell(&words, script).text();
    // Within the range's namespace, in which the user's own id is the last.
    assert_eq!(text, " 0 0 10\n 100 65536 1\n 0 0 10\n 100 65536 1");
    for (words, why) in [
        (&["--uidmap", "0:1:10", "-u", "10:5"][..], "user 10: the box has no such id"),
        (&["--uidmap", "1:1:10", "-u", "1"], "no id 0"),
        (&["--uidmap", "0:1:65537"], "too few"),
        (&["--uidmap", "0:1:5", "--uidmap", "4:9"], "overlap"),
        (&["--uidmap", "0:1:5", "--userns", "keep-id"], "exclude each other"),
        (&["--userns", "many", "-u", "65536"], "no such id"),
    ] {
        scene.shell(words, "true").output().refuses(125, &[why]);
    }
    let name = image(Image::Repository);
    for (words, why) in [(["--overlay", "kernel"], "nobody's"), (["--fake-root", "-q"], "one id")] {
        let words = [&["--image", &name, "--userns", "many"], &words[..]].concat();
        scene.shell(&words, "true").output().refuses(125, &[why]);
    }
}

#[test]
fn the_walls_of_the_box_stand() {
    let scene = Scene::new();
    let script = "unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; chroot / true 2>&1; \
                  mknod /tmp/d c 1 3 2>&1; ls /proc/1 2>&1; nice -n -5 true 2>&1; \
                  echo 1 2>&1 >/proc/sys/user/max_user_namespaces; hostname x 2>&1; \
                  cat /proc/1/environ /proc/1/cmdline 2>&1; kill -9 1 2>&1; \
                  grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; \
                  setpriv --reuid 5 --clear-groups sleep 9 & sleep 0.3; stat -c %u /proc/$!";
    let output = scene.shell(&["-u", "root"], script).output();
    let text = format!("{}{}", output.out(), output.err());
    for (count, word) in [(1, "NoNewPrivs:\t1"), (1, "Seccomp:\t2"), (1, "cannot access '/proc/1'")]
    {
        assert_eq!(text.matches(word).count(), count, "{word}:\n{text}");
    }
    assert!(text.matches("ermitted").count() + text.matches("denied").count() >= 5, "{text}");
    assert!(text.contains("max_user_namespaces"), "{text}");
    assert!(text.contains("/proc/1/environ: No such file"), "{text}");
    assert!(output.out().ends_with("\n5\n"), "others' processes are seen: {text}");
}

#[test]
fn nothing_but_the_holder_is_left() {
    let scene = Scene::new();
    // The holder is there before.
    scene.shell(&["-u", "root"], "true").output().succeeds();
    let name = image(Image::Repository);
    let leftovers = Leftovers::watch();
    for way in WAYS {
        let options = [&["--image", &name, "--userns", "many"], way].concat();
        scene.shell(&options, "echo x >/x; chown 5 /x; sleep 5 & true").output().succeeds();
        leftovers.none();
        let running = scene.shell(&options, "echo here; sleep 60").spawn();
        running.expect("here");
        running.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(running.wait().code(), Some(143));
        leftovers.none();
    }
}

#[test]
fn casemate_that_is_killed_at_any_moment_leaves_no_box() {
    let scene = Scene::new();
    let name = image(Image::Repository);
    scene.shell(&["-u", "root"], "true").output().succeeds();
    // Without a runtime directory there is no holder, and every box starts newuidmap.
    for has_holder in [true, false] {
        let leftovers = Leftovers::watch();
        for step in 0..24 {
            let run = scene.shell(&["--image", &name, "-u", "root"], "sleep 60");
            let run = if has_holder { run } else { run.without_env("XDG_RUNTIME_DIR") };
            let running = run.spawn();
            std::thread::sleep(std::time::Duration::from_millis(5 * step));
            running.signal(nix::sys::signal::Signal::SIGKILL);
            assert_eq!(running.wait().code(), None);
        }
        leftovers.none();
    }
}
