use super::*;

fn call<'a>(body: Writer, signature: &'a str) -> Call<'a> {
    Call {
        destination: "org.example.D",
        path: "/p",
        interface: "org.example.I",
        member: "M",
        signature,
        body,
        descriptors: 0,
    }
}

fn sample() -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(7);
    body.string("/job/1");
    body.string("a.scope");
    body.string("done");
    call(body, "uoss").encode(9)
}

#[test]
fn what_is_written_is_read() {
    let bytes = sample();
    assert_eq!(length(bytes.first_chunk().unwrap()).unwrap(), bytes.len());
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.kind, message.member.as_str()), (Kind::Call, "M"));
    assert_eq!(message.interface, "org.example.I");
    let mut arguments = message.arguments("uoss").unwrap();
    assert_eq!(arguments.u32().unwrap(), 7);
    assert_eq!(arguments.string().unwrap(), "/job/1");
    assert_eq!(arguments.string().unwrap(), "a.scope");
    assert_eq!(arguments.string().unwrap(), "done");
    assert!(arguments.u32().is_err());
    assert!(message.arguments("s").is_err());
}

/// Recorded with busctl from systemd 252 by `StartTransientUnit`, here with two properties.
#[test]
fn properties_are_aligned_as_the_specification_says() {
    let mut body = Writer::default();
    body.properties(&[("A", Value::Bool(true)), ("Bc", Value::Number(3))]);
    let expected: Vec<u8> = [
        &[48, 0, 0, 0, 0, 0, 0, 0][..],
        &[1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0],
        &[2, 0, 0, 0, b'B', b'c', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let length = expected.len() - 8;
    assert_eq!(&body.0[8..], &expected[8..]);
    assert_eq!(body.0[0] as usize, length);
}

/// A manager's reply may be anything: each byte of a message is changed to each of a few values,
/// and each message is cut at each place. Nothing panics, and a length is never believed.
#[test]
fn broken_messages_are_errors() {
    let whole = sample();
    for cut in 0..whole.len() {
        assert!(Message::decode(&whole[..cut]).is_err(), "{cut}");
    }
    let mut read = 0;
    for at in 0..whole.len() {
        for value in [0, 1, 2, 8, b's', b'o', 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            if let Ok(message) = Message::decode(&bytes) {
                read += 1;
                let _complaint = message.complaint();
                if let Ok(mut arguments) = message.arguments("uoss") {
                    let _number = arguments.u32();
                    for _ in 0..3 {
                        let _text = arguments.string();
                    }
                }
            }
        }
    }
    assert!(read > 0);
}

#[test]
fn a_claimed_length_is_bounded() {
    let mut bytes = [0u8; FIXED];
    bytes[0] = b'l';
    bytes[3] = 1;
    for at in [4, 12] {
        let mut bytes = bytes;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(length(&bytes).is_err());
        bytes[at..at + 4].copy_from_slice(&(LIMIT as u32 + 1).to_le_bytes());
        assert!(length(&bytes).is_err());
    }
    bytes[0] = b'x';
    assert!(length(&bytes).is_err());
}

/// The other byte order, as a bus of another machine could speak it.
#[test]
fn big_endian_is_read() {
    let mut bytes = vec![b'B', 2, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 15];
    bytes.extend([5, 1, b'u', 0, 0, 0, 0, 42, 8, 1, b'g', 0, 1, b's', 0, 0]);
    bytes.extend([0, 0, 0, 3, b'a', b'b', b'c', 0]);
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.kind, message.reply_to), (Kind::Return, Some(42)));
    assert_eq!(message.arguments("s").unwrap().string().unwrap(), "abc");
}
