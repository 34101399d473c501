//! Who gives a range, and what is not taken.

use crate::Scene;
use crate::common::{Run, casemate, require_root, user};

/// What `explain` says of the ids.
fn ids(scene: &Scene, words: &[&str]) -> String {
    let text = scene.casemate(["explain"]).args(words).args(["--", "true"]).text();
    let line = text.lines().find(|line| line.trim_start().starts_with("ids ")).unwrap();
    line.trim().to_owned()
}

#[test]
fn one_id_is_taken_where_it_is_enough() {
    let scene = Scene::new();
    assert_eq!(ids(&scene, &[]), "ids        one, your own, which is enough for this plan");
    assert!(ids(&scene, &["--fake-root"]).contains("one, your own; changes of owner"));
    assert!(
        ids(&scene, &["-u", "root"]).contains("65536 from newuidmap: the program is to be root")
    );
    assert!(ids(&scene, &["--userns", "many"]).contains("asked for"));
}

#[test]
fn no_setuid_program_is_started_that_was_not_allowed() {
    let scene = Scene::with("");
    let said = ["this box needs 65536 ids", "newuidmap: allow-setuid-helper = true is not in"];
    scene.shell(&["-u", "root"], "true").output().refuses(125, &said);
    // Only the user's own settings can say so, and they must be the user's alone.
    let profile = scene.space.file("p.toml", "allow-setuid-helper = true\n");
    let output = scene.shell(&["-p", &profile, "-u", "root"], "true").output();
    output.refuses(125, &["unknown field `allow-setuid-helper`"]);
    let open = Scene::new();
    let settings = open.space.at("config/casemate/config.toml");
    Run::new("chmod").args(["666", &settings]).output().succeeds();
    let output = open.shell(&["-u", "root"], "true").output();
    output.refuses(125, &["not a file that only you can write to"]);
    Run::new("chmod").args(["600", &settings]).output().succeeds();
    // Nor can a program that was granted the directory of all settings.
    let grant = format!("{}:/settings", open.space.at("config"));
    let script = "echo >>/settings/other && cd /settings && ! mv casemate away && \
                  echo x >>casemate/config.toml";
    let output = open.shell(&["-v", &grant], script).output();
    assert!(output.err().contains("Read-only file system"), "{output:?}");
    assert!(!output.status.success() && open.space.read("config/other") == "\n");
    let wrong = Scene::with("allow-setuid-helper = \"yes\"\n");
    wrong
        .shell(&["-u", "root"], "true")
        .output()
        .refuses(125, &["config.toml:1:23", "invalid type"]);
}

#[test]
fn the_holder_gives_the_range_again_and_is_believed_only_as_itself() {
    let scene = Scene::new();
    let status = || scene.casemate(["holder", "status"]).output();
    assert_eq!(status().fails(1).text(), "no holder runs");
    assert!(ids(&scene, &["-u", "root"]).contains("newuidmap"), "asked, and nothing kept");
    status().fails(1);
    scene.shell(&["-u", "root"], "true").output().succeeds();
    let text = status().succeeds().text();
    assert!(text.contains("ids from newuidmap") && text.contains("0-65535 on the host"), "{text}");
    assert!(ids(&scene, &["-u", "root"]).contains("65536 from holder"));
    // It works also where newuidmap would not be allowed any more.
    scene.space.file("config/casemate/config.toml", "");
    scene.shell(&["-u", "root"], "true").output().succeeds();

    // A record of something else is not believed.
    let file = scene.space.at("run/casemate/holder");
    let record = std::fs::read_to_string(&file).unwrap();
    let words: Vec<&str> = record.split_whitespace().collect();
    let (pid, start, inode) = (words[0], words[1], words[2]);
    let own = std::process::id();
    for forged in [
        format!("{own} {start} {inode} newuidmap\n"),
        format!("{pid} 1 {inode} newuidmap\n"),
        format!("{pid} {start} 5 newuidmap\n"),
        format!("{pid} {start} {inode} else\n"),
        format!("1 {start} {inode} newuidmap\n"),
        "x".repeat(5000),
        String::new(),
    ] {
        std::fs::write(&file, &forged).unwrap();
        status().fails(1);
        let output = scene.shell(&["-u", "root"], "true").output();
        output.refuses(125, &["holder: there is none"]);
    }
    std::fs::write(&file, &record).unwrap();
    status().succeeds();
    scene.casemate(["holder", "stop"]).output().succeeds();
    assert_eq!(status().fails(1).text(), "no holder runs");
    assert!(!std::path::Path::new(&file).exists());
    scene.casemate(["holder", "stop"]).output().succeeds();
    // A directory that others can write to could have anybody's record in it.
    Run::new("chmod").args(["777", &scene.space.at("run/casemate")]).output().succeeds();
    status().refuses(125, &["only you can write"]);
    Run::new("chmod").args(["700", &scene.space.at("run/casemate")]).output().succeeds();
}

#[test]
fn boxes_that_start_at_once_share_one_holder() {
    let scene = Scene::new();
    let boxes: Vec<_> = (0..8).map(|_| scene.shell(&["-u", "root"], "id -u").spawn()).collect();
    for running in boxes {
        assert_eq!(running.wait().succeeds().text(), "0");
    }
    let name = "pgrep -c -u \"$(id -u)\" -x casemate-holder";
    // Other tests have theirs; this one has one that answers.
    let count: u32 = Run::bash(name).text().parse().unwrap();
    assert!(count >= 1);
    scene.casemate(["holder", "status"]).output().succeeds();
}

#[test]
fn a_namespace_with_a_range_is_inherited() {
    let scene = Scene::with("");
    let run = Run::bash(
        "unshare --user --map-auto --map-root-user \"$casemate\" run -u root -- \
         sh -c 'id -u; touch /tmp/f; chown 65534 /tmp/f; stat -c %u /tmp/f' && \
         unshare --user --map-auto --map-root-user \"$casemate\" explain -u root -- true | grep ' ids '",
    );
    let text = scene.at_home(run).text();
    assert!(text.starts_with("0\n65534\n"), "{text}");
    assert!(text.contains("65535 from inherit"), "{text}");
}

/// Runs a box as the user with other lists of subordinate ids.
fn with_lists(scene: &Scene, lists: &str) -> Run {
    let file = scene.space.file("lists", lists);
    let script = "for list in subuid subgid; do mount --bind \"$1\" /etc/$list; done; shift; \
                  exec setpriv --reuid \"$1\" --regid \"$2\" --clear-groups -- \"${@:3}\"";
    let (uid, gid) = (user().uid.to_string(), user().gid.to_string());
    let program = user().casemate();
    let words = ["--mount", "bash", "-c", script, "bash", &file, &uid, &gid];
    let run = Run::new("unshare").args(words).arg(program);
    scene.at_home(run.args(["run", "-u", "root", "--", "cat", "/proc/self/uid_map"]).by_root())
}

#[test]
fn lists_of_ids_that_are_wrong_are_told_apart() {
    if !require_root() {
        return;
    }
    let scene = Scene::new();
    let name = &user().name;
    let uid = user().uid;
    // The control: a list of two ranges, by name and by number.
    let text = with_lists(&scene, &format!("{name}:700000:40000\n{uid}:900000:40000\n")).text();
    let numbers: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(numbers, ["0", "0", "40000", "40000", "40000", "25536"]);
    scene.at_home(casemate(["holder", "stop"])).output().succeeds();
    for (lists, word) in [
        (String::new(), "no line for you"),
        ("other:700000:65536\n".to_owned(), "no line for you, only for others"),
        (format!("{name}:700000:1\n"), "1 ids for you, where 65536 are needed"),
        (format!("{name}:700000\n"), "line 1 is for you and is malformed"),
        (format!("{name}:-5:65536\n"), "line 1 is for you and is malformed"),
        (format!("{name}:700000:65536\n{name}:700100:5\n"), "lines 1 and 2 overlap"),
        (format!("{name}:700000:65536\nother:700100:5\n"), "overlaps with that of other"),
        (format!("{name}:0:65536\n"), "the id of the account root"),
    ] {
        let output = with_lists(&scene, &lists).output();
        output.refuses(125, &["newuidmap: /etc/subuid: ", word]);
    }
}
