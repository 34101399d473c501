//! A directory of one test, owned by the test user and removed at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::user::{install_program, remove_tree, user};

pub struct Workspace(PathBuf);

impl Workspace {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = user().work().join(format!("{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        user().own(&path);
        Workspace(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a name in it, as text.
    pub fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    /// Writes a file of the test user's, with the directories above it.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        self.directory(Path::new(name).parent().unwrap().to_str().unwrap());
        fs::write(&path, contents).unwrap();
        user().own(&path);
        self.at(name)
    }

    /// As `file`, executable.
    pub fn script(&self, name: &str, contents: &str) -> String {
        let text = self.file(&format!("{name}.text"), contents);
        install_program(Path::new(&text), &self.0.join(name), 0o755);
        fs::remove_file(text).unwrap();
        user().own(&self.0.join(name));
        self.at(name)
    }

    pub fn directory(&self, name: &str) -> String {
        let mut path = self.0.clone();
        for part in Path::new(name) {
            path.push(part);
            if !path.exists() {
                fs::create_dir(&path).unwrap();
                user().own(&path);
            }
        }
        self.at(name)
    }

    pub fn symlink(&self, target: impl AsRef<Path>, name: &str) {
        let path = self.0.join(name);
        std::os::unix::fs::symlink(target, &path).unwrap();
        user().own(&path);
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            remove_tree(&self.0);
        }
    }
}
