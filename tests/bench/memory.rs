//! What an idle box adds to the memory in use.

use std::fs;

use crate::common::casemate;

/// The most that supervisor and init may take together, in KiB.
const AIM: u64 = 2048;

/// Prints the private memory of the two processes that are casemate's own, for either kind of root.
pub(crate) fn run(image: &str) {
    println!("\nPrivate memory of an idle box (Private_Clean and Private_Dirty), in KiB:");
    for (name, options) in [("host root", &[][..]), ("image root", &["--image", image])] {
        let run = casemate(["run", "-i"]).args(options).args(["--", "/bin/sh", "-c"]);
        let mut running = run.arg("echo ready; read -r _").open_stdin().spawn();
        running.expect("ready");
        let supervisor = running.pid();
        let mut total = 0;
        let Some(init) = children(supervisor).first().copied() else {
            println!("{name:28} no init below the supervisor");
            continue;
        };
        let mut parts = Vec::new();
        for (part, pid) in [("supervisor", supervisor), ("init", init)] {
            match private(pid) {
                Ok(kibibytes) => {
                    total += kibibytes;
                    parts.push(format!("{part} {kibibytes}"));
                }
                Err(error) => parts.push(format!("{part} not readable without root ({error})")),
            }
        }
        let verdict = if total <= AIM { "within the aim" } else { "above the aim" };
        println!("{name:28} {total:6}   ({}; {verdict} of {AIM})", parts.join(", "));
        running.write("\n");
        running.wait().succeeds();
    }
}

/// The children of a process.
fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A process and all that come of it.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    all.extend(children(pid).into_iter().flat_map(descendants));
    all
}

/// The memory that only this process has, in KiB.
pub(crate) fn private(pid: i32) -> std::io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let lines = text
        .lines()
        .filter(|line| line.starts_with("Private_Clean") || line.starts_with("Private_Dirty"));
    Ok(lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}
