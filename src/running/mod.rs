//! The boxes that run: a file each below the runtime directory, held locked by its supervisor. What
//! the file says is a claim; the lock is the kernel's word that the supervisor lives and which
//! process it is (fcntl(2), `F_GETLK`). A file that nobody has locked is what a crash left, and goes.

mod record;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, fcntl};

pub use record::{Place, Record, Running, is_name};

use crate::error::{During, Error, Result};
use crate::sys::{clone, fs};

/// More than a record has, with the longest command that is kept in it.
const LIMIT: u64 = 65536;
/// More boxes than a user's processes would be enough for.
const MOST: usize = 100_000;
/// How long the list may be another's: each has it for some system calls, and a hundred boxes that
/// begin at once on a slow machine have it one after the other.
const PATIENCE: Duration = Duration::from_secs(20);

/// The directory of the boxes that run.
pub struct Registry {
    path: PathBuf,
}

impl Registry {
    /// Opens it, and makes it where it is missing.
    pub fn open(runtime: &Path) -> Result<Registry> {
        let path = runtime.join("casemate/boxes");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).at("make", &path)?;
        Ok(Registry { path })
    }

    /// Opens it where there is one.
    pub fn find(runtime: &Path) -> Result<Option<Registry>> {
        let path = runtime.join("casemate/boxes");
        match path.try_exists() {
            Ok(there) => Ok(there.then_some(Registry { path })),
            Err(error) => Err(Error::os("look at", path.display(), &error)),
        }
    }

    /// Nobody else enters or removes a box while this is held.
    fn lock(&self) -> Result<Flock<File>> {
        // Of an open file of its own: a lock is shared by all copies of a descriptor.
        let fresh = File::open(&self.path).at("open", &self.path)?;
        fs::lock_in_time(fresh, PATIENCE).at("lock", &self.path).map_err(|error| {
            error
                .hint("another casemate was stopped while it had the list: let it go on, or end it")
        })
    }

    /// Enters a box. Its name must be free. What crashed boxes left is removed.
    pub fn enter(&self, record: &Record) -> Result<Entry> {
        let _lock = self.lock()?;
        self.sweep()?;
        let path = self.path.join(&record.name);
        let taken = Error::new(format!("name {}: a box of this name is running", record.name));
        match self.read(&record.name)? {
            Found::Nobodys => {}
            Found::Here(found) => {
                return Err(taken.hint(format!(
                    "give it another --name, or end that one: casemate kill {} (process {})",
                    record.name, found.supervisor
                )));
            }
            Found::Elsewhere => return Err(taken.hint("give it another --name").hint(ELSEWHERE)),
        }
        // Complete and locked before it has its name; under the lock of the directory, this one is
        // the only one that is being made.
        let draft = self.path.join(".draft");
        remove(&draft)?;
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .at("make", &draft)?;
        hold(&file).at("lock", &draft)?;
        file.write_all(&record.line()?).at("write", &draft)?;
        std::fs::rename(&draft, &path).at("make", &path)?;
        Ok(Entry { file, path })
    }

    /// The boxes that run, by name, but those of another PID namespace. What crashed boxes left is removed.
    pub fn list(&self) -> Result<Vec<Running>> {
        let _lock = self.lock()?;
        let mut running = Vec::new();
        for entry in std::fs::read_dir(&self.path).at("read", &self.path)?.take(MOST) {
            let entry = entry.at("read", &self.path)?;
            let name = entry.file_name();
            if let Some(name) = name.to_str().filter(|name| is_name(name))
                && let Found::Here(found) = self.read(name)?
            {
                running.push(found);
            }
        }
        running.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(running)
    }

    /// The box of this name.
    pub fn get(&self, name: &str) -> Result<Running> {
        if !is_name(name) {
            return Err(none(name));
        }
        let _lock = self.lock()?;
        match self.read(name)? {
            Found::Nobodys => Err(none(name)),
            Found::Here(found) => Ok(found),
            Found::Elsewhere => {
                Err(Error::new(format!("box {name}: it is of another PID namespace"))
                    .hint(ELSEWHERE))
            }
        }
    }

    /// Removes the files that nobody has locked. Needs the lock. One that cannot be opened is no
    /// reason against the next box.
    fn sweep(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.path).at("read", &self.path)?.take(MOST) {
            let path = entry.at("read", &self.path)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(is_name)
                && let Ok(Some(file)) = open(&path)
                && holder(&file).at("look at", &path)? == Holder::Nobody
            {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Reads the file of a name; one that is nobody's is removed. Needs the lock.
    fn read(&self, name: &str) -> Result<Found> {
        let path = self.path.join(name);
        let Some(file) = open(&path)? else { return Ok(Found::Nobodys) };
        let supervisor = match holder(&file).at("look at", &path)? {
            Holder::Nobody => {
                remove(&path)?;
                return Ok(Found::Nobodys);
            }
            Holder::Process(supervisor) => supervisor,
            Holder::Elsewhere => return Ok(Found::Elsewhere),
        };
        let mut text = Vec::new();
        file.take(LIMIT).read_to_end(&mut text).at("read", &path)?;
        let running = Running::parse(&text, supervisor);
        running.map(Found::Here).map_err(|error| error.within(path.display()))
    }
}

/// What a name is.
enum Found {
    /// Free.
    Nobodys,
    /// That of a box whose supervisor is seen from here.
    Here(Running),
    /// That of a box whose supervisor is not, and has no number.
    Elsewhere,
}

/// What to do about a box of another PID namespace.
const ELSEWHERE: &str =
    "casemate of another PID namespace keeps it, such as that of a container: say it there";

/// That there is no such box.
pub fn none(name: &str) -> Error {
    Error::new(format!("box {name}: none of this name is running")).hint("`casemate ps` lists them")
}

/// Opens the file of a box, where it is there.
fn open(path: &Path) -> Result<Option<File>> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::os("open", path.display(), &error)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::os("remove", path.display(), &error))
        }
        _ => Ok(()),
    }
}

fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// A lock of this process: a child that has the descriptor too does not keep it.
fn hold(file: &File) -> nix::Result<()> {
    fcntl(file, FcntlArg::F_SETLK(&whole(libc::F_WRLCK))).map(drop)
}

/// Who holds a lock.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Process(i32),
    /// One of a PID namespace that is not seen from here, which has no number.
    Elsewhere,
}

fn holder(file: &File) -> nix::Result<Holder> {
    let mut lock = whole(libc::F_RDLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok(if lock.l_type == libc::F_UNLCK as libc::c_short {
        Holder::Nobody
    } else if lock.l_pid > 0 {
        Holder::Process(lock.l_pid)
    } else {
        Holder::Elsewhere
    })
}

/// The box of this process, until it is dropped.
pub struct Entry {
    file: File,
    path: PathBuf,
}

impl Entry {
    /// Adds the program's process, which can be signalled from now on.
    pub fn started(&self, pidfd: impl AsFd) -> Result<()> {
        match record::program_line(pidfd)? {
            Some(line) => self.add(&line),
            None => Ok(()),
        }
    }

    /// Adds the cgroup, which was not there when the box was entered.
    pub fn placed(&self, place: &Place) -> Result<()> {
        self.add(&record::place_line(place)?)
    }

    fn add(&self, line: &[u8]) -> Result<()> {
        let at = self.file.metadata().at("stat", &self.path)?.len();
        self.file.write_all_at(line, at).at("write", &self.path)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // While the lock is held the name is this box's. One that stays is removed by the next look.
        let _next_look = std::fs::remove_file(&self.path);
    }
}

impl Running {
    /// Sends a signal to its program. The number in the record is believed only if the process was
    /// made when the record says.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let name = &self.record.name;
        let gone =
            || Error::new(format!("box {name}: its program has not started yet, or has ended"));
        let program = self.program.ok_or_else(gone)?;
        let pidfd = match clone::open_process(program.pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(gone()),
            opened => opened.during("open the program of", name)?,
        };
        if record::birth(program.pid)? != Some(program.birth) {
            return Err(gone());
        }
        match clone::send_signal(&pidfd, signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(gone()),
            sent => sent.during("send a signal to", name),
        }
    }

    /// Ends its supervisor, which takes the box along.
    pub fn end_supervisor(&self, registry: &Registry) -> Result<()> {
        let name = &self.record.name;
        let pidfd = clone::open_process(self.supervisor).during("open the supervisor of", name)?;
        // Held still, and by the same process: so the descriptor is of that one.
        if registry.get(name)?.supervisor != self.supervisor {
            return Err(none(name));
        }
        match clone::send_signal(&pidfd, libc::SIGKILL) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            sent => sent.during("send a signal to", name),
        }
    }
}

/// Whether an error says that a process is another user's.
pub fn is_refused(error: &Error) -> bool {
    error.errno() == Some(Errno::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        Record {
            name: name.to_owned(),
            profile: "default".to_owned(),
            image: None,
            command: vec!["sh".to_owned()],
            started: 1,
            place: None,
        }
    }

    /// A box whose supervisor is another process: a lock of one's own is not seen.
    fn elsewhere(runtime: &Path, name: &str) -> std::process::Child {
        let path = runtime.join("casemate/boxes").join(name);
        std::fs::write(&path, record(name).line().unwrap()).unwrap();
        let script = format!(
            "import fcntl,sys,time\nf=open({:?},'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('x',flush=True)\ntime.sleep(60)",
            path.to_str().unwrap()
        );
        let mut child = std::process::Command::new("python3")
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        child
    }

    #[test]
    fn a_name_is_taken_while_its_supervisor_lives() {
        let runtime = tempfile::tempdir().unwrap();
        assert!(Registry::find(runtime.path()).unwrap().is_none());
        let registry = Registry::open(runtime.path()).unwrap();
        let mut child = elsewhere(runtime.path(), "a");
        let listed = registry.list().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].supervisor, i32::try_from(child.id()).unwrap());
        let error = registry.enter(&record("a")).err().unwrap();
        assert!(error.to_string().contains("is running"), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(registry.get("a").is_err());
        assert!(registry.list().unwrap().is_empty());
        let stale = runtime.path().join("casemate/boxes/stale");
        std::fs::write(&stale, "").unwrap();
        let mut child = elsewhere(runtime.path(), "b");
        drop(registry.enter(&record("a")).unwrap());
        assert!(!stale.exists() && runtime.path().join("casemate/boxes/b").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(registry.list().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(runtime.path().join("casemate/boxes")).unwrap().count(), 0);
    }

    #[test]
    fn a_program_that_is_another_process_by_now_gets_no_signal() {
        let runtime = tempfile::tempdir().unwrap();
        let registry = Registry::open(runtime.path()).unwrap();
        let mut child = elsewhere(runtime.path(), "a");
        let path = runtime.path().join("casemate/boxes/a");
        let pid = child.id();
        let add = |birth: u64| {
            let line = format!("{{\"program\":{{\"pid\":{},\"birth\":{birth}}}}}\n", pid);
            let text = [record("a").line().unwrap(), line.into_bytes()].concat();
            std::fs::write(&path, text).unwrap();
        };
        add(1);
        let error = registry.get("a").unwrap().signal(libc::SIGKILL).unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");
        assert!(child.try_wait().unwrap().is_none());
        add(record::birth(i32::try_from(child.id()).unwrap()).unwrap().unwrap());
        registry.get("a").unwrap().signal(libc::SIGKILL).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for text in [&b""[..], b"{}", b"{}\n", b"[1]\n", b"\xff\n", &[b'{'; 5000]] {
            assert!(Running::parse(text, 1).is_err(), "{text:?}");
        }
        let line = record("a").line().unwrap();
        for cut in 0..line.len() {
            assert!(Running::parse(&line[..cut], 1).is_err());
        }
        // The second line is being written.
        let torn = [&line[..], b"{\"program\":{\"pi"].concat();
        assert!(Running::parse(&torn, 1).unwrap().program.is_none());
    }
}
