//! What the processes that read foreign archives can still do: next to nothing.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use casemate::confine::seccomp::{Action, Architecture, Policy};
use nix::unistd::{Gid, Uid, chown};

use crate::common::*;

/// The children of a process, at this moment.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("no {key}")).trim().to_owned()
}

fn links(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| fs::read_link(path).unwrap().to_string_lossy().into_owned()).collect()
}

/// An import that waits for the rest of its archive, in the middle of a file.
fn waiting(home: &Path) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_casemate"))
        .args(["import", "test", "-"])
        .env_clear()
        .env("HOME", home)
        .uid(USER)
        .gid(USER)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let whole = archive([Entry::file("large", "x".repeat(4 << 20).as_str())]);
    let packed = crate::formats::gzip(&whole);
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(&packed[..packed.len() / 2]).unwrap();
    stdin.flush().unwrap();
    child
}

#[test]
fn the_processes_that_read_archives_are_confined() {
    if !started_as_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    let mut import = waiting(home.path());
    let staging = home.path().join(".local/share/casemate/store/staging");
    let deadline = Instant::now() + Duration::from_secs(30);
    let workers = loop {
        let workers = children(import.id());
        // Two pairs: layers come two at a time.
        if workers.len() == 4 && workers.iter().all(|pid| status(*pid, "Seccomp") == "2") {
            break workers;
        }
        assert!(Instant::now() < deadline, "not under way: {workers:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    // The control: the process that started them has none of this.
    assert_eq!(status(import.id(), "Seccomp"), "0");
    let one = fs::read_dir(&staging).unwrap().next().unwrap().unwrap().path();
    let mut rooted = 0;
    for pid in workers {
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        for set in ["CapInh", "CapPrm", "CapEff"] {
            assert_eq!(u64::from_str_radix(&status(pid, set), 16).unwrap(), 0, "{set}");
        }
        let root = fs::read_link(format!("/proc/{pid}/root")).unwrap();
        rooted += usize::from(root == one.canonicalize().unwrap());
        for link in links(format!("/proc/{pid}/fd").into()) {
            let allowed = link.starts_with("socket:")
                || link.starts_with("pipe:")
                || link.starts_with("/dev/null")
                || link.starts_with(one.to_str().unwrap());
            assert!(allowed, "{link}");
        }
    }
    // The inflater's filter has no call that takes a path; the unpacker has its directory as root.
    assert_eq!(rooted, 2);
    import.kill().unwrap();
    import.wait().unwrap();
    // They end with the import.
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_dir("/proc").unwrap().any(|entry| {
        let root = fs::read_link(entry.unwrap().path().join("root"));
        root.is_ok_and(|root| root.starts_with(&one))
    }) {
        assert!(Instant::now() < deadline, "a worker outlived its import");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn their_filters_have_what_they_need_and_no_more() {
    let arch = Architecture::native();
    let number = |name: &str| casemate::confine::seccomp::resolve(name, arch).unwrap();
    let says = |policy: &Policy, name: &str, arguments: [u64; 6]| {
        policy.evaluate(arch.token(), number(name), &arguments).unwrap()
    };
    let (inflater, unpacker) = (Policy::for_inflater(arch), Policy::for_unpacker(arch));
    for name in ["read", "write", "close", "recvmsg", "sendmsg"] {
        assert_eq!(says(&inflater, name, [0; 6]), Action::Allow, "{name}");
    }
    assert_eq!(says(&inflater, "openat", [0; 6]), Action::Errno(libc::EACCES as u16));
    for name in ["openat2", "unlinkat", "newfstatat", "clone", "clone3"] {
        assert_eq!(says(&inflater, name, [0; 6]), Action::KillProcess, "{name}");
    }
    let dangerous = [
        "execve",
        "execveat",
        "socket",
        "connect",
        "ptrace",
        "process_vm_writev",
        "kill",
        "mount",
        "chroot",
        "unshare",
        "setns",
        "fchmodat",
        "fchownat",
        "setxattr",
        "bpf",
        "io_uring_setup",
        "keyctl",
        "prlimit64",
        "memfd_create",
        "fchdir",
        "dup3",
        "ioctl",
    ];
    for name in dangerous {
        assert_eq!(says(&inflater, name, [0; 6]), Action::KillProcess, "{name}");
        assert_eq!(says(&unpacker, name, [0; 6]), Action::KillProcess, "{name}");
    }
    // Threads and no processes; data and no code.
    let thread = libc::CLONE_THREAD as u64 | libc::CLONE_VM as u64;
    assert_eq!(says(&unpacker, "clone", [thread, 0, 0, 0, 0, 0]), Action::Allow);
    assert_eq!(
        says(&unpacker, "clone", [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]),
        Action::KillProcess
    );
    let exec = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    for name in ["mmap", "mprotect"] {
        assert_eq!(says(&unpacker, name, [0, 4096, exec, 0, 0, 0]), Action::KillProcess);
        assert_eq!(says(&unpacker, name, [0, 4096, 3, 0, 0, 0]), Action::Allow);
    }
}
