//! Laying one profile over another: what the upper one says replaces, lists add up.

use super::{
    Capabilities, Environment, Files, Identity, Limits, Lsm, Network, Profile, Program, Root,
    Seccomp,
};

impl Profile {
    /// This profile with `over` laid over it.
    #[must_use]
    pub fn overlaid(mut self, mut over: Profile) -> Profile {
        let above = self.files.ranks_mut().map(|rank| *rank + 1).max().unwrap_or(0);
        over.files.ranks_mut().for_each(|rank| *rank += above);
        Profile {
            description: over.description.or(self.description),
            commands: joined(self.commands, over.commands),
            extends: joined(self.extends, over.extends),
            may_degrade: joined(self.may_degrade, over.may_degrade),
            require: joined(self.require, over.require),
            root: Root {
                image: over.root.image.or(self.root.image),
                overlay: over.root.overlay.or(self.root.overlay),
                xattrs: over.root.xattrs.or(self.root.xattrs),
                read_only: over.root.read_only.or(self.root.read_only),
                pull: over.root.pull.or(self.root.pull),
                scratch: over.root.scratch.or(self.root.scratch),
                scratch_size: over.root.scratch_size.or(self.root.scratch_size),
            },
            identity: Identity {
                ids: over.identity.ids.or(self.identity.ids),
                user: over.identity.user.or(self.identity.user),
                fake_root: over.identity.fake_root.or(self.identity.fake_root),
                uid_map: joined(self.identity.uid_map, over.identity.uid_map),
                gid_map: joined(self.identity.gid_map, over.identity.gid_map),
                hostname: over.identity.hostname.or(self.identity.hostname),
            },
            program: Program {
                workdir: over.program.workdir.or(self.program.workdir),
                terminal: over.program.terminal.or(self.program.terminal),
            },
            files: Files {
                read: joined(self.files.read, over.files.read),
                write: joined(self.files.write, over.files.write),
                tmpfs: joined(self.files.tmpfs, over.files.tmpfs),
                overlay: joined(self.files.overlay, over.files.overlay),
                persist: joined(self.files.persist, over.files.persist),
                hide: joined(self.files.hide, over.files.hide),
                protect: joined(self.files.protect, over.files.protect),
                unprotect: joined(self.files.unprotect, over.files.unprotect),
            },
            environment: Environment {
                keep: joined(self.environment.keep, over.environment.keep),
                set: {
                    let mut set = self.environment.set;
                    set.extend(over.environment.set);
                    set
                },
                from_file: joined(self.environment.from_file, over.environment.from_file),
                pass: joined(self.environment.pass, over.environment.pass),
            },
            network: Network {
                mode: over.network.mode.or(self.network.mode),
                allow: over.network.allow.or(self.network.allow),
                deny: over.network.deny.or(self.network.deny),
                publish: over.network.publish.or(self.network.publish),
                dns: over.network.dns.or(self.network.dns),
                tcp_connect: either(self.network.tcp_connect, over.network.tcp_connect),
                tcp_bind: either(self.network.tcp_bind, over.network.tcp_bind),
            },
            limits: Limits {
                rlimits: {
                    let mut rlimits = self.limits.rlimits;
                    rlimits.extend(over.limits.rlimits);
                    rlimits
                },
                timeout: over.limits.timeout.or(self.limits.timeout),
                memory: over.limits.memory.or(self.limits.memory),
                memory_high: over.limits.memory_high.or(self.limits.memory_high),
                swap: over.limits.swap.or(self.limits.swap),
                processes: over.limits.processes.or(self.limits.processes),
                cpus: over.limits.cpus.or(self.limits.cpus),
                cpu_weight: over.limits.cpu_weight.or(self.limits.cpu_weight),
                io_weight: over.limits.io_weight.or(self.limits.io_weight),
                cpuset: over.limits.cpuset.or(self.limits.cpuset),
                require: over.limits.require.or(self.limits.require),
            },
            capabilities: Capabilities {
                keep: joined(self.capabilities.keep, over.capabilities.keep),
            },
            seccomp: Seccomp {
                base: over.seccomp.base.or(self.seccomp.base),
                allow: joined(self.seccomp.allow, over.seccomp.allow),
                deny: joined(self.seccomp.deny, over.seccomp.deny),
                nesting: over.seccomp.nesting.or(self.seccomp.nesting),
                debug: over.seccomp.debug.or(self.seccomp.debug),
                compat32: over.seccomp.compat32.or(self.seccomp.compat32),
                rule: joined(self.seccomp.rule, over.seccomp.rule),
            },
            landlock: over.landlock.or(self.landlock),
            lsm: Lsm {
                apparmor: over.lsm.apparmor.or(self.lsm.apparmor),
                selinux: over.lsm.selinux.or(self.lsm.selinux),
            },
            desktop: over.desktop.or(self.desktop),
        }
    }
}

impl Files {
    /// How late each was said.
    fn ranks_mut(&mut self) -> impl Iterator<Item = &mut u32> {
        let grants = self.read.iter_mut().chain(&mut self.write).chain(&mut self.overlay);
        let persist = self.persist.iter_mut().map(|stays| &mut stays.rank);
        let hide = self.hide.iter_mut().map(|path| &mut path.rank);
        grants.map(|grant| &mut grant.rank).chain(persist).chain(hide)
    }
}

/// Lists of which an empty one says something else than none.
fn either<T>(lower: Option<Vec<T>>, upper: Option<Vec<T>>) -> Option<Vec<T>> {
    match (lower, upper) {
        (Some(lower), Some(upper)) => Some(joined(lower, upper)),
        (lower, upper) => upper.or(lower),
    }
}

fn joined<T>(mut lower: Vec<T>, upper: Vec<T>) -> Vec<T> {
    lower.extend(upper);
    lower
}

#[cfg(test)]
mod tests {
    use super::super::{EnvValue, NetworkMode, parse};

    #[test]
    fn the_upper_replaces_and_lists_add_up() {
        let lower = parse(
            "lower",
            "[network]\nmode = \"host\"\n[files]\nread = [\"/a\"]\n[environment]\nset = { A = \"1\", B = \"1\" }\n[root]\nread-only = true",
        )
        .unwrap()
        .profile;
        let upper = parse(
            "upper",
            "[network]\nmode = \"none\"\n[files]\nread = [\"/b\"]\n[environment]\nset = { A = \"2\" }",
        )
        .unwrap()
        .profile;
        let both = lower.overlaid(upper);
        assert_eq!(both.network.mode, Some(NetworkMode::None));
        assert_eq!(both.root.read_only, Some(true));
        let read: Vec<&str> =
            both.files.read.iter().map(|grant| grant.path.to_str().unwrap()).collect();
        assert_eq!(read, ["/a", "/b"]);
        let is = |value: &str| EnvValue::Is(value.into());
        let set: Vec<(&str, &EnvValue)> =
            both.environment.set.iter().map(|(k, v)| (k.0.as_str(), v)).collect();
        assert_eq!(set, [("A", &is("2")), ("B", &is("1"))]);
    }
}
