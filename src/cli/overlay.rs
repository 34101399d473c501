//! Options as a profile: laid over the one that was named, they go through the same translator.

use super::{EnvArg, LimitArgs, RunArgs};
use crate::error::{Error, Result};
use crate::image::Reference;
use crate::profile::{Amount, Grant, Limits, Origin, Profile, Size, Terminal};

impl RunArgs {
    /// What the options say, and nothing else.
    pub fn overlay(&self) -> Result<Profile> {
        let mut profile = Profile::default();
        profile.root.image = self
            .image
            .as_deref()
            .map(Reference::parse)
            .transpose()
            .map_err(|error: Error| error.within("--image"))?;
        profile.root.read_only = self.read_only.then_some(true);
        profile.root.pull = self.pull;
        profile.root.overlay = self.overlay;
        profile.root.xattrs = self.xattrs;
        profile.root.scratch = self.scratch;
        profile.identity.user = self.user.clone();
        profile.identity.ids = self.userns;
        profile.identity.uid_map = self.uid_map.clone();
        profile.identity.gid_map = self.gid_map.clone();
        profile.identity.fake_root = self.fake_root.then_some(true);
        profile.identity.hostname = self.hostname.clone();
        profile.program.workdir = self.workdir.clone();
        profile.program.terminal = self.tty.then_some(Terminal::Always);
        for (rank, volume) in (0..).zip(&self.volumes) {
            let list =
                if volume.write { &mut profile.files.write } else { &mut profile.files.read };
            list.push(Grant {
                path: volume.source.clone(),
                at: volume.target.clone(),
                optional: false,
                exec: volume.exec,
                origin: Origin::Place("--volume".to_owned()),
                rank,
            });
        }
        profile.files.unprotect = self.unprotect.clone();
        profile.files.tmpfs = self.tmpfs.clone();
        profile.environment.from_file = self.env_file.clone();
        for variable in &self.env {
            match variable {
                EnvArg::Keep(pattern) => profile.environment.pass.push(pattern.clone()),
                EnvArg::Set(name, value) => {
                    profile.environment.set.insert(name.clone(), value.clone());
                }
            }
        }
        profile.network.mode = self.network;
        profile.limits = self.limits.limits()?;
        profile.limits.require = self.require_limits.then_some(true);
        profile.limits.timeout = self.timeout;
        profile.limits.rlimits =
            self.ulimits.iter().map(|ulimit| (ulimit.name, ulimit.limit)).collect();
        profile.may_degrade = self.may_degrade.clone();
        Ok(profile)
    }
}

impl LimitArgs {
    /// As the table of a profile.
    pub fn limits(&self) -> Result<Limits> {
        let swap = match (self.memory_swap, self.memory) {
            (None, _) => None,
            (Some(Amount::Unlimited), _) => Some(Amount::Unlimited),
            (Some(Amount::Size(Size::Bytes(both))), Some(Amount::Size(Size::Bytes(memory))))
                if both >= memory =>
            {
                Some(Amount::Size(Size::Bytes(both - memory)))
            }
            (Some(Amount::Size(Size::Bytes(_))), Some(Amount::Size(Size::Bytes(_)))) => {
                return Err(Error::new(
                    "--memory-swap: it is memory and swap together, and less than --memory",
                ));
            }
            (Some(_), _) => {
                return Err(Error::new("--memory-swap: it is memory and swap together, in bytes, and goes with --memory in bytes")
                    .hint("[limits] swap in a profile is swap alone"));
            }
        };
        Ok(Limits {
            memory: self.memory,
            memory_high: self.memory_high,
            swap,
            processes: self.pids_limit,
            cpus: self.cpus,
            cpu_weight: self.cpu_weight.or(self.cpu_shares.map(|shares| shares.0)),
            io_weight: self.io_weight.or(self.blkio_weight.map(|weight| weight.0)),
            cpuset: self.cpuset_cpus.clone(),
            ..Limits::default()
        })
    }
}
