//! Reading directories: first the names that the layers have and that still show, in their order,
//! then those that only the upper directory has, in the order of its file system.
//!
//! Where a name comes depends on the name alone, so that nothing that stays is missed or comes twice
//! while others come and go, and nothing has to be remembered between two requests.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};

use super::Writable;
use super::find::{Dir, Seen};
use super::kept::errno;
use super::place::{is_whiteout, open_name, stat_name};
use crate::index::Kind;
use crate::overlay::readonly::kind_bits;
use crate::overlay::wire::{Answer, Entry, Listing, Range, Timeout};
use crate::sys::tree::read_entries;

/// Offsets below are those of the layers.
const UPPER: u64 = 1 << 61;
/// Offsets of a file system that has large ones (ext4 makes them of hashes) lose their last bit.
const LARGE: u64 = 1 << 62;

/// The offset of the first name that only the upper directory has.
const FIRST: u64 = UPPER;

fn encode(place: u64) -> u64 {
    if place < UPPER { UPPER | place } else { LARGE | (place >> 1) & (LARGE - 1) }
}

fn decode(offset: u64) -> u64 {
    if offset & LARGE != 0 { (offset & (LARGE - 1)) << 1 } else { offset & (UPPER - 1) }
}

/// Goes on where the last answer ended.
struct Reading<'a, 'b> {
    writable: &'a Writable,
    dir: &'a Dir,
    listing: Listing<'b>,
    with_attributes: bool,
}

impl Writable {
    pub(super) fn read_directory(
        &self,
        id: u64,
        range: Range,
        with_attributes: bool,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let dir = self.dir(id)?;
        let listing = Listing::new(answer, range.size);
        let mut reading = Reading { writable: self, dir: &dir, listing, with_attributes };
        let done = reading.fill(range);
        match done {
            Err(errno) if answer.is_empty() => Err(errno),
            // What came before it is told first.
            _ => Ok(()),
        }
    }

    fn number_of_parent(&self, id: u64) -> u64 {
        let table = self.table();
        let parent = table.name(id).map_or(id, |name| name.dir);
        table.view(parent).map_or(0, |view| view.number)
    }
}

impl Reading<'_, '_> {
    fn fill(&mut self, range: Range) -> Result<(), Errno> {
        let mut goes_on = true;
        if range.offset < UPPER {
            goes_on = match self.dir.lower {
                Some(_) => self.fill_from_layers(range.offset)?,
                None => self.fill_dots(range.offset)?,
            };
        }
        match &self.dir.upper {
            Some(upper) if goes_on => {
                let from = if range.offset < UPPER { FIRST } else { range.offset };
                self.fill_from_upper(upper, decode(from), range.size)
            }
            _ => Ok(()),
        }
    }

    fn fill_dots(&mut self, from: u64) -> Result<bool, Errno> {
        for (offset, name) in [&b"."[..], b".."].into_iter().enumerate() {
            let offset = offset as u64;
            if from <= offset && !self.push_dot(name, offset + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// These two are not looked up, and so are not to be forgotten later.
    fn push_dot(&mut self, name: &[u8], next: u64) -> Result<bool, Errno> {
        let number = match name {
            b"." => self.writable.table().view(self.dir.id)?.number,
            _ => self.writable.number_of_parent(self.dir.id),
        };
        let entry = self.with_attributes.then(|| Entry::none(Timeout::NOW));
        Ok(self.listing.push(name, number, libc::S_IFDIR, next, entry.as_ref()))
    }

    fn fill_from_layers(&mut self, from: u64) -> Result<bool, Errno> {
        let Some(lower) = self.dir.lower else { return Ok(true) };
        let mut state = Ok(true);
        self.writable.lowers.list(lower, from, &mut |listed| {
            state = match listed.name {
                b"." | b".." => self.push_dot(listed.name, listed.next),
                name => self.push_from_layers(name, listed.kind, listed.id, listed.next),
            };
            state == Ok(true)
        })?;
        state
    }

    fn push_from_layers(
        &mut self,
        name: &[u8],
        kind: Kind,
        lower: crate::overlay::lowers::Id,
        next: u64,
    ) -> Result<bool, Errno> {
        let found = match &self.dir.upper {
            Some(upper) => stat_name(upper, name)?,
            None => None,
        };
        match found {
            Some(stat) if is_whiteout(&stat) => Ok(true),
            Some(stat) => self.push(name, &Seen::Upper(stat), next),
            None if self.with_attributes => self.push(name, &Seen::Lower(lower), next),
            None => {
                let number = self.writable.lowers.number(lower);
                Ok(self.listing.push(name, number, kind_bits(kind), next, None))
            }
        }
    }

    fn push(&mut self, name: &[u8], seen: &Seen, next: u64) -> Result<bool, Errno> {
        // Its number and its type may not be what the disk says.
        let (id, attributes) = self.writable.enter(self.dir, name, seen)?;
        let entry = self.writable.entry(id, attributes);
        let entry = self.with_attributes.then_some(&entry);
        let (number, mode) = (attributes.ino, attributes.mode);
        let is_in = self.listing.push(name, number, mode, next, entry);
        if !is_in || !self.with_attributes {
            self.writable.forget(std::iter::once((id, 1)));
        }
        Ok(is_in)
    }

    fn fill_from_upper(&mut self, upper: &OwnedFd, from: u64, size: u32) -> Result<(), Errno> {
        let stream = open_name(upper, b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
        if from != 0 {
            lseek(&stream, from.cast_signed(), Whence::SeekSet)?;
        }
        // No more than goes into the answer: an entry with attributes is longer by 128 bytes.
        let size = usize::try_from(size).unwrap_or(4096) / if self.with_attributes { 4 } else { 1 };
        let mut buffer = vec![0; size.clamp(1024, 32 << 10)];
        loop {
            let mut count = 0;
            for found in read_entries(stream.as_fd(), &mut buffer).map_err(errno)? {
                count += 1;
                let is_hidden = matches!(found.name, b"." | b"..")
                    || self.writable.below(self.dir, found.name)?.is_some();
                if is_hidden || found.kind == libc::DT_CHR {
                    continue;
                }
                if !self.push_from_upper(upper, found.name, encode(found.next))? {
                    return Ok(());
                }
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn push_from_upper(&mut self, upper: &OwnedFd, name: &[u8], next: u64) -> Result<bool, Errno> {
        match stat_name(upper, name)? {
            Some(stat) if !is_whiteout(&stat) => self.push(name, &Seen::Upper(stat), next),
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_places_again() {
        for place in [0, 1, 2, 1 << 32, UPPER - 1] {
            assert_eq!(decode(encode(place)), place);
            assert!(encode(place) >= UPPER && encode(place) < 1 << 63);
        }
        for place in [UPPER, UPPER + 1, (1 << 63) - 1] {
            assert_eq!(decode(encode(place)), place & !1);
            assert!(encode(place) >= UPPER && encode(place) < 1 << 63);
        }
    }
}
