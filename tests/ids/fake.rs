//! One id that passes for root.

use crate::Scene;

#[test]
fn changes_of_owner_and_id_succeed_without_effect() {
    let scene = Scene::with("");
    let script = "id -u; id -g; cd /tmp; touch f; chown 5:6 f && chown -h 7 f && stat -c '%u:%g' f; \
                  mknod d c 1 3 && ls; mkfifo p && ls; \
                  python3 -c 'import os; os.setgroups([]); os.setgid(33); os.setuid(33); print(os.getuid())'";
    let text = scene.shell(&["--fake-root"], script).text();
    assert_eq!(text, "0\n0\n0:0\nf\nf\np\n0");
    // The control: without it they fail.
    for script in [
        "touch /tmp/f && chown 5 /tmp/f",
        "mknod /tmp/d c 1 3",
        "python3 -c 'import os; os.setuid(33)'",
    ] {
        let output = scene.shell(&[], script).output();
        assert!(!output.status.success(), "{script}: {output:?}");
    }
}

#[test]
fn no_other_refusal_becomes_a_success() {
    let scene = Scene::with("");
    let script = |command: &str| scene.shell(&["--fake-root"], command).output();
    for command in [
        "mount -t tmpfs x /mnt",
        "chroot / true",
        "unshare -U true",
        "unshare -m true",
        "hostname x",
        "echo x >/usr/x",
        "chmod 777 /usr",
        "date -s 2001-01-01",
        "nice -n -5 sh -c '[ $(nice) -lt 0 ]'",
        "kill -9 1",
        "setpriv --ambient-caps +chown --inh-caps +chown true",
    ] {
        let output = script(command);
        assert!(!output.status.success(), "{command}: {output:?}");
    }
    // A call that the profile denies stays denied.
    let profile =
        scene.space.file("p.toml", "[seccomp]\ndeny = [\"fchownat\", \"chown\", \"lchown\"]\n");
    let denied =
        scene.shell(&["--fake-root", "-p", &profile], "touch /tmp/f; chown 5 /tmp/f").output();
    assert!(denied.err().contains("Operation not permitted"), "{denied:?}");
    let off = scene.space.file("off.toml", "[seccomp]\nbase = \"none\"\n");
    let output = scene.shell(&["--fake-root", "-p", &off], "true").output();
    output.refuses(125, &["--fake-root", "seccomp base"]);
}

#[test]
fn it_takes_the_place_of_many_ids_where_the_profile_allows_that() {
    let scene = Scene::with("");
    let words = ["-u", "root", "--may-degrade", "ids"];
    let output =
        scene.shell(&words, "id -u; touch /tmp/f; chown 5 /tmp/f && stat -c %u /tmp/f").output();
    let output = output.succeeds();
    assert_eq!(output.text(), "0\n0");
    assert!(output.err().contains("ids is not enforced: no range of ids"), "{}", output.err());
    scene.shell(&words[..2], "true").output().refuses(125, &["this box needs 65536 ids"]);
}
