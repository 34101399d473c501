//! The check that a box left nothing behind: no process, namespace, mount, temporary file or cgroup.
//!
//! What is compared belongs to the test user as a whole, so a test that watches for leftovers has the
//! machine to itself: it holds a lock exclusively that every other test command holds shared.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::user::{User, user};

static COMMANDS: RwLock<()> = RwLock::new(());

thread_local! {
    /// How many commands of this thread run or whether it watches, and the lock that goes with that.
    static HELD: RefCell<(u32, Option<RwLockReadGuard<'static, ()>>)> = const { RefCell::new((0, None)) };
}

/// Held by a command while it runs.
pub struct Shared(());

impl Shared {
    pub fn take() -> Self {
        HELD.with_borrow_mut(|(count, guard)| {
            if *count == 0 {
                *guard = Some(COMMANDS.read().unwrap_or_else(|e| e.into_inner()));
            }
            *count += 1;
        });
        Shared(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|(count, guard)| {
            *count -= 1;
            if *count == 0 {
                *guard = None;
            }
        });
    }
}

/// The state of the machine before, and the machine held still until `none()`.
pub struct Leftovers {
    before: BTreeSet<String>,
    _exclusive: RwLockWriteGuard<'static, ()>,
}

impl Leftovers {
    /// Waits until no other test runs a command, and looks.
    pub fn watch() -> Self {
        HELD.with_borrow(|(count, _)| assert_eq!(*count, 0, "watch before starting commands"));
        let exclusive = COMMANDS.write().unwrap_or_else(|e| e.into_inner());
        // This thread's own commands need no lock while it has the exclusive one.
        HELD.with_borrow_mut(|(count, _)| *count = 1);
        settle();
        Leftovers { before: traces(user()), _exclusive: exclusive }
    }

    /// Demands that all is as before. The kernel takes namespaces and mounts down after the last
    /// process is gone, so it is given two seconds.
    #[track_caller]
    pub fn none(&self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let now = traces(user());
            let left: Vec<_> = now.difference(&self.before).collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n{left:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|(count, _)| *count = 0);
    }
}

/// Lets the processes of commands that just ended disappear.
fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}

/// Everything that could be left, one line each.
fn traces(user: &User) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    processes(user, &mut traces);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Others may mount what they like in the meantime.
    let home = user.home.to_str().unwrap();
    let ours = |line: &&str| [home, "casemate", " fuse"].iter().any(|mark| line.contains(mark));
    traces.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
    for place in ["/tmp", "/var/tmp", "/dev/shm", "/run/lock"] {
        files(Path::new(place), user, 1, &mut traces);
    }
    files(&user.runtime(), user, 8, &mut traces);
    // The list of the boxes that run stays, and so does the lock of the shared servers: what all boxes
    // lock must be one file, in a directory that no box can make. In the list, what no process holds
    // goes with the next look.
    let ours = user.runtime().join("casemate");
    let boxes = ours.join("boxes");
    for stays in [&ours, &boxes, &ours.join("overlay"), &ours.join("overlay/lock")] {
        traces.remove(&format!("file {}", stays.display()));
    }
    for entry in fs::read_dir(boxes).into_iter().flatten().flatten() {
        if !is_held(&entry.path()) {
            traces.remove(&format!("file {}", entry.path().display()));
        }
    }
    files(&user.data().join("casemate/store/staging"), user, 1, &mut traces);
    files(&user.data().join("casemate/boxes"), user, 1, &mut traces);
    cgroups(Path::new("/sys/fs/cgroup"), user, &mut traces);
    // These stay, empty: what all boxes lock must be one file, in a directory that no box can make.
    for stays in ["casemate", "casemate/overlay", "casemate/overlay/lock"] {
        traces.remove(&format!("file {}", user.runtime().join(stays).display()));
    }
    traces
}

/// Whether a process has the file locked (fcntl(2), F_GETLK).
fn is_held(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    let mut lock = nix::libc::flock {
        l_type: nix::libc::F_RDLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETLK(&mut lock)).unwrap();
    lock.l_type != nix::libc::F_UNLCK as i16
}

/// Processes that run under the user's id or in a user namespace of the user's. When the suite runs as
/// the user itself, only those of the second kind and casemate's own, since the user has others.
fn processes(user: &User, traces: &mut BTreeSet<String>) {
    let own_namespace = fs::read_link("/proc/self/ns/user").unwrap();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process that ends while it is being looked at is not left behind.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |wanted: &str| {
            let line = status.lines().find(|line| line.starts_with(wanted));
            line.map(|line| line[wanted.len()..].trim()).unwrap_or_default()
        };
        let uids = field("Uid:");
        if !uids.split_whitespace().any(|uid| uid == user.uid.to_string()) {
            continue;
        }
        let namespace = fs::read_link(format!("/proc/{pid}/ns/user"));
        let elsewhere = namespace.as_ref().map_or(true, |namespace| *namespace != own_namespace);
        let is_casemate = field("Name:") == "casemate";
        if !super::user::is_root() && !elsewhere && !is_casemate {
            continue;
        }
        // It has ended, and the system's init, to which it fell, has yet to fetch its status; how
        // soon it does so is not casemate's.
        if field("State:").starts_with('Z') && field("PPid:") == "1" {
            continue;
        }
        let namespace = namespace.unwrap_or_default();
        let (comm, state) = (field("Name:"), field("State:"));
        traces.insert(format!("process {pid} {comm} ({state}) in {}", namespace.display()));
    }
}

/// Files of the user's below the place, to that depth.
fn files(place: &Path, user: &User, depth: u32, traces: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.uid() == user.uid {
            traces.insert(format!("file {}", entry.path().display()));
        }
        if depth > 1 && metadata.is_dir() {
            files(&entry.path(), user, depth - 1, traces);
        }
    }
}

/// Control groups that belong to the user or carry casemate's name.
fn cgroups(place: &Path, user: &User, traces: &mut BTreeSet<String>) {
    let mut waiting: Vec<PathBuf> = vec![place.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            let path = entry.path();
            let owned = entry.metadata().is_ok_and(|metadata| metadata.uid() == user.uid);
            if owned || entry.file_name().to_string_lossy().contains("casemate") {
                traces.insert(format!("cgroup {}", path.display()));
            }
            waiting.push(path);
        }
    }
}
