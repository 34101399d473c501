//! A box with 65,536 ids: a writable file system that shows the image's own owners.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use casemate::error::Error;
use casemate::overlay::{Mounting, Owners, Upper, Writable, mount, serve};
use casemate::sys::channel::Channel;
use casemate::sys::clone::{self, Change};
use casemate::sys::fuse;
use casemate::sys::mount::attach;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chown, setgroups, setresgid, setresuid};

use crate::common::require_root;
use crate::scene::{USER, fork, lowers};

/// Ids that own nothing on this machine; the box's are these but for its root, who is the user.
const IDS: u32 = 100_000;

/// Where a test of root's has its directory, in the process that has a /dev/fuse for everybody.
const HOME: &str = "CASEMATE_TEST_MANY_IDS";

/// Runs a test's body with an empty directory of the user's, as root: only root can give a box the ids
/// of others without a helper.
pub(crate) fn as_root(test: &str, body: impl FnOnce(&Path)) {
    if let Some(home) = std::env::var_os(HOME) {
        return body(Path::new(&home));
    }
    if !require_root() {
        return;
    }
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    // The others in the box have to come through.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(home.path(), mode).unwrap();
    chown(home.path(), Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    let script = "mknod -m 666 \"$1/fuse\" c 10 229 && mount --bind \"$1/fuse\" /dev/fuse && \
        exec \"$0\" \"$2\" --exact --nocapture --include-ignored";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(home.path())
        .arg(test)
        .env(HOME, home.path())
        .output()
        .unwrap();
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && text.contains("1 passed"), "as root:\n{text}");
}

/// Becomes the user that the server and the box belong to.
fn become_user() {
    let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
    setgroups(&[]).unwrap();
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
}

/// Runs `body` as the root of a box: the layers with an upper directory in `home`, served by a process
/// of the user's outside.
pub(crate) fn in_box_of_many_ids(home: &Path, layers: &[PathBuf], body: impl FnOnce(&Path)) {
    let (ours, theirs) = Channel::pair().unwrap();
    let layers = layers.to_vec();
    let upper = home.to_owned();
    let server = fork(|| {
        become_user();
        let dirs = ["upper", "work"].map(|name| {
            let path = upper.join(name);
            fs::create_dir_all(&path).unwrap();
            OwnedFd::from(File::open(path).unwrap())
        });
        let [directory, work] = dirs;
        let upper = Upper { directory, work, is_volatile: true, has_xattrs: true };
        let file_system = Writable::new(lowers(&layers), Owners::Image, upper).unwrap();
        let receive = || {
            let (_, fds) = theirs.receive(16).unwrap().unwrap();
            Ok::<_, Error>(fds.into_iter().next().unwrap())
        };
        if let Err(error) = serve(&file_system, &[theirs.as_fd()], None, receive) {
            eprintln!("{error}");
            clone::exit_now(3);
        }
    });
    let at = home.join("root");
    let (mut outside, mut inside) = UnixStream::pair().unwrap();
    let inner = fork(|| {
        drop(theirs);
        become_user();
        fs::create_dir_all(&at).unwrap();
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        inside.write_all(b"u").unwrap();
        inside.read_exact(&mut [0]).unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        setgroups(&[]).unwrap();
        let device = fuse::open_device().unwrap();
        let how = Mounting { uid: 0, gid: 0, for_all: true, read_only: false };
        let made = mount(&device, &how).unwrap();
        ours.send(b"device", &[device.as_fd()]).unwrap();
        drop(device);
        attach(made, File::open(&at).unwrap()).unwrap();
        drop(ours);
        body(&at);
    });
    // A box that fails closes the other end, and nobody waits.
    drop(inside);
    outside.read_exact(&mut [0]).expect("the box is there");
    for map in ["uid_map", "gid_map"] {
        let map = format!("/proc/{}/{map}", inner.pid);
        fs::write(map, format!("0 {USER} 1\n1 {IDS} 65535\n")).unwrap();
    }
    outside.write_all(b"m").unwrap();
    assert_eq!(clone::wait_for_end(&inner.pidfd).unwrap(), Change::Exited(0), "in the box");
    assert_eq!(clone::wait_for_end(&server.pidfd).unwrap(), Change::Exited(0), "the server");
}

/// Type and permissions, owner, group, links.
fn told(path: &Path) -> (u32, u32, u32, u64) {
    let found = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (found.mode(), found.uid(), found.gid(), found.nlink())
}

#[test]
fn everything_has_an_owner_and_keeps_it() {
    as_root("many::everything_has_an_owner_and_keeps_it", |home| {
        let layer = home.join("layer");
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("file"), "lower").unwrap();
        symlink("file", layer.join("link")).unwrap();
        symlink("file", layer.join("twice")).unwrap();
        fs::hard_link(layer.join("twice"), layer.join("again")).unwrap();
        let layers = [layer];
        let fifo = |path: PathBuf, mode| {
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(mode)).unwrap();
        };
        let expected = |root: &Path| {
            let links = libc::S_IFLNK | 0o777;
            for (name, found) in [
                ("file", (libc::S_IFREG | 0o4711, 7, 8, 1)),
                ("link", (links, 7, 8, 1)),
                ("new-link", (links, 9, 10, 1)),
                ("fifo", (libc::S_IFIFO | 0o111, 11, 12, 2)),
                ("fifo-too", (libc::S_IFIFO | 0o111, 11, 12, 2)),
                ("socket", (libc::S_IFSOCK | 0o700, 13, 14, 1)),
                ("dir", (libc::S_IFDIR | 0o2770, 15, 16, 3)),
                ("dir/in", (libc::S_IFDIR | 0o2755, 0, 16, 2)),
                ("dir/file", (libc::S_IFREG | 0o644, 0, 16, 1)),
            ] {
                assert_eq!(told(&root.join(name)), found, "{name}");
            }
            for link in ["link", "new-link"] {
                assert_eq!(fs::read_link(root.join(link)).unwrap(), Path::new("file"));
                assert_eq!(fs::symlink_metadata(root.join(link)).unwrap().len(), 4);
                assert_eq!(fs::read_to_string(root.join(link)).unwrap(), "lower");
            }
        };
        in_box_of_many_ids(home, &layers, |root| {
            let at = |name: &str| root.join(name);
            let own = |name: &str, uid, gid| lchown(at(name), Some(uid), Some(gid));
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
            own("file", 7, 8).unwrap();
            fs::set_permissions(at("file"), Permissions::from_mode(0o4711)).unwrap();
            let before = fs::symlink_metadata(at("link")).unwrap();
            own("link", 7, 8).unwrap();
            let after = fs::symlink_metadata(at("link")).unwrap();
            assert_eq!((before.ino(), before.mtime()), (after.ino(), after.mtime()));
            symlink("file", at("new-link")).unwrap();
            own("new-link", 9, 10).unwrap();
            fifo(at("fifo"), 0o644);
            fs::hard_link(at("fifo"), at("fifo-too")).unwrap();
            own("fifo", 11, 12).unwrap();
            fs::set_permissions(at("fifo"), Permissions::from_mode(0o111)).unwrap();
            drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
            fs::set_permissions(at("socket"), Permissions::from_mode(0o700)).unwrap();
            own("socket", 13, 14).unwrap();
            fs::create_dir(at("dir")).unwrap();
            own("dir", 15, 16).unwrap();
            fs::set_permissions(at("dir"), Permissions::from_mode(0o2770)).unwrap();
            fs::create_dir(at("dir/in")).unwrap();
            fs::write(at("dir/file"), "").unwrap();
            // Two names of one file of the layer.
            own("twice", 7, 8).unwrap();
            assert_eq!((told(&at("twice")).1, told(&at("again")).1), (7, 7));
            symlink("file", at("one")).unwrap();
            fs::hard_link(at("one"), at("other")).unwrap();
            // What was a FIFO still is one.
            let reader = std::thread::spawn({
                let fifo = at("fifo-too");
                move || fs::read_to_string(fifo).unwrap()
            });
            fs::write(at("fifo"), "through").unwrap();
            assert_eq!(reader.join().unwrap(), "through");
            expected(root);
            // A write takes the privilege.
            fs::copy(at("file"), at("copy")).unwrap();
            own("copy", 7, 8).unwrap();
            fs::set_permissions(at("copy"), Permissions::from_mode(0o6755)).unwrap();
            let mut user = Command::new("setpriv");
            user.args([
                "--reuid",
                "7",
                "--regid",
                "8",
                "--clear-groups",
                "sh",
                "-c",
                "echo x >>copy",
            ]);
            assert!(user.current_dir(root).status().unwrap().success());
            assert_eq!(told(&at("copy")), (libc::S_IFREG | 0o755, 7, 8, 1));
        });
        // And in the next box.
        in_box_of_many_ids(home, &layers, |root| {
            expected(root);
            // Its other name is not known yet, and is not to become another file by that.
            let own = || lchown(root.join("one"), Some(7), Some(8));
            assert_eq!(own().unwrap_err().raw_os_error(), Some(libc::EPERM));
            let links = libc::S_IFLNK | 0o777;
            assert_eq!(told(&root.join("other")), (links, 0, 0, 2));
            own().unwrap();
            assert_eq!(told(&root.join("other")), (links, 7, 8, 2));
        });
    });
}
