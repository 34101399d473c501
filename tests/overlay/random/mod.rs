//! Random operations on the root of a box and, in step, on a plain file system in memory: whatever one
//! says, an errno or data, the other must say. Four threads, each in a directory of its own and, by
//! names of its own, in one directory together.
//!
//! CASEMATE_TEST_SEED repeats a run; CASEMATE_TEST_LONG makes a million operations instead of fifty
//! thousand.

mod operations;
mod tree;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::operations::Worker;
use crate::inner;
use crate::layers;
use crate::modes::MODES;

const THREADS: u64 = 4;
const VARIABLE: &str = "CASEMATE_TEST_RANDOM";

#[test]
fn random_operations_agree_with_a_plain_file_system() {
    let (probe, checks) = crate::checks::probe();
    let image = layers::image(&probe, &checks);
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = setting("CASEMATE_TEST_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000
    });
    let number = if std::env::var_os("CASEMATE_TEST_LONG").is_some() { 1_000_000 } else { 50_000 };
    for mode in MODES {
        println!("{}: seed {seed}, {number} operations", mode.name);
        let words = format!("{seed} {number} {}", mode.keeps_lower_directories);
        let run = inner::boxed(mode, &image, "random::inside", (VARIABLE, &words));
        let output = run.timeout(Duration::from_secs(1800)).output();
        assert!(output.code() == Some(0), "{}: {}{}", mode.name, output.out(), output.err());
        assert!(output.out().contains("all operations agree"), "{}", output.out());
    }
}

/// The part in the box.
#[test]
fn inside() {
    let Ok(words) = std::env::var(VARIABLE) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [seed, number] = [words[0], words[1]].map(|word| word.parse::<u64>().unwrap());
    let (real, mirror) = (Path::new("/t/random"), Path::new("/tmp/mirror"));
    tree::copy(real, mirror);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let keeps_lower_directories = words[2] == "true";
            let worker = Worker::new([real, mirror], seed, thread, keeps_lower_directories);
            std::thread::spawn(move || worker.run(number / THREADS))
        })
        .collect();
    let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    assert!(ended.iter().all(Result::is_ok), "seed {seed}");
    let (real, mirror) = (tree::describe(real), tree::describe(mirror));
    for (path, what) in &real {
        assert_eq!(Some(what), mirror.get(path), "seed {seed}: {}", path.display());
    }
    assert_eq!(real.len(), mirror.len(), "seed {seed}: names");
    println!("all operations agree, {} names at the end", real.len());
}
