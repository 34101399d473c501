//! The compiled default filter in the kernel, in a process of its own.

use std::process::{Command, Output};

use casemate::confine::seccomp::{Architecture, Policy, resolve};
use casemate::sys;
use libc::{EAFNOSUPPORT, EINVAL, ENOSYS, ENOTTY, EPERM};

/// A system call, and its errno without and with the filter, 0 for success.
struct Probe {
    number: u32,
    arguments: [i64; 3],
    /// `None` where the machine decides: built in, switched off, or for root only.
    without: Option<i32>,
    with: i32,
}

fn probes() -> Vec<Probe> {
    let number = |name| resolve(name, Architecture::native()).unwrap();
    let probe =
        |name, arguments, without, with| Probe { number: number(name), arguments, without, with };
    let mut probes = vec![
        probe("unshare", [0, 0, 0], Some(0), EPERM),
        // CLONE_NEWUSER with CLONE_FS, which no kernel takes: nothing is made even unfiltered.
        probe("clone", [0x1000_0200, 0, 0], Some(EINVAL), EPERM),
        probe("clone", [0x1000_0200 | 1 << 32, 0, 0], Some(EINVAL), EPERM),
        probe("clone3", [0, 0, 0], Some(EINVAL), ENOSYS),
        probe("fsopen", [0, 0x1000, 0], None, ENOSYS),
        probe("io_uring_setup", [0, 0, 0], None, ENOSYS),
        probe("socket", [16, 3, 16], Some(0), EAFNOSUPPORT),
        probe("socket", [38, 5, 0], None, EAFNOSUPPORT),
        probe("socket", [16, 3, 0], Some(0), 0),
        probe("socket", [1, 1, 0], Some(0), 0),
        probe("personality", [0x4_0000, 0, 0], Some(0), EPERM),
        probe("personality", [0xffff_ffff, 0, 0], Some(0), 0),
        probe("ioctl", [0, 0x5412, 0], Some(ENOTTY), EPERM),
        probe("ioctl", [0, 0x5412 | 1 << 32, 0], Some(ENOTTY), EPERM),
        probe("ioctl", [0, 0x5401, 0], Some(ENOTTY), ENOTTY),
        probe("ptrace", [0, 0, 0], Some(0), EPERM),
    ];
    probes.push(Probe {
        number: 0x4000_0000 | number("getpid"),
        arguments: [0; 3],
        without: None,
        with: ENOSYS,
    });
    probes
}

/// The errno of each probe, made by perl because it has syscall(2) as a function.
fn probe() -> Vec<i32> {
    const SCRIPT: &str = r#"
        for (@ARGV) {
            my @call = map { int } split /,/;
            $! = 0;
            my $result = syscall($call[0], @call[1..3]);
            print $result == -1 ? $! + 0 : 0, "\n";
        }"#;
    let calls = probes()
        .into_iter()
        .map(|Probe { number, arguments: [a, b, c], .. }| format!("{number},{a},{b},{c}"));
    let output = run(Command::new("perl").arg("-e").arg(SCRIPT).args(calls));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {errors}", output.status);
    output
}

#[test]
fn a_loaded_filter_refuses_and_programs_work() {
    for (probe, got) in probes().into_iter().zip(probe()) {
        let expected = probe.without.unwrap_or(got);
        assert_eq!(got, expected, "unfiltered: {} {:x?}", probe.number, probe.arguments);
    }
    let myself = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "kernel::inside", "--nocapture"];
    let output = run(Command::new(myself).args(arguments));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "loads the filter into its own process; started by the test above"]
fn inside() {
    let program = Policy::default_for(Architecture::native()).compile().unwrap();
    sys::process::set_no_new_privs().unwrap();
    sys::seccomp::load(&program).unwrap();

    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"), "{status}");

    for (probe, got) in probes().into_iter().zip(probe()) {
        assert_eq!(got, probe.with, "{} {:x?}", probe.number, probe.arguments);
    }

    std::thread::spawn(|| ()).join().unwrap();

    let skip = std::env::var("CASEMATE_TEST_SKIP").unwrap_or_default();
    let threads = "import threading, subprocess, socket, asyncio, multiprocessing
t = threading.Thread(target=lambda: None); t.start(); t.join()
subprocess.run(['true'], check=True)
socket.socketpair(); socket.getaddrinfo('127.0.0.1', 80)
asyncio.run(asyncio.sleep(0))
multiprocessing.Lock()
print('hi')";
    let programs: [(&str, &[&str]); 5] = [
        ("bash", &["-c", "echo hi | cat"]),
        ("python3", &["-c", threads]),
        ("node", &["-e", "require('fs').readFile('/dev/null', () => console.log('hi'))"]),
        ("git", &["-c", "alias.hi=!echo hi", "hi"]),
        ("gcc", &["-E", "-x", "c", "/dev/null"]),
    ];
    for (name, arguments) in programs {
        if skip.split(',').any(|skipped| skipped == name) {
            continue;
        }
        let output = run(Command::new(name).args(arguments));
        if name != "gcc" {
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "hi", "{name}");
        }
    }
}

/// The C library asks /proc whether it may give memory of a thread back: once, when the thread frees
/// enough of it, which made servers end at moments that nobody could foresee.
#[test]
fn threads_of_the_workers_may_free_memory() {
    for which in ["inflater", "unpacker", "reader", "writer"] {
        let myself = std::env::current_exe().unwrap();
        let arguments = ["--ignored", "--exact", "kernel::inside_a_worker", "--nocapture"];
        let output = run(Command::new(myself).args(arguments).env(WORKER, which));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{which}: {text}");
    }
}

const WORKER: &str = "CASEMATE_TEST_WORKER";

#[test]
#[ignore = "loads a filter into a thread of its own process; started by the test above"]
fn inside_a_worker() {
    let arch = Architecture::native();
    let policy = match std::env::var(WORKER).unwrap().as_str() {
        "inflater" => Policy::for_inflater(arch),
        "unpacker" => Policy::for_unpacker(arch),
        "reader" => Policy::for_overlay_reader(arch),
        _ => Policy::for_overlay_writer(arch),
    };
    let program = policy.compile().unwrap();
    sys::process::set_no_new_privs().unwrap();
    let worker = move || {
        sys::seccomp::load(&program).unwrap();
        // Pieces that are too small for a mapping of their own, of more than one heap.
        let pieces: Vec<Vec<u8>> = (0..2048).map(|_| vec![1; 100 << 10]).collect();
        pieces.iter().map(Vec::len).sum::<usize>()
    };
    assert_eq!(std::thread::spawn(worker).join().unwrap(), 2048 * (100 << 10));
}
