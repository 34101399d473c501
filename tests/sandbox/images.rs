//! Images: their layers, and their configuration as podman reads it.

use crate::common::{Image, Workspace, casemate, image};

fn run(name: &str, rest: &[&str]) -> String {
    casemate(["run", "--image", name]).args(rest).text()
}

#[test]
fn the_entry_point_and_the_command_are_put_together() {
    let name = image(Image::Entry);
    // Entrypoint ["/bin/echo","entry"], Cmd ["one","two"].
    assert_eq!(run(&name, &[]), "entry one two");
    assert_eq!(run(&name, &["--"]), "entry one two");
    assert_eq!(run(&name, &["--", "three"]), "entry three");
    assert_eq!(run(&name, &["three", "four"]), "entry three four");
    // Cmd only: a command takes its place.
    let small = image(Image::Small);
    assert_eq!(run(&small, &[]), "the default command");
    assert_eq!(run(&small, &["--", "echo", "another"]), "another");
}

/// Runs a shell command in the small image.
fn small(options: &[&str], script: &str) -> String {
    let name = image(Image::Small);
    casemate(["run", "--image", &name]).args(options).args(["--", "sh", "-c", script]).text()
}

#[test]
fn the_environment_and_the_working_directory_are_the_images() {
    let text = small(&[], "env; pwd");
    let lines: Vec<&str> = text.lines().collect();
    for line in ["PATH=/bin", "GREETING=hello from the image", "EMPTY="] {
        assert!(lines.contains(&line), "{line} is missing:\n{text}");
    }
    assert_eq!(lines.last(), Some(&"/work/deep"), "it is made when the image does not have it");
    let text = small(&["-e", "GREETING=from outside", "-w", "/tmp"], "echo $GREETING; pwd");
    assert_eq!(text, "from outside\n/tmp");
}

#[test]
fn the_user_is_the_images() {
    assert_eq!(small(&[], "id -u; id -g; id -un"), "1234\n2345\nworker");
    assert_eq!(small(&["-u", "nobody"], "id -un"), "nobody");
    assert_eq!(small(&["-u", "77:88"], "id -u; id -g"), "77\n88");
}

#[test]
fn later_layers_remove_cover_and_replace() {
    let script = "cd /data && ls && cat kept/file replaced && ls -A covered && cat covered/shown && \
                  cat hardlink symlink && cat /srv/second/file && stat -c %h hardlink";
    let expected = "covered\nhardlink\nkept\nreplaced\nsymlink\nfirst\nthird\nshown\nthird\nfirst\nfirst\nsecond\n2";
    assert_eq!(small(&[], script), expected);
}

#[test]
fn every_form_of_an_archive_gives_the_same_tree() {
    let list = |kind: Image| {
        let name = image(kind);
        let script = "find / -xdev -path /proc -prune -o -path /dev -prune -o -path /sys -prune -o \
                      -path /tmp -prune -o -path /run -prune -o -print | sort";
        casemate(["run", "--image", &name, "--", "sh", "-c", script]).text()
    };
    assert_eq!(list(Image::Small), list(Image::SmallDocker));
    assert_eq!(list(Image::RootfsGz), list(Image::RootfsZst));
}

#[test]
fn a_root_file_system_without_a_configuration_runs() {
    for kind in [Image::RootfsGz, Image::RootfsZst] {
        let name = image(kind);
        assert_eq!(run(&name, &["--", "/bin/cat", "/data/file"]), "plain");
        assert_eq!(run(&name, &["--", "/bin/pwd"]), "/");
    }
}

#[test]
fn a_directory_is_imported_too() {
    let space = Workspace::new();
    space.file("root/etc/marker", "from a directory\n");
    let program = space.file("root/bin/busybox", std::fs::read("/bin/busybox").unwrap());
    crate::common::Run::new("chmod").args(["755", &program]).output().succeeds();
    casemate(["import", "from-directory", &space.at("root")]).output().succeeds();
    let text = run("from-directory", &["--", "/bin/busybox", "cat", "/etc/marker"]);
    assert_eq!(text, "from a directory");
}

#[test]
fn an_image_without_a_shell_runs() {
    let name = image(Image::Static);
    assert_eq!(run(&name, &[]), "hello from a box without a shell");
    assert_eq!(run(&name, &["--", "/app/hello", "a"]), "hello from a box without a shell a");
    let output = casemate(["run", "--image", &name, "--", "sh", "-c", "true"]).output();
    output.refuses(127, &["sh"]);
}

#[test]
fn images_are_listed() {
    let name = image(Image::Small);
    let text = casemate(["images"]).text();
    assert!(text.lines().any(|line| line.contains(&name)), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&casemate(["images", "--json"]).text()).unwrap();
    assert!(json.to_string().contains(&format!("\"{name}\"")), "{json}");
}

#[test]
fn the_store_is_the_users_and_nobody_elses() {
    image(Image::Small);
    let store = crate::common::user().data().join("casemate");
    let script = "stat -c '%a %u' . && find . ! -user \"$(id -u)\" && find . -perm /6000";
    let text = crate::common::Run::bash(script).directory(store).text();
    assert_eq!(text, format!("700 {}", crate::common::user().uid));
}
