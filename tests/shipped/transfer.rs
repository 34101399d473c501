//! Git, and programs that fetch.

use std::collections::BTreeMap;
use std::net::TcpListener;

use crate::Home;
use crate::server::Server;

const IDENTITY: &str = "export GIT_AUTHOR_NAME=Ann GIT_AUTHOR_EMAIL=ann@example.org GIT_COMMITTER_NAME=Ann GIT_COMMITTER_EMAIL=ann@example.org\n";

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn git_commits_and_checks_out_and_cannot_make_itself_obeyed() {
    let home = Home::new();
    home.outside("git init -q -b main . && echo .venv >.gitignore").output().succeeds();
    let script = "echo a >a; mkdir .vscode; echo '{}' >.vscode/settings.json
casemate git add -A; casemate git commit -qm one
casemate git checkout -qb side; echo b >a; rm -r .vscode; casemate git commit -qam two
casemate git checkout -q main; cat a .vscode/settings.json
casemate git merge -q side; cat a; casemate git log --format=%s%an
casemate git stash list; casemate git tag v1; casemate git gc -q; casemate git status --short";
    let output = home.script(&format!("{IDENTITY}{script}")).output().succeeds();
    assert_eq!(output.out(), "a\n{}\nb\ntwoAnn\noneAnn\n", "{}", output.err());
    // A filter or a hook that it would execute outside, later.
    for attack in ["git config core.fsmonitor 'touch x'", "sh -c 'echo >.git/hooks/pre-commit'"] {
        let words: Vec<&str> = attack.splitn(2, ' ').collect();
        let script = format!("casemate run -p git -- {} {}", words[0], words[1]);
        assert_ne!(home.script(&script).output().code(), Some(0), "{attack}");
        assert_eq!(home.outside(attack).output().code(), Some(0), "{attack}");
        home.outside("git config --unset core.fsmonitor; rm -f .git/hooks/pre-commit").output();
    }
    home.outside("git config alias.thief '!cat ../secret'").output().succeeds();
    home.keeps_the_secret("git thief", home.casemate(&["git", "thief"]));
}

#[test]
fn git_clones_fetches_and_pushes_over_the_network() {
    let home = Home::new();
    let port = free_port();
    home.outside("git init -q --bare -b main ../up/x.git").output().succeeds();
    home.space.file(".gitconfig", "[user]\n\tname = Ann\n\temail = ann@example.org\n");
    let daemon = format!(
        "exec git daemon --reuseaddr --listen=127.0.0.1 --port={port} --export-all --enable=receive-pack --base-path=../up ../up"
    );
    let _daemon = home.outside(&daemon).spawn();
    home.outside(&format!("for i in $(seq 100); do git ls-remote git://127.0.0.1:{port}/x.git && exit; sleep 0.1; done; exit 1"))
        .output()
        .succeeds();
    let script = format!(
        "casemate git clone -q git://127.0.0.1:{port}/x.git copy; cd copy
echo a >a; casemate git add a; casemate git commit -qm one; casemate git push -q origin HEAD:main
casemate git fetch -q; casemate git log --format=%s%an origin/main; cd ..
casemate git clone -q git://127.0.0.1:{port}/x.git again; cat again/a"
    );
    let output = home.script(&script).output().succeeds();
    assert_eq!(output.out(), "oneAnn\na\n", "{}", output.err());
}

#[test]
fn git_is_set_up_by_a_profile_of_its_own() {
    let home = Home::new();
    assert_ne!(home.casemate(&["git", "init", "-q"]).output().code(), Some(0));
    let script = "casemate run -p git-setup -- git init -q; casemate run -p git-setup -- git config user.name Ann; git config user.name";
    assert_eq!(home.script(script).text(), "Ann");
}

#[test]
fn curl_and_wget_fetch_into_the_working_directory() {
    let home = Home::new();
    let server = Server::new(|_| BTreeMap::from([("/x".to_owned(), b"content\n".to_vec())]));
    let url = server.url("/x");
    home.space.file(".netrc", "machine 127.0.0.1 login ann password the-password\n");
    home.casemate(&["curl", "-sSfo", "c", &url]).output().succeeds();
    home.casemate(&["wget", "-qO", "w", &url]).output().succeeds();
    assert_eq!(home.read("c") + &home.read("w"), "content\ncontent\n");
    home.keeps_the_secret("curl -s file://$HOME/secret", {
        let file = format!("file://{}", home.at("secret"));
        home.casemate(&["curl", "-s", &file])
    });
    let shown = "curl -svn $url 2>&1 | grep -i 'authorization: basic'";
    home.outside(shown).env("url", &url).output().succeeds();
    let boxed = home.script(&format!("casemate {shown}")).env("url", &url).output();
    assert_eq!(boxed.out(), "");
}

#[test]
fn rsync_copies_here_and_from_a_server() {
    let home = Home::new();
    home.file("from/a", "a\n");
    home.script("casemate rsync -a from/ to/; cmp from/a to/a").output().succeeds();
    let port = free_port();
    let served = home.space.directory("served");
    home.space.file("served/b", "b\n");
    let config = format!("use chroot = no\n[m]\npath = {served}\n");
    let config = home.space.file("rsyncd.conf", config);
    let daemon = format!(
        "exec rsync --daemon --no-detach --address=127.0.0.1 --port={port} --config={config}"
    );
    let _daemon = home.outside(&daemon).spawn();
    let url = format!("rsync://127.0.0.1:{port}/m/b");
    home.outside(&format!(
        "for i in $(seq 100); do rsync -q {url} . && exit; sleep 0.1; done; exit 1"
    ))
    .output()
    .succeeds();
    home.casemate(&["rsync", "-q", &url, "got"]).output().succeeds();
    assert_eq!(home.read("got"), "b\n");
    let words = ["rsync", "-a", "../secret", "stolen"];
    home.casemate(&words).output();
    assert!(!home.has("stolen"));
    home.outside(&words.join(" ")).output().succeeds();
    assert!(home.has("stolen"));
}

#[test]
fn yt_dlp_fetches_a_video() {
    let home = Home::new();
    let video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom".repeat(100);
    let answer = video.clone();
    let server = Server::new(|_| BTreeMap::from([("/clip.mp4".to_owned(), answer)]));
    let url = server.url("/clip.mp4");
    home.casemate(&["yt-dlp", "-q", "-o", "clip.mp4", &url]).output().succeeds();
    assert_eq!(std::fs::read(home.at("project/clip.mp4")).unwrap(), video);
    let file = format!("file://{}", home.at("secret"));
    let words = ["yt-dlp", "--enable-file-urls", "-o", "stolen", &file];
    home.casemate(&words).output();
    assert!(!home.has("stolen"));
}

#[test]
fn ssh_reads_the_known_hosts_and_no_key() {
    let home = Home::new();
    home.space.file(".ssh/known_hosts", "example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ5\n");
    let script =
        "cat ~/.ssh/known_hosts; ls ~/.ssh; ssh -G -o BatchMode=yes example.org | grep ^hostname";
    let output = home.casemate(&["run", "-p", "ssh", "--", "sh", "-c", script]).output().succeeds();
    let expected =
        "example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ5\nknown_hosts\nhostname example.org\n";
    assert_eq!(output.out(), expected);
    // It reaches a server, and is refused by it for what it is.
    let server = Server::empty();
    let port = server.port.to_string();
    let output =
        home.casemate(&["ssh", "-p", &port, "-o", "ConnectTimeout=2", "127.0.0.1"]).output();
    assert_eq!((output.code(), server.connections()), (Some(255), 1), "{}", output.err());
}
