//! Many boxes at once: all start, run and end, and the last one starts as fast as the first.

use std::time::Instant;

use crate::common::{Leftovers, casemate};
use crate::{median, setting};

/// Prints the time from start to ready as the number of running boxes grows.
pub(crate) fn run() {
    let number = setting("CASEMATE_BENCH_BOXES", 300);
    println!("\n{number} boxes at once:");
    let watch = Leftovers::watch();
    let mut boxes = Vec::new();
    let mut times = Vec::new();
    for _ in 0..number {
        let begin = Instant::now();
        let run =
            casemate(["run", "-i", "--", "/bin/sh", "-c", "echo ready; read -r line; echo $line"]);
        let running = run.open_stdin().timeout(std::time::Duration::from_secs(300)).spawn();
        running.expect("ready");
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
        boxes.push(running);
    }
    println!("{:28} {:>8}", "start to ready, in ms", "median");
    for count in [1, number / 3, number * 2 / 3, number] {
        // The ten boxes up to that number, or the first ones.
        let end = count.max(10).min(times.len());
        let window = &times[end.saturating_sub(10)..end];
        println!("{:28} {:8.2}", format!("with {count} boxes"), median(window));
    }
    let begin = Instant::now();
    for running in &mut boxes {
        running.write("through\n");
    }
    for running in boxes {
        assert!(running.wait().succeeds().out().ends_with("through\n"));
    }
    watch.none();
    println!(
        "all {number} ran and ended within {:.0} ms, and left nothing",
        begin.elapsed().as_secs_f64() * 1000.0
    );
}
