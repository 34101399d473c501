//! The writable file system, in namespaces that an ordinary user makes.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate::error::Error;
use casemate::overlay::{Mounting, Owners, Upper, Writable, mount, serve};
use casemate::sys::channel::Channel;
use casemate::sys::clone::{self, Change};
use casemate::sys::fuse;
use casemate::sys::mount::{Attributes, Context, attach};
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{getegid, geteuid};

use crate::listing::{differences, list};
use crate::scene::*;

/// Where what is written goes.
pub(crate) enum Place<'a> {
    /// `upper` and `work` in a directory.
    Disk(&'a Path),
    /// In memory that the box has mounted, of so many bytes.
    Memory(u64),
    /// The same, for so many inodes; attributes and hard links count too.
    Inodes(u64),
}

/// Runs `body` in a box: the layers with an upper directory, served by a process outside.
pub(crate) fn in_writable_box(
    home: &Path,
    layers: &[PathBuf],
    place: &Place<'_>,
    body: impl FnOnce(&Path),
) {
    let ended = in_box_with_server(home, layers, place, |root, _| body(root));
    assert_eq!(ended, Change::Exited(0), "the server");
}

/// The same with a descriptor of the server; how that ended.
fn in_box_with_server(
    home: &Path,
    layers: &[PathBuf],
    place: &Place<'_>,
    body: impl FnOnce(&Path, &OwnedFd),
) -> Change {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let (ours, theirs) = Channel::pair().unwrap();
    let lowers = lowers(layers);
    let server = fork(|| {
        let (_, fds) = theirs.receive(16).unwrap().unwrap();
        let [directory, work] = <[OwnedFd; 2]>::try_from(fds).unwrap();
        let has_xattrs = std::env::var_os("TRY_NO_XATTRS").is_none();
        let upper = Upper { directory, work, is_volatile: true, has_xattrs };
        let file_system = Writable::new(lowers, Owners::All(uid, gid), upper).unwrap();
        let receive = || {
            let (_, fds) = theirs.receive(16).unwrap().unwrap();
            Ok::<_, Error>(fds.into_iter().next().unwrap())
        };
        if let Err(error) = serve(&file_system, &[theirs.as_fd()], None, receive) {
            eprintln!("{error}");
            clone::exit_now(3);
        }
    });
    let at = home.join("fuse");
    fs::create_dir_all(&at).unwrap();
    let inner = fork(|| {
        // A server that fails takes the other end with it, and nobody waits.
        drop(theirs);
        enter_namespaces();
        let base = match place {
            Place::Disk(path) => path.to_path_buf(),
            Place::Memory(number) | Place::Inodes(number) => {
                let memory = home.join("memory");
                fs::create_dir_all(&memory).unwrap();
                let context = Context::open(c"tmpfs").unwrap();
                let key = if matches!(place, Place::Memory(_)) { c"size" } else { c"nr_inodes" };
                context.set(key, &CString::new(number.to_string()).unwrap()).unwrap();
                let made = context.mount(Attributes::SAFE).unwrap();
                attach(made, File::open(&memory).unwrap()).unwrap();
                memory
            }
        };
        let dirs = ["upper", "work"].map(|name| {
            let path = base.join(name);
            fs::create_dir_all(&path).unwrap();
            File::open(path).unwrap()
        });
        ours.send(b"upper", &[dirs[0].as_fd(), dirs[1].as_fd()]).unwrap();
        let device = fuse::open_device().unwrap();
        let how = Mounting { uid, gid, for_all: false, read_only: false };
        let made = mount(&device, &how).unwrap();
        ours.send(b"device", &[device.as_fd()]).unwrap();
        drop(device);
        attach(made, File::open(&at).unwrap()).unwrap();
        drop(ours);
        body(&at, &server.pidfd);
    });
    assert_eq!(clone::wait_for_end(&inner.pidfd).unwrap(), Change::Exited(0), "in the box");
    clone::wait_for_end(&server.pidfd).unwrap()
}

/// Runs `body` with the kernel's overlayfs mounted over the same.
fn in_kernel_box(home: &Path, layers: &[PathBuf], place: &Path, body: impl FnOnce(&Path)) {
    let inner = fork(|| {
        enter_namespaces();
        body(&overlayfs(home, "kernel", layers, Some(place)));
    });
    assert_eq!(clone::wait_for_end(&inner.pidfd).unwrap(), Change::Exited(0), "in the box");
}

#[test]
fn it_does_what_overlayfs_does() {
    as_user("writable::it_does_what_overlayfs_does", |home| {
        let layers = crate::hostile(home);
        for (name, place) in
            [("by-disk", Place::Disk(home)), ("by-memory", Place::Memory(64 << 20))]
        {
            in_writable_box(home, &layers, &place, |fuse| {
                let kernel = overlayfs(home, "kernel", &layers, Some(&home.join(name)));
                let (mut ours, mut theirs) = (list(fuse, false), list(&kernel, true));
                // Each has the time at which its upper directory was made.
                for list in [&mut ours, &mut theirs] {
                    assert!(list.remove(Path::new("")).is_some());
                }
                assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
                for root in [fuse, &kernel] {
                    crate::write_all_over(root);
                }
                let (mut ours, mut theirs) = (list(fuse, false), list(&kernel, true));
                // One file here and two there, where the first name was copied up.
                assert!(ours.remove(Path::new("exact-too")).is_some());
                theirs.remove(Path::new("exact-too"));
                assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
            });
        }
    });
}

#[test]
fn a_kept_upper_directory_is_read_by_both() {
    as_user("writable::a_kept_upper_directory_is_read_by_both", |home| {
        let layers = crate::hostile(home);
        let (ours, theirs) = (home.join("ours"), home.join("theirs"));
        let listed = |root: &Path, overridden| {
            let list = list(root, overridden);
            let lines = list.iter().filter(|(path, _)| *path != Path::new("exact-too"));
            let lines = lines.map(|(path, what)| format!("{}: {what:?}", path.display()));
            lines.collect::<Vec<_>>().join("\n")
        };
        let notes = home.join("notes");
        let same = |found: &str, notes: &Path| {
            let noted = fs::read_to_string(notes).unwrap();
            let other = found.lines().zip(noted.lines()).find(|(found, noted)| found != noted);
            assert_eq!(other, None);
            assert_eq!(found.len(), noted.len());
        };
        in_writable_box(home, &layers, &Place::Disk(&ours), |fuse| {
            crate::write_all_over(fuse);
            fs::write(&notes, listed(fuse, false)).unwrap();
        });
        in_kernel_box(home, &layers, &ours, |kernel| {
            same(&listed(kernel, true), &notes);
        });
        in_writable_box(home, &layers, &Place::Disk(&ours), |fuse| {
            same(&listed(fuse, false), &notes);
        });
        in_kernel_box(home, &layers, &theirs, |kernel| {
            crate::write_all_over(kernel);
            fs::write(&notes, listed(kernel, true)).unwrap();
        });
        in_writable_box(home, &layers, &Place::Disk(&theirs), |fuse| {
            same(&listed(fuse, false), &notes);
        });
    });
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_half_made() {
    as_user("writable::a_full_disk_is_told_and_leaves_nothing_half_made", |home| {
        let layer = home.join("layer");
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("large"), vec![b'x'; 3 << 20]).unwrap();
        file(&layer.join("dir/small"), "small");
        in_writable_box(home, &[layer], &Place::Memory(2 << 20), |fuse| {
            let raw = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap());
            let mode = fs::Permissions::from_mode(0o600);
            let copied = fs::set_permissions(fuse.join("large"), mode.clone());
            assert_eq!(raw(copied.unwrap_err()), Errno::ENOSPC);
            assert_eq!(fs::read(fuse.join("large")).unwrap().len(), 3 << 20);
            assert_eq!(fs::read_dir(home.join("memory/work")).unwrap().count(), 0);
            assert_eq!(fs::read_dir(home.join("memory/upper")).unwrap().count(), 0);
            let written = fs::write(fuse.join("new"), vec![b'y'; 4 << 20]);
            assert_eq!(raw(written.unwrap_err()), Errno::ENOSPC);
            fs::remove_file(fuse.join("new")).unwrap();
            // There is room again: nothing keeps what was removed, once the kernel has forgotten it.
            let end = Instant::now() + Duration::from_secs(10);
            while fs::set_permissions(fuse.join("dir/small"), mode.clone()).is_err() {
                assert!(Instant::now() < end);
            }
            fs::write(fuse.join("new"), vec![b'y'; 1 << 20]).unwrap();
            fs::rename(fuse.join("dir"), fuse.join("moved")).unwrap();
            fs::remove_file(fuse.join("large")).unwrap();
            assert_eq!(fs::read(fuse.join("moved/small")).unwrap(), b"small");
        });
    });
}

#[test]
fn large_directories_of_the_layers_are_not_renamed() {
    as_user("writable::large_directories_of_the_layers_are_not_renamed", |home| {
        let layer = home.join("layer");
        for (dir, count) in [("few", 9_000), ("many", 10_500)] {
            fs::create_dir_all(layer.join(dir).join("in")).unwrap();
            for number in 0..count {
                File::create(layer.join(format!("{dir}/in/{number}"))).unwrap();
            }
        }
        in_writable_box(home, &[layer], &Place::Disk(home), |fuse| {
            let refused = fs::rename(fuse.join("many"), fuse.join("new")).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EXDEV));
            fs::rename(fuse.join("few"), fuse.join("new")).unwrap();
            assert!(!fuse.join("few").exists());
            assert_eq!(fs::read_dir(fuse.join("new/in")).unwrap().count(), 9_000);
            fs::remove_dir_all(fuse.join("new")).unwrap();
            fs::remove_dir_all(fuse.join("many")).unwrap();
            assert_eq!(fs::read_dir(fuse).unwrap().count(), 0);
        });
    });
}

#[test]
fn removed_files_stay_usable_and_their_number_is_bounded() {
    as_user("writable::removed_files_stay_usable_and_their_number_is_bounded", |home| {
        let layer = home.join("layer");
        fs::create_dir(&layer).unwrap();
        for number in 0..100 {
            fs::write(layer.join(format!("lower-{number}")), "lower").unwrap();
        }
        setrlimit(Resource::RLIMIT_NOFILE, 1024, 1024).unwrap();
        in_writable_box(home, &[layer], &Place::Disk(home), |fuse| {
            let mut open = Vec::new();
            for number in 0..100 {
                let path = fuse.join(format!("lower-{number}"));
                let mut options = fs::OpenOptions::new();
                open.push(options.read(true).write(true).open(&path).unwrap());
                fs::remove_file(&path).unwrap();
            }
            // A quarter of the server's descriptors.
            let refused = (0..300).find_map(|number| {
                let path = fuse.join(format!("new-{number}"));
                let mut options = fs::OpenOptions::new();
                open.push(options.read(true).write(true).create(true).open(&path).unwrap());
                fs::remove_file(&path).err()
            });
            assert_eq!(refused.unwrap().raw_os_error(), Some(libc::EMFILE));
            for (number, file) in open.iter().enumerate().skip(1) {
                let text = format!("text {number}");
                let done = pwrite(file, text.as_bytes(), 0);
                // There is no more room for copies of those of the layer.
                if done == Err(Errno::EMFILE) {
                    assert!(number < 100);
                    continue;
                }
                assert_eq!(done, Ok(text.len()));
                let mut found = vec![0; 20];
                let length = pread(file, &mut found, 0).unwrap();
                assert_eq!(found[..length], *text.as_bytes());
            }
            drop(open);
            // All of them are given back.
            for number in 0..2000 {
                let path = fuse.join(format!("later-{number}"));
                fs::write(&path, "x").unwrap();
                fs::remove_file(&path).unwrap();
            }
        });
    });
}

#[test]
fn times_of_birth_are_those_of_what_is_made() {
    as_user("writable::times_of_birth_are_those_of_what_is_made", |home| {
        let layer = home.join("layer");
        file(&layer.join("dir/file"), "lower");
        in_writable_box(home, &[layer], &Place::Disk(home), |fuse| {
            let birth = |name: &str| fs::symlink_metadata(fuse.join(name)).unwrap().created().ok();
            let before = std::time::SystemTime::now() - Duration::from_secs(1);
            fs::write(fuse.join("new"), "new").unwrap();
            fs::create_dir(fuse.join("new-dir")).unwrap();
            std::os::unix::fs::symlink("new", fuse.join("link")).unwrap();
            let born = ["new", "new-dir", "link"].map(|name| birth(name).unwrap());
            for born in born {
                assert!(born > before && born < before + Duration::from_secs(60));
            }
            // Neither an image nor a copy of something in it has one.
            for _ in 0..2 {
                assert_eq!(["dir", "dir/file"].map(birth), [None, None]);
                fs::set_permissions(fuse.join("dir/file"), fs::Permissions::from_mode(0o600))
                    .unwrap();
            }
            // It stays, whatever else changes.
            std::thread::sleep(Duration::from_millis(20));
            fs::write(fuse.join("new"), "changed").unwrap();
            fs::rename(fuse.join("new"), fuse.join("dir/moved")).unwrap();
            let metadata = fs::metadata(fuse.join("dir/moved")).unwrap();
            assert_eq!(metadata.created().unwrap(), born[0]);
            assert!(metadata.modified().unwrap() > born[0] && metadata.len() == 7);
        });
    });
}

/// What was written before the server was killed is there, and nothing by halves: neither files nor
/// copies of those in the layer.
#[test]
fn a_server_that_is_killed_leaves_what_was_written() {
    const LENGTH: usize = 50_000;
    const FILES: usize = 600;
    as_user("writable::a_server_that_is_killed_leaves_what_was_written", |home| {
        let layer = home.join("layer");
        fs::create_dir(&layer).unwrap();
        for number in 0..FILES {
            fs::write(layer.join(format!("lower-{number}")), vec![b'l'; LENGTH]).unwrap();
        }
        let layers = [layer];
        let content = |number: usize| vec![b'0' + (number % 10) as u8; LENGTH];
        let mut written = 0;
        for round in 0..3 {
            let place = home.join(format!("round-{round}"));
            let noted = home.join("noted");
            let place = Place::Disk(&place);
            let ended = in_box_with_server(home, &layers, &place, |fuse, server| {
                let server = server.try_clone().unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20 + 20 * round));
                    clone::send_signal(&server, libc::SIGKILL).unwrap();
                });
                let write = |number: usize| -> std::io::Result<()> {
                    let lower = fuse.join(format!("lower-{number}"));
                    fs::set_permissions(&lower, fs::Permissions::from_mode(0o600))?;
                    fs::write(fuse.join("part"), content(number))?;
                    fs::rename(fuse.join("part"), fuse.join(format!("new-{number}")))
                };
                let (done, error) = (0..FILES)
                    .find_map(|number| write(number).err().map(|error| (number, error)))
                    .expect("the server was killed before the end");
                let told = error.raw_os_error();
                let known = [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO].map(Some);
                assert!(known.contains(&told), "{error}");
                // And so from then on, without waiting.
                let later = fs::read(fuse.join("not asked yet")).unwrap_err().raw_os_error();
                assert!(known.contains(&later), "{later:?}");
                fs::write(&noted, done.to_string()).unwrap();
            });
            assert_eq!(ended, Change::Killed(libc::SIGKILL));
            let done: usize = fs::read_to_string(&noted).unwrap().parse().unwrap();
            written += done;
            in_writable_box(home, &layers, &place, |fuse| {
                for number in 0..FILES {
                    let lower = fs::read(fuse.join(format!("lower-{number}"))).unwrap();
                    assert!(lower.len() == LENGTH && lower.iter().all(|byte| *byte == b'l'));
                    let new = fs::read(fuse.join(format!("new-{number}"))).ok();
                    // The one that was under way may be there, but not a part of it.
                    if number < done || new.is_some() {
                        assert!(
                            number <= done && new == Some(content(number)),
                            "{number} of {done}"
                        );
                    }
                }
            });
        }
        assert!(written > 0);
    });
}

/// By hand: `TRY_LAYERS` (separated by colons, the topmost first), `TRY_UPPER` (a directory for
/// `upper` and `work`; with `TRY_MEMORY` they are in memory) and `TRY_COMMAND`, which a shell runs in
/// the mount's root. With `TRY_NO_XATTRS` there are no attributes.
#[test]
#[ignore = "by hand"]
fn a_command_runs_on_it() {
    let layers: Vec<PathBuf> =
        std::env::var("TRY_LAYERS").unwrap().split(':').map(PathBuf::from).collect();
    let upper = PathBuf::from(std::env::var("TRY_UPPER").unwrap());
    let command = std::env::var("TRY_COMMAND").unwrap();
    let home = tempfile::tempdir_in(&upper).unwrap();
    let place = match std::env::var_os("TRY_MEMORY") {
        Some(_) => Place::Memory(4 << 30),
        None => Place::Disk(&upper),
    };
    in_writable_box(home.path(), &layers, &place, |root| {
        let status = std::process::Command::new("sh")
            .args(["-c", &command])
            .current_dir(root)
            .env("ROOT", root)
            .status()
            .unwrap();
        assert!(status.success());
    });
}
