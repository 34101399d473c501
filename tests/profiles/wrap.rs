//! Programs by their own names.

use crate::Place;
use crate::common::Run;

#[test]
fn a_program_that_has_a_profile_runs_in_its_box_by_its_name() {
    let place = Place::new();
    place.profile("cat", "commands = [\"od\"]\n[files]\nread = [\".\"]\nhide = [\"./out\"]\n");
    place.space.file("in", "in\n");
    place.space.file("out", "out\n");
    assert_eq!(place.casemate(&["cat", "in"]).text(), "in");
    assert_eq!(place.casemate(&["cat", "out"]).text(), "");
    assert!(place.casemate(&["od", "-c", "in"]).text().contains("i   n"));
    let output = place.casemate(&["cta", "in"]).output().fails(125);
    assert!(output.err().contains("unrecognized subcommand 'cta'"), "{}", output.err());
    place.profile("no-such-program", "");
    place.casemate(&["no-such-program"]).output().fails(127);
    let aliases = place.casemate(&["alias", "bash"]).text();
    let has = |line: &str| aliases.lines().any(|alias| alias == line);
    assert!(has("alias cat='casemate cat'") && has("alias od='casemate od'"), "{aliases}");
    // Of the shipped ones those that are here.
    assert!(has("alias tar='casemate tar'") && !aliases.contains("no-such-program"), "{aliases}");
    assert_eq!(place.casemate(&["alias", "fish", "od"]).text(), "alias od 'casemate od'");
    place.casemate(&["alias", "zsh", "ls"]).output().fails(125);
}

#[test]
fn a_shim_starts_the_program_behind_it_in_its_box() {
    let place = Place::new();
    let data = place.space.directory("data");
    let shims = format!("{data}/casemate/shims");
    let bin = place.space.directory("bin");
    place.space.script("bin/tool", "#!/bin/sh\necho tool \"$@\" $container; cat; exit 7\n");
    place.profile("sh", "");
    place.profile("tool", &format!("[files]\nread = [\"{bin}\"]"));
    let path = |first: &str| format!("{first}:{bin}:/usr/bin:/bin");
    let at = |words: &[&str], first: &str| {
        place.casemate(words).env("XDG_DATA_HOME", &data).env("PATH", path(first))
    };
    at(&["shim", "install", "ls"], &shims).output().fails(125);
    let told = at(&["shim", "install", "sh", "tool"], "/nowhere").output().succeeds();
    assert!(told.err().contains("is not in PATH"), "{}", told.err());
    at(&["shim", "doctor"], &shims).output().succeeds();
    let late = at(&["shim", "doctor"], &format!("{bin}:{shims}")).output().fails(1);
    assert!(late.out().contains("tool: ") && late.out().contains("comes first in PATH"));

    let call = |script: &str| {
        Run::bash(script)
            .env("XDG_CONFIG_HOME", place.config())
            .env("XDG_DATA_HOME", &data)
            .env("PATH", path(&shims))
            .directory(place.space.path())
    };
    let output = call("echo input | tool -a 'b c' --image x").output().fails(7);
    assert_eq!(output.out(), "tool -a b c --image x casemate\ninput\n");
    assert_eq!(call("sh -c 'echo $container; kill -9 $$'").output().fails(137).out(), "casemate\n");
    // In a box there is no second one.
    let output = call("container=casemate sh -c true").output().fails(125);
    assert!(output.err().contains("this is a box already"), "{}", output.err());
    // Nothing behind the shim but the shim itself.
    std::fs::remove_file(place.space.path().join("bin/tool")).unwrap();
    call("tool").output().fails(127);
    place.space.symlink(format!("{shims}/tool"), "bin/tool");
    call("tool").output().fails(127);
    let list = at(&["shim", "list", "--json"], &shims).text();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[1]["name"], "tool");
    assert!(list[1]["program"].is_null() && list[0]["profile"] == "sh");
    at(&["shim", "remove", "nothing"], &shims).output().fails(125);
    at(&["shim", "remove", "--all"], &shims).output().succeeds();
    assert_eq!(at(&["shim", "list", "--json"], &shims).text(), "[]");
}
