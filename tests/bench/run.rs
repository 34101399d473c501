//! `make bench`: what a box costs, beside the peers that are installed, in one interleaved run.
//!
//! Started by root it prepares the images and looks at memory, and runs what it measures as the
//! unprivileged user of the tests; started by an ordinary user it does all of it as that one.
//! `make bench ONLY=images` measures that part alone.

// A benchmark prints its results, and ends where its surroundings fail it.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod disk;
mod images;
mod many;
mod memory;
#[path = "../overlay/modes.rs"]
#[allow(dead_code)]
mod modes;
mod overlay;
mod start;
mod throughput;

use common::{Image, image, user};

fn main() {
    // The timing of short commands is done by this program again, as the user.
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|word| word == "--time") {
        return start::time(&arguments[at + 1..]);
    }
    println!("{}", machine());
    println!("as the user {} ({})", user().name, user().uid);
    let only = std::env::var("CASEMATE_BENCH_ONLY").unwrap_or_default();
    let parts = ["start", "memory", "many", "throughput", "images", "overlay"];
    assert!(only.is_empty() || parts.contains(&only.as_str()), "ONLY is one of {parts:?}");
    let wanted = |part: &str| only.is_empty() || only == part;
    if wanted("start") {
        start::run(&image(Image::Debian));
    }
    if wanted("memory") {
        memory::run(&image(Image::Small));
    }
    let all_ran = !wanted("many") || many::run();
    if wanted("throughput") {
        throughput::run();
    }
    if wanted("images") {
        images::run();
    }
    if wanted("overlay") {
        overlay::run();
    }
    assert!(all_ran, "not all boxes ran at once");
}

/// The kernel, the processor and the number of cores.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    format!("Linux {}, {model}, {cores} cores", read("/proc/sys/kernel/osrelease").trim())
}

/// The middle value of a list that is not empty.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A whole number from the environment, or what is usual.
fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}
