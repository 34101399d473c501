//! Where a range of ids comes from. The kernel lets a user map one id, the own; more take somebody
//! who may: a namespace that one is in already, a holder that was made before, systemd's
//! nsresourced, or newuidmap(1), which the user must have allowed. Each is found out by trying.

pub mod holder;
mod namespace;
pub mod newuidmap;
mod nsresourced;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Caller;
use super::map::{self, Extent, MANY};
use crate::error::{Error, Result};
use crate::sys::process;

/// Who gives the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The namespace that casemate runs in has them.
    Inherit,
    /// casemate keeps a namespace that has them.
    Holder,
    /// systemd-nsresourced(8).
    Nsresourced,
    /// newuidmap(1) and newgidmap(1).
    Newuidmap,
}

impl Backend {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Backend; 4] =
        [Backend::Inherit, Backend::Holder, Backend::Nsresourced, Backend::Newuidmap];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Backend::Inherit => "inherit",
            Backend::Holder => "holder",
            Backend::Nsresourced => "nsresourced",
            Backend::Newuidmap => "newuidmap",
        }
    }

    /// Whether its ranges have the user's own id, and boxes have namespaces below theirs. Others are
    /// one box's.
    pub fn is_holdable(self) -> bool {
        self != Backend::Nsresourced
    }

    fn from_word(word: &str) -> Option<Backend> {
        Backend::ALL.into_iter().find(|backend| backend.word() == word)
    }
}

/// What a range is, as far as a plan needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who gave it.
    pub backend: Backend,
    /// The user ids of its namespace, and what they are on the host.
    pub uids: Vec<Extent>,
    /// The group ids.
    pub gids: Vec<Extent>,
}

impl Facts {
    /// Whether its ids are somebody else's tomorrow: none may own a file that stays.
    pub fn is_transient(&self) -> bool {
        self.backend == Backend::Nsresourced
    }
}

/// A range that can be used.
pub struct Range {
    /// What it is.
    pub facts: Facts,
    /// Its namespace; `None` is the one that casemate is in.
    pub namespace: Option<OwnedFd>,
}

/// Why there is no range: what each of those that were asked said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unavailable {
    /// In the order of trial.
    pub reasons: Vec<(Backend, String)>,
}

/// What the search depends on.
pub struct Search<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime: Option<&'a Path>,
    /// Whether the user's own settings allow a setuid helper, and their file's name.
    pub setuid_helper: (bool, Option<PathBuf>),
    /// Whether a namespace that had to be made is kept for the next box.
    pub keep: bool,
}

impl Search<'_> {
    /// Tries one after the other.
    pub fn find(&self) -> Result<Range, Unavailable> {
        let mut unavailable = Unavailable::default();
        for backend in Backend::ALL {
            match self.attempt(backend) {
                Ok(range) => return Ok(range),
                Err(error) => unavailable.reasons.push((backend, reason(&error))),
            }
        }
        Err(unavailable)
    }

    /// Tries this one.
    pub fn attempt(&self, backend: Backend) -> Result<Range> {
        let range = match backend {
            Backend::Inherit => inherit()?,
            Backend::Holder => match holder::find(self.runtime)? {
                Some(holder) => holder.range,
                None => return Err(Error::new("there is none")),
            },
            Backend::Nsresourced => self.made(backend, nsresourced::give)?,
            Backend::Newuidmap => {
                let (allowed, settings) = &self.setuid_helper;
                if !allowed {
                    let file = settings.as_ref().map_or_else(
                        || "your casemate/config.toml".to_owned(),
                        |path| path.display().to_string(),
                    );
                    return Err(Error::new(format!("allow-setuid-helper = true is not in {file}")));
                }
                self.made(backend, |waiting| newuidmap::give(waiting, self.caller))?
            }
        };
        enough(&range.facts)?;
        Ok(range)
    }

    fn made(
        &self,
        backend: Backend,
        give: impl FnOnce(&namespace::Waiting) -> Result<()>,
    ) -> Result<Range> {
        let waiting = namespace::Waiting::start()?;
        give(&waiting)?;
        let (uids, gids) = waiting.maps()?;
        let facts = Facts { backend, uids, gids };
        let copy = waiting
            .namespace
            .try_clone()
            .map_err(|error| Error::os("keep", "the range's namespace", &error))?;
        // One that has not the user's own id is a box's own and no holder's: who is nobody in it can
        // make no namespace below it (user_namespaces(7)).
        if self.keep && backend.is_holdable() {
            // Without one the next box asks again, and says more about it where that fails.
            let _asked_again = holder::keep(self.runtime, waiting, backend);
        }
        Ok(Range { facts, namespace: Some(copy) })
    }
}

/// An error in one line: what it says, and what it hints.
fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    for hint in error.hints() {
        text.push_str("; ");
        text.push_str(hint);
    }
    text
}

/// The namespace that casemate is in, where it was made with a range and this process may use it.
fn inherit() -> Result<Range> {
    let (uids, gids) = namespace::maps(nix::unistd::getpid().as_raw())?;
    let is_whole = |map: &[Extent]| map.iter().any(|extent| extent.count == u32::MAX);
    if is_whole(&uids) || is_whole(&gids) {
        return Err(Error::new("casemate is in no namespace with a range"));
    }
    // capability.h: CAP_SETGID and CAP_SETUID.
    let needed = 1 << 6 | 1 << 7;
    let have = process::capabilities()
        .map_err(|error| Error::os("read", "the capabilities", &error))?
        .effective;
    if have & needed != needed {
        return Err(Error::new(
            "casemate is in a namespace with a range, without CAP_SETUID and CAP_SETGID in it",
        ));
    }
    // What is outside of it cannot be known; its own ids stand for that.
    let own = |map: Vec<Extent>| {
        map.into_iter().map(|extent| Extent { outside: extent.inside, ..extent }).collect()
    };
    let facts = Facts { backend: Backend::Inherit, uids: own(uids), gids: own(gids) };
    Ok(Range { facts, namespace: None })
}

/// Whether a namespace has ids beside the user's own at all; how many a box needs is the plan's.
fn enough(facts: &Facts) -> Result<()> {
    let count = |map: &[Extent]| map.iter().map(|extent| u64::from(extent.count)).sum::<u64>();
    let have = count(&facts.uids).min(count(&facts.gids));
    if have < u64::from(MANY) {
        return Err(Error::new(format!("it has {have} ids, where {MANY} are needed")));
    }
    Ok(())
}

/// What the program's kuid is: an id of the box through the box's map and that of the range.
pub(super) fn on_host(id: u32, box_map: &[Extent], range: &[Extent]) -> Option<u32> {
    map::outside(range, map::outside(box_map, id)?)
}

impl Unavailable {
    /// The error of a box that needs many ids, with everything that can be done about it.
    pub fn into_error(self, why: &str) -> Error {
        let mut error = Error::new(format!(
            "this box needs {MANY} ids ({why}), and this machine gives you 1: the kernel lets a user map only the own id, more must come from the system"
        ));
        for (backend, reason) in &self.reasons {
            error = error.hint(format!("{}: {reason}", backend.word()));
        }
        let bpf = std::fs::read_to_string("/sys/kernel/security/lsm").map_or(
            "cannot be read here",
            |list| match list.split(',').any(|name| name.trim() == "bpf") {
                true => "is there: yes",
                false => "is there: no",
            },
        );
        error
            .hint(format!("(a) sudo apt install systemd-container libbpf1 && sudo systemctl enable --now systemd-nsresourced.socket systemd-mountfsd.socket: no setuid program is run; it needs systemd 256 and \"bpf\" in /sys/kernel/security/lsm, which {bpf}"))
            .hint("(b) sudo apt install uidmap && sudo usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST $USER, with a block of 65536 ids that is in neither /etc/subuid nor /etc/subgid, then allow-setuid-helper = true in ~/.config/casemate/config.toml")
            .hint("(c) one id, with changes of owner and id that succeed without effect: --fake-root; daemons that change to an account of their own fail with it")
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
