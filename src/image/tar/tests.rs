use super::*;

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length += 1;
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

fn pad(mut data: Vec<u8>) -> Vec<u8> {
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data
}

fn header(path: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(size);
    header.set_mode(0o640);
    header.set_mtime(7);
    header.as_mut_bytes()[156] = kind;
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn with_records(records: &[(&str, &[u8])], entry: Vec<u8>) -> Vec<u8> {
    let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    [header("pax", b'x', data.len() as u64), pad(data), entry].concat()
}

fn entries(archive: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(archive);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        let mut buffer = [0; 100];
        loop {
            match reader.read_data(&mut buffer)? {
                0 => break,
                read => data.extend_from_slice(&buffer[..read]),
            }
        }
        all.push((entry, data));
    }
    Ok(all)
}

#[test]
fn what_the_crate_writes_is_read() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_mode(0o4755);
    header.set_uid(0x1234_5678);
    header.set_size(5);
    let long = format!("{}/x", "d".repeat(150));
    builder.append_data(&mut header.clone(), &long, &b"hello"[..]).unwrap();
    header.set_size(0);
    header.set_entry_type(::tar::EntryType::Symlink);
    builder.append_link(&mut header, "link", "l".repeat(200)).unwrap();
    let all = entries(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(all[0].0.path, long.as_bytes());
    assert_eq!((all[0].0.mode, all[0].0.uid), (0o4755, 0x1234_5678));
    assert_eq!(all[0].1, b"hello");
    assert_eq!((all[1].0.kind, all[1].0.link.len()), (Kind::Symlink, 200));
}

#[test]
fn pax_wins_over_the_header() {
    let records: [(&str, &[u8]); 4] =
        [("size", b"3"), ("path", b"long/name"), ("uid", b"4000000000"), ("mtime", b"-1.25")];
    let archive = with_records(&records, header("short", b'0', 0));
    let archive = [archive, pad(b"abc".to_vec()), header("next", b'0', 0)].concat();
    let all = entries(&archive).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].0.path, b"long/name");
    assert_eq!((all[0].0.uid, all[0].0.mtime), (4_000_000_000, (-2, 750_000_000)));
    assert_eq!(all[0].1, b"abc");
}

#[test]
fn a_line_break_in_a_value_is_no_record() {
    let value = b"\x01\n18 path=smuggled\n";
    let archive = with_records(&[("SCHILY.xattr.user.x", value)], header("honest", b'0', 0));
    let all = entries(&archive).unwrap();
    assert_eq!(all[0].0.path, b"honest");
    assert_eq!(all[0].0.xattrs, [(b"user.x".to_vec(), value.to_vec())]);
}

#[test]
fn sparse_files_in_every_form() {
    let data = pad([&[b'a'; 512][..], &[b'b'; 10][..]].concat());
    let expected = [Extent { offset: 1024, length: 512 }, Extent { offset: 4096, length: 10 }];
    let map = pad(b"2\n1024\n512\n4096\n10\n".to_vec());
    let one: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"file"),
        ("GNU.sparse.realsize", b"5000"),
    ];
    let zero_one: [(&str, &[u8]); 3] = [
        ("GNU.sparse.size", b"5000"),
        ("GNU.sparse.name", b"file"),
        ("GNU.sparse.map", b"1024,512,4096,10"),
    ];
    let zero_zero: [(&str, &[u8]); 5] = [
        ("GNU.sparse.size", b"5000"),
        ("GNU.sparse.offset", b"1024"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"10"),
    ];
    for archive in [
        [with_records(&one, header("x", b'0', 1034)), map, data.clone()].concat(),
        [with_records(&zero_one, header("x", b'0', 522)), data.clone()].concat(),
        [with_records(&zero_zero, header("file", b'0', 522)), data.clone()].concat(),
    ] {
        let all = entries(&archive).unwrap();
        assert_eq!(all[0].0.path, b"file");
        assert_eq!((all[0].0.size, all[0].0.extents.as_slice()), (5000, &expected[..]));
        assert_eq!(all[0].1.len(), 522);
    }
    let wrong: [(&str, &[u8]); 2] =
        [("GNU.sparse.size", b"5000"), ("GNU.sparse.map", b"9,512,1,10")];
    let archive = [with_records(&wrong, header("x", b'0', 522)), data].concat();
    assert_eq!(entries(&archive).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_cut_or_broken_archive_is_an_error() {
    let whole = [header("a", b'0', 600), vec![1; 1024], vec![0; 1024]].concat();
    assert_eq!(entries(&whole).unwrap().len(), 1);
    for cut in [1, 511, 513, 1000] {
        let error = entries(&whole[..cut]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
    }
    let mut broken = whole.clone();
    broken[3] ^= 1;
    assert!(entries(&broken).unwrap_err().to_string().contains("checksum"));
    assert!(entries(&[b'x'; 512]).is_err());
    for records in [&b"0 a=b\n"[..], b"6 a=bc", b"999 a=b\n", b" a=b\n", b"-6 a=b\n", b"6 abc\n"] {
        let archive =
            [header("p", b'x', records.len() as u64), pad(records.to_vec()), header("a", b'0', 0)]
                .concat();
        assert!(entries(&archive).is_err(), "{records:?}");
    }
    let huge = header("p", b'x', 1 << 30);
    assert!(entries(&huge).unwrap_err().to_string().contains("1 MiB"));
}

#[test]
fn the_end_marker_is_seen() {
    let mut reader = Reader::new(&[0; 1024][..]);
    assert!(reader.next_entry().unwrap().is_none() && reader.has_end_marker());
    let archive = header("a", b'5', 0);
    let mut reader = Reader::new(&archive[..]);
    assert!(reader.next_entry().unwrap().is_some());
    assert!(reader.next_entry().unwrap().is_none() && !reader.has_end_marker());
}
