//! Sparse files: where the data that the archive has belongs in the file.

use std::io;

use super::header::{BLOCK, Header, number};
use super::pax::{Records, decimal};
use super::wrong;

/// The most extents of one file; GNU tar's own archives of disk images stay far below.
const MAX_EXTENTS: u64 = 1 << 20;

/// A run of data in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// The extents of a file and its size with holes.
pub(super) struct Map {
    pub(super) extents: Vec<Extent>,
    pub(super) size: u64,
}

fn bad() -> io::Error {
    wrong("sparse map")
}

/// GNU's own type `S`: four extents in the header, 21 in each block that follows.
pub(super) fn old_gnu(
    header: &Header,
    mut block: impl FnMut() -> io::Result<[u8; BLOCK]>,
) -> io::Result<Map> {
    let unsigned = |field: &[u8]| u64::try_from(number(field)?).map_err(|_| bad());
    let mut extents = Vec::new();
    let mut add = |fields: &[u8]| -> io::Result<()> {
        for field in fields.chunks_exact(24) {
            // An unused slot is empty; one of length zero marks where the file ends.
            if field[0] == 0 && field[12] == 0 {
                break;
            }
            if extents.len() as u64 >= MAX_EXTENTS {
                return Err(bad());
            }
            extents
                .push(Extent { offset: unsigned(&field[..12])?, length: unsigned(&field[12..])? });
        }
        Ok(())
    };
    add(header.bytes(386, 96))?;
    let mut more = header.bytes(482, 1)[0] != 0;
    while more {
        let block = block()?;
        add(&block[..504])?;
        more = block[504] != 0;
    }
    Ok(Map { extents, size: unsigned(header.bytes(483, 12))? })
}

/// PAX form 1.0: the map is text in front of the data, filled up to whole blocks. Also returns the
/// length of the map.
pub(super) fn pax_1(
    records: &Records,
    mut block: impl FnMut() -> io::Result<[u8; BLOCK]>,
) -> io::Result<(Map, u64)> {
    let size = records.number(b"GNU.sparse.realsize")?.ok_or_else(bad)?;
    let mut length = 0;
    let mut text: Vec<u8> = Vec::new();
    let mut next = || -> io::Result<u64> {
        loop {
            if let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let value = decimal(&text[..end]).ok_or_else(bad)?;
                text.drain(..=end);
                return Ok(value);
            }
            if text.len() > 20 {
                return Err(bad());
            }
            text.extend_from_slice(&block()?);
            length += BLOCK as u64;
        }
    };
    let count = next()?;
    if count > MAX_EXTENTS {
        return Err(bad());
    }
    let mut extents = Vec::new();
    for _ in 0..count {
        extents.push(Extent { offset: next()?, length: next()? });
    }
    Ok((Map { extents, size }, length))
}

/// PAX forms 0.0 (a pair of records for each extent) and 0.1 (one record with all).
pub(super) fn pax_0(records: &Records) -> io::Result<Map> {
    let size = records.number(b"GNU.sparse.size")?.ok_or_else(bad)?;
    let mut numbers = Vec::new();
    if let Some(map) = records.get(b"GNU.sparse.map") {
        for text in map.split(|&byte| byte == b',') {
            numbers.push(decimal(text).ok_or_else(bad)?);
        }
    } else {
        for (key, value) in records.all() {
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                numbers.push(decimal(value).ok_or_else(bad)?);
            }
        }
    }
    if numbers.len() % 2 != 0 {
        return Err(bad());
    }
    let pair = |pair: &[u64]| Extent { offset: pair[0], length: pair[1] };
    Ok(Map { extents: numbers.chunks_exact(2).map(pair).collect(), size })
}

/// Extents must be in order, apart, inside the file and account for all the data.
pub(super) fn check(extents: &[Extent], size: u64, stored: u64) -> io::Result<()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for extent in extents {
        if extent.offset < end {
            return Err(bad());
        }
        end = extent.offset.checked_add(extent.length).ok_or_else(bad)?;
        sum = sum.checked_add(extent.length).ok_or_else(bad)?;
    }
    if end > size || sum != stored { Err(bad()) } else { Ok(()) }
}
