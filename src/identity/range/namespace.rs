//! A user namespace in the making: a process of casemate's own that waits in it, while somebody who
//! may gives it its ids.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::error::{During, Error, Result};
use crate::identity::map::{self, Extent};
use crate::sys::clone::{self, Child, Forked};
use crate::sys::{fs, process};

/// The process, held by a pidfd, and the namespace.
pub(super) struct Waiting {
    child: Child,
    /// What it is told through; without a word it ends with this.
    control: Option<File>,
    /// The namespace, which lives as long as this does.
    pub(super) namespace: OwnedFd,
}

impl Waiting {
    /// Makes one, without ids.
    pub(super) fn start() -> Result<Waiting> {
        if clone::thread_count().during("count", "threads")? != 1 {
            return Err(Error::new("make a user namespace: casemate has threads here"));
        }
        let (reader, writer) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).during("make", "a pipe")?;
        match clone::clone3(libc::CLONE_NEWUSER.cast_unsigned().into())
            .during("make", "a user namespace")?
        {
            Forked::Child => {
                drop(writer);
                wait(File::from(reader))
            }
            Forked::Parent(child) => {
                drop(reader);
                let path = format!("/proc/{}/ns/user", child.pid);
                let namespace = File::open(&path).at("open", &path)?.into();
                Ok(Waiting { child, control: Some(File::from(writer)), namespace })
            }
        }
    }

    /// The process. Its number cannot come to mean another: nobody has waited for it.
    pub(super) fn pid(&self) -> i32 {
        self.child.pid.as_raw()
    }

    /// The maps of user and group ids, as the kernel has them.
    pub(super) fn maps(&self) -> Result<(Vec<Extent>, Vec<Extent>)> {
        maps(self.pid())
    }

    /// Lets it go on living when this process has ended.
    pub(super) fn stay(mut self) -> Result<()> {
        if let Some(mut control) = self.control.take() {
            control.write_all(b"s").during("tell", "the holder to stay")?;
        }
        Ok(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.control.take().is_some() {
            // Its control has closed: it ends by itself, and is waited for so that no zombie stays.
            let _ended = clone::wait_for_end(&self.child.pidfd);
        }
    }
}

/// The maps of a process.
pub(super) fn maps(pid: i32) -> Result<(Vec<Extent>, Vec<Extent>)> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        let text = std::fs::read_to_string(&path).at("read", &path)?;
        map::parse(&text).ok_or_else(|| Error::new(format!("read {path}: not an id map")))
    };
    Ok((read("uid_map")?, read("gid_map")?))
}

/// The other side. It has all capabilities of its namespace and uses none.
fn wait(mut control: File) -> ! {
    let mut word = [0; 1];
    let prepared = process::set_capabilities(process::CapSets::default())
        .and_then(|()| process::set_parent_death_signal(libc::SIGKILL));
    let told = prepared.is_ok() && control.read(&mut word).is_ok_and(|count| count == 1);
    if told && become_holder(&control).is_ok() {
        loop {
            nix::unistd::pause();
        }
    }
    clone::exit_now(0)
}

/// Leaves the session, the directory and the files of whoever started this.
fn become_holder(control: &File) -> std::io::Result<()> {
    process::set_parent_death_signal(0)?;
    process::reset_signals()?;
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    let null = fs::openat2(fs::cwd(), "/dev/null", libc::O_RDWR, 0, fs::Resolve::NoSymlinks)?;
    for number in 0..3 {
        clone::place_at(null.as_fd(), number)?;
    }
    drop(null);
    clone::close_all_but(&[control.as_raw_fd()])?;
    process::set_name(c"casemate-holder")
}
