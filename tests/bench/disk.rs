//! A place to unpack to that is the same for everyone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::user;
use crate::common::user::{is_root, remove_tree};

/// How large the file system may grow; its file is sparse.
const SIZE: u64 = 16 << 30;

/// A directory of the user's that each measurement finds empty. Root makes a new ext4 with a journal in a
/// file for each: one without a journal goes through all inodes of recently removed files whenever it
/// makes a new one (recently_deleted in fs/ext4/ialloc.c), so that who comes second would pay for the
/// removal of what the first one made. Without root it is one new directory after the other.
pub(crate) struct Disk {
    base: PathBuf,
    used: usize,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let disk = Disk { base: user().work().join("disk"), used: 0 };
        disk.clear();
        disk
    }

    /// What it is, for the reader of the results.
    pub(crate) fn kind(&self) -> &'static str {
        if is_root() { "a new ext4 on a loop device for each" } else { "a new directory for each" }
    }

    /// An empty directory, with nothing of earlier work still to be written.
    pub(crate) fn fresh(&mut self) -> PathBuf {
        self.used += 1;
        let place = self.base.join(self.used.to_string());
        if is_root() {
            // A file of its own each time: a process that still holds the last one harms nobody.
            self.clear();
            let file = self.base.join(format!("{}.ext4", self.used));
            fs::create_dir_all(&place).unwrap();
            fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
            let made = ["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
            run("mkfs.ext4", &made, &file, None);
            run("mount", &["-o", "loop,noinit_itable"], &file, Some(&place));
        } else {
            fs::create_dir_all(&place).unwrap();
        }
        user().own(&self.base);
        user().own(&place);
        run("sync", &["-f"], &self.base, None);
        place
    }

    /// Removes all that is there.
    fn clear(&self) {
        for entry in fs::read_dir(&self.base).into_iter().flatten() {
            let path = entry.unwrap().path();
            if is_root() && path.is_dir() {
                unmount(&path);
            }
        }
        remove_tree(&self.base);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.clear();
    }
}

/// An import leaves a process behind that writes to the disk, and holds it until then. Nothing is
/// mounted there after a run that was ended.
fn unmount(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let succeeds = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-q").arg(path).stderr(Stdio::null()).status().unwrap().success()
    };
    while succeeds("mountpoint") && !succeeds("umount") {
        assert!(Instant::now() < deadline, "{} stays mounted", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn run(program: &str, options: &[&str], path: &Path, more: Option<&Path>) {
    let status = Command::new(program).args(options).arg(path).args(more).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {}", path.display());
}
