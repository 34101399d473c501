//! Limits of one process (setrlimit(2)).

use serde::Serialize;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};
use crate::profile::{ResourceLimit, ResourceName};

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rlimit {
    /// Of what.
    pub name: ResourceName,
    /// How much.
    #[serde(flatten)]
    pub limit: ResourceLimit,
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// Checks that an ordinary user may set this: nobody can raise a hard limit (EPERM). No core dumps at
/// all, where the system allows none, are less than asked for, and taken instead.
pub fn fit(limit: &mut Rlimit) -> Result<()> {
    let resource = resource(limit.name.0)
        .ok_or_else(|| Error::new(format!("limit {}: unknown", limit.name.0)))?;
    let (_, hard) = getrlimit(resource).map_err(|e| Error::os("read limit", limit.name.0, e))?;
    let wanted = limit.limit.hard.unwrap_or(RLIM_INFINITY);
    if limit.name.0 == "core" && hard == 0 {
        limit.limit = ResourceLimit { soft: Some(0), hard: Some(0) };
    } else if wanted > hard {
        return Err(Error::new(format!(
            "set limit {}: {} is above the hard limit of {hard} that you have",
            limit.name.0,
            limit.limit.hard.map_or("unlimited".to_owned(), |value| value.to_string()),
        ))
        .hint(format!("ask for at most {hard}, or raise it for your user (limits.conf(5))")));
    }
    Ok(())
}

/// Lowers one that stands for another limit to what an ordinary user may set: the caller's own hard
/// limit is then the stricter one.
pub fn lower(limit: &mut Rlimit) -> Result<()> {
    let resource = resource(limit.name.0)
        .ok_or_else(|| Error::new(format!("limit {}: unknown", limit.name.0)))?;
    let (_, hard) = getrlimit(resource).map_err(|e| Error::os("read limit", limit.name.0, e))?;
    if hard != RLIM_INFINITY {
        let within = |value: Option<u64>| Some(value.map_or(hard, |value| value.min(hard)));
        let ResourceLimit { soft, hard } = limit.limit;
        limit.limit = ResourceLimit { soft: within(soft), hard: within(hard) };
    }
    Ok(())
}

/// Sets it for this process and those it starts.
pub fn apply(limit: &Rlimit) -> Result<()> {
    let resource = resource(limit.name.0)
        .ok_or_else(|| Error::new(format!("limit {}: unknown", limit.name.0)))?;
    let value = |limit: Option<u64>| limit.unwrap_or(RLIM_INFINITY);
    setrlimit(resource, value(limit.limit.soft), value(limit.limit.hard))
        .map_err(|error| Error::os("set limit", limit.name.0, error))
}
