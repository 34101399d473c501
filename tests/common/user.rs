//! The unprivileged user that the tests run as, and the directories that belong to the suite.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

/// The name that the suite gives its user when root started it.
const NAME: &str = "casemate-test";

/// Who runs the boxes, and where.
#[derive(Debug)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    /// This checkout's directory under /var/tmp; the user can reach it and not write to it.
    pub base: PathBuf,
}

impl User {
    /// $XDG_DATA_HOME of every test command: one image store for the whole suite.
    pub fn data(&self) -> PathBuf {
        self.base.join("data")
    }

    /// $XDG_CACHE_HOME of every test command.
    pub fn cache(&self) -> PathBuf {
        self.base.join("cache")
    }

    /// $XDG_RUNTIME_DIR of every test command.
    pub fn runtime(&self) -> PathBuf {
        self.base.join("run")
    }

    /// Where the tests put their own files.
    pub fn work(&self) -> PathBuf {
        self.base.join("work")
    }

    /// The casemate under test, at a path that the user can reach.
    pub fn casemate(&self) -> PathBuf {
        self.base.join("bin/casemate")
    }

    /// Gives a path that the suite made to the user.
    pub fn own(&self, path: &Path) {
        if is_root() {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).unwrap();
        }
    }
}

/// Whether root started the suite.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The user of the suite; made, with its directories, at the first call.
pub fn user() -> &'static User {
    static USER: OnceLock<User> = OnceLock::new();
    USER.get_or_init(prepare)
}

/// Takes the lock of that name, which is released when the value is dropped.
pub fn lock(name: &str) -> Flock<File> {
    let directory = root_directory();
    let file = File::create(directory.join(format!(".lock-{name}"))).unwrap();
    Flock::lock(file, FlockArg::LockExclusive).unwrap()
}

/// The directory of all suites of this user on this machine.
fn root_directory() -> PathBuf {
    let name = match is_root() {
        true => NAME.to_string(),
        false => format!("{NAME}-{}", Uid::current()),
    };
    let directory = Path::new("/var/tmp").join(name);
    fs::create_dir_all(&directory).unwrap();
    let owner = fs::symlink_metadata(&directory).unwrap();
    assert!(
        owner.is_dir() && owner.uid() == Uid::current().as_raw(),
        "{} belongs to somebody else",
        directory.display()
    );
    directory
}

fn prepare() -> User {
    let (name, uid, gid, home) = account();
    // One directory for each checkout, so that two of them can be tested at once.
    let checkout =
        env!("CARGO_MANIFEST_DIR").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let base = root_directory().join(format!("{:08x}", checkout >> 32));
    let user = User { name, uid, gid, home, base };
    let _lock = lock("prepare");
    install(&user);
    user
}

/// The account to use: our own, or the suite's, which root makes if it is not there yet.
fn account() -> (String, u32, u32, PathBuf) {
    let find = || nix::unistd::User::from_name(NAME).unwrap();
    let account = if !is_root() {
        nix::unistd::User::from_uid(Uid::current()).unwrap().expect("the current user has a name")
    } else if let Some(account) = find() {
        account
    } else {
        let _lock = lock("account");
        if find().is_none() {
            let made = Command::new("useradd")
                .args(["--create-home", "--shell", "/bin/bash", "--user-group", NAME])
                .status()
                .expect("useradd starts");
            assert!(made.success(), "useradd {NAME} failed");
        }
        find().expect("the account was made")
    };
    (account.name, account.uid.as_raw(), account.gid.as_raw(), account.dir)
}

/// Makes the directories and copies the binary, if it is newer than the copy. A new binary gets a
/// new store, since the form of the store may have changed with it.
fn install(user: &User) {
    let built = Path::new(env!("CARGO_BIN_EXE_casemate"));
    let stamp = {
        let metadata = fs::metadata(built).unwrap();
        let modified = metadata.modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        format!("{} {}", metadata.len(), modified.as_nanos())
    };
    let stamp_file = user.base.join("stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|known| known == stamp) {
        return;
    }
    for directory in ["", "bin", "imported"] {
        fs::create_dir_all(user.base.join(directory)).unwrap();
    }
    fs::set_permissions(&user.base, Permissions::from_mode(0o755)).unwrap();
    for private in [user.data(), user.cache(), user.runtime(), user.work()] {
        remove_tree(&private);
        fs::create_dir(&private).unwrap();
        fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
        chown(&private, Some(user.uid), Some(user.gid)).unwrap();
    }
    remove_tree(&user.base.join("imported"));
    fs::create_dir(user.base.join("imported")).unwrap();
    let fresh = user.base.join("bin/.casemate");
    install_program(built, &fresh, 0o755);
    fs::rename(&fresh, user.casemate()).unwrap();
    fs::write(stamp_file, stamp).unwrap();
}

/// Copies a program, by another process. The kernel does not start a file that somebody holds open
/// for writing (ETXTBSY), and a process that another test starts at the wrong moment inherits the
/// descriptor that this one writes with.
pub fn install_program(from: &Path, to: &Path, mode: u32) {
    let mode = format!("{mode:o}");
    let status = Command::new("install").args(["-m", &mode]).args([from, to]).status().unwrap();
    assert!(status.success(), "install {}", to.display());
}

/// Removes a tree that may hold directories without permissions, as `rm -rf` after `chmod` does.
pub fn remove_tree(path: &Path) {
    if fs::symlink_metadata(path).is_err() {
        return;
    }
    let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(path).status();
    fs::remove_dir_all(path).unwrap_or_else(|e| panic!("remove {}: {e}", path.display()));
}
