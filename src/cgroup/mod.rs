//! Limits of a box in total: a cgroup of its own, made by the user's systemd as a transient scope
//! (`manager`, over a D-Bus client of a few hundred lines: a library would take longer to start than
//! a box), or below a cgroup that is the user's already (`delegated`). Where there is neither, each
//! process gets a limit of its own, which the plan calls weaker.
//!
//! The layout is the kernel's rule that a cgroup has either processes or controllers for others:
//!
//! ```text
//! casemate-NAME-RANDOM.scope    limits, set by systemd
//!  ├── supervisor               casemate itself, and the server that only this box has
//!  └── payload                  the box
//! ```
//!
//! A box below a delegated cgroup is born there (CLONE_INTO_CGROUP). The manager takes its time for a
//! scope, mostly for grace periods of the kernel's; so a box in a scope makes all of its own that
//! casemate makes while the manager is at it, and waits only before the program can exist. The
//! manager moves its first process, since the user may not take one out of the session's cgroup. The
//! few pages that were used until then are the session's.

mod bus;
mod delegated;
mod group;
mod hold;
mod limits;
mod manager;
mod plan;
mod stats;
mod wire;

pub use group::{Group, mount};
pub use hold::{
    Begun, Cgroup, Coming, Inquiry, Look, OutOfMemory, Wanted, change, inquire, look,
    machine_memory,
};
pub use limits::{Controller, LEAST_MEMORY, Limits};
pub use manager::runtime_directory;
pub use plan::{Facts, Place, Plan, Where, plan};
pub use stats::{Sample, kill, pause, thaw};

use crate::error::{During, Result};

/// The files whose names are the kernel's, and ours.
const SUPERVISOR: &str = "supervisor";
const PAYLOAD: &str = "payload";

/// Reads one D-Bus message as those of a manager are read; what it says, and the texts among its
/// arguments where they are those of the end of a job.
pub fn read_message(bytes: &[u8]) -> Result<Vec<String>> {
    let message = wire::Message::decode(bytes)?;
    let mut texts = vec![message.complaint()];
    if let Ok(mut arguments) = message.arguments(manager::JOB_REMOVED) {
        arguments.u32()?;
        for _ in 0..3 {
            texts.push(arguments.string()?);
        }
    }
    if let Ok(mut arguments) = message.arguments("v") {
        texts.push(arguments.text_variant()?);
    }
    Ok(texts)
}

/// A random number for a name.
pub fn random() -> Result<u32> {
    let path = "/dev/urandom";
    let mut bytes = [0; 4];
    let mut file = std::fs::File::open(path).at("open", path)?;
    std::io::Read::read_exact(&mut file, &mut bytes).at("read", path)?;
    Ok(u32::from_ne_bytes(bytes))
}
