//! The writable file system, in namespaces that an ordinary user makes.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use casemate::error::Error;
use casemate::overlay::{Mounting, Owners, Upper, Writable, mount, serve};
use casemate::sys::channel::Channel;
use casemate::sys::clone::{self, Change};
use casemate::sys::fuse;
use casemate::sys::mount::attach;
use nix::unistd::{getegid, geteuid};

use crate::scene::*;

/// Runs `body` in a box: the layers with an upper directory, served by a process outside.
pub(crate) fn in_writable_box(
    home: &Path,
    layers: &[PathBuf],
    upper: &Path,
    body: impl FnOnce(&Path),
) {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let [directory, work] = ["upper", "work"].map(|name| {
        let path = upper.join(name);
        fs::create_dir_all(&path).unwrap();
        OwnedFd::from(File::open(path).unwrap())
    });
    let upper = Upper { directory, work, is_volatile: true };
    let (ours, theirs) = Channel::pair().unwrap();
    let lowers = lowers(layers);
    let server = fork(|| {
        let file_system = Writable::new(lowers, Owners::All(uid, gid), upper).unwrap();
        let receive = || {
            let (_, fds) = theirs.receive(16).unwrap().unwrap();
            Ok::<_, Error>(fds.into_iter().next().unwrap())
        };
        if let Err(error) = serve(&file_system, &[theirs.as_fd()], receive) {
            eprintln!("{error}");
            clone::exit_now(3);
        }
    });
    let at = home.join("fuse");
    fs::create_dir_all(&at).unwrap();
    let inner = fork(|| {
        enter_namespaces();
        let device = fuse::open_device().unwrap();
        let how = Mounting { uid, gid, for_all: false, read_only: false };
        let made = mount(&device, &how).unwrap();
        ours.send(b"device", &[device.as_fd()]).unwrap();
        drop(device);
        attach(made, File::open(&at).unwrap()).unwrap();
        drop(ours);
        body(&at);
    });
    assert_eq!(clone::wait_for_end(&inner.pidfd).unwrap(), Change::Exited(0), "in the box");
    assert_eq!(clone::wait_for_end(&server.pidfd).unwrap(), Change::Exited(0), "the server");
}

/// By hand: `TRY_LAYERS` (separated by colons, the topmost first), `TRY_UPPER` (a directory for
/// `upper` and `work`) and `TRY_COMMAND`, which a shell runs in the mount's root.
#[test]
#[ignore = "by hand"]
fn a_command_runs_on_it() {
    let layers: Vec<PathBuf> =
        std::env::var("TRY_LAYERS").unwrap().split(':').map(PathBuf::from).collect();
    let upper = PathBuf::from(std::env::var("TRY_UPPER").unwrap());
    let command = std::env::var("TRY_COMMAND").unwrap();
    let home = tempfile::tempdir_in(&upper).unwrap();
    in_writable_box(home.path(), &layers, &upper, |root| {
        let status = std::process::Command::new("sh")
            .args(["-c", &command])
            .current_dir(root)
            .env("ROOT", root)
            .status()
            .unwrap();
        assert!(status.success());
    });
}
