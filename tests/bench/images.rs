//! Images: how long it takes to unpack real ones, beside the peers, and how much memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::registry::Registry;
use crate::common::{Image, Run, casemate, user};
use crate::disk::Disk;
use crate::memory::descendants;
use crate::{median, setting};

/// The names that ratios are taken of.
const GZIP: &str = "casemate import, gzip";
const PLAIN: &str = "casemate import, not packed";
const ZSTD: &str = "casemate import, zstd";
const PULL: &str = "casemate pull, gzip";
const PODMAN: &str = "podman load, not packed";
const TAR: &str = "tar -xf, not packed";
const GUNZIP: &str = "gzip -dc alone";
const UNZSTD: &str = "zstd -dc alone";

/// The most memory of all processes of an import together, in MiB.
const MEMORY: u64 = 64;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// One way to unpack an image, or part of the way.
struct Contender {
    name: &'static str,
    /// The command, which finds itself in an empty directory.
    run: Box<dyn Fn(&Path) -> Run>,
    times: Vec<f64>,
}

/// Prints the times and the ratios that are aimed at, for the large image and the small one.
pub(crate) fn run() {
    versions();
    for (image, name, rounds) in [(Image::Base, "base", 5), (Image::Big, "big", 3)] {
        let rounds = setting("CASEMATE_BENCH_IMAGE_ROUNDS", rounds);
        measure(&image.archive(), name, rounds);
    }
    listing();
}

fn versions() {
    for peer in ["podman", "umoci", "tar", "gzip", "zstd", "docker-registry"] {
        let output = Run::new(peer).arg("--version").output();
        let text = output.out() + &output.err();
        println!("peer: {peer}: {}", text.lines().next().unwrap_or("no version"));
    }
}

/// All that is measured, over the forms that tests/images/measured.sh made.
fn contenders(image: &Path, registry: &Registry, pulled: &str) -> Vec<Contender> {
    let path = |form: &str| image.join(form).display().to_string();
    let layers = |ending: &str| -> Vec<String> {
        (1..)
            .map(|n| path(&format!("layer-{n}{ending}")))
            .take_while(|p| Path::new(p).exists())
            .collect()
    };
    let mut all = Vec::new();
    let mut add = |name, run: Box<dyn Fn(&Path) -> Run>| {
        all.push(Contender { name, run, times: Vec::new() });
    };
    for (name, form) in [(GZIP, "oci"), (PLAIN, "docker.tar"), (ZSTD, "zstd")] {
        let source = path(form);
        add(name, Box::new(move |to| own(to, &["import", "measured", &source])));
    }
    // What tar and sync do together: casemate leaves the disk to a process behind it.
    let words = [user().casemate().display().to_string(), path("docker.tar")];
    let script = "\"$1\" import -q measured \"$2\" && sync -f .";
    add(
        "casemate import, then sync",
        Box::new(move |to| in_shell(to, script, &words).env("XDG_DATA_HOME", to)),
    );
    let reference = format!("{}/{pulled}", registry.host());
    add(PULL, Box::new(move |to| own(to, &["pull", "--quiet", "--tls-verify=false", &reference])));
    let archive = path("docker.tar");
    add(PODMAN, Box::new(move |to| podman(to, &["load", "--quiet", "--input", &archive])));
    let layout = format!("oci:{}:latest", path("oci"));
    add("podman pull, gzip", Box::new(move |to| podman(to, &["pull", "--quiet", &layout])));
    let layout = format!("{}:latest", path("oci"));
    add(
        "umoci raw unpack, gzip",
        Box::new(move |to| {
            let run = Run::new("umoci").args(["raw", "unpack", "--rootless", "--image", &layout]);
            run.arg(to.join("rootfs"))
        }),
    );
    // An ordinary user makes no devices.
    let extract =
        "mkdir rootfs; for layer; do tar --exclude='./dev/*' -C rootfs -xf \"$layer\"; done";
    let plain = layers(".tar");
    let and_sync = format!("{extract}; sync -f rootfs");
    for (name, script) in [(TAR, extract), ("tar -xf, then sync", &and_sync)] {
        let (script, plain) = (format!("set -e; {script}"), plain.clone());
        add(name, Box::new(move |to| in_shell(to, &script, &plain)));
    }
    for (name, program, ending) in [(GUNZIP, "gzip", ".tar.gz"), (UNZSTD, "zstd", ".tar.zst")] {
        let script = format!("set -e; for layer; do {program} -dc \"$layer\" >/dev/null; done");
        let packed = layers(ending);
        add(name, Box::new(move |to| in_shell(to, &script, &packed)));
    }
    all
}

/// casemate with a store in that directory.
fn own(to: &Path, arguments: &[&str]) -> Run {
    casemate(arguments).env("XDG_DATA_HOME", to)
}

fn in_shell(to: &Path, script: &str, arguments: &[String]) -> Run {
    Run::new("sh").args(["-c", script, "sh"]).args(arguments).directory(to)
}

/// Podman with its store in that directory.
fn podman(to: &Path, arguments: &[&str]) -> Run {
    Run::new("podman")
        .args(["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--events-backend=none"])
        .arg("--root")
        .arg(to.join("storage"))
        .arg("--runroot")
        .arg(to.join("run"))
        .args(arguments)
        .env("TMPDIR", to)
}

/// Ends the process that podman leaves, which would hold the file system.
fn end_podman() {
    let script = "pid=\"$XDG_RUNTIME_DIR/libpod/tmp/pause.pid\"; test ! -e \"$pid\" || kill \"$(cat \"$pid\")\"";
    Run::bash(script).output();
}

fn measure(image: &Path, name: &str, rounds: usize) {
    let registry = Registry::plain();
    registry.push(&format!("oci:{}:latest", image.join("oci").display()), "measured:latest");
    let mut contenders = contenders(image, &registry, "measured:latest");
    let mut disk = Disk::new();
    // Once before all rounds: the sources come from memory for everyone, and what cannot be
    // measured here is left out.
    contenders.retain(|contender| match once(contender, &disk.fresh()) {
        Ok(_) => true,
        Err(reason) => {
            println!("{} is not measured: {reason}", contender.name);
            false
        }
    });
    for _ in 0..rounds {
        for contender in &mut contenders {
            let took = once(contender, &disk.fresh());
            contender
                .times
                .push(took.unwrap_or_else(|reason| panic!("{}: {reason}", contender.name)));
        }
    }
    let of = |name| contenders.iter().find(|c| c.name == name).map(|c| median(&c.times));

    let size: u64 = (1..)
        .map_while(|n| fs::metadata(image.join(format!("layer-{n}.tar"))).ok())
        .map(|m| m.len())
        .sum();
    println!(
        "\nUnpacking the image {name}, {} MB as tar, {}, in seconds:",
        size / 1_000_000,
        disk.kind()
    );
    println!("{:28} {:>8} {:>8} {:>6} {:>14}", "", "median", "least", "runs", "to podman load");
    for Contender { name, times, .. } in &contenders {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let ratio =
            of(PODMAN).map_or("-".into(), |podman| format!("{:.2}", median(times) / podman));
        println!("{name:28} {:8.2} {least:8.2} {:6} {ratio:>14}", median(times), times.len());
    }
    let slower = |one: Option<f64>, other: Option<f64>| Some(one?.max(other?));
    for (what, to, ours, theirs, aim) in [
        (GZIP, PODMAN, of(GZIP), of(PODMAN), 0.2),
        (PLAIN, PODMAN, of(PLAIN), of(PODMAN), 0.2),
        (PLAIN, TAR, of(PLAIN), of(TAR), 1.2),
        (GZIP, "the slower of gzip -dc and tar", of(GZIP), slower(of(GUNZIP), of(TAR)), 1.2),
        (ZSTD, "the slower of zstd -dc and tar", of(ZSTD), slower(of(UNZSTD), of(TAR)), 1.2),
        (PULL, GZIP, of(PULL), of(GZIP), 1.2),
    ] {
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let ratio = ours / theirs;
            let verdict = if ratio <= aim { "within the aim" } else { "above the aim" };
            println!("{what} to {to}: {ratio:.2}   ({verdict} of {aim})");
        }
    }
    for contender in contenders.iter().filter(|c| [GZIP, PLAIN, ZSTD, PULL].contains(&c.name)) {
        memory(contender, &disk.fresh());
    }
    if contenders.iter().any(|c| c.name == PULL) {
        pull_again(&registry, &disk.fresh());
    }
}

/// Runs it once in that directory: how many seconds it took, or why it failed.
fn once(contender: &Contender, to: &Path) -> Result<f64, String> {
    let begin = Instant::now();
    let output = (contender.run)(to).timeout(PATIENCE).output();
    let took = begin.elapsed().as_secs_f64();
    end_podman();
    match output.code() {
        Some(0) => Ok(took),
        _ => Err(format!(
            "{}: {}",
            output.status,
            output.err().lines().last().unwrap_or("no message")
        )),
    }
}

/// Prints the peak of the memory, looked at every two milliseconds: of all processes together, where
/// pages that they share count once, and of the largest.
fn memory(contender: &Contender, to: &Path) {
    let mut running = (contender.run)(to).timeout(PATIENCE).spawn();
    let (mut together, mut largest) = (0, 0);
    while !running.has_ended() {
        let mut sum = 0;
        for pid in descendants(running.pid()) {
            sum += kibibytes(pid, "smaps_rollup", "Pss:");
            largest = largest.max(kibibytes(pid, "status", "VmHWM:"));
        }
        together = together.max(sum);
        std::thread::sleep(Duration::from_millis(2));
    }
    running.wait().succeeds();
    let verdict = if together <= MEMORY << 10 { "within the aim" } else { "above the aim" };
    println!(
        "{}: peak of memory {} KiB, of its largest process {largest} KiB   ({verdict} of {MEMORY} MiB)",
        contender.name, together
    );
}

/// A line of a file in /proc; zero where the process has ended or is another user's.
fn kibibytes(pid: i32, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Prints what the second pull of the same reference costs.
fn pull_again(registry: &Registry, to: &Path) {
    let reference = format!("{}/measured:latest", registry.host());
    let pull = || own(to, &["pull", "--quiet", "--tls-verify=false", &reference]).timeout(PATIENCE);
    pull().output().succeeds();
    let mut times = Vec::new();
    let before = registry.requests().len();
    for _ in 0..20 {
        let begin = Instant::now();
        pull().output().succeeds();
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let requests = (registry.requests().len() - before) as f64 / times.len() as f64;
    println!("second pull: {:.1} ms, {requests:.1} requests   (aims: 50 ms, 1)", median(&times));
}

/// Prints how long it takes to list two hundred images.
fn listing() {
    let mut disk = Disk::new();
    let to = disk.fresh();
    let source = Image::Small.archive();
    for number in 0..200 {
        own(&to, &["import", &format!("image-{number}")]).arg(&source).output().succeeds();
    }
    let mut times = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        let listed = own(&to, &["images"]).output().succeeds();
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
        let images = listed.out().lines().filter(|line| line.contains("image-")).count();
        assert_eq!(images, 200, "all are listed");
    }
    println!("\nimages, with 200 of them: {:.1} ms   (aim: 20 ms)", median(&times));
}
