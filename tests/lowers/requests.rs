//! Requests that no kernel sends, straight into both file systems: random ones, and the bytes of such
//! with changes. `CASEMATE_FUZZ_ROUNDS` multiplies the number, `CASEMATE_FUZZ_SEED` starts elsewhere.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use casemate::overlay::wire::{Answer, Change, Open, Operation, Range, Request, SetTime, Transfer};
use casemate::overlay::{FileSystem, Owners, ReadOnly, Upper, Writable};

use crate::listing::{differences, list};
use crate::scene::{as_user, lowers};

/// How many requests each file system gets, from each of its threads.
const REQUESTS: usize = 15_000;
/// The longest that one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// xorshift64*, as in tests/fuzz.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 33) % limit
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A place in a file, or how much of it: small, or beyond all that a file can have, so that no
    /// disk is filled.
    fn extent(&mut self) -> u64 {
        match self.below(6) {
            0 => self.pick(&[u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 62]),
            _ => self.below(1 << 17),
        }
    }

    /// One that exists, mostly.
    fn node(&mut self) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 | 2 => 1,
            _ => self.below(400),
        }
    }
}

/// Names of the layers, of what is made, and some that are none.
const NAMES: [&[u8]; 24] = [
    b"everywhere",
    b"merged",
    b"deep",
    b"dir",
    b"a",
    b"b",
    b"opaque",
    b"below",
    b"linked",
    b"one",
    b"two",
    b"three",
    b"link",
    b"fifo",
    b"socket",
    b"sticky",
    b"in",
    b"emptied",
    b"7",
    b"x",
    b"y",
    b"z",
    b"\xff\xfe",
    &[b'n'; 255],
];
const ATTRIBUTES: [&[u8]; 9] = [
    b"user.a",
    b"user.b",
    b"",
    b"user.",
    b"user.overlay.opaque",
    b"user.containers.override_stat",
    b"system.posix_acl_access",
    b"security.capability",
    &[b'u'; 300],
];

fn operation<'a>(random: &mut Random, data: &'a [u8]) -> Operation<'a> {
    let name = random.pick(&NAMES);
    let new_name = random.pick(&NAMES);
    let attribute = random.pick(&ATTRIBUTES);
    let (mode, umask) = (random.below(1 << 17) as u32, random.below(512) as u32);
    let open = Open { flags: random.next() as u32, open_flags: random.next() as u32 };
    let handle = random.below(3);
    let (offset, size) = (random.extent(), random.next() as u32 >> random.below(32));
    let range = Range { handle, offset, size };
    let length = random.below(data.len() as u64) as usize;
    let data = &data[..length];
    let some = |random: &mut Random| random.below(3) == 0;
    match random.below(38) {
        0..=3 => Operation::Lookup { name },
        4 => Operation::Forget { lookups: random.below(3) },
        5 => Operation::GetAttributes { handle: None },
        6 => Operation::StatX { handle: Some(handle), mask: random.next() as u32 },
        7 | 8 => {
            let time = |random: &mut Random| match random.below(3) {
                0 => None,
                1 => Some(SetTime::Now),
                _ => Some(SetTime::At(random.next() as i64, random.next() as u32)),
            };
            Operation::SetAttributes(Change {
                handle: None,
                mode: some(random).then_some(mode),
                uid: some(random).then_some(random.next() as u32 >> random.below(32)),
                gid: some(random).then_some(random.next() as u32 >> random.below(32)),
                size: some(random).then_some(random.extent()),
                atime: time(random),
                mtime: time(random),
                ctime: None,
                drops_setid: some(random),
            })
        }
        9 => Operation::ReadLink,
        10 => Operation::SymbolicLink { name, target: data },
        11 => {
            let kind = random.pick(&[libc::S_IFREG, libc::S_IFIFO, libc::S_IFCHR, libc::S_IFBLK]);
            let kind =
                if some(random) { random.pick(&[0, libc::S_IFSOCK, 0o170_000]) } else { kind };
            let device = random.next() as u32 >> random.below(33).min(31);
            Operation::MakeNode { name, mode: kind | mode & 0o7777, device, umask }
        }
        12 => Operation::MakeDirectory { name, mode, umask },
        13 => Operation::Unlink { name },
        14 => Operation::RemoveDirectory { name },
        15..=18 => {
            let (new_directory, flags) = (random.node(), random.pick(&[0, 0, 0, 1, 2, 2, 3, 4, 8]));
            Operation::Rename { name, new_directory, new_name, flags }
        }
        19 => Operation::Link { of: random.node(), name },
        20 => Operation::Open(open),
        21 => Operation::Create { name, open, mode, umask },
        22 => Operation::TemporaryFile { open, mode, umask },
        23 => Operation::Read(range),
        24 | 25 => {
            let write_flags = random.below(8) as u32;
            Operation::Write { handle, offset, data, write_flags, flags: open.flags }
        }
        26 | 27 => {
            let offset = if some(random) { random.next() } else { random.below(20) };
            let range = Range { handle, offset, size };
            Operation::ReadDirectory { range, with_attributes: some(random) }
        }
        28 => Operation::SetXattr { name: attribute, value: data, flags: random.below(4) as u32 },
        29 => Operation::GetXattr { name: attribute, size },
        30 => Operation::ListXattr { size },
        31 => Operation::RemoveXattr { name: attribute },
        32 => Operation::Seek { handle, offset, whence: random.below(6) as u32 },
        33 => {
            let mode = if some(random) { open.flags } else { random.below(0x80) as u32 };
            Operation::Allocate { handle, offset, length: random.extent(), mode }
        }
        34 => Operation::Copy(Transfer {
            handle,
            offset,
            to_node: random.node(),
            to_handle: 0,
            to_offset: random.extent(),
            length: random.extent(),
            flags: 0,
        }),
        35 => Operation::Statistics,
        36 => Operation::Sync { handle, only_data: some(random) },
        _ => Operation::Interrupt { unique: handle },
    }
}

/// Bytes of requests of some operations, to be changed.
fn encoded(random: &mut Random) -> Vec<u8> {
    // LOOKUP, SETATTR, MKNOD, MKDIR, RENAME2, LINK, WRITE, SETXATTR, READDIRPLUS, BATCH_FORGET…
    let number = random.pick(&[
        1_u32, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 20, 21, 22, 23, 24, 28, 34, 35,
        36, 42, 43, 44, 45, 46, 47, 50, 51, 52, 4096,
    ]);
    let mut body: Vec<u8> = Vec::new();
    for _ in 0..random.below(12) {
        match random.below(4) {
            0 => body.extend(random.next().to_ne_bytes()),
            1 => body.extend((random.below(64) as u32).to_ne_bytes()),
            2 => body.extend(0_u64.to_ne_bytes()),
            _ => {
                body.extend(random.pick(&NAMES));
                body.push(0);
            }
        }
    }
    let mut bytes = Vec::new();
    let said = 40 + body.len() as u32 + u32::from(random.below(50) == 0);
    bytes.extend(said.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(1_u64.to_ne_bytes());
    bytes.extend(random.node().to_ne_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

/// What would fill the disk if it were done, though nothing would break.
fn is_large(operation: &Operation<'_>) -> bool {
    match operation {
        Operation::Allocate { length, offset, .. } => {
            [length, offset].iter().any(|n| (1 << 20..1 << 62).contains(*n))
        }
        Operation::Copy(how) => (1 << 20..1 << 62).contains(&how.length),
        _ => false,
    }
}

fn feed(file_system: &impl FileSystem, seed: u64) -> usize {
    let mut random = Random(seed | 1);
    let data = vec![b'd'; 70_000];
    let mut answer = Answer::new(1 << 20);
    let mut done = 0;
    let factor = std::env::var("CASEMATE_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    for round in 0..REQUESTS * factor.unwrap_or(1) {
        let begun = Instant::now();
        answer.clear();
        let what = if random.below(3) == 0 {
            let bytes = encoded(&mut random);
            let Ok(request) = Request::decode(&bytes) else { continue };
            if is_large(&request.operation) {
                continue;
            }
            done += usize::from(file_system.answer(&request, &mut answer).is_ok());
            format!("{request:?}")
        } else {
            let (node, uid, gid) = (random.node(), random.below(3) as u32, random.below(3) as u32);
            let operation = operation(&mut random, &data);
            let request = Request { unique: 1, node, uid, gid, pid: 1, operation };
            if is_large(&request.operation) {
                continue;
            }
            done += usize::from(file_system.answer(&request, &mut answer).is_ok());
            String::new()
        };
        assert!(answer.len() <= 1 << 20);
        assert!(begun.elapsed() < PATIENCE, "seed {seed}, round {round}: {what}");
    }
    done
}

fn seed() -> u64 {
    let chosen = std::env::var("CASEMATE_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    chosen.unwrap_or(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn no_request_breaks_a_file_system() {
    as_user("requests::no_request_breaks_a_file_system", |home| {
        let layers = crate::hostile(home);
        let before: Vec<_> = layers.iter().map(|layer| list(layer, false)).collect();
        let beside = list(home, false).len();
        let seed = seed();
        let read_only = ReadOnly::new(lowers(&layers), Owners::Image);
        assert!(feed(&read_only, seed) > REQUESTS / 20);
        for (place, owners) in [("image", Owners::Image), ("all", Owners::All(1, 1))] {
            let dirs = ["upper", "work"].map(|name| {
                let path = home.join(place).join(name);
                fs::create_dir_all(&path).unwrap();
                OwnedFd::from(File::open(path).unwrap())
            });
            let [directory, work] = dirs;
            let upper = Upper { directory, work, is_volatile: true, has_xattrs: true };
            let writable = Writable::new(lowers(&layers), owners, upper).unwrap();
            let done: Vec<_> = std::thread::scope(|scope| {
                let threads = [seed, seed.rotate_left(7)].map(|seed| {
                    scope.spawn({
                        let writable = &writable;
                        move || feed(writable, seed)
                    })
                });
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(done.iter().all(|done| *done > REQUESTS / 20), "{done:?}");
            // It still serves.
            let mut answer = Answer::new(1 << 20);
            let range = Range { handle: 0, offset: 0, size: 1 << 16 };
            let operation = Operation::ReadDirectory { range, with_attributes: true };
            let request = Request { unique: 1, node: 1, uid: 0, gid: 0, pid: 1, operation };
            writable.answer(&request, &mut answer).unwrap();
            assert!(!answer.is_empty());
            drop(writable);
            fs::remove_dir_all(home.join(place)).unwrap();
        }
        // Nothing of it went anywhere else.
        for (layer, before) in layers.iter().zip(&before) {
            assert_eq!(differences(&list(layer, false), before), Vec::<String>::new());
        }
        assert_eq!(list(home, false).len(), beside);
    });
}
