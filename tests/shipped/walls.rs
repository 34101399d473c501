//! What holds for every shipped profile, whether its program is installed or not: a shell stands in
//! its place.

use std::process::Command;

use casemate::profile::shipped;

use crate::server::Server;
use crate::{Home, SECRET};

/// Those whose program is for the network, by what they build on.
fn has_network(name: &str) -> bool {
    let text = Home::new().casemate(&["profile", "show", "--json", name]).text();
    let table: serde_json::Value = serde_json::from_str(&text).unwrap();
    table["network"]["mode"] == "host"
}

/// The names, without what lies below all.
fn names() -> Vec<&'static str> {
    shipped().filter(|name| *name != "default").collect()
}

#[test]
fn no_profile_shows_a_secret_of_the_home() {
    let home = Home::new();
    let script = "cat ~/secret ../secret ~/.ssh/id_ed25519; ls -A ~ ..; echo end";
    assert_eq!(home.outside(script).output().out().matches(SECRET).count(), 3);
    for name in names() {
        let output = home.casemate(&["run", "-p", name, "--", "bash", "-c", script]).output();
        let output = output.succeeds();
        assert!(output.out().ends_with("end\n"), "{name}: {}", output.out());
        assert!(!output.out().contains(SECRET), "{name}");
        // What is there of the home is named in the manual, and none of it is the user's data.
        assert!(!output.out().contains("secret"), "{name}: {}", output.out());
    }
}

/// Also where the working directory is the home, which is then the program's: keys are not.
#[test]
fn no_profile_shows_a_key_where_the_home_is_the_working_directory() {
    let home = Home::new();
    let script = "cat ~/.ssh/id_ed25519; echo end";
    for name in names() {
        let run = home.casemate(&["run", "-p", name, "--", "bash", "-c", script]);
        let output = run.directory(home.space.path()).output().succeeds();
        assert_eq!(output.out(), "end\n", "{name}");
    }
}

#[test]
fn only_what_is_for_the_network_reaches_it() {
    let home = Home::new();
    let server = Server::empty();
    let knock = format!("exec 3<>/dev/tcp/127.0.0.1/{} && echo reached", server.port);
    assert_eq!(home.outside(&knock).text(), "reached");
    for name in names() {
        server.connections();
        let output = home.casemate(&["run", "-p", name, "--", "bash", "-c", &knock]).output();
        let reached = output.out() == "reached\n";
        assert_eq!(reached, has_network(name), "{name}: {}", output.err());
        assert_eq!(server.connections(), usize::from(reached), "{name}");
        assert!(!output.err().contains("casemate: "), "{name}: {}", output.err());
    }
    let granted: Vec<&str> = names().into_iter().filter(|name| has_network(name)).collect();
    assert_eq!(
        granted,
        [
            "agent",
            "aider",
            "bun",
            "bundle",
            "cargo",
            "claude",
            "cli-net",
            "codex",
            "composer",
            "curl",
            "deno",
            "gemini",
            "git",
            "git-setup",
            "go",
            "gradle",
            "maven",
            "npm",
            "opencode",
            "pip",
            "pnpm",
            "rsync",
            "ssh",
            "uv",
            "wget",
            "yarn",
            "yt-dlp"
        ]
    );
}

#[test]
fn every_profile_writes_in_the_working_directory_and_nowhere_else() {
    let home = Home::new();
    let attacks = "echo x >~/x; echo x >../x; echo x >>~/secret; mkdir ~/.new; echo x >~/.bashrc";
    for name in names() {
        let script = format!("{attacks}; echo {name} >here");
        home.casemate(&["run", "-p", name, "--", "bash", "-c", &script]).output().succeeds();
        assert_eq!(home.read("here").trim(), name);
        for path in ["x", ".new", ".bashrc"] {
            assert!(!home.space.path().join(path).exists(), "{name}: {path}");
        }
        assert_eq!(home.space.read("secret"), SECRET, "{name}");
    }
    home.outside(attacks).output();
    assert!(home.space.path().join("x").exists() && home.space.path().join(".bashrc").exists());
}

/// What the boxes keep is theirs: it comes back, it is not the user's, and agents' homes are apart.
#[test]
fn what_stays_is_the_boxes_own() {
    let home = Home::new();
    home.space.file(".npm/_cacache/user", "user\n");
    let run = |name: &str, script: &str| {
        home.casemate(&["run", "-p", name, "--", "bash", "-c", script]).output().out()
    };
    run("npm", "echo cached >~/.npm/_cacache/x; echo lost >~/.npm/lost");
    assert_eq!(
        run("npm", "cat ~/.npm/_cacache/x; cat ~/.npm/lost ~/.npm/_cacache/user"),
        "cached\n"
    );
    assert_eq!(run("pnpm", "cat ~/.npm/_cacache/x"), "cached\n");
    assert_eq!(run("node", "cat ~/.npm/_cacache/x"), "");
    assert!(!home.space.path().join(".npm/_cacache/x").exists());
    run(
        "claude",
        "mkdir ~/.claude; echo login >~/.claude/.credentials.json; echo x >~/.claude.json",
    );
    assert_eq!(run("claude", "cat ~/.claude/.credentials.json ~/.claude.json"), "login\nx\n");
    assert_eq!(run("codex", "cat ~/.claude/.credentials.json; ls -d ~/.claude*"), "");
    // A grant of the user's own profile leads to the user's own.
    home.space.file(
        ".config/casemate/profiles/npm.toml",
        "extends = [\"npm\"]\n[files]\nwrite = [\"~/.npm/_cacache\"]\n",
    );
    assert_eq!(run("npm", "cat ~/.npm/_cacache/*"), "user\n");
    // The home as working directory shows none of it, but for what is named; and an agent that is
    // started there, or above, has its own login, and not what other boxes keep.
    let script = "find ~ -name '*credentials*' -o -name x";
    let run = home.casemate(&["run", "-p", "codex", "--", "bash", "-c", script]);
    assert_eq!(run.directory(home.space.path()).output().out(), "");
    home.space.file(".claude/.credentials.json", "user\n");
    let above = home.space.path().parent().unwrap();
    for directory in [home.space.path(), above] {
        let script = "cat ~/.claude/.credentials.json; ls -A ~/.local/share/casemate";
        let run = home.casemate(&["run", "-p", "claude", "--", "bash", "-c", script]);
        let output = run.directory(directory).output();
        assert_eq!(output.out(), "login\n", "{}: {}", directory.display(), output.err());
    }
}

/// A directory that stays cannot be led elsewhere by what was in it before.
#[test]
fn a_box_cannot_lead_another_ones_directory_elsewhere() {
    let home = Home::new();
    let run = |name: &str, script: &str| {
        home.casemate(&["run", "-p", name, "--", "bash", "-c", script]).output()
    };
    run(
        "claude",
        "rm -rf ~/.cache; ln -s / ~/.cache; ln -s ../secret ~/.claude.json; ln -s . ~/.ssh",
    );
    let output = run("claude", "cat ~/.claude.json ~/.cache/home/secret; readlink ~/.cache; true");
    assert!(!output.out().contains(SECRET), "{}", output.out());
    let persistent = home.at(".local/share/casemate/persistent");
    let output = Command::new("find").args([&persistent, "-maxdepth", "1", "-type", "l"]).output();
    assert!(output.unwrap().stdout.is_empty());
}

/// Programs that lie beside what stays or is a secret are found; what lies beside them is not.
#[test]
fn programs_of_the_home_are_found_and_not_what_lies_beside_them() {
    let home = Home::new();
    for (name, program, beside) in [
        ("pnpm", ".local/share/pnpm/pnpm", ".local/share/pnpm/auth"),
        ("yarn", ".yarn/bin/yarn", ".yarn/auth"),
        ("uv", ".local/share/uv/tools/x/uv", ".local/share/uv/credentials/credentials.toml"),
    ] {
        let path = home.space.file(program, "#!/bin/sh\nexec cat ~/\"$1\"\n");
        let beside_path = home.space.file(beside, SECRET);
        home.outside(&format!("chmod +x {path}; echo well >known")).output().succeeds();
        let directory = std::path::Path::new(&path).parent().unwrap().display().to_string();
        let run = |file: &str| {
            home.casemate(&[name, file]).env("PATH", format!("{directory}:/usr/bin:/bin")).output()
        };
        assert_eq!(run("project/known").succeeds().out(), "well\n", "{name}");
        assert_eq!(run(beside).fails(1).out(), "", "{name}");
        assert_eq!(home.outside(&format!("cat {beside_path}")).text(), SECRET);
    }
}
