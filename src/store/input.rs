//! Standard input as a source. An image archive is read here and there, so that it needs a file; a
//! root file system is unpacked as it comes.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::os::fd::AsFd;

use super::intake::Intake;
use super::with_space_hint;
use crate::error::{During, Errno, Error, Result};
use crate::image::{Choice, Form, Section, Source, is_tree};
use crate::sys::fs::identity;

/// How much is looked at to tell an image archive from a root file system.
const HEAD: u64 = 1 << 20;

/// What came.
pub(super) enum Input {
    /// Something in a file.
    Source(Source),
    /// A root file system, of which the first part is read already and given again.
    Tree(Box<dyn Read + Send>),
}

/// Opens standard input.
pub(super) fn open(intake: &Intake<'_>, choice: &Choice<'_>) -> Result<Input> {
    if io::stdin().is_terminal() {
        return Err(Error::new("read standard input: it is a terminal")
            .hint("pipe an archive into it, or name a file"));
    }
    let fd = io::stdin().as_fd().try_clone_to_owned().during("duplicate", "standard input")?;
    let mut input = File::from(fd);
    let within = |error: Error| error.within("read standard input");
    let scratch = || intake.staging().scratch();
    // A file is read in place, if somebody has not read a part of it already.
    let is_file = identity(&input).during("stat", "standard input")?.is_file();
    if is_file && input.stream_position().is_ok_and(|position| position == 0) {
        let source = Source::of_file(input, choice, intake.workshop(), scratch);
        return source.map(Input::Source).map_err(within);
    }
    let mut file = scratch()?;
    take(&mut input, &mut file, HEAD)?;
    let head = file.try_clone().during("duplicate", "a descriptor")?;
    let may_stream = choice.form == Form::Any && choice.platform.is_none();
    if may_stream && is_tree(head, intake.workshop()).map_err(within)? {
        let head = Section::whole(file).during("stat", "the archive")?;
        return Ok(Input::Tree(Box::new(head.chain(input))));
    }
    file.seek(io::SeekFrom::End(0)).during("seek in", "the archive")?;
    take(&mut input, &mut file, u64::MAX)?;
    file.rewind().during("seek in", "the archive")?;
    let source = Source::of_file(file, choice, intake.workshop(), scratch);
    source.map(Input::Source).map_err(within)
}

/// Puts what comes into the file, up to a limit.
fn take(input: &mut File, file: &mut File, limit: u64) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut left = limit;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = match input.read(&mut buffer[..most]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.during("read", "standard input")?,
        };
        if read == 0 {
            return Ok(());
        }
        left -= read as u64;
        file.write_all(&buffer[..read]).map_err(|error| {
            let errno = Errno::from(error).0;
            with_space_hint(Error::os("keep", "standard input in the store", errno), errno)
        })?;
    }
    Ok(())
}
