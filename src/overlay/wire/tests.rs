use nix::errno::Errno;

use super::*;

/// A request as the kernel writes it.
fn request(number: u32, arguments: &[&[u8]]) -> Vec<u8> {
    let arguments = arguments.concat();
    let length = (REQUEST_HEADER + arguments.len()) as u32;
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(6u64.to_ne_bytes());
    bytes.extend(ROOT.to_ne_bytes());
    for field in [1000u32, 1001, 42, 0] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend(arguments);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

#[test]
fn a_header_is_read() {
    let bytes = request(opcode::LOOKUP, &[b"\xff name\0"]);
    let read = Request::decode(&bytes).unwrap();
    let operation = Operation::Lookup { name: b"\xff name" };
    assert_eq!(read, Request { unique: 6, node: 1, uid: 1000, gid: 1001, pid: 42, operation });
}

#[test]
fn names_are_single_components() {
    for name in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"not ended", &[b'x'; 5000]] {
        let bytes = request(opcode::LOOKUP, &[name]);
        assert_eq!(Request::decode(&bytes), Err(Malformed { unique: Some(6) }), "{name:?}");
    }
}

#[test]
fn arguments_are_read() {
    let arguments: &[(u32, &[&[u8]], Operation<'_>)] = &[
        (
            opcode::RENAME2,
            &[&longs(&[9]), &words(&[1, 0]), b"a\0", b"b\0"],
            Operation::Rename { name: b"a", new_directory: 9, new_name: b"b", flags: 1 },
        ),
        (
            opcode::RENAME,
            &[&longs(&[9]), b"a\0", b"b\0"],
            Operation::Rename { name: b"a", new_directory: 9, new_name: b"b", flags: 0 },
        ),
        (
            opcode::WRITE,
            &[&longs(&[7, 8]), &words(&[3, 1]), &longs(&[0]), &words(&[2, 0]), b"abc"],
            Operation::Write { handle: 7, offset: 8, data: b"abc", write_flags: 1, flags: 2 },
        ),
        (
            opcode::SETXATTR,
            &[&words(&[2, 1]), b"user.x\0", b"\0v"],
            Operation::SetXattr { name: b"user.x", value: b"\0v", flags: 1 },
        ),
        (
            opcode::READDIRPLUS,
            &[&longs(&[0, 5]), &words(&[4096, 0]), &longs(&[0]), &words(&[0, 0])],
            Operation::ReadDirectory {
                range: Range { handle: 0, offset: 5, size: 4096 },
                with_attributes: true,
            },
        ),
        (opcode::GETATTR, &[&words(&[1, 0]), &longs(&[5])], {
            Operation::GetAttributes { handle: Some(5) }
        }),
        (
            opcode::STATX,
            &[&words(&[0, 0]), &longs(&[5]), &words(&[0, 0xfff])],
            Operation::StatX { handle: None, mask: 0xfff },
        ),
        (
            opcode::TMPFILE,
            &[&words(&[2, 0o600, 0o22, 0]), b"\0"],
            Operation::TemporaryFile {
                open: Open { flags: 2, open_flags: 0 },
                mode: 0o600,
                umask: 0o22,
            },
        ),
        (opcode::FSYNC, &[&longs(&[3]), &words(&[1, 0])], {
            Operation::Sync { handle: 3, only_data: true }
        }),
        (40, &[], Operation::Other(40)),
    ];
    for (number, arguments, operation) in arguments {
        let bytes = request(*number, arguments);
        assert_eq!(Request::decode(&bytes).unwrap().operation, *operation, "{number}");
        // What is cut off is not made up.
        if !arguments.is_empty() {
            let mut short = bytes[..REQUEST_HEADER + 4].to_vec();
            let length = (short.len() as u32).to_ne_bytes();
            short[..4].copy_from_slice(&length);
            assert_eq!(Request::decode(&short), Err(Malformed { unique: Some(6) }), "{number}");
        }
    }
}

#[test]
fn changes_are_those_that_are_marked() {
    let fields = |valid| {
        let mut bytes = words(&[valid, 0]);
        bytes.extend(longs(&[1, 2, 0, 3, (-4i64).cast_unsigned(), 5]));
        bytes.extend(words(&[6, 7, 8, 0o644, 0, 10, 11, 0]));
        request(opcode::SETATTR, &[&bytes])
    };
    let read = |bytes: &[u8]| match Request::decode(bytes).unwrap().operation {
        Operation::SetAttributes(change) => change,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&fields(0)), Change::default());
    let all = Change {
        handle: Some(1),
        mode: Some(0o644),
        uid: Some(10),
        gid: Some(11),
        size: Some(2),
        atime: Some(SetTime::At(3, 6)),
        mtime: Some(SetTime::At(-4, 7)),
        ctime: Some((5, 8)),
        drops_setid: true,
    };
    assert_eq!(read(&fields(0xc7f)), all);
    let now = Change { atime: Some(SetTime::Now), mtime: Some(SetTime::Now), ..Change::default() };
    assert_eq!(read(&fields(0x1b0)), now);
}

#[test]
fn forgets_are_as_many_as_there_are() {
    let bytes = request(opcode::BATCH_FORGET, &[&words(&[2, 0]), &longs(&[5, 1, 6, 2])]);
    let Operation::BatchForget(forgets) = Request::decode(&bytes).unwrap().operation else {
        panic!()
    };
    assert_eq!(forgets.iter().collect::<Vec<_>>(), [(5, 1), (6, 2)]);
    for count in [3, u32::MAX] {
        let bytes = request(opcode::BATCH_FORGET, &[&words(&[count, 0]), &longs(&[5, 1, 6, 2])]);
        assert!(Request::decode(&bytes).is_err());
    }
}

#[test]
fn any_bytes_are_read_without_harm() {
    let mut state = 1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200_000 {
        let number = (random() % 60) as u32;
        let arguments: Vec<u8> = (0..random() % 130).map(|_| (random() >> 24) as u8 & 3).collect();
        let mut bytes = request(number, &[&arguments]);
        if random() % 4 == 0 {
            bytes.truncate((random() % (bytes.len() as u64 + 1)) as usize);
        }
        if let Ok(read) = Request::decode(&bytes)
            && let Operation::BatchForget(forgets) = read.operation
        {
            forgets.iter().for_each(drop);
        }
    }
}

#[test]
fn an_answer_says_its_length_and_errno() {
    let mut answer = Answer::new(64);
    answer.put(b"12345").unwrap();
    assert_eq!(answer.finish(9), [&words(&[21, 0])[..], &longs(&[9]), b"12345"].concat());
    assert_eq!(answer.fail(Errno::ENOENT, 9), [words(&[16, -2i32 as u32]), longs(&[9])].concat());
    answer.clear();
    answer.put(&[1; 64]).unwrap();
    assert_eq!(answer.put(&[1]), Err(Errno::ERANGE));
    answer.clear();
    answer.fill(100, |room| Ok(room.len())).unwrap();
    assert_eq!(answer.len(), 64);
}

#[test]
fn answers_are_as_long_as_the_kernel_has_them() {
    let mut answer = Answer::new(4096);
    let mut length = |put: &dyn Fn(&mut Answer) -> Result<(), Errno>| {
        answer.clear();
        put(&mut answer).unwrap();
        answer.len()
    };
    // Sizes of the structures in linux/fuse.h.
    assert_eq!(length(&|answer| answer.put_entry(&Entry::none(Timeout::NEVER))), 128);
    let attributes = Attributes::default();
    assert_eq!(length(&|answer| answer.put_attributes(&attributes, Timeout::NOW)), 104);
    assert_eq!(length(&|answer| answer.put_statx(&attributes, None, Timeout::NOW)), 288);
    assert_eq!(length(&|answer| answer.put_statistics(&Statistics::default())), 80);
    assert_eq!(length(&|answer| answer.put_open(1, 2)), 16);
    assert_eq!(length(&|answer| answer.put_length(1)), 8);
    let bytes = request(opcode::INIT, &[&words(&[7, 40, 131_072, u32::MAX, 0])]);
    let Operation::Init(hello) = Request::decode(&bytes).unwrap().operation else { panic!() };
    let limits = Limits { max_write: 4096, pages: 256, background: 64 };
    let wanted = Features::MAX_PAGES.and(Features::ASYNC_READ);
    let welcome = |answer: &mut Answer| {
        assert_eq!(hello.welcome(wanted, limits, answer).unwrap(), Some(wanted));
        Ok(())
    };
    assert_eq!(length(&welcome), 64);
}

#[test]
fn an_older_kernel_is_told_and_a_newer_one_asked_again() {
    let hello = |major, minor| {
        let bytes = request(opcode::INIT, &[&words(&[major, minor, 0, 0, 0])]);
        let Operation::Init(hello) = Request::decode(&bytes).unwrap().operation else { panic!() };
        let limits = Limits { max_write: 4096, pages: 1, background: 1 };
        hello.welcome(Features::default(), limits, &mut Answer::new(64))
    };
    assert!(hello(7, 30).unwrap_err().to_string().contains("7.30"));
    assert!(hello(6, 40).is_err());
    assert_eq!(hello(8, 0), Ok(None));
    assert!(hello(7, 31).unwrap().is_some());
}

#[test]
fn a_listing_ends_where_the_room_does() {
    let mut answer = Answer::new(4096);
    let mut listing = Listing::new(&mut answer, 96);
    assert!(listing.push(b"a", 5, libc::S_IFREG, 1, None));
    assert!(listing.push(b"12345678", 5, libc::S_IFDIR, 2, None));
    assert!(!listing.push(b"123456789", 5, libc::S_IFDIR, 3, None));
    assert!(listing.push(b"b", 5, libc::S_IFDIR, 3, None));
    assert_eq!(answer.len(), 96);
    let first = [longs(&[5, 1]), words(&[1, 8]), b"a\0\0\0\0\0\0\0".to_vec()].concat();
    assert_eq!(answer.finish(0)[ANSWER_HEADER..][..32], first);
}
