//! Many boxes at once: all start, run and end, and the last one starts as fast as the first.

use std::time::{Duration, Instant};

use crate::common::{Leftovers, casemate};
use crate::{median, setting};

/// Prints the time from start to ready as the number of running boxes grows; false if not all of them ran.
pub(crate) fn run() -> bool {
    let number = setting("CASEMATE_BENCH_BOXES", 300);
    println!("\n{number} boxes at once:");
    let watch = Leftovers::watch();
    let mut boxes = Vec::new();
    let mut times = Vec::new();
    for _ in 0..number {
        let begin = Instant::now();
        let script = "echo ready; read -r line; echo $line";
        let run = casemate(["run", "-i", "--", "/bin/sh", "-c", script]);
        let running = run.open_stdin().timeout(Duration::from_secs(300)).spawn();
        if running.stdout.wait_for("ready", Duration::from_secs(10)).is_none() {
            println!("box {} did not start: {}", boxes.len() + 1, running.stderr.text().trim());
            break;
        }
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
        boxes.push(running);
    }
    println!("{:28} {:>8}", "start to ready, in ms", "median");
    let started = boxes.len();
    let counts = [1, number / 3, number * 2 / 3, number];
    for count in counts.into_iter().filter(|count| *count <= started) {
        // The ten boxes up to that number, or the first ones.
        let end = count.max(10).min(started);
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
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    println!("{started} of {number} ran; they ended within {took:.0} ms and left nothing");
    started == number
}
