//! Many boxes at once: all start, run and end, and the last one starts as fast as the first.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Instant;

use crate::common::{Leftovers, Run, casemate};
use crate::{median, setting};

/// Says when it is there, and what it is told.
const SCRIPT: [&str; 3] = ["/bin/sh", "-c", "echo ready; read -r line; echo $line"];

/// Prints the time from start to ready as the number of running boxes grows, for casemate and, to tell the
/// kernel's own growth, for bubblewrap; false if not all of casemate's ran.
pub(crate) fn run() -> bool {
    let number = setting("CASEMATE_BENCH_BOXES", 300);
    println!("\n{number} boxes at once, from start to ready, medians of ten in milliseconds:");
    let casemate = || casemate(["run", "-i", "--"]).args(SCRIPT);
    let bubblewrap = || {
        let options = ["--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"];
        Run::new("bwrap").args(options).args(SCRIPT)
    };
    let all_ran = measure("casemate, host root", number, casemate);
    measure("bubblewrap", number, bubblewrap);
    all_ran
}

/// A box that waits for a line. It is read without a thread, since threads would slow the next fork down.
struct Waiting {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Waiting {
    /// Starts it and waits until it is ready; the last line of its stderr if it is not.
    fn start(run: &Run) -> Result<Self, String> {
        let mut command = run.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        if line == "ready\n" {
            return Ok(Waiting { child, output });
        }
        let mut message = String::new();
        child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        child.wait().unwrap();
        Err(message.lines().next().unwrap_or("no message").to_string())
    }

    /// Sends the line and waits for its echo and the end.
    fn finish(mut self) {
        let mut line = String::new();
        self.output.read_to_string(&mut line).unwrap();
        assert_eq!(line, "through\n");
        assert!(self.child.wait().unwrap().success());
    }
}

fn measure(name: &str, number: usize, run: impl Fn() -> Run) -> bool {
    let watch = Leftovers::watch();
    let mut boxes: Vec<Waiting> = Vec::new();
    let mut times = Vec::new();
    while boxes.len() < number {
        let run = run();
        let begin = Instant::now();
        match Waiting::start(&run) {
            Ok(waiting) => boxes.push(waiting),
            Err(message) => {
                println!("{name}: box {} did not start: {message}", boxes.len() + 1);
                break;
            }
        }
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let started = boxes.len();
    let mut line = format!("{name:28}");
    for count in [1, number / 3, number * 2 / 3, number] {
        // The ten boxes up to that number, or the first ones.
        let end = count.max(10);
        if end <= started {
            line += &format!(" {:8.2} with {count}", median(&times[end - 10..end]));
        }
    }
    println!("{line}");
    let begin = Instant::now();
    for waiting in &mut boxes {
        waiting.child.stdin.as_mut().unwrap().write_all(b"through\n").unwrap();
    }
    boxes.into_iter().for_each(Waiting::finish);
    watch.none();
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    println!("{:28} {started} of {number} ran, ended within {took:.0} ms, left nothing", "");
    started == number
}
