//! The root of an image: what each mode costs on many files, beside a plain directory, the kernel's
//! overlayfs alone and fuse-overlayfs, over the same three layers.
//!
//! All of them change into the root and run the image's own tools there. `first` is the first time in a
//! new mount, with the files below in the page cache; `cold` is after that cache was dropped, which
//! needs root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::user::is_root;
use crate::common::{Image, Run, casemate, user};
use crate::disk::Disk;
use crate::memory::{descendants, private};
use crate::modes::{MODES, Mode};
use crate::{median, setting};

/// What ratios are taken of.
const REFERENCE: &str = "kernel overlayfs alone";
/// How long all jobs of one contender may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// The name of the image in the store.
const IMAGE: &str = "measured";
/// The boxes that are there at once.
const BOXES: usize = 50;

/// Prints `NAME SECONDS` for each job.
const PRELUDE: &str = r#"
    set -e
    job() { local name=$1 begin=$EPOCHREALTIME; shift; "$@" >/dev/null 2>&1
            local end=$EPOCHREALTIME; echo "$name $(( ${end/./} - ${begin/./} ))"; }
    look() { find /usr -type f -print0 | xargs -0 stat -c %s; }
    pack() { tar -cf - /usr | cat; }
    search() { grep -r ZZQQXXJJ /usr || true; }
    fill() { dd if=/dev/zero of=/work/big bs=1M count=1024; }
"#;

/// The jobs in one new mount, in this order. Small files are those of at most 64 KiB.
const WARM: &str = r#"
    job 'find and stat, first' look
    job 'find and stat, warm' look
    ls -lR /usr >/dev/null
    job 'ls -lR, warm' ls -lR /usr
    job 'tar c, first' pack
    job 'tar c, warm' pack
    job 'grep -r, warm' search
    mkdir -p /work/one
    fill >/dev/null 2>&1; rm /work/big
    job 'write 1 GiB' fill
    rm /work/big
    find /usr/lib /usr/share -type f -print0 | sort -z | head -z -n 21800 |
        tar --null -cf /work/some.tar -T - 2>/dev/null
    job 'untar 21,800 files' tar --no-same-owner -xf /work/some.tar -C /work/one
    job 'cp -r of them' cp -r /work/one /work/two
    mkdir /work/small
    find /usr -type f -size -65k -print0 | sort -z | head -z -n 21800 |
        tar --null -cf /work/some.tar -T - 2>/dev/null
    job 'untar 21,800 small files' tar --no-same-owner -xf /work/some.tar -C /work/small
    job 'cp -r of the small ones' cp -r /work/small /work/copied
    job 'rm -rf of the 21,800' rm -rf /work/two
    job 'rm -rf of the image' rm -rf /usr/lib/python3 /usr/share
"#;

/// Each in a new mount, with nothing in memory.
const COLD: [&str; 3] =
    ["job 'find and stat, cold' look", "job 'tar c, cold' pack", "job 'grep -r, cold' search"];

/// The command that does jobs, on the disk that is mounted there.
type Start = Box<dyn Fn(&Path, &str) -> Run>;

/// One way to have the root.
struct Contender {
    name: String,
    run: Start,
    times: BTreeMap<String, Vec<f64>>,
}

/// Prints all tables.
pub(crate) fn run() {
    let version = Run::new("fuse-overlayfs").arg("--version").output();
    let text = version.out();
    let own = text.lines().find(|line| line.starts_with("fuse-overlayfs"));
    println!("peer: {}", own.unwrap_or("fuse-overlayfs is not installed"));
    let mut contenders = contenders();
    let rounds = setting("CASEMATE_BENCH_OVERLAY_ROUNDS", 3);
    let mut jobs = Vec::new();
    let mut disk = Disk::new();
    for round in 0..rounds {
        let place = scene(&mut disk);
        for at in 0..contenders.len() {
            // Who comes first in a round is another one each time.
            let next = (at + round) % contenders.len();
            measure(&mut contenders[next], &place, &mut jobs);
        }
        contenders.retain(|contender| !contender.times.is_empty());
    }
    print(&contenders, &jobs, disk.kind());
    let place = scene(&mut disk);
    starts(&place);
    many(&place);
}

/// A new disk with the image in a store, and the same tree as a plain directory.
fn scene(disk: &mut Disk) -> PathBuf {
    let place = disk.fresh();
    let source = Image::Big.archive().join("oci");
    let import = casemate(["import", IMAGE]).arg(source).env("XDG_DATA_HOME", &place);
    import.timeout(PATIENCE).output().succeeds();
    let script = "mkdir plain && tar -cf - --one-file-system -C merged . | tar --no-same-owner -xf - -C plain";
    let copy = alone(&place, &format!("{OVERLAY} {script}"), "true").timeout(PATIENCE);
    copy.output().succeeds();
    Run::new("sync").arg("-f").arg(&place).output().succeeds();
    place
}

/// Mounts the kernel's overlay on `merged`, over the layers in the store.
const OVERLAY: &str = r#"
    mkdir -p merged upper work
    mount -t overlay overlay -o "userxattr,lowerdir=$lowers,upperdir=upper,workdir=work" merged;
"#;
/// The same by fuse-overlayfs. The device may be out of the user's reach; root has made another node.
const FUSE_OVERLAYFS: &str = r#"
    mkdir -p merged upper work
    test ! -e "$device" || mount --bind "$device" /dev/fuse
    fuse-overlayfs -o "lowerdir=$lowers,upperdir=upper,workdir=work" merged;
"#;
/// Runs the jobs in a root that is a directory.
const ENTER: &str = r#"
    mount --rbind /dev "$root/dev"
    chroot "$root" /bin/bash -c "$jobs"
"#;

/// A script in namespaces of its own, in the directory; `$jobs` are for `ENTER`, `$lowers` the layers from
/// the topmost, relative to it.
fn alone(place: &Path, script: &str, jobs: &str) -> Run {
    let inspected = casemate(["inspect", "--json", IMAGE]).env("XDG_DATA_HOME", place).text();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let layer = |id: &serde_json::Value| {
        let id = id.as_str().unwrap().replace(':', "-");
        format!("casemate/store/layers/{id}/fs")
    };
    let ids = inspected[0]["config"]["diff_ids"].as_array().unwrap();
    let mut lowers: Vec<String> = ids.iter().map(layer).collect();
    lowers.reverse();
    // With a process namespace, so that nothing that serves a mount outlives the script.
    Run::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"])
        .args(["bash", "-ec", script])
        .env("jobs", jobs)
        .env("lowers", lowers.join(":"))
        .env("device", user().base.join("bin/fuse-device"))
        .directory(place)
}

fn contenders() -> Vec<Contender> {
    if is_root() {
        let node = user().base.join("bin/fuse-device");
        let _made_before =
            Command::new("mknod").args(["-m", "666"]).arg(&node).args(["c", "10", "229"]).status();
    }
    let mut all = Vec::new();
    let mut add = |name: &str, run: Start| {
        all.push(Contender { name: name.into(), run, times: BTreeMap::new() });
    };
    add(
        "plain directory",
        Box::new(|place, jobs| alone(place, &format!("root=plain; {ENTER}"), jobs)),
    );
    for (name, mount) in [(REFERENCE, OVERLAY), ("fuse-overlayfs", FUSE_OVERLAYFS)] {
        let clean = "umount -l merged || true; rm -rf upper work";
        let script = format!("rm -rf upper work; {mount} root=merged; {ENTER} {clean}");
        add(name, Box::new(move |place, jobs| alone(place, &script, jobs)));
    }
    for mode in MODES {
        let name = format!("casemate, {}", mode.name);
        add(&name, Box::new(move |place, jobs| boxed(mode, place).args(["bash", "-c", jobs])));
    }
    all
}

/// A box over the store on that disk.
fn boxed(mode: Mode, place: &Path) -> Run {
    mode.run(IMAGE, &["-i"]).env("XDG_DATA_HOME", place)
}

/// All jobs of a contender, once.
fn measure(contender: &mut Contender, place: &Path, jobs: &mut Vec<String>) {
    let mut scripts = vec![(false, WARM)];
    if is_root() {
        scripts.extend(COLD.map(|script| (true, script)));
    }
    for (cold, script) in scripts {
        if cold {
            Command::new("sync").status().unwrap();
            std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        }
        let run = (contender.run)(place, &format!("{PRELUDE} {script}")).timeout(PATIENCE);
        let output = run.output();
        if output.code() != Some(0) {
            let text = output.err();
            println!("{} is not measured: {}", contender.name, text.lines().last().unwrap_or("?"));
            contender.times.clear();
            return;
        }
        for line in output.out().lines() {
            let (job, time) = line.rsplit_once(' ').unwrap();
            let seconds = time.parse::<f64>().unwrap() / 1e6;
            if !jobs.iter().any(|known| known == job) {
                jobs.push(job.into());
            }
            contender.times.entry(job.into()).or_default().push(seconds);
        }
    }
}

fn print(contenders: &[Contender], jobs: &[String], disk: &str) {
    println!(
        "\nJobs on a root of three layers, {disk}, medians in seconds, and times {REFERENCE}:"
    );
    print!("{:24}", "");
    contenders.iter().for_each(|contender| print!(" {:>24}", contender.name));
    println!();
    let reference = contenders.iter().find(|contender| contender.name == REFERENCE);
    for job in jobs {
        print!("{job:24}");
        for contender in contenders {
            let of = |contender: &Contender| contender.times.get(job).map(|times| median(times));
            let cell = match (of(contender), reference.and_then(of)) {
                (Some(own), Some(other)) => format!("{own:.3} ({:.2}x)", own / other),
                (Some(own), None) => format!("{own:.3}"),
                (None, _) => "-".into(),
            };
            print!(" {cell:>24}");
        }
        println!();
    }
}

/// Prints what `true` takes in each mode.
fn starts(place: &Path) {
    println!("\nStart to finish of `true`, in milliseconds, medians:");
    let rounds = setting("CASEMATE_BENCH_OVERLAY_STARTS", 50);
    let mut times = vec![Vec::new(); MODES.len()];
    for _ in 0..rounds {
        for (mode, times) in MODES.iter().zip(&mut times) {
            let run = boxed(*mode, place).arg("/bin/true");
            let begin = Instant::now();
            run.output().succeeds();
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
    }
    for (mode, times) in MODES.iter().zip(&times) {
        println!("{:28} {:8.2}", mode.name, median(times));
    }
}

/// Prints how long many boxes at once take to start, and the private memory of all processes that are not
/// the programs'.
fn many(place: &Path) {
    println!(
        "\n{BOXES} boxes at once, each lists /usr: all ready after, private memory of casemate's processes:"
    );
    for mode in MODES {
        let begin = Instant::now();
        let boxes: Vec<_> = (0..BOXES)
            .map(|_| {
                let script = "ls -lR /usr >/dev/null; echo ready; read -r _";
                boxed(mode, place).args(["sh", "-c", script]).open_stdin().timeout(PATIENCE).spawn()
            })
            .collect();
        for waiting in &boxes {
            waiting.expect("ready");
        }
        let took = begin.elapsed().as_secs_f64();
        let processes = boxes.iter().flat_map(|waiting| descendants(waiting.pid()));
        let is_ours = |pid: &i32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("casemate")
        };
        let memory: Vec<u64> =
            processes.filter(is_ours).filter_map(|pid| private(pid).ok()).collect();
        println!(
            "{:28} {took:6.2} s   {:8} KiB in {} processes, the largest {} KiB",
            mode.name,
            memory.iter().sum::<u64>(),
            memory.len(),
            memory.iter().max().unwrap_or(&0)
        );
        for mut waiting in boxes {
            waiting.write("\n");
            waiting.wait().succeeds();
        }
    }
}
