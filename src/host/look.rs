//! What a system says of itself in files and variables: the real one's, or a record of another's.

use std::io::Read;

/// More than any file that tells something has.
const LIMIT: u64 = 4 << 20;

/// Where clues are looked for.
pub trait Look {
    /// The text of a file, where it can be read.
    fn read(&self, path: &str) -> Option<String>;

    /// Whether there is such a file.
    fn exists(&self, path: &str) -> bool;

    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

/// This system.
pub struct Here;

impl Look for Here {
    fn read(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        std::fs::File::open(path).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
        // A mount point with bytes that are no text makes no other line worth less; nothing is
        // opened by what is read here.
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn exists(&self, path: &str) -> bool {
        std::path::Path::new(path).exists()
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}
