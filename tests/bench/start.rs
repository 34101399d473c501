//! From start to finish: `true` in a box of each kind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::probe::compile;
use crate::common::user::is_root;
use crate::common::{Image, Run, user};
use crate::{median, setting};

const BUBBLEWRAP: &str = "bubblewrap";

/// One way to run `true`.
struct Contender {
    name: &'static str,
    command: Vec<String>,
    /// It is measured in one round of so many, since it takes long.
    every: usize,
}

/// Everything that is measured. A peer that is not installed or fails is left out by `time`, aloud.
fn contenders(debian: &str) -> Vec<Contender> {
    let bare = compile("bare", "tests/bench/bare.c").display().to_string();
    let casemate = user().casemate().display().to_string();
    let contender = |name, every, words: &[&str]| Contender {
        name,
        every,
        command: words.iter().map(ToString::to_string).collect(),
    };
    let mut all = vec![
        contender("exec alone", 1, &["/bin/true"]),
        contender("bare namespaces and exec", 1, &[&bare, "/bin/true"]),
        contender(
            BUBBLEWRAP,
            1,
            &[
                "bwrap",
                "--unshare-all",
                "--ro-bind",
                "/",
                "/",
                "--dev",
                "/dev",
                "--proc",
                "/proc",
                "/bin/true",
            ],
        ),
        contender("casemate, host root", 1, &[&casemate, "run", "--", "/bin/true"]),
        // Not measured where the user has no manager.
        contender(
            "casemate, host root, scope",
            1,
            &[
                "env",
                &format!("XDG_RUNTIME_DIR=/run/user/{}", user().uid),
                &casemate,
                "run",
                "--require-limits",
                "--memory",
                "1g",
                "--",
                "/bin/true",
            ],
        ),
        contender(
            "casemate, image root",
            1,
            &[&casemate, "run", "--image", debian, "--", "/bin/true"],
        ),
        contender(
            "firejail",
            4,
            &["firejail", "--quiet", "--noprofile", "--net=none", "/bin/true"],
        ),
    ];
    if let Some(command) = podman() {
        all.push(Contender { name: "podman, cached image", every: 10, command });
    }
    all
}

/// Prints the versions of the peers, gives podman its image, and has the user time them all.
pub(crate) fn run(debian: &str) {
    for peer in [["bwrap", "--version"], ["firejail", "--version"], ["podman", "--version"]] {
        match Command::new(peer[0]).arg(peer[1]).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                println!("peer: {}", text.lines().next().unwrap_or("no version"));
            }
            Err(error) => println!("peer: {} is not installed ({error})", peer[0]),
        }
    }

    let mut arguments = vec!["--time".to_string()];
    for contender in contenders(debian) {
        arguments.push(contender.name.to_string());
        arguments.push(contender.every.to_string());
        arguments.push(contender.command.len().to_string());
        arguments.extend(contender.command);
    }
    // The build directory may be out of the user's reach.
    let own = std::env::current_exe().unwrap();
    let copy = user().base.join("bin/bench");
    std::fs::copy(own, &copy).unwrap();
    let rounds = setting("CASEMATE_BENCH_RUNS", 200).to_string();
    let run = Run::new(copy).args(arguments).env("CASEMATE_BENCH_RUNS", rounds);
    let output = run.timeout(Duration::from_secs(1200)).output().succeeds();
    print!("{}", output.out());
    // Podman's files belong to ids that only its own namespace can remove, and it keeps a process.
    let script = "test ! -d \"$0\" || podman unshare rm -rf \"$0\"; \
                  kill \"$(cat \"$XDG_RUNTIME_DIR/libpod/tmp/pause.pid\")\"";
    Run::bash(script).arg(podman_store()).output();
}

fn podman_store() -> std::path::PathBuf {
    user().work().join("podman")
}

/// The command that runs `true` by podman from an image in podman's own store, with the first runtime that
/// works here; `None`, after saying why, if none does.
fn podman() -> Option<Vec<String>> {
    let store = podman_store();
    let image = format!("oci-archive:{}", Image::Small.archive().display());
    let mut reasons = Vec::new();
    for runtime in ["crun", "runc"] {
        let words = ["podman", "--storage-driver=overlay", "--cgroup-manager=cgroupfs"];
        let mut command: Vec<String> = words.map(String::from).to_vec();
        command.push("--events-backend=none".into());
        command.push(format!("--runtime={runtime}"));
        command.push(format!("--root={}", store.join("storage").display()));
        command.push(format!("--runroot={}", store.join("run").display()));
        let pull = Run::new("podman").args(&command[1..]).args(["pull", "--quiet", &image]);
        let pulled = pull.timeout(Duration::from_secs(300)).output();
        if pulled.code() != Some(0) {
            reasons.push(pulled.err());
            continue;
        }
        command.extend(["run", "--rm", "--network=none", "--pull=never"].map(String::from));
        command.push(pulled.text());
        command.push("/bin/true".into());
        let tried = Run::new("podman").args(&command[1..]).output();
        if tried.code() == Some(0) {
            return Some(command);
        }
        reasons.push(tried.err());
    }
    println!("podman is not measured: {}", reasons.join("").trim());
    None
}

/// As the user: times what the arguments list, interleaved, and prints the table.
pub(crate) fn time(arguments: &[String]) {
    assert!(!is_root(), "only the test user times");
    let mut contenders = Vec::new();
    let mut rest = arguments;
    while let [name, every, count, more @ ..] = rest {
        let (command, more) = more.split_at(count.parse().unwrap());
        let every: usize = every.parse().unwrap();
        match once(command) {
            Ok(_) => contenders.push((name, every, command, Vec::new())),
            Err(reason) => println!("{name} is not measured: {reason}"),
        }
        rest = more;
    }
    let rounds = setting("CASEMATE_BENCH_RUNS", 200);
    for round in 0..rounds {
        for (name, every, command, times) in &mut contenders {
            if round % *every == 0 {
                let took = once(command).unwrap_or_else(|reason| panic!("{name}: {reason}"));
                times.push(took.as_secs_f64() * 1000.0);
            }
        }
    }

    let reference = contenders.iter().find(|(name, ..)| *name == BUBBLEWRAP);
    let reference = reference.map(|(_, _, _, times)| median(times));
    println!("\nStart to finish of `true`, in milliseconds:");
    println!("{:28} {:>8} {:>8} {:>6} {:>14}", "", "median", "least", "runs", "to bubblewrap");
    for (name, _, _, times) in &contenders {
        let middle = median(times);
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let ratio =
            reference.map_or("-".to_string(), |reference| format!("{:.2}", middle / reference));
        println!("{name:28} {middle:8.2} {least:8.2} {:6} {ratio:>14}", times.len());
    }
}

/// Runs the command once and says how long it took, or why it failed.
fn once(command: &[String]) -> Result<Duration, String> {
    let begin = Instant::now();
    let output = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|error| format!("{}: {error}", command[0]))?;
    let took = begin.elapsed();
    if output.status.success() {
        return Ok(took);
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{}: {}", output.status, text.lines().last().unwrap_or("no message")))
}
