//! Names, bases, and the commands that look after profiles.

use crate::{Place, shown};

#[test]
fn a_profile_of_the_user_is_run_by_its_name() {
    let place = Place::new();
    place.profile("base", "[environment]\nset = { A = \"base\", B = \"base\" }");
    place.profile("tool", "extends = [\"base\"]\n[environment]\nset = { B = \"tool\" }");
    let script = "echo $A $B $C";
    let text = place.casemate(&["run", "-p", "tool", "-e", "C=line", "sh", "-c", script]).text();
    assert_eq!(text, "base tool line");
    // The user's own default is what is run with when nothing is named.
    assert_eq!(place.casemate(&["run", "sh", "-c", script]).text(), "");
    place.profile("default", "extends = [\"base\"]");
    assert_eq!(place.casemate(&["run", "sh", "-c", script]).text(), "base base");
}

#[test]
fn a_circle_and_a_name_that_is_none_are_errors_with_their_place() {
    let place = Place::new();
    let a = place.profile("a", "extends = [\"b\"]");
    let b = place.profile("b", "\nextends = [\"a\"]");
    let output = place.casemate(&["explain", "-p", "a", "true"]).output().fails(125);
    let expected = format!("casemate: {}:2:12: extends: a circle: ", b);
    assert!(output.err().starts_with(&expected), "{}", output.err());
    place.profile("c", "extends = [\"dfault\"]");
    let output = place.casemate(&["explain", "-p", "c", "true"]).output().fails(125);
    assert!(output.err().contains("c.toml:1:12: profile dfault: there is no"), "{}", output.err());
    assert!(output.err().contains("hint: did you mean \"default\"?"));
    assert!(output.err().contains("c.toml") && a.ends_with("a.toml"));
}

#[test]
fn profiles_are_listed_shown_made_and_edited() {
    let place = Place::new();
    let path = place.casemate(&["profile", "new", "--from", "default", "mine"]).text();
    let mine = place.config().join("casemate/profiles/mine.toml");
    assert_eq!(path, shown(&mine));
    assert_eq!(place.casemate(&["profile", "path", "mine"]).text(), path);
    let again = place.casemate(&["profile", "new", "mine"]).output().fails(125);
    assert!(again.err().contains("is there already"), "{}", again.err());
    for bad in ["../x", "-x", "a b", ""] {
        place.casemate(&["profile", "new", "--", bad]).output().fails(125);
    }
    let list = place.casemate(&["profile", "list", "--json"]).text();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert!(list.as_array().unwrap().iter().any(|one| one["name"] == "mine"));
    assert!(place.casemate(&["profile", "list", "-q"]).text().contains("default"));

    let edit = |script: &str| {
        place.casemate(&["profile", "edit", "mine"]).env("EDITOR", format!("sed -i {script}"))
    };
    edit("'s/^description.*/description = \"edited\"/'").output().succeeds();
    let shown = place.casemate(&["profile", "show", "mine"]).text();
    assert!(shown.contains("description = \"edited\"") && shown.contains("mode = \"none\""));
    assert!(place.casemate(&["profile", "show", "--source", "mine"]).text().contains("extends"));
    // What is printed is a profile that says the same.
    place.space.file("shown.toml", &shown);
    let output = place.casemate(&["profile", "diff", "mine", "./shown.toml"]).output().succeeds();
    assert_eq!(output.out(), "");
    edit("'s/^description/descripton/'").output().fails(125);
    let list = place.casemate(&["profile", "list"]).text();
    assert!(list.contains("broken: "), "{list}");
}

#[test]
fn checks_and_differences_tell_by_their_exit_code() {
    let place = Place::new();
    place.profile("good", "[files]\nwrite = [\".\"]");
    place.casemate(&["profile", "check"]).output().succeeds();
    place.profile("open", "[files]\nwrite = [\".\"]\nread = [\"~/.ssh\"]");
    let output = place.casemate(&["profile", "check"]).output().fails(1);
    assert!(
        output.out().contains("open.toml:3:9: ~/.ssh shows ~/.ssh [secret]"),
        "{}",
        output.out()
    );
    let json = place.casemate(&["profile", "check", "--json", "open"]).output().fails(1);
    let json: serde_json::Value = serde_json::from_str(&json.out()).unwrap();
    assert_eq!(json[0]["id"], "secret");
    place.profile("broken", "[files]\nwrte = []");
    place.casemate(&["profile", "check"]).output().fails(125);

    let widens = ["profile", "diff", "--widening", "good", "open"];
    let output = place.casemate(&widens).output().fails(1);
    assert_eq!(output.out(), "widens   files.read ~/.ssh: read (was nothing)\n");
    let narrows = ["profile", "diff", "--widening", "open", "good"];
    assert_eq!(place.casemate(&narrows).output().succeeds().out(), "");
    place.casemate(&["profile", "diff", "open", "good"]).output().fails(1);
}
