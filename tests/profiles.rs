//! Profiles from outside: where they are found, what they build on, and the commands for them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{Run, Workspace, casemate};

/// A place with a configuration directory of its own.
struct Place {
    space: Workspace,
}

impl Place {
    fn new() -> Place {
        let place = Place { space: Workspace::new() };
        place.space.directory("config/casemate/profiles");
        place
    }

    fn config(&self) -> PathBuf {
        self.space.path().join("config")
    }

    fn profile(&self, name: &str, text: &str) -> String {
        self.space.file(&format!("config/casemate/profiles/{name}.toml"), text)
    }

    fn casemate(&self, words: &[&str]) -> Run {
        casemate(words.iter().copied())
            .env("XDG_CONFIG_HOME", self.config())
            .directory(self.space.path())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

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

/// Attacks on what other programs obey, below a directory that is granted as writable: each succeeds
/// outside of a box, and fails inside.
fn refused(place: &Place, directory: &str, words: &[&str], attacks: &[&str]) {
    for attack in attacks {
        let script = format!("cd {directory} && {{ {attack}; }} && echo done");
        let words = ["run"].iter().chain(words).chain(&["sh", "-c"]).copied();
        let run = casemate(words.chain([script.as_str()]));
        let output = run.env("HOME", place.space.at("home")).directory(directory).output();
        assert!(!output.out().contains("done"), "{attack}: {}{}", output.out(), output.err());
        assert!(!output.err().contains("casemate:"), "{attack}: {}", output.err());
    }
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
            "mkdir v; mv -T v .vscode",
            "echo x >.envrc",
            "rm .envrc",
            "echo x >e && mv e .envrc",
            "ln -f src/main.c .envrc",
            "rm .cursor",
            "mv .cursor c",
            "mkdir d && mv -T d .cursor",
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
            "rm .git/commondir && echo e >.git/commondir",
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
            "touch .cargo/bin/ls",
            "mkdir dots/cargo/bin/x",
            "mv dots/cargo dots/c",
            "mkdir -p .config/autostart/x",
            "touch .local/bin/ls",
            "mkdir -p .local/share/systemd/user",
            "mv .local l",
            "mkdir -p .ssh && echo x >.ssh/authorized_keys",
            "echo x >.gitconfig",
            "mkdir -p .config/casemate/profiles && touch .config/casemate/profiles/x.toml",
        ],
    );
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

/// Makes one socket of a family and prints the outcome, and one call of the 32-bit ABI.
const CALLS: &str = "#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1) {
        long pid;
        __asm__ volatile(\"int $0x80\" : \"=a\"(pid) : \"a\"(20) : \"memory\");
        return pid == getpid() ? 0 : 1;
    }
    printf(\"inet %s\\n\", socket(AF_INET, SOCK_STREAM, 0) < 0 ? strerrorname_np(errno) : \"ok\");
    printf(\"unix %s\\n\", socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? strerrorname_np(errno) : \"ok\");
    syscall(SYS_ioctl, 1, 0x100000000 | 0x1234, 0);
    printf(\"ioctl %s\\n\", strerrorname_np(errno));
    printf(\"keyctl %s\\n\", syscall(SYS_keyctl, 0, 0, 0) < 0 ? strerrorname_np(errno) : \"ok\");
    return 0;
}
";

#[test]
#[cfg(target_arch = "x86_64")]
fn filters_start_from_a_base_and_take_groups_and_rules() {
    let place = Place::new();
    place.space.file("calls.c", CALLS);
    Run::bash("cc -D_GNU_SOURCE -o calls calls.c")
        .directory(place.space.path())
        .output()
        .succeeds();
    let program = place.space.at("calls");
    let run = |text: &str, words: &[&str]| {
        place.profile("p", &format!("[files]\nread = [\".\"]\n[seccomp]\n{text}"));
        place.casemate(&[&["run", "-p", "p", program.as_str()], words].concat()).output()
    };
    let out = |text: &str| run(text, &[]).succeeds().out();
    assert_eq!(out(""), "inet ok\nunix ok\nioctl ENOTTY\nkeyctl EPERM\n");
    assert_eq!(
        out("base = \"strict\""),
        "inet EAFNOSUPPORT\nunix ok\nioctl ENOTTY\nkeyctl EPERM\n"
    );
    assert_eq!(
        out("base = \"strict\"\nallow = [\"@network\"]\ndeny = [\"@io-uring\"]"),
        "inet ok\nunix ok\nioctl ENOTTY\nkeyctl EPERM\n"
    );
    assert_eq!(
        out("deny = [\"@network\"]"),
        "inet EPERM\nunix EPERM\nioctl ENOTTY\nkeyctl EPERM\n"
    );
    // A rule that refuses sees through the high bits that the kernel does not read.
    let rules = "[[seccomp.rule]]\ncalls = [\"ioctl\"]\naction = \"deny\"\nerrno = \"EXDEV\"\nargs = [{ index = 1, value = 0x1234 }]\n[[seccomp.rule]]\ncalls = [\"socket\"]\naction = \"deny\"\nargs = [{ index = 0, op = \"!=\", value = 2 }]";
    assert_eq!(out(rules), "inet ok\nunix EPERM\nioctl EXDEV\nkeyctl EPERM\n");
    // As podman reads it.
    let oci = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errno": "EDOM", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#;
    let file = place.space.file("oci.json", oci);
    assert_eq!(
        out(&format!("base = \"{file}\"")),
        "inet ok\nunix EDOM\nioctl ENOTTY\nkeyctl EOPNOTSUPP\n"
    );
    let podmans = "/usr/share/containers/seccomp.json";
    if Path::new(podmans).exists() {
        let seen = out(&format!("base = \"{podmans}\""));
        assert!(seen.starts_with("inet ok\nunix ok\n"), "{seen}");
    }
    assert_eq!(run("", &["32"]).status.code(), Some(159));
    run("compat32 = true", &["32"]).succeeds();
    for (text, words) in [
        ("allow = [\"@netwrok\"]", "there is no group named"),
        ("deny = [\"opne\"]", "hint: did you mean \"open\"?"),
        ("base = \"none\"\ndeny = [\"open\"]", "mean nothing"),
        ("base = \"./none.json\"", "read seccomp profile"),
    ] {
        let output = run(text, &[]).fails(125);
        assert!(output.err().contains(words), "{text}: {}", output.err());
    }
}

#[test]
fn filters_are_printed_in_four_forms() {
    let place = Place::new();
    place.profile("p", "[seccomp]\ndeny = [\"socket\"]");
    let show = |words: &[&str]| {
        place.casemate(&[&["seccomp", "show"], words].concat()).output().succeeds()
    };
    assert!(show(&[]).out().contains("\nread: allowed\n"));
    assert!(show(&["p"]).out().contains("\nsocket: EPERM\n"));
    let pseudo = show(&["--form", "pseudo", "p"]).out().lines().count();
    assert_eq!(show(&["--form", "raw", "p"]).stdout.len(), 8 * pseudo);
    let json: serde_json::Value = serde_json::from_str(&show(&["--form", "json"]).out()).unwrap();
    assert!(json["rules"]["read"].is_object());
    assert!(place.casemate(&["seccomp", "groups", "@network"]).text().contains("socketpair"));
    place.casemate(&["seccomp", "groups", "@none"]).output().fails(125);
}

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
    assert_eq!(aliases, "alias cat='casemate cat'\nalias od='casemate od'");
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

#[test]
fn only_the_ports_that_are_named_can_be_used() {
    let place = Place::new();
    place.profile("ports", "[network]\ntcp-connect = [9]\ntcp-bind = [8080]");
    place.profile("closed", "[network]\ntcp-connect = []\ntcp-bind = []");
    let run = |profile: &str, script: &str| {
        place.casemate(&["run", "-p", profile, "bash", "-c", script]).output().err()
    };
    let connect = |port: u16| format!("echo >/dev/tcp/127.0.0.1/{port}");
    let listen = |port: u16| {
        format!(
            "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1:{port}\") or die $!'"
        )
    };
    // Nobody listens there, which only who may connect finds out.
    assert!(run("ports", &connect(9)).contains("Connection refused"));
    assert!(run("default", &connect(10)).contains("Connection refused"));
    for profile in ["ports", "closed"] {
        assert!(run(profile, &connect(10)).contains("Permission denied"), "{profile}");
    }
    assert_eq!(run("ports", &listen(8080)), "");
    assert_eq!(run("default", &listen(8081)), "");
    for profile in ["ports", "closed"] {
        assert!(run(profile, &listen(8081)).contains("Permission denied"), "{profile}");
    }
}
