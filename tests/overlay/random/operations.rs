//! The operations, each done on both sides and compared.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::{Path, PathBuf};

use casemate::sys::fs::{get_xattr, set_xattr};
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

/// How large files become, about.
const SIZE: u64 = 60_000;
/// How many files a thread has open.
const OPEN: usize = 8;
/// How many of the last operations a failure shows.
const SHOWN: usize = 60;

type Answer<T> = io::Result<T>;

/// Tries again what the kernel's overlayfs refuses with ESTALE: it does so now and then, seen once in
/// some millions of operations on Linux 6.18, for a rename beside the work of other threads, and has
/// done nothing then.
fn not_stale<T>(act: impl Fn() -> Answer<T>) -> Answer<T> {
    let stale = |answer: &Answer<T>| {
        answer.as_ref().err().and_then(io::Error::raw_os_error) == Some(nix::libc::ESTALE)
    };
    let mut answer = act();
    for _ in 0..100 {
        if !stale(&answer) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        answer = act();
    }
    answer
}

/// A file open on both sides.
struct Open {
    name: String,
    files: [File; 2],
    readable: bool,
    writable: bool,
}

/// What was opened, where it was on both sides.
fn on_both(real: &Answer<File>, mirror: &Answer<File>) -> Option<[File; 2]> {
    let (Ok(real), Ok(mirror)) = (real, mirror) else { return None };
    Some([real, mirror].map(|file| file.try_clone().unwrap()))
}

pub(super) struct Worker {
    sides: [PathBuf; 2],
    seed: u64,
    thread: u64,
    state: u64,
    /// Whether the mode may say EXDEV to the rename of a directory that a layer has.
    keeps_lower_directories: bool,
    open: Vec<Open>,
    log: VecDeque<String>,
    done: u64,
}

impl Worker {
    pub(super) fn new(
        sides: [&Path; 2],
        seed: u64,
        thread: u64,
        keeps_lower_directories: bool,
    ) -> Self {
        Worker {
            sides: sides.map(Path::to_path_buf),
            seed,
            thread,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (thread + 1),
            keeps_lower_directories,
            open: Vec::new(),
            log: VecDeque::new(),
            done: 0,
        }
    }

    pub(super) fn run(mut self, number: u64) {
        while self.done < number {
            self.done += 1;
            self.step();
        }
    }

    /// The next number below the bound (splitmix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// A name: few letters and levels, so that names meet. It begins with the thread's number, as the
    /// targets of symbolic links do, which may be moved to the directory of all threads.
    fn name(&mut self) -> String {
        let levels = 1 + self.below(3);
        let mut name = match self.below(4) {
            0 => format!("shared/{}-", self.thread),
            _ => format!("own-{0}/{0}-", self.thread),
        };
        for level in 0..levels {
            if level > 0 {
                name.push('/');
            }
            name.push(char::from(b'a' + self.below(4) as u8));
        }
        name
    }

    /// Does the same on both sides and demands the same answer, which it returns.
    fn both<T: PartialEq + Debug>(
        &mut self,
        what: String,
        act: impl Fn(&Path, usize) -> Answer<T>,
    ) -> Option<T> {
        let real = not_stale(|| act(&self.sides[0], 0));
        let mirror = act(&self.sides[1], 1);
        self.compare(what, real, mirror)
    }

    fn compare<T: PartialEq + Debug>(
        &mut self,
        what: String,
        real: Answer<T>,
        mirror: Answer<T>,
    ) -> Option<T> {
        let errno = |answer: &Answer<T>| answer.as_ref().err().map(|error| error.raw_os_error());
        let agree = match (&real, &mirror) {
            (Ok(real), Ok(mirror)) => real == mirror,
            _ => errno(&real) == errno(&mirror),
        };
        self.log.push_back(format!(
            "{what}: {}",
            real.as_ref().map_or_else(|e| e.to_string(), |_| "ok".into())
        ));
        if self.log.len() > SHOWN {
            self.log.pop_front();
        }
        if !agree {
            let [real, mirror] = [format!("{real:?}"), format!("{mirror:?}")];
            let same =
                real.bytes().zip(mirror.bytes()).take_while(|(one, other)| one == other).count();
            let part = |text: &str| -> String {
                text.chars().skip(same.saturating_sub(40)).take(300).collect()
            };
            let (seed, thread, done) = (self.seed, self.thread, self.done);
            panic!(
                "seed {seed}, thread {thread}, operation {done}: {what}\n  from {same} of {} and {} on\n  \
                 here:  {}\n  there: {}\nbefore it:\n{}",
                real.len(),
                mirror.len(),
                part(&real),
                part(&mirror),
                Vec::from(self.log.clone()).join("\n")
            );
        }
        real.ok()
    }

    fn step(&mut self) {
        match self.below(100) {
            0..8 => self.create(),
            8..16 => self.open(),
            16..30 => self.write(),
            30..40 => self.read(),
            40..44 => self.resize(),
            44..47 => self.punch(),
            47..51 => self.memory(),
            51..59 => self.rename(),
            59..62 => self.link(),
            62..68 => self.unlink(),
            68..73 => self.make_directory(),
            73..76 => self.remove_directory(),
            76..79 => self.symbolic_link(),
            79..82 => self.mode(),
            82..85 => self.times(),
            85..89 => self.attribute(),
            89..93 => self.list(),
            93..98 => self.look(),
            98 => self.close(),
            _ => self.sync(),
        }
    }

    fn create(&mut self) {
        let (name, exclusive, size) = (self.name(), self.below(2) == 0, self.below(9000));
        let data = self.data(size);
        let stays_open = self.below(2) == 0;
        let create = |side: &PathBuf| {
            let mut options = OpenOptions::new();
            options.write(true).mode(0o644);
            match exclusive {
                true => options.create_new(true),
                false => options.create(true).truncate(true),
            };
            let file = options.open(side.join(&name))?;
            file.write_all_at(&data, 0)?;
            Ok(file)
        };
        let (real, mirror) = (create(&self.sides[0]), create(&self.sides[1]));
        let files = on_both(&real, &mirror);
        let what = format!("create {name}, exclusive {exclusive}, {size} bytes");
        self.compare(what, real.map(drop), mirror.map(drop));
        if let Some(files) = files.filter(|_| stays_open) {
            self.keep_open(Open { name, files, readable: false, writable: true });
        }
    }

    fn keep_open(&mut self, open: Open) {
        if self.open.len() == OPEN {
            let at = self.below(OPEN as u64) as usize;
            self.open.swap_remove(at);
        }
        self.open.push(open);
    }

    fn data(&mut self, size: u64) -> Vec<u8> {
        let first = self.below(256);
        (0..size).map(|at| ((at + first) % 253) as u8).collect()
    }

    fn open(&mut self) {
        let (name, writable) = (self.name(), self.below(3) > 0);
        let open =
            |side: &Path| OpenOptions::new().read(true).write(writable).open(side.join(&name));
        let (real, mirror) = (open(&self.sides[0]), open(&self.sides[1]));
        let files = on_both(&real, &mirror);
        let kind =
            |file: Answer<File>| file.and_then(|file| Ok(file.metadata()?.file_type().is_file()));
        let is_file =
            self.compare(format!("open {name}, writable {writable}"), kind(real), kind(mirror));
        if let (Some(true), Some(files)) = (is_file, files) {
            self.keep_open(Open { name, files, readable: true, writable });
        }
    }

    /// One of the open files, by its place, and what it was called.
    fn any_open(&mut self) -> Option<(usize, String)> {
        let number = self.open.len() as u64;
        let at = if number == 0 { return None } else { self.below(number) as usize };
        Some((at, self.open[at].name.clone()))
    }

    /// The same on both sides of an open file.
    fn both_open<T: PartialEq + Debug>(
        &mut self,
        at: usize,
        what: String,
        act: impl Fn(&File) -> Answer<T>,
    ) -> Option<T> {
        let [real, mirror] = [0, 1].map(|side| act(&self.open[at].files[side]));
        self.compare(what, real, mirror)
    }

    fn write(&mut self) {
        let Some((at, name)) = self.any_open() else { return self.create() };
        let (place, size) = (self.below(SIZE), 1 + self.below(6000));
        let data = self.data(size);
        self.both_open(at, format!("write to the open {name} at {place}, {size}"), |file| {
            file.write_at(&data, place)
        });
    }

    fn read(&mut self) {
        if self.below(2) == 0 {
            let name = self.name();
            self.both(format!("read {name}"), |side, _| fs::read(side.join(&name)));
        } else if let Some((at, name)) = self.any_open() {
            let (place, size) = (self.below(SIZE), self.below(20_000) as usize);
            self.both_open(at, format!("read the open {name} at {place}, {size}"), |file| {
                let mut data = vec![0; size];
                let count = file.read_at(&mut data, place)?;
                data.truncate(count);
                Ok((data, file.metadata()?.len()))
            });
        }
    }

    fn resize(&mut self) {
        let size = self.below(SIZE);
        match self.any_open() {
            Some((at, name)) if self.below(2) == 0 => {
                self.both_open(at, format!("resize the open {name} to {size}"), |file| {
                    file.set_len(size)
                });
            }
            _ => {
                let name = self.name();
                self.both(format!("resize {name} to {size}"), |side, _| {
                    Ok(nix::unistd::truncate(&side.join(&name), size as i64)?)
                });
            }
        }
    }

    fn punch(&mut self) {
        let Some((at, name)) = self.any_open() else { return };
        let (place, size) = (self.below(SIZE) as i64, 1 + self.below(20_000) as i64);
        let flags = match self.below(2) {
            0 => FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            _ => FallocateFlags::empty(),
        };
        self.both_open(
            at,
            format!("fallocate the open {name}, {flags:?}, {place}, {size}"),
            |file| Ok(fallocate(file, flags, place, size)?),
        );
    }

    /// Writes through memory. Only where the file is open for writing: what was mapped from a file of a
    /// layer before is allowed to be stale.
    fn memory(&mut self) {
        let Some((at, name)) = self.any_open() else { return };
        if !self.open[at].readable || !self.open[at].writable {
            return;
        }
        let place = self.below(SIZE) as usize;
        let byte = self.below(256) as u8;
        self.both_open(at, format!("write {byte} to the memory of {name} at {place}"), |file| {
            let size = file.metadata()?.len() as usize;
            if place >= size {
                return Ok(None);
            }
            let before = in_memory(file, size, place, byte)?;
            let mut after = [0];
            file.read_exact_at(&mut after, place as u64)?;
            Ok(Some((before, after[0] == byte)))
        });
    }

    fn rename(&mut self) {
        let (from, to) = (self.name(), self.name());
        let flags = match self.below(5) {
            0 => RenameFlags::RENAME_NOREPLACE,
            1 => RenameFlags::RENAME_EXCHANGE,
            _ => RenameFlags::empty(),
        };
        let rename = |side: &Path| -> Answer<()> {
            Ok(renameat2(AT_FDCWD, &side.join(&from), AT_FDCWD, &side.join(&to), flags)?)
        };
        let is_directory = |name: &str| {
            fs::symlink_metadata(self.sides[0].join(name)).is_ok_and(|metadata| metadata.is_dir())
        };
        let directories = is_directory(&from) || is_directory(&to);
        let real = not_stale(|| rename(&self.sides[0]));
        let refused = real.as_ref().err().and_then(io::Error::raw_os_error);
        let is_kept = match refused {
            Some(libc::EXDEV) => directories,
            // The kernel's overlayfs refuses some exchanges for good, on Linux 6.18 (seed 229470,
            // operation 477 of the first thread), and has done nothing then.
            Some(libc::ESTALE) => true,
            _ => false,
        };
        if is_kept && self.keeps_lower_directories {
            return;
        }
        let mirror = rename(&self.sides[1]);
        self.compare(format!("rename {from} to {to}, {flags:?}"), real, mirror);
    }

    fn link(&mut self) {
        let (from, to) = (self.name(), self.name());
        self.both(format!("link {from} to {to}"), |side, _| {
            fs::hard_link(side.join(&from), side.join(&to))?;
            Ok(fs::symlink_metadata(side.join(&from))?.nlink())
        });
    }

    fn unlink(&mut self) {
        let name = self.name();
        self.both(format!("unlink {name}"), |side, _| Ok(nix::unistd::unlink(&side.join(&name))?));
    }

    fn make_directory(&mut self) {
        let name = self.name();
        self.both(format!("mkdir {name}"), |side, _| {
            fs::DirBuilder::new().mode(0o755).create(side.join(&name))
        });
    }

    fn remove_directory(&mut self) {
        let name = self.name();
        if self.below(3) == 0 {
            self.both(format!("rm -r {name}"), |side, _| {
                let path = side.join(&name);
                match fs::symlink_metadata(&path)?.is_dir() {
                    true => fs::remove_dir_all(path),
                    false => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
                }
            });
        } else {
            self.both(format!("rmdir {name}"), |side, _| fs::remove_dir(side.join(&name)));
        }
    }

    fn symbolic_link(&mut self) {
        let (name, target) = (self.name(), ["a", "b/c", "nowhere"][self.below(3) as usize]);
        let target = format!("{}-{target}", self.thread);
        self.both(format!("symlink {name} -> {target}"), |side, _| {
            symlink(&target, side.join(&name))
        });
        self.both(format!("readlink {name}"), |side, _| fs::read_link(side.join(&name)));
    }

    fn mode(&mut self) {
        let (name, mode) = (self.name(), [0o755, 0o700, 0o775, 0o2711][self.below(4) as usize]);
        self.both(format!("chmod {name} {mode:o}"), |side, _| {
            let path = side.join(&name);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            Ok(fs::metadata(path)?.mode())
        });
    }

    fn times(&mut self) {
        let (name, seconds, nanoseconds) =
            (self.name(), self.below(1 << 31), self.below(1_000_000_000));
        let time = TimeSpec::new(seconds as i64, nanoseconds as i64);
        self.both(format!("utimens {name} {seconds}.{nanoseconds:09}"), |side, _| {
            let path = side.join(&name);
            utimensat(AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
            let metadata = fs::symlink_metadata(path)?;
            Ok((metadata.mtime(), metadata.mtime_nsec()))
        });
    }

    fn attribute(&mut self) {
        let (name, size) = (self.name(), self.below(100));
        let attribute = [c"user.random.one", c"user.random.two"][self.below(2) as usize];
        if self.below(2) == 0 {
            let data = self.data(size);
            self.both(format!("setxattr {name} {attribute:?}, {size} bytes"), |side, _| {
                set_xattr(File::open(side.join(&name))?, attribute, &data)
            });
        }
        self.both(format!("getxattr {name} {attribute:?}"), |side, _| {
            get_xattr(File::open(side.join(&name))?, attribute)
        });
    }

    /// Reads a directory; of the common one, what is this thread's.
    fn list(&mut self) {
        let (name, prefix) = match self.below(4) {
            0 => ("shared".to_string(), format!("{}-", self.thread)),
            1 => (format!("own-{}", self.thread), String::new()),
            _ => (self.name(), String::new()),
        };
        self.both(format!("readdir {name}"), |side, _| {
            let mut names = Vec::new();
            for entry in fs::read_dir(side.join(&name))? {
                let entry = entry?;
                let found = entry.file_name().into_string().unwrap();
                if found.starts_with(&prefix) {
                    names.push((
                        found,
                        entry.file_type()?.is_dir(),
                        entry.file_type()?.is_symlink(),
                    ));
                }
            }
            names.sort();
            Ok(names)
        });
    }

    fn look(&mut self) {
        let name = self.name();
        self.both(format!("lstat {name}"), |side, _| {
            let found = fs::symlink_metadata(side.join(&name))?;
            let of_file = found.is_file().then(|| (found.nlink(), found.len()));
            Ok((found.mode(), of_file, found.uid()))
        });
    }

    fn close(&mut self) {
        if let Some((at, _)) = self.any_open() {
            self.open.swap_remove(at);
        }
    }

    fn sync(&mut self) {
        if let Some((at, name)) = self.any_open() {
            self.both_open(at, format!("fsync the open {name}"), File::sync_all);
        }
    }
}

/// Writes a byte through shared memory of the file; the byte that was there.
fn in_memory(file: &File, size: usize, place: usize, byte: u8) -> io::Result<u8> {
    #![allow(unsafe_code)]
    // SAFETY: a new mapping of a file that no other thread shortens, of its size, which is not empty;
    // `place` lies in it, and it is gone before the function returns.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let memory =
            libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = memory.cast::<u8>().add(place);
        let before = at.replace(byte);
        libc::munmap(memory, size);
        Ok(before)
    }
}
