//! Capabilities: all five sets, and the securebits that keep uid 0 and setuid from meaning any
//! (capabilities(7)).

use crate::error::{During, Error, Result};
use crate::profile::Capability;
use crate::sys::process::{self, CapSets};

// linux/securebits.h
const NOROOT: u32 = 1 << 0;
const NO_SETUID_FIXUP: u32 = 1 << 2;
const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
const LOCKS: u32 = 1 << 1 | 1 << 3 | 1 << 5 | 1 << 7;

/// The securebits of every box: uid 0 is nothing special, capabilities are not kept over setuid,
/// none can be made ambient; all locked, so that no program can go back.
const SECUREBITS: u32 = NOROOT | NO_SETUID_FIXUP | NO_CAP_AMBIENT_RAISE | LOCKS;

/// The securebits of a box whose program is root of a range of ids: that id has its capabilities, and
/// another that it changes to has none, as everywhere; but none can be made ambient.
const ROOT_SECUREBITS: u32 = NO_CAP_AMBIENT_RAISE | 1 << 7;

/// What the root of a range of ids may do to the others: what installing packages, changing to another
/// user and starting daemons take. They count for the box's own ids only. By CAP_SYS_PTRACE it sees the
/// others' processes in /proc, where PID 1, whose memory is not of the box's namespace, is hidden
/// still; ptrace(2) is the filter's.
pub const ROOT: [Capability; 9] = [
    Capability(0),  // CAP_CHOWN
    Capability(1),  // CAP_DAC_OVERRIDE
    Capability(3),  // CAP_FOWNER
    Capability(4),  // CAP_FSETID
    Capability(5),  // CAP_KILL
    Capability(6),  // CAP_SETGID
    Capability(7),  // CAP_SETUID
    Capability(10), // CAP_NET_BIND_SERVICE
    Capability(19), // CAP_SYS_PTRACE
];

/// Leaves exactly `kept` in the effective, permitted and bounding sets, for a program that is root of
/// a range of ids, and reads back what the kernel made of it. Programs that it starts as root have
/// these by their id, and those that change to another lose them (capabilities(7)).
pub fn reduce_root_to(kept: &[Capability]) -> Result<()> {
    let mask = kept.iter().fold(0u64, |mask, capability| mask | 1 << capability.0);
    drop_from_bounding(mask)?;
    process::clear_ambient().during("clear", "the ambient capabilities")?;
    process::set_securebits(ROOT_SECUREBITS).during("set", "the securebits")?;
    let sets = CapSets { effective: mask, permitted: mask, inheritable: 0 };
    process::set_capabilities(sets).during("set", "the capabilities")?;
    verify(sets, mask, ROOT_SECUREBITS)
}

/// Leaves exactly `kept` in all five sets, and reads back what the kernel made of it.
///
/// The order is the kernel's: securebits and the bounding set need CAP_SETPCAP, ambient needs the
/// permitted and inheritable sets and must be raised before `NO_CAP_AMBIENT_RAISE`.
pub fn reduce_to(kept: &[Capability]) -> Result<()> {
    let mask = kept.iter().fold(0u64, |mask, capability| mask | 1 << capability.0);
    drop_from_bounding(mask)?;
    process::clear_ambient().during("clear", "the ambient capabilities")?;
    if mask != 0 {
        let own = process::capabilities().during("read", "the capabilities")?;
        process::set_capabilities(CapSets { inheritable: mask, ..own })
            .during("set", "the inheritable capabilities")?;
        for capability in kept {
            process::raise_ambient(capability.0).during("raise as ambient", capability)?;
        }
    }
    process::set_securebits(SECUREBITS).during("set", "the securebits")?;
    let sets = CapSets { effective: mask, permitted: mask, inheritable: mask };
    process::set_capabilities(sets).during("set", "the capabilities")?;
    verify(sets, mask, SECUREBITS)
}

fn drop_from_bounding(mask: u64) -> Result<()> {
    for capability in (0..64).filter(|capability| mask & 1 << capability == 0) {
        match process::drop_from_bounding_set(capability) {
            // The first number that the kernel does not know ends the list.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            done => done.during("drop from the bounding set", Capability(capability))?,
        }
    }
    Ok(())
}

/// Gives up every capability of this process alone, whatever its bounding set allows.
pub fn drop_own() -> Result<()> {
    process::clear_ambient().during("clear", "the ambient capabilities")?;
    process::set_capabilities(CapSets::default()).during("drop", "all capabilities")
}

fn verify(sets: CapSets, mask: u64, wanted: u32) -> Result<()> {
    let now = process::capabilities().during("read", "the capabilities")?;
    let bits = process::securebits().during("read", "the securebits")?;
    let mut bounding = 0u64;
    for capability in 0..64 {
        match process::in_bounding_set(capability) {
            Ok(true) => bounding |= 1 << capability,
            Ok(false) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(Error::os("read", "the bounding set", &error)),
        }
    }
    if now != sets || bits != wanted || bounding != mask {
        return Err(Error::new("drop capabilities: the kernel kept more than was asked for"));
    }
    Ok(())
}
