//! What the user should know about a plan: the honest part of `explain`.

use super::super::{Mount, What};
use super::Inputs;
use crate::cgroup;
use crate::identity::Identity;
use crate::profile::{Capability, NetworkMode, SeccompBase};

pub(super) fn collect(
    inputs: &Inputs<'_>,
    identity: &Identity,
    mounts: &[Mount],
    nesting: bool,
    cgroup: Option<&cgroup::Plan>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let extra: Vec<String> = inputs
        .host
        .groups
        .iter()
        .filter(|group| **group != identity.host_gid)
        .map(u32::to_string)
        .collect();
    if !extra.is_empty() && !identity.has_many() {
        notes.push(format!(
            "with one id the program keeps your supplementary groups ({}): what they can read is open to it where it is mounted",
            extra.join(", ")
        ));
    }
    if identity.has_many() && identity.host_uid != inputs.host.caller.uid {
        let from_host = mounts.iter().any(|mount| match &mount.what {
            What::Bind { .. } => mount.origin != "the host's system",
            _ => false,
        });
        if from_host {
            notes.push(
                "the program is nobody of this host: of your files that are mounted it can use only what everybody may (--userns=keep-id makes it you)"
                    .to_owned(),
            );
        }
    }
    if identity.fake_root {
        notes.push(
            "fake root: chown, setuid, setgid, mknod and their kin report success and do nothing; files keep the one owner"
                .to_owned(),
        );
    }
    if inputs.profile.network.mode == Some(NetworkMode::Host) {
        notes.push(
            "network = host: the program reaches what you reach, services on 127.0.0.1 among it"
                .to_owned(),
        );
    }
    let capabilities = &inputs.profile.capabilities.keep;
    if !capabilities.is_empty() {
        let names: Vec<String> = capabilities.iter().map(Capability::to_string).collect();
        notes.push(format!(
            "{} kept: they count for the box's own namespaces only, and open more of the kernel to the program",
            names.join(", ")
        ));
    }
    if nesting {
        notes.push(
            "seccomp nesting: the program may make namespaces and mounts of its own, which opens more of the kernel to it; Landlock is off, since it allows no mount"
                .to_owned(),
        );
    }
    if inputs.profile.seccomp.base == Some(SeccompBase::None) {
        notes.push("seccomp base = none: every system call reaches the kernel".to_owned());
    }
    if cgroup.is_none() {
        notes.push(
            "limits are per process, not for the box in total: none of those was asked for (--memory, --pids-limit, --cpus)"
                .to_owned(),
        );
    }
    notes
}
