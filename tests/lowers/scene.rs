//! The processes of a box with a FUSE root, and layers made by hand.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Seek;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use casemate::error::Error;
use casemate::image::Reference;
use casemate::index::{LayerIndex, walk};
use casemate::overlay::{Lowers, Mounting, Owners, ReadOnly, mount, serve};
use casemate::store::{self, Store};
use casemate::sys::channel::Channel;
use casemate::sys::clone::{self, Change, Child, Forked};
use casemate::sys::mount::{Attributes, Context, attach, clone_tree, descriptor_path};
use casemate::sys::{fs as files, fuse};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Gid, Uid, chown, getegid, geteuid};

/// An ordinary user that owns nothing else.
pub(crate) const USER: u32 = 64322;

/// Runs a test's body with an empty directory, as an ordinary user who may open /dev/fuse. Root
/// gives it to that user in a mount namespace, where the machine does not give it to everybody.
pub(crate) fn as_user(test: &str, body: impl FnOnce(&Path)) {
    as_user_with(test, &[], body);
}

/// The same, with variables in the environment.
pub(crate) fn as_user_with(test: &str, env: &[(&str, &Path)], body: impl FnOnce(&Path)) {
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    if !geteuid().is_root() {
        return body(home.path());
    }
    chown(home.path(), Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
    let script = "mknod -m 666 \"$1/fuse\" c 10 229 && mount --bind \"$1/fuse\" /dev/fuse && \
        id=$2 && test=$3 && shift 3 && \
        exec setpriv --reuid $id --regid $id --clear-groups \"$0\" \"$test\" --exact --nocapture \
        --include-ignored";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(home.path())
        .args([&USER.to_string(), test])
        .current_dir("/")
        .envs(env.iter().copied())
        .env("TMPDIR", home.path())
        .output()
        .unwrap();
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    let passed = output.status.success() && text.contains("1 passed");
    if passed {
        eprint!("{text}");
    }
    let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(home.path()).status();
    assert!(passed, "as user {USER}:\n{text}");
}

pub(crate) fn file(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn whiteout(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
}

pub(crate) fn opaque(path: &Path) {
    files::set_xattr(File::open(path).unwrap(), c"user.overlay.opaque", b"y").unwrap();
}

/// The layers of an image that is imported into a store below `home`, the topmost first.
pub(crate) fn imported(home: &Path, archive: &Path) -> Vec<PathBuf> {
    let store = Store::open(&home.join("data")).unwrap();
    let reference = Reference::parse("test").unwrap();
    store::import(&store, &reference, archive).unwrap();
    let image = store.image(&reference).unwrap();
    image.layers.iter().rev().map(|layer| store.layer_path(layer)).collect()
}

/// Layers with their indexes, which are made by a walk where there is none beside the tree.
pub(crate) fn lowers(layers: &[PathBuf]) -> Lowers {
    let open = |layer: &PathBuf| {
        let fs = OwnedFd::from(File::open(layer).unwrap());
        let stored = File::open(layer.with_file_name("index"));
        let index = match stored {
            Ok(stored) if layer.ends_with("fs") => stored,
            _ => {
                let mut made = tempfile::tempfile().unwrap();
                walk(&fs).unwrap().write(&mut made).unwrap();
                made.rewind().unwrap();
                made
            }
        };
        (fs, LayerIndex::open(&index).unwrap())
    };
    Lowers::new(layers.iter().map(open).collect()).unwrap()
}

/// Forks; the child ends with 0 when `body` returns, and with 1 when it panics.
pub(crate) fn fork(body: impl FnOnce()) -> Child {
    match clone::fork().unwrap() {
        Forked::Parent(child) => child,
        Forked::Child => {
            let done = catch_unwind(AssertUnwindSafe(body));
            clone::exit_now(i32::from(done.is_err()));
        }
    }
}

/// A server in the namespaces that we are in, and the end of the channel that it gets a device by.
pub(crate) fn server(layers: &[PathBuf], owners: Owners) -> (Child, Channel) {
    let file_system = ReadOnly::new(lowers(layers), owners);
    let (ours, theirs) = Channel::pair().unwrap();
    let child = fork(|| {
        let receive = || {
            let (_, fds) = theirs.receive(16).unwrap().unwrap();
            Ok::<_, Error>(fds.into_iter().next().unwrap())
        };
        if let Err(error) = serve(&file_system, &[theirs.as_fd()], None, receive) {
            eprintln!("{error}");
            clone::exit_now(3);
        }
    });
    (child, ours)
}

/// Enters a user and a mount namespace of our own, where we are who we were.
pub(crate) fn enter_namespaces() {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).unwrap();
}

/// Mounts what a server serves, in a user namespace that we made.
pub(crate) fn mount_served(channel: &Channel) -> OwnedFd {
    let device = fuse::open_device().unwrap();
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let how = Mounting { uid, gid, for_all: false, read_only: true };
    let made = mount(&device, &how).unwrap();
    channel.send(b"device", &[device.as_fd()]).unwrap();
    made
}

/// Runs `body` in a box: the merged layers are mounted, and served by a process outside.
pub(crate) fn in_box(home: &Path, layers: &[PathBuf], body: impl FnOnce(&Path)) {
    let owners = Owners::All(geteuid().as_raw(), getegid().as_raw());
    let (server, channel) = server(layers, owners);
    let at = home.join("fuse");
    fs::create_dir_all(&at).unwrap();
    let inner = fork(|| {
        enter_namespaces();
        attach(mount_served(&channel), File::open(&at).unwrap()).unwrap();
        drop(channel);
        body(&at);
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kibibytes < 64 << 10, "{line}");
        eprintln!("the server: {line}");
    });
    assert_eq!(clone::wait_for_end(&inner.pidfd).unwrap(), Change::Exited(0), "in the box");
    // The box was its last user: the mount is gone, and the server with it.
    assert_eq!(clone::wait_for_end(&server.pidfd).unwrap(), Change::Exited(0), "the server");
}

/// A box whose server is killed while it reads: `body` is told when that has happened.
pub(crate) fn in_box_without_server(home: &Path, layers: &[PathBuf], body: impl FnOnce(&Path)) {
    let owners = Owners::All(geteuid().as_raw(), getegid().as_raw());
    let (server, channel) = server(layers, owners);
    let at = home.join("fuse");
    fs::create_dir_all(&at).unwrap();
    let inner = fork(|| {
        enter_namespaces();
        attach(mount_served(&channel), File::open(&at).unwrap()).unwrap();
        drop(channel);
        assert!(fs::read_dir(&at).unwrap().count() > 10);
        clone::send_signal(&server.pidfd, libc::SIGKILL).unwrap();
        // It is waited for outside; until then it stays as a zombie.
        let status = format!("/proc/{}/status", server.pid);
        while !fs::read_to_string(&status).unwrap().contains("zombie") {
            std::thread::yield_now();
        }
        body(&at);
    });
    assert_eq!(clone::wait_for_end(&inner.pidfd).unwrap(), Change::Exited(0), "in the box");
    assert_eq!(clone::wait_for_end(&server.pidfd).unwrap(), Change::Killed(libc::SIGKILL));
}

/// The kernel's overlayfs over some layers, the topmost first; writable where it has a place to be.
pub(crate) fn overlayfs(
    home: &Path,
    name: &str,
    lowers: &[PathBuf],
    writable: Option<&Path>,
) -> PathBuf {
    let at = home.join(name);
    fs::create_dir_all(&at).unwrap();
    let context = Context::open(c"overlay").unwrap();
    let mut held = Vec::new();
    let mut set = |key: &std::ffi::CStr, path: &Path| {
        let fd = files::open_path(path).unwrap();
        context.set(key, &descriptor_path(&fd)).unwrap();
        held.push(fd);
    };
    for lower in lowers {
        set(c"lowerdir+", lower);
    }
    if lowers.len() == 1 && writable.is_none() {
        // It wants two layers at least.
        let empty = home.join("empty");
        fs::create_dir_all(&empty).unwrap();
        set(c"lowerdir+", &empty);
    }
    if let Some(writable) = writable {
        for (key, name) in [(c"upperdir", "upper"), (c"workdir", "work")] {
            let path = writable.join(name);
            fs::create_dir_all(&path).unwrap();
            set(key, &path);
        }
        context.flag(c"volatile").unwrap();
        // Without it the layers' file systems, which are two, have each their own inode numbers, and
        // readdir(3) tells others than stat(2) (overlayfs.rst, "Inode properties").
        context.set(c"xino", c"on").unwrap();
    }
    context.flag(c"userxattr").unwrap();
    let made = context.mount_or_message(Attributes::SAFE).unwrap();
    attach(made, File::open(&at).unwrap()).unwrap();
    at
}

/// The names of a directory and the offsets behind them, as getdents64(2) has them.
pub(crate) fn offsets(directory: &Path) -> Vec<(OsString, u64)> {
    offsets_from(directory, 0)
}

/// The same, from an offset on.
pub(crate) fn offsets_from(directory: &Path, from: u64) -> Vec<(OsString, u64)> {
    use std::os::fd::AsRawFd;
    let directory = File::open(directory).unwrap();
    nix::unistd::lseek(&directory, from as i64, nix::unistd::Whence::SeekSet).unwrap();
    let mut found = Vec::new();
    let mut buffer = vec![0u8; 32768];
    loop {
        // SAFETY: the buffer is live and of the length passed.
        #[allow(unsafe_code)]
        let length = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        assert!(length >= 0, "{}", std::io::Error::last_os_error());
        if length == 0 {
            return found;
        }
        let mut rest = &buffer[..length as usize];
        while !rest.is_empty() {
            let next = u64::from_ne_bytes(rest[8..16].try_into().unwrap());
            let record = usize::from(u16::from_ne_bytes(rest[16..18].try_into().unwrap()));
            let name = rest[19..record].split(|byte| *byte == 0).next().unwrap();
            found.push((OsString::from_vec(name.to_vec()), next));
            rest = &rest[record..];
        }
    }
}

/// A server with a mount in namespaces of its own, and boxes in other ones that get it by a
/// descriptor: what came of each way.
pub(crate) fn share(home: &Path, layers: &[PathBuf]) -> Vec<(&'static str, Result<(), Errno>)> {
    let owners = Owners::All(geteuid().as_raw(), getegid().as_raw());
    let (server, channel) = server(layers, owners);
    let (ours, keepers) = Channel::pair().unwrap();
    let at = home.join("kept");
    fs::create_dir_all(&at).unwrap();
    let keeper = fork(|| {
        enter_namespaces();
        let mount = mount_served(&channel);
        drop(channel);
        attach(&mount, File::open(&at).unwrap()).unwrap();
        let attached = File::open(&at).unwrap();
        while let Some((wanted, _)) = keepers.receive(16).unwrap() {
            match &wanted[..] {
                b"mount" => keepers.send(b"mount", &[mount.as_fd()]).unwrap(),
                b"clone" => {
                    let clone = clone_tree(attached.as_fd(), c"", false).unwrap();
                    keepers.send(b"clone", &[clone.as_fd()]).unwrap();
                }
                _ => break,
            }
        }
    });
    let ways: [(&str, &[u8], Use); 6] = [
        ("the mount itself", b"mount", Use::Attached),
        ("a clone", b"clone", Use::Attached),
        ("a clone again", b"", Use::Attached),
        ("a clone as lower layer", b"clone", Use::Lower),
        ("a clone as lower layer once attached", b"clone", Use::AttachedLower),
        ("another one", b"clone", Use::AttachedLower),
    ];
    let mut held = None;
    let mut found = Vec::new();
    for (number, (name, wanted, how)) in ways.into_iter().enumerate() {
        if !wanted.is_empty() {
            ours.send(wanted, &[]).unwrap();
            held = ours.receive(16).unwrap().unwrap().1.into_iter().next();
        }
        let mount = held.as_ref().unwrap();
        let place = home.join(format!("box-{number}"));
        fs::create_dir_all(&place).unwrap();
        let inner = fork(|| {
            enter_namespaces();
            if let Err(error) = use_shared(mount, &place, how) {
                clone::exit_now(error.raw_os_error().unwrap_or(1));
            }
        });
        found.push(match clone::wait_for_end(&inner.pidfd).unwrap() {
            Change::Exited(0) => (name, Ok(())),
            Change::Exited(errno) => (name, Err(Errno::from_raw(errno))),
            other => panic!("{name}: {other:?}"),
        });
    }
    drop(held);
    ours.send(b"end", &[]).unwrap();
    assert_eq!(clone::wait_for_end(&keeper.pidfd).unwrap(), Change::Exited(0));
    assert_eq!(clone::wait_for_end(&server.pidfd).unwrap(), Change::Exited(0));
    found
}

/// What a box does with a mount that came from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Attached,
    Lower,
    AttachedLower,
}

fn use_shared(mount: &OwnedFd, place: &Path, how: Use) -> std::io::Result<()> {
    let root = match how {
        Use::Attached => attach(mount, File::open(place)?).map(|()| place.to_owned())?,
        _ => over(mount, place, how == Use::AttachedLower)?,
    };
    assert_eq!(fs::read_to_string(root.join("merged/deep/er/low"))?, "low");
    if how != Use::Attached {
        fs::write(root.join("everywhere"), "written")?;
        fs::remove_dir_all(root.join("merged"))?;
    }
    assert!(fs::read_dir(root)?.count() > 10);
    Ok(())
}

/// The kernel's overlayfs over a mount that came from elsewhere, attached here first or not.
fn over(lower: &OwnedFd, at: &Path, is_attached: bool) -> std::io::Result<PathBuf> {
    let context = Context::open(c"overlay")?;
    let place = at.join("lower");
    fs::create_dir_all(&place)?;
    let attached = match is_attached {
        true => {
            attach(lower, File::open(&place)?)?;
            OwnedFd::from(File::open(&place)?)
        }
        false => lower.try_clone()?,
    };
    context.set(c"lowerdir+", &descriptor_path(&attached))?;
    for (key, name) in [(c"upperdir", "upper"), (c"workdir", "work")] {
        let path = at.join(name);
        fs::create_dir_all(&path)?;
        context.set(key, &descriptor_path(&files::open_path(&path)?))?;
    }
    context.flag(c"userxattr")?;
    let made = context.mount(Attributes::SAFE)?;
    drop(attached);
    if is_attached {
        // The overlay has a copy of its own.
        casemate::sys::mount::detach(&files::c_path(&place)?)?;
    }
    let root = at.join("root");
    fs::create_dir_all(&root)?;
    attach(made, File::open(&root)?)?;
    Ok(root)
}
