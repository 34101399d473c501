//! Ranges of ids where the system gives them: by systemd-nsresourced, and by newuidmap on a kernel of
//! the distribution's own.

use std::time::Duration;

use crate::common::{Image, Run, Workspace, casemate, image};
use crate::{as_root, in_session};

/// Emulation makes of seconds minutes.
const PATIENCE: Duration = Duration::from_secs(400);

/// `casemate` with settings of this test's own, and the session's runtime directory, so that the
/// socket that root starts and stops is one test's at a time.
struct Scene {
    space: Workspace,
    _alone: nix::fcntl::Flock<std::fs::File>,
}

impl Scene {
    /// One in which nsresourced listens, or not.
    fn new(nsresourced: bool, settings: &str) -> Scene {
        let alone = crate::common::user::lock("nsresourced");
        let space = Workspace::new();
        space.file("config/casemate/config.toml", settings);
        let units = "systemd-nsresourced.socket systemd-nsresourced.service";
        let script = match nsresourced {
            true => format!("systemctl start {}", units.split(' ').next().unwrap()),
            false => format!("systemctl stop {units}"),
        };
        as_root(&script).output().succeeds();
        Scene { space, _alone: alone }
    }

    fn casemate(&self, words: &[&str]) -> Run {
        let run = in_session(casemate(words)).timeout(PATIENCE);
        run.env("XDG_CONFIG_HOME", self.space.at("config"))
    }

    fn shell(&self, options: &[&str], script: &str) -> Run {
        self.casemate(&[&["run"], options, &["--", "sh", "-c", script]].concat())
    }

    fn ids(&self) -> String {
        let text = self.casemate(&["explain", "-u", "root", "--", "true"]).text();
        text.lines().find(|line| line.trim_start().starts_with("ids ")).unwrap().trim().to_owned()
    }

    /// What every range is for: owners, other users, packages with accounts of their own.
    fn works(&self) {
        let small = image(Image::Small);
        for way in [&[][..], &["--overlay", "fuse"], &["--scratch", "disk"]] {
            let options = [&["--image", &small, "-u", "root"], way].concat();
            let script = "chown 77:88 /data/replaced && stat -c '%u %g' /data/replaced && su worker -c 'id -u'";
            assert_eq!(self.shell(&options, script).text(), "77 88\n1234", "{way:?}");
        }
        let repository = image(Image::Repository);
        let script = "apt-get -q update >/dev/null && apt-get -qy install dbus >/tmp/log 2>&1 || \
                      { cat /tmp/log; exit 1; }; getent passwd messagebus | cut -d : -f 1; \
                      stat -c '%U:%G' /usr/lib/dbus-1.0/dbus-daemon-launch-helper; \
                      cd /srv/owners && stat -c %u * | tr '\\n' ' '; useradd -m bob; su - bob -c 'id -un'";
        let options = ["--image", &repository, "-u", "root"];
        let expected = "messagebus\nroot:messagebus\n1 1000 33 40000 65534 bob";
        assert_eq!(self.shell(&options, script).text(), expected);
    }
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn nsresourced_lends_a_range_and_no_id_of_it_reaches_the_disk() {
    let scene = Scene::new(true, "");
    assert_eq!(scene.ids(), "ids        65536 from nsresourced: the program is to be root");
    scene.works();
    let place = scene.space.directory("place");
    Run::new("chmod").args(["777", &place]).output().succeeds();
    let words = ["-u", "root", "-v", &format!("{place}:/place")];
    let refused = scene.shell(&words, "touch /place/x").output();
    refused.refuses(125, &["writable in a box whose ids systemd-nsresourced lends"]);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    for words in [&["--userns", "keep-id"][..], &["--uidmap", "0:1:5"]] {
        scene.shell(words, "true").output().refuses(125, &["as they are"]);
    }
    // Each box has a namespace of its own, which nobody keeps.
    scene.casemate(&["holder", "status"]).output().fails(1);
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn newuidmap_gives_a_range_once_and_the_holder_from_then_on() {
    let scene = Scene::new(false, "allow-setuid-helper = true\n");
    assert_eq!(scene.ids(), "ids        65536 from newuidmap: the program is to be root");
    scene.works();
    assert_eq!(scene.ids(), "ids        65536 from holder: the program is to be root");
    let place = scene.space.directory("place");
    let words = ["--userns", "keep-id", "-v", &format!("{place}:/place")];
    scene.shell(&words, "touch /place/x").output().succeeds();
    let owner = std::fs::metadata(format!("{place}/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), crate::common::user().uid);
    scene.casemate(&["holder", "stop"]).output().succeeds();
}

#[test]
#[ignore = "in the guest of tests/vm"]
fn without_anybody_the_error_says_what_each_of_them_said() {
    let scene = Scene::new(false, "");
    let output = scene.shell(&["-u", "root"], "true").output();
    output.refuses(
        125,
        &[
            "this box needs 65536 ids",
            "nsresourced: systemd-nsresourced is not there, or its socket is off",
            "newuidmap: allow-setuid-helper = true is not in",
            "is there: yes",
        ],
    );
}
