//! This test program once more, in a box: whatever the image is, it brings its own loader and libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::user::{install_program, lock};
use crate::common::{Run, user};
use crate::modes::Mode;

const INSIDE: &str = "/run/inner";
const PROGRAM: &str = "program";
const LOADER: &str = "loader";

/// The directory with the program, its libraries and the loader.
fn kit() -> &'static Path {
    static KIT: OnceLock<PathBuf> = OnceLock::new();
    KIT.get_or_init(|| {
        let _lock = lock("inner");
        let own = std::env::current_exe().unwrap();
        let kit = user().base.join("bin/overlay-inner");
        fs::create_dir_all(&kit).unwrap();
        install_program(&own, &kit.join(PROGRAM), 0o755);
        let listed = std::process::Command::new("ldd").arg(&own).output().expect("ldd starts");
        // Lines such as `libc.so.6 => /lib/…/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
        for line in String::from_utf8(listed.stdout).unwrap().lines() {
            let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) else {
                continue;
            };
            let name = match line.contains("=>") {
                true => Path::new(path).file_name().unwrap().to_str().unwrap(),
                false => LOADER,
            };
            install_program(Path::new(path), &kit.join(name), 0o755);
        }
        kit
    })
}

fn arguments(place: &str, test: &str) -> Vec<String> {
    let at = |name: &str| format!("{place}/{name}");
    let mut words = vec![at(LOADER), "--library-path".into(), place.into(), at(PROGRAM)];
    words.extend([test, "--exact", "--nocapture", "--test-threads=1"].map(String::from));
    words
}

/// A test of this program in a box, which sees the word in the variable; without that it does nothing.
pub(crate) fn boxed(mode: Mode, image: &str, test: &str, variable: (&str, &str)) -> Run {
    let volume = format!("{}:{INSIDE}:ro,exec", kit().display());
    let value = format!("{}={}", variable.0, variable.1);
    mode.run(image, &["-v", &volume, "-e", &value]).args(arguments(INSIDE, test))
}

/// The same outside, as the test user.
pub(crate) fn plain(test: &str, variable: (&str, &str)) -> Run {
    let words = arguments(kit().to_str().unwrap(), test);
    Run::new(&words[0]).args(&words[1..]).env(variable.0, variable.1)
}
