//! The process that unpacks: it hashes a tar stream and makes files, below the staging directory
//! and nowhere else.

use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::job::{Answer, Job};
use super::worker::{answer, confine, receive_job};
use crate::confine::seccomp::{Architecture, Policy};
use crate::error::{During, Error, Result};
use crate::image::Section;
use crate::store::pipeline::{self, Ran};
use crate::store::unpack::{Shown, Target, unpack};
use crate::store::{DIRECTORY, open_directory};
use crate::sys::channel::Channel;
use crate::sys::fs::{Resolve, openat2};

/// Takes jobs until there are no more.
pub(super) fn serve(channel: &Channel, staging: &Path) -> Result<()> {
    let dir = open_directory(staging)?;
    // In a user namespace of its own it would see no owner at all.
    let shown = Shown::of(&dir).at("stat", staging)?;
    confine(channel, Some((&dir, staging)), &Policy::for_unpacker(Architecture::native()))?;
    while let Some((job, fds)) = receive_job(channel)? {
        let (Job::Unpack { dir: name, outline, section }, Some(from)) =
            (job, fds.into_iter().next())
        else {
            return Err(Error::new("the unpacker got a job that is none"));
        };
        let told = match target(&dir, &name, shown, outline) {
            Ok(target) => layer(target, File::from(from), section),
            Err(error) => Answer::failed(&error, None),
        };
        answer(channel, &told)?;
    }
    Ok(())
}

fn target(staging: &OwnedFd, name: &str, shown: Shown, outline: bool) -> Result<Target> {
    let dir = openat2(staging.as_fd(), Path::new(name), DIRECTORY, 0, Resolve::BeneathNoSymlinks)
        .at("open", name)?;
    if outline { Target::outline(&dir, shown) } else { Target::layer(&dir, shown) }
}

fn layer(target: Target, from: File, section: Option<(u64, u64)>) -> Answer {
    let consume = |stream: &mut dyn BufRead| unpack(stream, target);
    // A pipe is closed early, which ends whoever fills it; a file is read on, for its digest.
    let in_file = section.is_some();
    let ran = match section {
        Some((position, length)) => {
            pipeline::run(Section::of(Arc::new(from), position, length), true, consume)
        }
        None => pipeline::run(from, false, consume),
    };
    match ran {
        Ok(Ran { consumed: Ok(unpacked), digest, size }) => {
            Answer::Unpacked { unpacked, digest, size }
        }
        Ok(Ran { consumed: Err(error), digest, size }) => {
            Answer::failed(&error, in_file.then_some((digest, size)))
        }
        Err(error) => Answer::failed(&error, None),
    }
}
