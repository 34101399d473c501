//! What of the host is seen, and how it is named.

use crate::Place;

#[test]
fn what_is_hidden_is_empty_wherever_it_would_be_seen() {
    let place = Place::new();
    for name in ["data/a", "data/secret/key", "data/secret/known", "data/.env"] {
        place.space.file(name, name);
    }
    let at = |name: &str| place.space.at(name);
    let grants = format!(
        "write = [\"{}\", {{ path = \"{}\", at = \"/copy\" }}]\nread = [\"{}\"]",
        at("data"),
        at("data"),
        at("data/secret/known")
    );
    place.profile("open", &format!("[files]\n{grants}"));
    let hide = format!(
        "hide = [\"{}\", \"{}\", \"{}/none\"]",
        at("data/secret"),
        at("data/.env"),
        at("data")
    );
    place.profile("hidden", &format!("[files]\n{grants}\n{hide}"));
    let script = format!(
        "cd {}; cat a secret/key secret/known .env /copy/a /copy/secret/key /copy/.env 2>&1; ls secret /copy/secret",
        at("data")
    );
    let run = |profile: &str, script: &str| {
        place.casemate(&["run", "-p", profile, "sh", "-c", script]).output().out()
    };
    let open = run("open", &script);
    assert!(open.contains("data/secret/key") && open.contains("data/.env"), "{open}");
    let seen = run("hidden", &script);
    assert!(!seen.contains("data/secret/key") && !seen.contains("data/.env"), "{seen}");
    // What was said below it stays.
    assert!(seen.starts_with("data/a") && seen.contains("data/secret/known"), "{seen}");
    for change in ["rmdir secret", "mv secret s", "touch secret/x", "rm .env", "echo >.env"] {
        let script = format!("cd {} && {change} 2>&1 && echo done", at("data"));
        assert!(!run("hidden", &script).contains("done"), "{change}");
        let script = format!("cd /copy && {change} 2>&1 && echo done");
        assert!(!run("hidden", &script).contains("done"), "{change}");
    }
    // A later profile that hides the whole takes the exception away, and one that grants gives it.
    place.profile(
        "more",
        &format!("extends = [\"open\"]\n[files]\nhide = [\"{}\"]", at("data/secret")),
    );
    let seen = run("more", &script);
    assert!(!seen.contains("data/secret/known") && seen.contains("data/.env"), "{seen}");
    place.profile(
        "less",
        &format!("extends = [\"hidden\"]\n[files]\nread = [\"{}\"]", at("data/secret")),
    );
    let seen = run("less", &script);
    assert!(seen.contains("data/secret/key") && !seen.contains("data/.env"), "{seen}");
}

#[test]
fn changes_over_an_overlay_are_thrown_away() {
    let place = Place::new();
    place.space.file("work/a", "old\n");
    place.profile("try", "[files]\noverlay = [\".\"]");
    let script = "echo new >a; echo b >b; mkdir c; cat a b";
    let run = place.casemate(&["run", "-p", "try", "sh", "-c", script]);
    let output = run.directory(place.space.at("work")).output().succeeds();
    assert_eq!(output.out(), "new\nb\n");
    assert_eq!(place.space.read("work/a"), "old\n");
    assert!(!place.space.path().join("work/b").exists());
    assert!(!place.space.path().join("work/c").exists());
}

#[test]
fn directories_go_by_their_names() {
    let place = Place::new();
    let home = place.space.directory("home");
    for name in ["home/.cache/tool/x", "home/Down/x", "home/Music/x", "state/x"] {
        place.space.file(name, name);
    }
    place.space.file(
        "config/user-dirs.dirs",
        "XDG_DOWNLOAD_DIR=\"$HOME/Down\"\nXDG_VIDEOS_DIR=\"$HOME/\"\n",
    );
    place.profile(
        "names",
        "[files]\nread = [\"$XDG_CACHE_HOME/tool\", \"xdg-download\", \"xdg-music\", \"$XDG_STATE_HOME\", { path = \"xdg-videos\", optional = true }, { path = \"$XDG_RUNTIME_DIR/x\", optional = true }]",
    );
    let run = |profile: &str, command: &str| {
        place
            .casemate(&["run", "-p", profile, "sh", "-c", command])
            .env("HOME", &home)
            .env("XDG_STATE_HOME", place.space.at("state"))
            .without_env("XDG_RUNTIME_DIR")
            .without_env("XDG_CACHE_HOME")
            .output()
    };
    let state = place.space.at("state");
    let script = format!("cd && cat .cache/tool/x Down/x Music/x {state}/x; ls -A");
    let output = run("names", &script).succeeds();
    assert_eq!(
        output.out(),
        "home/.cache/tool/xhome/Down/xhome/Music/xstate/x.cache\nDown\nMusic\n"
    );
    // A name that stands for the whole home grants nothing.
    for bad in ["xdg-videos", "$XDG_RUNTIME_DIR/x"] {
        place.profile("bad", &format!("[files]\nread = [\"{bad}\"]"));
        let output = run("bad", "true").fails(125);
        assert!(output.err().contains(&format!("bad.toml:2:9: {bad}: ")), "{}", output.err());
    }
}

#[test]
fn what_stays_is_found_by_the_next_box() {
    let place = Place::new();
    let data = place.space.directory("data");
    let run = |profile: &str, script: &str| {
        let run = place.casemate(&["run", "-p", profile, "--", "sh", "-c", script]);
        run.env("XDG_DATA_HOME", &data).output().out()
    };
    place.profile("one", "[files]\npersist = [\"~/.cache/tool\"]");
    place.profile("named", "[files]\npersist = [{ path = \"~/.cache/tool\", name = \"n\" }]");
    place.profile("home", "[files]\npersist = [{ path = \"~\", name = \"h\" }, \"~/.cache/tool\"]");
    assert_eq!(run("one", "echo x >~/.cache/tool/x; echo y >~/y; ls ~"), "y\n");
    assert_eq!(run("one", "cat ~/.cache/tool/x; ls ~"), "x\n");
    assert_eq!(run("named", "ls ~/.cache/tool"), "");
    assert_eq!(run("home", "cat ~/.cache/tool/x; echo y >~/y"), "x\n");
    assert_eq!(run("home", "cat ~/y; ls ~/.cache/tool"), "y\nx\n");
    // What was said later counts, and of what was said together the grant.
    let grant = place.space.directory("grant");
    place.space.file("grant/g", "g\n");
    let at = format!(
        "{{ path = \"{grant}\", at = \"{}/.cache/tool\" }}",
        crate::common::user().home.display()
    );
    place.profile("both", &format!("[files]\npersist = [\"~/.cache/tool\"]\nread = [{at}]"));
    assert_eq!(run("both", "ls ~/.cache/tool"), "g\n");
    place.profile("over", "extends = [\"both\"]\n[files]\npersist = [\"~/.cache/tool\"]");
    assert_eq!(run("over", "ls ~/.cache/tool"), "x\n");
    place.profile("under", &format!("extends = [\"one\"]\n[files]\nread = [{at}]"));
    assert_eq!(run("under", "ls ~/.cache/tool"), "g\n");
    // A project with a directory of its own where a base shares one.
    place.profile(
        "own",
        "extends = [\"one\"]\n[files]\npersist = [{ path = \"~/.cache/tool\", name = \"own\" }]",
    );
    assert_eq!(run("own", "ls ~/.cache/tool; echo own >~/.cache/tool/own"), "");
    assert_eq!(run("own", "ls ~/.cache/tool"), "own\n");
    assert_eq!(run("one", "ls ~/.cache/tool"), "x\n");
    // A writable grant that holds them all does not lead into them.
    place.profile("open", &format!("[files]\nwrite = [\"{data}\"]"));
    let script =
        format!("echo z >{data}/casemate/persistent/.cache%2Ftool/z; rm -r {data}/casemate");
    run("open", &script);
    assert_eq!(run("one", "ls ~/.cache/tool"), "x\n");
    // To name one is to widen.
    let widens = place.casemate(&["profile", "diff", "--widening", "default", "named"]);
    let output = widens.output().fails(1);
    assert!(output.out().starts_with("widens   files.persist "), "{}", output.out());
}
