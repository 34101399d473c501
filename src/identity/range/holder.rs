//! The holder: one process that keeps a namespace with a range, so that whoever gives ranges is asked
//! once and not for every box. It is found again by a file in the user's runtime directory, which is
//! believed only as far as the kernel confirms it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::namespace::{self, Waiting};
use super::{Backend, Facts, Range};
use crate::error::{During, Error, Result};
use crate::sys::{clone, fs, namespace as ns};

/// The file's name; more than its few words is none of ours.
const NAME: &str = "holder";
const LIMIT: u64 = 256;

/// What is written down of a holder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    pid: i32,
    /// When it started, in clock ticks since the machine did: a number alone may mean another by now.
    start: u64,
    /// The inode of its user namespace.
    inode: u64,
    /// Who gave it the range.
    backend: Backend,
}

/// A holder that lives.
pub struct Holder {
    pidfd: OwnedFd,
    pid: i32,
    file: PathBuf,
    /// What it keeps.
    pub range: Range,
    /// Who gave it.
    pub given_by: Backend,
}

/// The directory of casemate's own below `$XDG_RUNTIME_DIR`, which must be the user's alone.
fn directory(runtime: Option<&Path>, make: bool) -> Result<Option<PathBuf>> {
    let Some(runtime) = runtime else { return Ok(None) };
    let path = runtime.join("casemate");
    if make {
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).at("make", &path);
        }
    }
    let found = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.at("look at", &path)?,
    };
    let is_ours = found.is_dir()
        && found.uid() == nix::unistd::geteuid().as_raw()
        && found.mode() & 0o022 == 0;
    if !is_ours {
        return Err(Error::new(format!(
            "{}: not a directory that only you can write to",
            path.display()
        ))
        .hint("remove it; casemate makes it anew"));
    }
    Ok(Some(path))
}

/// The holder, if one lives and is what the file says.
pub fn find(runtime: Option<&Path>) -> Result<Option<Holder>> {
    let Some(directory) = directory(runtime, false)? else { return Ok(None) };
    let file = directory.join(NAME);
    let Some(record) = read(&file)? else { return Ok(None) };
    Ok(confirm(&record, file))
}

fn read(path: &Path) -> Result<Option<Record>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut text = String::new();
    match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => {
            let file = opened.at("open", path)?;
            // What is not text is no record.
            if file.take(LIMIT).read_to_string(&mut text).is_err() {
                return Ok(None);
            }
        }
    }
    let mut words = text.split_ascii_whitespace();
    let record = (|| {
        Some(Record {
            pid: words.next()?.parse().ok().filter(|pid| *pid > 1)?,
            start: words.next()?.parse().ok()?,
            inode: words.next()?.parse().ok()?,
            backend: Backend::from_word(words.next()?)?,
        })
    })();
    Ok(record)
}

/// Holds a record against what the kernel says: the same process in the same namespace, which this
/// user made below the one that casemate is in.
fn confirm(record: &Record, file: PathBuf) -> Option<Holder> {
    let pidfd = clone::open_process(record.pid).ok()?;
    let namespace: OwnedFd = File::open(format!("/proc/{}/ns/user", record.pid)).ok()?.into();
    let identity = fs::identity(&namespace).ok()?;
    let is_same = identity.ino == record.inode && started(record.pid) == Some(record.start);
    let own = fs::identity(File::open("/proc/self/ns/user").ok()?).ok()?;
    let above = fs::identity(ns::parent(&namespace).ok()?).ok()?;
    let is_ours = ns::owner(&namespace).ok()? == nix::unistd::geteuid().as_raw();
    if !is_same || !is_ours || own.ino != above.ino {
        return None;
    }
    let (uids, gids) = namespace::maps(record.pid).ok()?;
    // The number meant this process all the while.
    clone::send_signal(&pidfd, 0).ok()?;
    let facts = Facts { backend: Backend::Holder, uids, gids };
    let range = Range { facts, namespace: Some(namespace) };
    Some(Holder { pidfd, pid: record.pid, file, range, given_by: record.backend })
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)); the second is in brackets and may hold anything.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Lets a namespace with a range live on in a holder. Without a runtime directory there is none, and
/// it ends with the box.
pub(super) fn keep(runtime: Option<&Path>, waiting: Waiting, backend: Backend) -> Result<()> {
    let Some(directory) = directory(runtime, true)? else { return Ok(()) };
    let _lock = lock(&directory)?;
    let file = directory.join(NAME);
    // Another casemate was faster.
    if read(&file)?.and_then(|record| confirm(&record, file.clone())).is_some() {
        return Ok(());
    }
    let pid = waiting.pid();
    let start = started(pid).ok_or_else(|| Error::new("look at the holder: it has ended"))?;
    let inode = fs::identity(&waiting.namespace).during("look at", "the holder's namespace")?.ino;
    let text = format!("{pid} {start} {inode} {}\n", backend.word());
    let new = directory.join(".holder.new");
    let mut output = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&new)
        .at("make", &new)?;
    output.write_all(text.as_bytes()).at("write", &new)?;
    waiting.stay()?;
    std::fs::rename(&new, &file).at("rename", &new)
}

fn lock(directory: &Path) -> Result<Flock<File>> {
    let path = directory.join(".holder.lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .at("open", &path)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).at("lock", &path)
}

impl Holder {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends it. Boxes that run keep their ids; the next one asks for a range anew.
    pub fn stop(self) -> Result<()> {
        match clone::send_signal(&self.pidfd, libc::SIGKILL) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            sent => sent.during("end", "the holder")?,
        }
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.at("remove", &self.file),
        }
    }
}
