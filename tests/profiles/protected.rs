//! What other programs obey, below writable grants.

use std::path::Path;

use crate::Place;
use crate::common::{Run, casemate};

/// Attacks on what other programs obey, below a directory that is granted as writable: each fails,
/// and succeeds on a copy of the directory where nothing is protected.
fn refused(place: &Place, directory: &str, words: &[&str], attacks: &[&str]) {
    let copy = format!("{directory}-copy");
    for attack in attacks {
        let fresh = format!("rm -rf {copy} && cp -a {directory} {copy}");
        Run::bash(&fresh).output().succeeds();
        let free = [words, &["--unprotect", "all"]].concat();
        let output = attacked(&copy, &free, attack);
        assert!(output.0, "{attack} fails anyway: {}", output.1);
        let output = attacked(directory, words, attack);
        assert!(!output.0, "{attack}: {}", output.1);
        assert!(!output.1.contains("casemate:"), "{attack}: {}", output.1);
    }
    Run::bash(&format!("rm -rf {copy}")).output().succeeds();
    assert!(place.space.path().exists());
}

/// Whether an attack reaches its end in a box that is started in a directory, which is the home
/// too where that is granted.
fn attacked(directory: &str, words: &[&str], attack: &str) -> (bool, String) {
    let script = format!("cd {directory} && {{ {attack}; }} && echo done");
    let is_home = words.contains(&"~");
    let words = [&["run"], words, &["sh", "-c", script.as_str()]].concat();
    let mut run = casemate(words).directory(directory);
    if is_home {
        run = run.env("HOME", directory);
    }
    let output = run.output();
    (output.out().contains("done"), output.out() + &output.err())
}

/// Everything below a directory, with what links say.
fn tree(directory: &str) -> String {
    Run::bash("find . -printf '%p %y %l %s\\n' | sort").directory(directory).text()
}

#[test]
fn what_other_programs_obey_cannot_be_changed_nor_made() {
    let place = Place::new();
    place.space.directory("home");
    let project = place.space.directory("project");
    place.space.file("project/.vscode/tasks.json", "{}");
    place.space.file("project/.envrc", "x");
    place.space.file("project/src/main.c", "x");
    place.space.file("other/settings.json", "x");
    place.space.symlink("../other", "project/.cursor");
    let before = tree(&project);
    let words = ["-v", "."];
    refused(
        &place,
        &project,
        &words,
        &[
            "echo x >.vscode/tasks.json",
            "touch .vscode/new",
            "rm -rf .vscode",
            "mv .vscode v",
            "mkdir v && rm -r .vscode && mv -T v .vscode",
            "echo x >.envrc",
            "rm .envrc",
            "echo x >e && mv e .envrc",
            "ln -f src/main.c .envrc",
            "ln .envrc hard && echo x >hard",
            "rm .cursor",
            "mv .cursor c",
            "ln -s src d && mv -T d .cursor",
            // None of these exists.
            "git init -q .",
            "mkdir .git",
            "echo x >.git",
            "ln -s src .git",
            "mkdir g && mv -T g .git",
            "mkdir .claude",
            "ln -s src .codex",
            "echo x >.idea",
            "mkdir -p .idea/x",
            "mkdir .gemini && touch .gemini/settings.json",
        ],
    );
    // The work itself can be done, and nothing of ours is left behind.
    let output = casemate(["run", "-v", ".", "sh", "-c", "rm -rf c d e g v; printf y >src/main.c"])
        .directory(&project)
        .output();
    output.succeeds();
    assert_eq!(tree(&project), before);
    assert_eq!(place.space.read("project/src/main.c"), "y");
    // Whoever wants it gives it back, one by one or all.
    for (words, command) in [
        (&["--unprotect", ".git"][..], "git init -q ."),
        (&["--unprotect", "all"], "echo x >.envrc && mkdir .claude && rm -r .vscode"),
    ] {
        let shell = ["sh", "-c", command];
        let words = ["run", "-v", "."].iter().chain(words).chain(&shell);
        casemate(words.copied()).directory(&project).output().succeeds();
    }
    assert!(place.space.path().join("project/.git/config").exists());
    casemate(["run", "--unprotect", ".gti", "true"]).output().fails(125);
}

#[test]
fn a_repository_works_and_its_settings_and_hooks_stay() {
    let place = Place::new();
    place.space.directory("home");
    let script = "set -e; export GIT_CONFIG_GLOBAL=/dev/null
        id='-c user.name=a -c user.email=a@b'
        git init -q sub && cd sub && echo s >s && git add s && git $id commit -qm s && cd ..
        git init -q main && cd main && echo m >m && git add m && git $id commit -qm m
        git -c protocol.file.allow=always submodule --quiet add ../sub deep/sub && git $id commit -qm x
        git worktree add -q ../tree";
    Run::bash(script).directory(place.space.path()).output().succeeds();
    let main = place.space.at("main");
    let before = tree(&main);
    refused(
        &place,
        &main,
        &["-v", "."],
        &[
            "git config core.fsmonitor x",
            "echo x >>.git/config",
            "echo x >.git/hooks/pre-commit",
            "mv .git g",
            "rm -rf .git/hooks && mkdir .git/hooks",
            "mkdir .git/e && echo e >.git/commondir",
            "rm -f .git/commondir && echo e >.git/commondir",
            "echo x >.git/modules/deep/sub/hooks/post-checkout",
            "git -C deep/sub config core.hooksPath x",
            "mv .git/modules/deep .git/modules/d",
            "echo x >.git/worktrees/tree/commondir",
        ],
    );
    std::fs::remove_dir(place.space.path().join("main/.git/e")).unwrap();
    assert_eq!(tree(&main), before);
    let work = "echo n >n; git add n; git -c user.name=a -c user.email=a@b commit -qm n && git status --short && git -C deep/sub status --short && git log --oneline | wc -l && git gc -q && git fsck && git worktree list | wc -l";
    let output = casemate(["run", "-v", ".", "sh", "-c", work]).directory(&main).output();
    assert_eq!(output.succeeds().out(), "3\n2\n");
    Run::bash("git status --short && git fsck && test ! -e .git/commondir")
        .directory(&main)
        .output()
        .succeeds();
    // A linked worktree leads to the repository, which is protected where it is granted.
    let linked = place.space.at("tree");
    let volume = main.clone();
    refused(
        &place,
        &linked,
        &["-v", ".", "-v", &volume],
        &["git config core.fsmonitor x", "echo x >.git", &format!("echo x >{main}/.git/hooks/x")],
    );
}

#[test]
fn a_home_that_can_be_written_keeps_what_starts_programs() {
    let place = Place::new();
    let home = place.space.directory("home");
    place.space.file("home/.bashrc", "x");
    place.space.file("dots/profile", "x");
    place.space.file("home/dots/zshrc", "x");
    place.space.symlink("dots/zshrc", "home/.zshrc");
    place.space.directory("home/dots/cargo");
    place.space.symlink("dots/cargo", "home/.cargo");
    place.space.directory("home/.local/share");
    place.space.directory("home/.config/casemate");
    let before = tree(&home);
    refused(
        &place,
        &home,
        &["-v", "~"],
        &[
            "echo x >.bashrc",
            "mv .bashrc b",
            "echo x >.zshrc",
            "echo x >dots/zshrc",
            "rm .zshrc",
            "mv dots d",
            "rm .cargo",
            "mkdir -p .cargo/bin && touch .cargo/bin/ls",
            "mkdir -p dots/cargo/bin/x",
            "mv dots/cargo dots/c",
            "mkdir -p .config/autostart/x",
            "mkdir -p .local/bin && touch .local/bin/ls",
            "mkdir -p .local/share/systemd/user",
            "mv .local l",
            "mkdir -p .ssh && echo x >.ssh/authorized_keys",
            "echo x >.gitconfig",
        ],
    );
    // casemate's own files are nobody's to give back.
    let attack = "mkdir -p .config/casemate/profiles && touch .config/casemate/profiles/x.toml";
    assert!(!attacked(&home, &["-v", "~", "--unprotect", "all"], attack).0);
    assert_eq!(tree(&home), before);
    // What is granted by its own name is granted.
    let words = ["run", "-v", "~", "-v", "~/.bashrc", "-v", "~/dots/cargo", "sh", "-c"];
    let script = "cd && echo y >.bashrc && mkdir dots/cargo/other";
    let output = casemate(words.iter().copied().chain([script])).env("HOME", &home).output();
    output.succeeds();
    assert_eq!(place.space.read("home/.bashrc"), "y\n");
}

#[test]
fn a_placeholder_stands_as_long_as_one_box_counts_on_it() {
    let place = Place::new();
    let project = place.space.directory("project");
    let data = place.space.directory("data");
    let box_that = |script: &str| {
        casemate(["run", "-v", ".", "sh", "-c", script])
            .env("XDG_DATA_HOME", &data)
            .directory(&project)
    };
    let mut first = box_that("echo ready; read line").open_stdin().spawn();
    first.expect("ready");
    assert!(Path::new(&project).join(".claude").exists());
    let script = "echo ready; read line; mkdir .claude/x || rmdir .claude || mkdir -p .vscode/x";
    let mut second = box_that(script).open_stdin().spawn();
    second.expect("ready");
    first.close_stdin();
    first.wait();
    assert!(Path::new(&project).join(".claude").exists());
    second.close_stdin();
    assert!(!second.wait().status.success());
    assert_eq!(tree(&project).lines().count(), 1, "{}", tree(&project));
    // A supervisor that was killed leaves them to the next run.
    let killed = box_that("echo ready; read line").open_stdin().spawn();
    killed.expect("ready");
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.wait();
    assert!(Path::new(&project).join(".claude").exists());
    box_that("true").output().succeeds();
    assert_eq!(tree(&project).lines().count(), 1, "{}", tree(&project));
}
