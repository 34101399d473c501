//! `cat` of a gibibyte through a box, beside `cat` through a plain pipe.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Instant;

use crate::common::{Run, casemate};
use crate::{median, setting};

/// Prints both speeds, the medians of a few interleaved rounds.
pub(crate) fn run() {
    let bytes = setting("CASEMATE_BENCH_MEBIBYTES", 1024) << 20;
    println!("\n`cat` of {} MiB, in MiB/s:", bytes >> 20);
    let (mut plain, mut boxed) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        plain.push(speed(Run::new("/bin/cat"), bytes));
        boxed.push(speed(casemate(["run", "-i", "--", "/bin/cat"]), bytes));
    }
    let (plain, boxed) = (median(&plain), median(&boxed));
    println!("{:28} {plain:8.0}", "plain pipe");
    println!("{:28} {boxed:8.0}   ({:.2} of the plain pipe)", "through a box", boxed / plain);
}

/// How fast the bytes go in at one end and come out at the other.
fn speed(run: Run, bytes: usize) -> f64 {
    let begin = Instant::now();
    let mut child = run.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let block = vec![7_u8; 1 << 17];
        for _ in 0..bytes / block.len() {
            input.write_all(&block).unwrap();
        }
    });
    let mut output = child.stdout.take().unwrap();
    let mut block = vec![0_u8; 1 << 17];
    let mut count = 0;
    loop {
        match output.read(&mut block).unwrap() {
            0 => break,
            some => count += some,
        }
    }
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(count, bytes, "every byte came through");
    (bytes >> 20) as f64 / begin.elapsed().as_secs_f64()
}
