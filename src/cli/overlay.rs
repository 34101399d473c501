//! Options as a profile: laid over the one that was named, they go through the same translator.

use super::{EnvArg, RunArgs};
use crate::error::{Error, Result};
use crate::image::Reference;
use crate::profile::{Grant, Origin, Profile, Terminal};

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
        profile.limits.timeout = self.timeout;
        profile.limits.rlimits =
            self.ulimits.iter().map(|ulimit| (ulimit.name, ulimit.limit)).collect();
        profile.may_degrade = self.may_degrade.clone();
        Ok(profile)
    }
}
