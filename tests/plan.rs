//! The plan: profile and a made-up host in, the text of `explain` out, compared with files that are
//! in the repository. `CASEMATE_BLESS=1` writes them anew; read the difference before committing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use casemate::cgroup::{self, Controller, Place};
use casemate::cli::{Cli, Command};
use casemate::host::doctor::Outcome;
use casemate::host::{Host, Source, World};
use casemate::identity::range::Facts;
use casemate::identity::{Backend, Caller, Extent, Names, Unavailable};
use casemate::image::Config;
use casemate::profile::{self, Library};
use casemate::rootfs::Overlay;
use casemate::sandbox::steps::{Step, steps};
use casemate::sandbox::{ImageInput, Inputs, Sandbox, explain, resolve};
use casemate::sys::fs::Identity;
use clap::Parser;

/// A host of files that do not exist: directories, small files and links by name.
struct Made {
    directories: Vec<&'static str>,
    files: BTreeMap<&'static str, &'static str>,
    links: BTreeMap<&'static str, &'static str>,
}

fn world() -> Made {
    Made {
        directories: vec!["/usr", "/etc/ssl", "/etc/alternatives", "/home/ann/project", "/data"],
        files: BTreeMap::from([
            ("/etc/nsswitch.conf", "hosts: files dns\n"),
            ("/etc/resolv.conf", "nameserver 192.0.2.1\n"),
            ("/etc/hosts", "127.0.0.1 localhost\n"),
            ("/home/ann/vars", "# comment\nFROM_FILE=yes\nEDITOR\n"),
            ("/home/ann/notes.txt", "x"),
        ]),
        links: BTreeMap::from([
            ("/bin", "usr/bin"),
            ("/sbin", "usr/sbin"),
            ("/lib", "usr/lib"),
            ("/lib64", "usr/lib64"),
            ("/etc/localtime", "/usr/share/zoneinfo/Europe/Berlin"),
            ("/etc/os-release", "../usr/lib/os-release"),
        ]),
    }
}

fn absent() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl World for Made {
    fn open(&mut self, path: &Path) -> io::Result<Source> {
        let name = path.to_str().unwrap();
        let kind = if self.directories.contains(&name) {
            libc::S_IFDIR
        } else if self.files.contains_key(name) {
            libc::S_IFREG
        } else if name == "/run/agent.sock" {
            libc::S_IFSOCK
        } else {
            return Err(absent());
        };
        let identity = Identity { dev: 1, ino: 1, kind, rdev: 0 };
        Ok(Source { path: path.to_owned(), identity })
    }

    fn link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let name = path.to_str().unwrap();
        if let Some(to) = self.links.get(name) {
            return Ok(Some(PathBuf::from(to)));
        }
        if self.directories.contains(&name) || self.files.contains_key(name) {
            return Ok(None);
        }
        Err(absent())
    }

    fn may_write(&self, _directory: &Path) -> bool {
        true
    }

    fn names(&self, _directory: &Path, _limit: usize) -> io::Result<Vec<OsString>> {
        Ok(Vec::new())
    }

    fn read(&self, path: &Path, _limit: u64) -> io::Result<Vec<u8>> {
        self.files
            .get(path.to_str().unwrap())
            .map(|text| text.as_bytes().to_vec())
            .ok_or_else(absent)
    }
}

fn host() -> Host {
    Host {
        caller: Caller {
            uid: 1000,
            gid: 1000,
            name: Some("ann".into()),
            home: Some("/home/ann".into()),
        },
        groups: vec![1000],
        cwd: Some("/home/ann/project".into()),
        environment: [
            ("LANG", "de_DE.UTF-8"),
            ("TERM", "xterm-256color"),
            ("EDITOR", "vi"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("SSH_AUTH_SOCK", "/run/agent.sock"),
        ]
        .into_iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect(),
        terminals: [false; 3],
        landlock_abi: 7,
        tmpfs_xattrs: true,
        kernel_overlay: Outcome::Works,
        fuse: Outcome::Works,
        keyring: true,
        apparmor: false,
        selinux: false,
        range: None,
        cgroup: cgroup::Facts::default(),
    }
}

/// A host whose systemd answers, with what is usually delegated to it.
fn host_with_manager() -> Host {
    let controllers = vec![Controller::Cpu, Controller::Memory, Controller::Pids];
    let place = Place::Manager { via: "its private socket", controllers };
    Host { cgroup: cgroup::Facts { place, memory: 8 << 30 }, ..host() }
}

fn image() -> ImageInput {
    ImageInput {
        name: "web".into(),
        digest: format!("sha256:{}", "0".repeat(64)),
        config: Config {
            env: vec!["PATH=/opt/bin:/bin".into(), "LANG=C".into()],
            entrypoint: vec!["/entry".into()],
            cmd: vec!["serve".into()],
            user: Some("www".into()),
            working_dir: Some("/srv".into()),
            ..Config::default()
        },
        store: Source {
            path: "/home/ann/.local/share/casemate/store/layers".into(),
            identity: Identity { dev: 1, ino: 2, kind: libc::S_IFDIR, rdev: 0 },
        },
        layers: vec!["sha256-aa/fs".into(), "sha256-bb/fs".into()],
        has_xattrs: Some(false),
        scratch_dir: "/home/ann/.local/share/casemate/store/staging".into(),
    }
}

/// Resolves what a command line, laid over a profile's text, asks of the made-up host.
fn plan(
    text: &str,
    words: &[&str],
    host: &Host,
    image: Option<ImageInput>,
) -> casemate::error::Result<Sandbox> {
    let cli = Cli::try_parse_from(["casemate", "run"].iter().chain(words)).unwrap();
    let Command::Run(args) = cli.command else { panic!("not run") };
    let profile = Library::default()
        .default_layers()?
        .profile
        .overlaid(profile::parse("test.toml", text)?.profile)
        .overlaid(args.overlay()?);
    let names = Names {
        passwd: b"root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/bin/false\nodd:x:34:34::/proc/self:/bin/false\n".to_vec(),
        group: b"root:x:0:\nwww:x:33:\n".to_vec(),
    };
    let inputs = Inputs {
        profiles: vec!["default".into(), "test.toml".into()],
        profile: &profile,
        command: args.command,
        entrypoint: args.entrypoint,
        host,
        image,
        names,
        own: Vec::new(),
        persistent: None,
        placeholders: Default::default(),
    };
    resolve(&inputs, &mut world())
}

fn golden(name: &str, sandbox: &Sandbox) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan").join(name);
    let text = explain::text(sandbox);
    if std::env::var_os("CASEMATE_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "differs from {}", path.display());
}

#[test]
fn the_default_is_a_closed_box() {
    golden("default.txt", &plan("", &["ls", "-l"], &host(), None).unwrap());
}

#[test]
fn grants_limits_and_variables_show_up() {
    let sandbox = plan(
        "[files]\nread = [\"/data\", { path = \"/gone\", optional = true }]\n[limits.rlimits]\nnofile = \"64:128\"\n[capabilities]\nkeep = [\"net_bind_service\"]\n[seccomp]\ndeny = [\"socket\"]\nallow = [\"ptrace\"]\n",
        &[
            "-v",
            ".",
            "-v",
            "~/notes.txt:/notes:ro,noexec",
            "--tmpfs",
            "/scratch:size=8m",
            "-e",
            "A=1",
            "-e",
            "EDITOR",
            "--env-file",
            "/home/ann/vars",
            "--hostname",
            "box",
            "--timeout",
            "5m",
            "-u",
            "4000:5000",
            "--network",
            "host",
            "make",
            "a b",
        ],
        &host(),
        None,
    );
    golden("grants.txt", &sandbox.unwrap());
}

#[test]
fn limits_of_the_box_show_up_with_their_place() {
    let text = "[limits]\nmemory = \"1g\"\ncpu-weight = 50\n";
    let words = ["--pids-limit", "100", "--cpus", "1.5", "--memory-swap", "3g", "-m", "2g", "make"];
    golden("limits.txt", &plan(text, &words, &host_with_manager(), None).unwrap());
    let refused = plan(text, &["--io-weight", "10", "make"], &host_with_manager(), None);
    let refused = refused.unwrap_err();
    assert_eq!(refused.to_string(), "limit io-weight: the controller io is not delegated to you");
    let words = ["--io-weight", "10", "--may-degrade", "limits", "make"];
    let plan = plan(text, &words, &host_with_manager(), None).unwrap();
    assert_eq!(plan.degraded[0].reason, "io-weight without effect: not delegated to you: io");
}

#[test]
fn without_a_manager_limits_are_weaker_and_said_to_be() {
    let place = Place::Nowhere { reason: "no user manager".into(), hints: vec!["linger".into()] };
    let host = Host { cgroup: cgroup::Facts { place, memory: 8 << 30 }, ..host() };
    let text = "[limits]\nmemory = \"1g\"\nprocesses = 10\ncpus = 1";
    golden("limits-weaker.txt", &plan(text, &["make"], &host, None).unwrap());
    let refused = plan(text, &["--require-limits", "make"], &host, None).unwrap_err();
    assert_eq!(refused.to_string(), "limits of the box in total: no user manager");
    assert_eq!(refused.hints(), ["linger"]);
    // What the profile says of each process itself does not lift it.
    let text = "[limits]\nmemory = \"1g\"\n[limits.rlimits]\ndata = \"2000000000\"";
    let plan = plan(text, &["make"], &host, None).unwrap();
    let data: Vec<_> = plan.rlimits.iter().filter(|limit| limit.name.0 == "data").collect();
    assert_eq!((data.len(), data[0].limit.soft), (1, Some(1 << 30)));
    let text = "[limits]\nmemory = \"1g\"\n[limits.rlimits]\ndata = \"1000:unlimited\"";
    let plan = self::plan(
        text,
        &["--pids-limit", "50", "--ulimit", "nproc=unlimited", "make"],
        &host,
        None,
    )
    .unwrap();
    let limits: Vec<_> =
        plan.rlimits.iter().map(|one| (one.name.0, one.limit.soft, one.limit.hard)).collect();
    assert_eq!(
        limits,
        [
            ("core", Some(1), Some(1)),
            ("data", Some(1000), Some(1 << 30)),
            ("nproc", Some(51), Some(51))
        ]
    );
    assert!(plan.degraded[0].reason.contains("processes counts for each user id"));
}

#[test]
fn an_image_brings_its_own_settings() {
    golden("image.txt", &plan("", &[], &host(), Some(image())).unwrap());
    let words = ["--read-only", "-t", "--scratch", "disk", "-w", "/tmp", "--entrypoint", "", "sh"];
    golden(
        "image-hybrid.txt",
        &plan("", &["--overlay", "hybrid"], &host(), Some(image())).unwrap(),
    );
    golden("image-read-only.txt", &plan("", &words, &host(), Some(image())).unwrap());
}

#[test]
fn the_command_is_composed_as_podman_does_it() {
    let argv = |words: &[&str]| {
        let sandbox = plan("", words, &host(), Some(image())).unwrap();
        sandbox.program.argv.iter().map(|w| w.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(argv(&[]), ["/entry", "serve"]);
    assert_eq!(argv(&["x", "-y"]), ["/entry", "x", "-y"]);
    assert_eq!(argv(&["--entrypoint", "/e"]), ["/e"]);
    assert_eq!(argv(&["--entrypoint", "/e", "x"]), ["/e", "x"]);
    assert_eq!(argv(&["--entrypoint", "", "x"]), ["x"]);
    assert!(plan("", &["--entrypoint", ""], &host(), Some(image())).is_err());
}

#[test]
fn nothing_degrades_unless_the_profile_says_so() {
    let old = Host { landlock_abi: 0, ..host() };
    let error = plan("", &["ls"], &old, None).unwrap_err();
    assert!(error.to_string().starts_with("control landlock: "), "{error}");
    assert!(error.hints()[0].contains("may-degrade"));
    let sandbox = plan("may-degrade = [\"landlock\"]", &["ls"], &old, None).unwrap();
    assert!(sandbox.landlock.is_none());
    assert_eq!(sandbox.degraded.len(), 1);

    let older = Host { landlock_abi: 3, ..host() };
    assert!(plan("", &["ls"], &older, None).is_ok(), "a network of its own needs no scope");
    let error = plan("", &["--network", "host", "ls"], &older, None).unwrap_err();
    assert!(error.to_string().starts_with("control abstract-sockets: "), "{error}");
    let words = ["--network", "host", "--may-degrade", "abstract-sockets", "ls"];
    assert_eq!(plan("", &words, &older, None).unwrap().degraded.len(), 1);

    // Landlock allows no mount, so nesting is without it, and then lacks that wall too.
    let nesting = "[seccomp]\nnesting = true";
    assert!(plan(nesting, &["ls"], &host(), None).unwrap().landlock.is_none());
    assert!(plan(nesting, &["--network", "host", "ls"], &host(), None).is_err());

    let filtered = Host { keyring: false, ..host() };
    assert!(plan("", &["ls"], &filtered, None).is_err());

    // What is required is not lost by being willing to lose it.
    let alone = Host { range: Some(Err(Unavailable::default())), ..host() };
    let many = ["--userns", "many", "--may-degrade", "ids", "ls"];
    assert_eq!(plan("", &many, &alone, None).unwrap().degraded.len(), 1);
    assert!(plan("require = [\"ids\"]", &many, &alone, None).is_err());
}

/// A machine with a range from this backend.
fn with_range(backend: Backend) -> Host {
    let extents = vec![
        Extent { inside: 0, outside: 100_000, count: 65536 },
        Extent { inside: 65536, outside: 1000, count: 1 },
    ];
    let facts = Facts { backend, uids: extents.clone(), gids: extents };
    Host { range: Some(Ok(facts)), ..host() }
}

#[test]
fn a_box_with_many_ids_says_whose_they_are() {
    let host = with_range(Backend::Holder);
    let words = ["--userns", "many"];
    golden("image-many.txt", &plan("", &words, &host, Some(image())).unwrap());
    let words = ["--userns", "keep-id", "-v", "/data:/data", "ls"];
    let kept = plan("", &words, &host, None).unwrap();
    assert_eq!((kept.identity.host_uid, kept.identity.uid), (1000, 1000));
    // On disk the owners are kept beside the files, in memory they are real.
    let overlay = |words: &[&str]| {
        plan("", words, &host, Some(image())).map(|sandbox| sandbox.root.overlay().unwrap())
    };
    assert_eq!(overlay(&["--userns", "many"]).unwrap(), Overlay::Hybrid);
    assert_eq!(overlay(&["--userns", "many", "--scratch", "disk"]).unwrap(), Overlay::Fuse);
    for words in [["--overlay", "kernel", "-q"], ["--overlay", "hybrid", "--scratch=disk"]] {
        let words = [&["--userns", "many"][..], &words].concat();
        let error = overlay(&words).unwrap_err();
        assert!(error.to_string().starts_with("overlay "), "{error}");
    }
    // Transient ids are for what is thrown away.
    let lent = with_range(Backend::Nsresourced);
    let words = ["-u", "root", "-v", "/data:/data", "ls"];
    let error = plan("", &words, &lent, None).unwrap_err();
    assert!(error.to_string().contains("nsresourced lends"), "{error}");
    assert!(plan("", &["-u", "root", "-v", "/data:/data:ro", "ls"], &lent, None).is_ok());
    let error = plan("", &["--userns", "keep-id", "ls"], &lent, None).unwrap_err();
    assert!(error.to_string().contains("as they are"), "{error}");
}

#[test]
fn ports_and_security_modules_are_enforced_or_refused() {
    let ports = "[network]\nmode = \"host\"\ntcp-connect = [443]\ntcp-bind = []";
    let rules = plan(ports, &["ls"], &host(), None).unwrap().landlock.unwrap();
    assert_eq!((rules.tcp_connect, rules.tcp_bind), (Some(vec![443]), Some(Vec::new())));
    assert_eq!(plan("", &["ls"], &host(), None).unwrap().landlock.unwrap().tcp_connect, None);
    let older = Host { landlock_abi: 3, ..host() };
    let ports = "[network]\ntcp-connect = [443]";
    let error = plan(ports, &["ls"], &older, None).unwrap_err();
    assert!(error.to_string().starts_with("control tcp-ports: "), "{error}");
    let words = ["--may-degrade", "tcp-ports", "ls"];
    assert_eq!(plan(ports, &words, &older, None).unwrap().degraded.len(), 1);
    let nesting = format!("{ports}\n[seccomp]\nnesting = true");
    assert!(plan(&nesting, &["ls"], &host(), None).is_err());

    for (text, there) in [
        ("[lsm]\napparmor = \"app\"", Host { apparmor: true, ..host() }),
        ("[lsm]\nselinux = \"u:r:t:s0\"", Host { selinux: true, ..host() }),
    ] {
        assert!(plan(text, &["ls"], &there, None).unwrap().lsm.is_some());
        let error = plan(text, &["ls"], &host(), None).unwrap_err();
        assert!(error.to_string().starts_with("control lsm: "), "{error}");
        let sandbox = plan(text, &["--may-degrade", "lsm", "ls"], &host(), None).unwrap();
        assert!(sandbox.lsm.is_none() && sandbox.degraded.len() == 1);
    }
    // What must hold holds against a lower or an upper one that would lose it.
    let must = "require = [\"lsm\"]\n[lsm]\napparmor = \"app\"";
    let error = plan(must, &["--may-degrade", "lsm", "ls"], &host(), None).unwrap_err();
    assert!(error.hints()[0].contains("require"), "{error}");
}

#[test]
fn what_cannot_be_is_refused_before_anything_runs() {
    for (words, expected) in [
        (&["-v", "/nowhere:/x", "ls"][..], "--volume: open /nowhere: No such file or directory"),
        (&["-v", "/data:/", "ls"], "--volume: a grant cannot replace the root /"),
        (&["-v", "/run/agent.sock:/s", "ls"], "--volume: /run/agent.sock is a socket"),
        (&["-u", "0", "ls"], "this box needs 65536 ids (the program is to be root)"),
        (&["-u", "0", "--userns", "single", "ls"], "user 0: the program runs as a non-root id"),
        (&["--fake-root", "--userns", "many", "ls"], "--fake-root is for a box with one id"),
        (&["--uidmap", "0:0", "--userns", "single", "ls"], "--uidmap and --gidmap map a range"),
        (&["-u", "nobody-here", "ls"], "user nobody-here: no such user"),
        (&["-w", "relative", "ls"], "workdir relative: must be an absolute path"),
        (&["--env-file", "/home/ann/notes", "ls"], "read /home/ann/notes: No such file"),
        (&[], "run: no command given"),
        (&[""], "run: the command is empty"),
    ] {
        let error = plan("", words, &host(), None).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{words:?}: {error}");
        assert_eq!(error.exit_code(), 125);
    }
    let error = plan("[seccomp]\nallow = [\"opne\"]", &["ls"], &host(), None).unwrap_err();
    assert!(error.to_string().contains("opne"), "{error}");
    let error = plan("[files]\nread = [\"/nowhere\"]", &["ls"], &host(), None).unwrap_err();
    assert!(error.to_string().starts_with("test.toml:2:9: open /nowhere"), "{error}");
}

#[test]
fn old_kernels_write_to_disk() {
    let old = Host { tmpfs_xattrs: false, ..host() };
    let json = serde_json::to_value(plan("", &[], &old, Some(image())).unwrap()).unwrap();
    assert_eq!(json["root"]["scratch"], "disk");
    assert_eq!(json["root"]["scratch_dir"], "/home/ann/.local/share/casemate/store/staging");
}

#[test]
fn the_overlay_is_the_cheapest_that_can_be_had_or_the_one_that_was_asked_for() {
    let root = |words: &[&str], host: &Host| {
        let json = serde_json::to_value(plan("", words, host, Some(image()))?).unwrap();
        let word = |key: &str| json["root"][key].as_str().unwrap().to_owned();
        Ok::<_, casemate::error::Error>((word("overlay"), word("overlay_why")))
    };
    let asked_for = "asked for".to_owned();
    for mode in ["kernel", "hybrid", "fuse"] {
        let found = root(&["--overlay", mode], &host()).unwrap();
        assert_eq!(found, (mode.to_owned(), asked_for.clone()));
    }
    assert_eq!(root(&[], &host()).unwrap().0, "kernel");

    let no_kernel = Host { kernel_overlay: Outcome::Fails(libc::EPERM), ..host() };
    let (overlay, why) = root(&["--overlay", "auto"], &no_kernel).unwrap();
    assert_eq!(overlay, "fuse");
    assert!(why.contains("cannot be mounted here (Operation not permitted)"), "{why}");
    // What was asked for is tried, not replaced.
    assert_eq!(root(&["--overlay", "kernel"], &no_kernel).unwrap().0, "kernel");

    let no_fuse = Host { fuse: Outcome::Fails(libc::ENOENT), ..host() };
    assert_eq!(root(&[], &no_fuse).unwrap().0, "kernel");
    for mode in ["hybrid", "fuse"] {
        let error = root(&["--overlay", mode], &no_fuse).unwrap_err();
        assert!(error.to_string().starts_with(&format!("overlay {mode}: open /dev/fuse: No such")));
        assert!(error.hints()[0].contains("modprobe fuse"), "{error}");
    }
    let neither = Host { fuse: Outcome::Fails(libc::EACCES), ..no_kernel };
    let error = root(&[], &neither).unwrap_err();
    assert!(error.to_string().contains("overlayfs cannot be mounted here"), "{error}");
    assert!(error.hints()[0].contains("chmod 666"), "{error}");
}

#[test]
fn extended_attributes_are_there_where_a_layer_has_some_or_they_are_asked_for() {
    let no_kernel = Host { kernel_overlay: Outcome::Fails(libc::EPERM), ..host() };
    let root = |text: &str, words: &[&str], in_layers: bool, host: &Host| {
        let image = ImageInput { has_xattrs: Some(in_layers), ..image() };
        let sandbox = plan(text, words, host, Some(image)).unwrap();
        let text = explain::text(&sandbox);
        let line = text.lines().find_map(|line| line.strip_prefix("  xattrs    ")).unwrap();
        assert_eq!(line.starts_with("kept; "), sandbox.root.has_xattrs(), "{line}");
        line.to_owned()
    };
    let none = "none; no layer has any, and it is faster without; xattrs = true keeps them";
    let (yes, no) = ("[root]\nxattrs = true", "[root]\nxattrs = false");
    for (text, words, in_layers, expected) in [
        ("", &[][..], false, none),
        ("", &[], true, "kept; a layer has some"),
        (yes, &[], false, "kept; asked for"),
        (no, &[], true, "none; asked for"),
        (no, &["--xattrs"], false, "kept; asked for"),
        (yes, &["--xattrs=false"], true, "none; asked for"),
    ] {
        let words = [&["--overlay", "fuse"], words].concat();
        assert_eq!(root(text, &words, in_layers, &host()), expected, "{text} {words:?}");
        assert_eq!(root(text, &words[2..], in_layers, &no_kernel), expected, "{text} {words:?}");
    }
    for mode in ["kernel", "hybrid"] {
        let at = |text| root(text, &["--overlay", mode], false, &host());
        assert_eq!([at(""), at(yes)], ["kept; overlayfs always keeps them"; 2]);
        assert_eq!(at(no), "kept; overlayfs always keeps them, whatever xattrs says");
    }
}

#[test]
fn the_steps_are_in_the_kernels_order() {
    let name = |step: &Step<'_>| match step {
        Step::Mount(mount) => mount.target.display().to_string(),
        other => format!("{other:?}").split(['(', ' ', '{']).next().unwrap().to_owned(),
    };
    // Without a filter the box needs a keyring of its own; with one, all share an empty one.
    let text = "[seccomp]\nbase = \"none\"";
    let sandbox = plan(text, &["-v", "/data:/tmp/in", "ls"], &host(), None).unwrap();
    let order: Vec<String> = steps(&sandbox).iter().map(name).collect();
    let at = |what: &str| order.iter().position(|step| step == what).unwrap();
    assert_eq!(order[0], "IdMaps");
    // keyctl is gone once the filter is there; nothing may propagate out of what is mounted.
    assert!(at("Keyring") < at("PrivatePropagation"));
    assert!(at("PrivatePropagation") < at("FindSources"));
    // What the box's memory is mounted on hides what was there.
    assert!(at("FindSources") < at("Memory") && at("Memory") < at("Root"));
    assert!(at("Root") < at("/usr") && at("/tmp") < at("/tmp/in"));
    assert!(at("/proc") < at("LockNamespaces") && at("LockNamespaces") < at("CloseSettings"));
    assert!(at("CloseSettings") < at("SealRoot") && at("SealRoot") < at("Pivot"));
    assert!(at("Pivot") < at("Verify") && at("Verify") < at("JoinNetwork"));
    assert_eq!(order.last().unwrap(), "Hostname");
    // The server answers while the box goes on; its device is found before the old root is left.
    for (mode, has_server) in [("kernel", false), ("hybrid", true), ("fuse", true)] {
        let sandbox = plan("", &["--overlay", mode], &host(), Some(image())).unwrap();
        let order: Vec<String> = steps(&sandbox).iter().map(name).collect();
        let at = |what: &str| order.iter().position(|step| step == what);
        assert_eq!(at("Serve").is_some(), has_server, "{mode}");
        assert!(!has_server || at("Memory") < at("Serve") && at("Serve") < at("Root"));
    }
    // The manager works meanwhile, and moves the user's own processes only.
    let text = "[limits]\nmemory = \"1g\"";
    let sandbox = plan(text, &["ls"], &host_with_manager(), None).unwrap();
    let order: Vec<String> = steps(&sandbox).iter().map(name).collect();
    assert_eq!(order.last().unwrap(), "JoinScope");
    let range = Host { range: with_range(Backend::Holder).range, ..host_with_manager() };
    let sandbox = plan(text, &["--userns", "many", "ls"], &range, Some(image())).unwrap();
    let order: Vec<String> = steps(&sandbox).iter().map(name).collect();
    let at = |what: &str| order.iter().position(|step| step == what).unwrap();
    assert!(at("FindSources") < at("JoinScope") && at("JoinScope") + 1 == at("BecomeRoot"));
}

/// The home is where an image says, and still not where the box's own things are.
#[test]
fn nothing_that_stays_takes_the_place_of_the_boxs_own() {
    for (user, expected) in
        [("odd", "/proc/self/c is the box's own"), ("www", "no directory for data")]
    {
        let mut image = image();
        image.config.user = Some(user.into());
        let error =
            plan("[files]\npersist = [\"~/c\"]", &["--image", "web", "x"], &host(), Some(image));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{user}: {error}");
    }
}
