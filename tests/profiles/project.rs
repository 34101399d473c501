//! The profile that comes with a project.

use crate::{Place, common};

#[test]
fn a_projects_profile_takes_away_and_gives_only_what_is_trusted() {
    let place = Place::new();
    let data = place.space.directory("data");
    let inner = place.space.directory("project/src");
    place.space.file("secret", "secret\n");
    place.profile("build", "[files]\nwrite = [\".\"]");
    let at = |words: &[&str]| place.casemate(words).env("XDG_DATA_HOME", &data).directory(&inner);
    let run = |script: &str| at(&["run", "-p", "build", "sh", "-c", script]);
    run("touch made").output().succeeds();

    let file = place.space.file("project/.casemate.toml", "[files]\nread = [\".\"]");
    run("touch again").output().fails(1);
    at(&["run", "-p", "build", "--no-project", "touch", "again"]).output().succeeds();
    let plan = at(&["explain", "-p", "build", "true"]).output().succeeds();
    assert!(plan.out().contains(&file), "{}", plan.out());

    let secret = place.space.at("secret");
    let wide = format!("[files]\nread = [\"{secret}\"]\n[network]\nmode = \"host\"\n");
    place.space.file("project/.casemate.toml", &wide);
    let cat = format!("cat {secret}");
    let refused = run(&cat).output().fails(125);
    let expected = format!(
        "casemate: {file}: allows more than it may, and is not trusted\n  files.read {secret}: read \
         (was nothing)\n  network.mode \"host\" (was \"none\")\nhint: `casemate trust` lets it"
    );
    assert!(refused.err().starts_with(&expected), "{}", refused.err());
    // Nobody is asked where there is no terminal, and no is an answer.
    at(&["trust"]).output().fails(125);
    run(&cat).output().fails(125);
    let told = at(&["trust", "--yes"]).output().succeeds();
    assert!(told.out().contains("network.mode \"host\""), "{}", told.out());
    assert_eq!(run(&cat).output().succeeds().out(), "secret\n");
    assert_eq!(at(&["trust", "--list"]).text(), file);
    // One byte more is another file.
    place.space.file("project/.casemate.toml", format!("{wide}\n"));
    run(&cat).output().fails(125);
    place.space.file("project/.casemate.toml", &wide);
    run(&cat).output().succeeds();
    at(&["trust", "--revoke"]).output().succeeds();
    run(&cat).output().fails(125);
}

#[test]
fn a_projects_profile_cannot_grant_by_a_link_or_through_the_trust_of_another() {
    let place = Place::new();
    let inner = place.space.directory("project");
    place.space.file("secret", "secret\n");
    place.space.symlink(place.space.at("secret"), "project/link");
    place.profile("build", "[files]\nwrite = [\".\"]");
    place.space.file("project/.casemate.toml", "[files]\nread = [\"./link\"]");
    let run = || place.casemate(&["run", "-p", "build", "cat", "link"]).directory(&inner);
    assert!(run().output().fails(125).err().contains("not trusted"));
    place.space.file("project/.casemate.toml", "extends = [\"./other.toml\"]");
    assert!(run().output().fails(125).err().contains("only names can stand here"));
    // One of somebody else's says nothing.
    if common::user::is_root() {
        let path = place.space.path().join("project/.casemate.toml");
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        let output = place.casemate(&["run", "-p", "build", "true"]).directory(&inner).output();
        let output = output.succeeds();
        assert!(output.err().contains("belongs to somebody else"), "{}", output.err());
    }
}

#[test]
fn a_projects_profile_lowers_limits_and_does_not_raise_them() {
    let place = Place::new();
    let inner = place.space.directory("project");
    let limits = "memory = \"1g\"\nprocesses = 100\ncpus = 1.5\ncpuset = \"0-3\"";
    place.profile("build", &format!("[limits]\n{limits}"));
    let explain = |text: &str| {
        place.space.file("project/.casemate.toml", format!("[limits]\n{text}"));
        place.casemate(&["explain", "-p", "build", "true"]).directory(&inner).output()
    };
    for less in [
        "memory = \"512m\"",
        "processes = 5",
        "cpus = 1",
        "cpu-weight = 50",
        "cpuset = \"1-2\"",
        "memory-high = \"10%\"",
    ] {
        explain(less).succeeds();
    }
    for more in [
        "memory = \"2g\"",
        "memory = \"unlimited\"",
        "swap = \"1m\"",
        "processes = 0",
        "cpus = 2",
        "cpu-weight = 1000",
        "cpuset = \"3-4\"",
    ] {
        let refused = explain(more).fails(125);
        let key = more.split(' ').next().unwrap();
        assert!(refused.err().contains(&format!("limits.{key} ")), "{more}: {}", refused.err());
        assert!(refused.err().contains("not trusted"), "{more}: {}", refused.err());
    }
}

/// What is granted already, said once more by a project, undoes neither what stays in its place nor
/// what hides it.
#[test]
fn a_projects_profile_undoes_nothing_by_saying_it_again() {
    let place = Place::new();
    let home = place.space.directory("home");
    let data = place.space.directory("data");
    place.space.file("home/secret", "secret\n");
    place.profile("base", "[files]\nwrite = [\".\"]");
    place.profile(
        "agent",
        "extends = [\"base\"]\n[files]\npersist = [{ path = \"~\", name = \"agent\" }]",
    );
    let run = |profile: &str, directory: &str, script: &str| {
        let run = place.casemate(&["run", "-p", profile, "--", "sh", "-c", script]);
        run.env("HOME", &home).env("XDG_DATA_HOME", &data).directory(directory).output()
    };
    let cat = "cat ~/secret";
    assert_eq!(run("base", &home, cat).out(), "secret\n");
    run("agent", &home, cat).fails(1);
    for again in ["write = [\".\"]", "read = [\"./.\"]"] {
        place.space.file("home/.casemate.toml", format!("[files]\n{again}"));
        let output = run("agent", &home, cat).fails(1);
        assert_eq!(output.out(), "", "{again}");
    }
    // It takes away as before.
    run("base", &home, "touch made").fails(1);
    std::fs::remove_file(place.space.path().join("home/.casemate.toml")).unwrap();

    place.space.file("home/work/keys/key", "key\n");
    let project = place.space.directory("home/project");
    place.profile("reads", "[files]\nwrite = [\".\"]\nread = [\"~/work/keys\"]");
    place.profile("hides", "extends = [\"reads\"]\n[files]\nhide = [\"~/work\"]");
    let cat = "cat ~/work/keys/key";
    assert_eq!(run("reads", &project, cat).out(), "key\n");
    run("hides", &project, cat).fails(1);
    place.space.file("home/project/.casemate.toml", "[files]\nread = [\"~/work/keys\"]");
    assert_eq!(run("reads", &project, cat).out(), "key\n");
    assert_eq!(run("hides", &project, cat).fails(1).out(), "");
}
