//! The 512-byte header block.

use std::io;

use super::wrong;

/// The unit of a tar archive.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header([u8; BLOCK]);

impl Header {
    pub(super) fn check(block: [u8; BLOCK]) -> io::Result<Self> {
        let header = Header(block);
        let expected = header.number(148, 8)?;
        // The checksum field itself counts as blanks. Some old writers summed signed bytes.
        let blanked = |index: usize| if (148..156).contains(&index) { b' ' } else { block[index] };
        let unsigned: i64 = (0..BLOCK).map(|i| i64::from(blanked(i))).sum();
        let signed: i64 = (0..BLOCK).map(|i| i64::from(blanked(i) as i8)).sum();
        if expected == unsigned || expected == signed {
            Ok(header)
        } else {
            Err(wrong("header checksum"))
        }
    }

    pub(super) fn bytes(&self, at: usize, length: usize) -> &[u8] {
        &self.0[at..at + length]
    }

    fn text(&self, at: usize, length: usize) -> &[u8] {
        let field = self.bytes(at, length);
        &field[..field.iter().position(|&byte| byte == 0).unwrap_or(length)]
    }

    fn number(&self, at: usize, length: usize) -> io::Result<i64> {
        number(self.bytes(at, length))
    }

    fn unsigned<T: TryFrom<i64>>(&self, at: usize, length: usize, what: &str) -> io::Result<T> {
        T::try_from(self.number(at, length)?).map_err(|_| wrong(what))
    }

    pub(super) fn kind_byte(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        // Only POSIX headers have the prefix; GNU ("ustar  ") keeps times there.
        let prefix = if self.bytes(257, 6) == b"ustar\0" { self.text(345, 155) } else { b"" };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    pub(super) fn mode(&self) -> io::Result<u32> {
        self.unsigned::<u32>(100, 8, "mode").map(|mode| mode & 0o7777)
    }

    pub(super) fn uid(&self) -> io::Result<u32> {
        self.unsigned(108, 8, "owner")
    }

    pub(super) fn gid(&self) -> io::Result<u32> {
        self.unsigned(116, 8, "group")
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        self.unsigned(124, 12, "size")
    }

    pub(super) fn mtime(&self) -> io::Result<(i64, u32)> {
        Ok((self.number(136, 12)?, 0))
    }

    pub(super) fn device(&self) -> io::Result<(u32, u32)> {
        Ok((self.unsigned(329, 8, "device number")?, self.unsigned(337, 8, "device number")?))
    }
}

/// A numeric field: octal text, or a big-endian two's complement number behind a set top bit.
pub(super) fn number(field: &[u8]) -> io::Result<i64> {
    if let Some(&first) = field.first()
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, &byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { byte };
            value = value << 8 | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| wrong("number out of range"));
    }
    let text: &[u8] = field.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut value: i64 = 0;
    for &byte in text.trim_ascii() {
        if !(b'0'..=b'7').contains(&byte) {
            return Err(wrong("number that is not octal"));
        }
        // Twelve octal digits are 36 bits.
        value = value << 3 | i64::from(byte - b'0');
    }
    Ok(value)
}
