//! A profile back into TOML: what `casemate profile show` prints, and what profiles are compared by.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::protected::Protected;
use super::{
    Amount, Capability, CommandName, Control, Count, CpuSet, Cpus, Duration, EnvName, EnvValue,
    Grant, HostPath, Hostname, Id, Ids, NetworkMode, Overlay, Pattern, Persistent, Port, Profile,
    Pull, Reserved, ResourceLimit, RuleArgument, Scratch, SeccompBase, SeccompRule, SecurityLabel,
    Size, Terminal, TmpfsGrant, UserSpec, Weight, Word,
};
use crate::image::Reference;
use crate::text::plain;

impl Profile {
    /// What it says, as a table of the profile language; what it does not say is not there. What only
    /// the command line can say is left out.
    pub fn to_table(&self) -> Table {
        let mut table = Table::new();
        for (key, value) in self.entries() {
            let Some(value) = value else { continue };
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            let into = match section {
                "" => &mut table,
                _ => match table
                    .entry(section)
                    .or_insert_with(|| Value::Table(Table::new()))
                    .as_table_mut()
                {
                    Some(inner) => inner,
                    None => continue,
                },
            };
            into.insert(name.to_owned(), value);
        }
        table
    }

    /// Every key of the language with its value. A key that is not here would be compared by nobody:
    /// a test holds that all are.
    fn entries(&self) -> Vec<(&'static str, Option<Value>)> {
        let Profile {
            root,
            identity,
            program,
            files,
            environment,
            network,
            limits,
            capabilities,
            seccomp,
            ..
        } = self;
        vec![
            ("description", self.description.show()),
            ("commands", self.commands.show()),
            ("extends", self.extends.show()),
            ("may-degrade", self.may_degrade.show()),
            ("require", self.require.show()),
            ("root.image", root.image.show()),
            ("root.pull", root.pull.show()),
            ("root.overlay", root.overlay.show()),
            ("root.xattrs", root.xattrs.show()),
            ("root.read-only", root.read_only.show()),
            ("root.scratch", root.scratch.show()),
            ("root.scratch-size", root.scratch_size.show()),
            ("identity.ids", identity.ids.show()),
            ("identity.user", identity.user.show()),
            ("identity.fake-root", identity.fake_root.show()),
            ("identity.hostname", identity.hostname.show()),
            ("program.workdir", program.workdir.show()),
            ("program.terminal", program.terminal.show()),
            ("files.read", files.read.show()),
            ("files.write", files.write.show()),
            ("files.overlay", files.overlay.show()),
            ("files.persist", files.persist.show()),
            ("files.tmpfs", files.tmpfs.show()),
            ("files.hide", files.hide.show()),
            ("files.protect", files.protect.show()),
            ("files.unprotect", files.unprotect.show()),
            ("environment.keep", environment.keep.show()),
            ("environment.set", environment.set.show()),
            ("environment.from-file", environment.from_file.show()),
            ("network.mode", network.mode.show()),
            ("network.allow", network.allow.show()),
            ("network.deny", network.deny.show()),
            ("network.publish", network.publish.show()),
            ("network.dns", network.dns.show()),
            ("network.tcp-connect", ports(&network.tcp_connect)),
            ("network.tcp-bind", ports(&network.tcp_bind)),
            ("limits.rlimits", limits.rlimits.show()),
            ("limits.timeout", limits.timeout.show()),
            ("limits.memory", limits.memory.show()),
            ("limits.memory-high", limits.memory_high.show()),
            ("limits.swap", limits.swap.show()),
            ("limits.processes", limits.processes.show()),
            ("limits.cpus", limits.cpus.show()),
            ("limits.cpu-weight", limits.cpu_weight.show()),
            ("limits.io-weight", limits.io_weight.show()),
            ("limits.cpuset", limits.cpuset.show()),
            ("limits.require", limits.require.show()),
            ("capabilities.keep", capabilities.keep.show()),
            ("seccomp.base", seccomp.base.show()),
            ("seccomp.allow", seccomp.allow.show()),
            ("seccomp.deny", seccomp.deny.show()),
            ("seccomp.nesting", seccomp.nesting.show()),
            ("seccomp.debug", seccomp.debug.show()),
            ("seccomp.compat32", seccomp.compat32.show()),
            ("seccomp.rule", seccomp.rule.show()),
            ("landlock", self.landlock.show()),
            ("lsm.apparmor", self.lsm.apparmor.show()),
            ("lsm.selinux", self.lsm.selinux.show()),
            ("desktop", self.desktop.show()),
        ]
    }
}

/// An empty list of ports is none at all, and no list all of them.
fn ports(list: &Option<Vec<Port>>) -> Option<Value> {
    let list = list.as_ref()?;
    Some(Value::Array(list.iter().map(|port| Value::Integer(port.0.into())).collect()))
}

/// No limit.
pub(super) const UNLIMITED: &str = "unlimited";

/// A value of the language as TOML; `None` where nothing was said.
pub(super) trait Show {
    fn show(&self) -> Option<Value>;
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> Option<Value> {
        self.as_ref().and_then(Show::show)
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> Option<Value> {
        let values: Vec<Value> = self.iter().filter_map(Show::show).collect();
        (!values.is_empty()).then_some(Value::Array(values))
    }
}

impl<K: Name, T: Show> Show for std::collections::BTreeMap<K, T> {
    fn show(&self) -> Option<Value> {
        let shown = self.iter().filter_map(|(key, value)| Some((key.name(), value.show()?)));
        let table: Table = shown.collect();
        (!table.is_empty()).then_some(Value::Table(table))
    }
}

/// A key of a table of the language.
pub(super) trait Name {
    fn name(&self) -> String;
}

impl Name for EnvName {
    fn name(&self) -> String {
        self.0.clone()
    }
}

impl Name for super::ResourceName {
    fn name(&self) -> String {
        self.0.to_owned()
    }
}

/// Values that are text.
macro_rules! as_text {
    ($($type:ty: |$value:ident| $text:expr;)*) => {$(
        impl Show for $type {
            fn show(&self) -> Option<Value> {
                let $value = self;
                Some(Value::String($text))
            }
        }
    )*};
}

as_text! {
    String: |text| text.clone();
    Capability: |capability| capability.to_string().trim_start_matches("CAP_").to_ascii_lowercase();
    CommandName: |name| name.0.clone();
    Control: |control| control.word().to_owned();
    CpuSet: |cpus| cpus.to_string();
    Hostname: |name| name.0.clone();
    Ids: |ids| match ids {
        Ids::Auto => "auto".to_owned(),
        Ids::Single => "single".to_owned(),
        Ids::Many => "many".to_owned(),
        Ids::KeepId { uid, gid } => {
            let part = |name: &str, id: &Option<u32>| id.map(|id| format!("{name}={id}"));
            let parts: Vec<String> =
                [part("uid", uid), part("gid", gid)].into_iter().flatten().collect();
            let colon = if parts.is_empty() { "" } else { ":" };
            format!("keep-id{colon}{}", parts.join(","))
        }
    };
    NetworkMode: |mode| mode.word().to_owned();
    Overlay: |overlay| overlay.word().to_owned();
    Pattern: |pattern| match pattern {
        Pattern::Name(name) => name.0.clone(),
        Pattern::Prefix(prefix) => format!("{prefix}*"),
    };
    PathBuf: |path| shown_path(path);
    Protected: |name| name.0.clone();
    Pull: |pull| pull.word().to_owned();
    Reference: |reference| reference.to_string();
    Scratch: |scratch| scratch.word().to_owned();
    SeccompBase: |base| base.words();
    SecurityLabel: |label| label.0.clone();
    Terminal: |terminal| terminal.word().to_owned();
    Word: |word| word.name.clone();
    UserSpec: |spec| match &spec.group {
        Some(group) => format!("{}:{}", shown_id(&spec.user), shown_id(group)),
        None => shown_id(&spec.user),
    };
}

impl Show for bool {
    fn show(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

impl Show for u64 {
    fn show(&self) -> Option<Value> {
        // TOML's integers have a sign; a larger number goes as text, which the language takes too.
        Some(i64::try_from(*self).map_or_else(|_| Value::String(self.to_string()), Value::Integer))
    }
}

impl Show for Reserved {
    fn show(&self) -> Option<Value> {
        None
    }
}

impl Show for Duration {
    fn show(&self) -> Option<Value> {
        self.0.show()
    }
}

impl Show for Size {
    fn show(&self) -> Option<Value> {
        match self {
            Size::Bytes(bytes) => bytes.show(),
            Size::Percent(percent) => format!("{percent}%").show(),
        }
    }
}

impl Show for Amount {
    fn show(&self) -> Option<Value> {
        match self {
            Amount::Unlimited => UNLIMITED.to_owned().show(),
            Amount::Size(size) => size.show(),
        }
    }
}

impl Show for Count {
    fn show(&self) -> Option<Value> {
        self.0.map_or_else(|| UNLIMITED.to_owned().show(), |count| count.show())
    }
}

impl Show for Cpus {
    fn show(&self) -> Option<Value> {
        if self.0.is_multiple_of(1000) {
            return (self.0 / 1000).show();
        }
        // Three decimals read back as the same.
        self.to_string().parse().ok().map(Value::Float)
    }
}

impl Show for Weight {
    fn show(&self) -> Option<Value> {
        u64::from(self.0).show()
    }
}

impl Show for ResourceLimit {
    fn show(&self) -> Option<Value> {
        let word = |limit: Option<u64>| limit.map_or(UNLIMITED.to_owned(), |n| n.to_string());
        format!("{}:{}", word(self.soft), word(self.hard)).show()
    }
}

impl Show for EnvValue {
    fn show(&self) -> Option<Value> {
        match self {
            EnvValue::Is(value) => {
                plain(std::os::unix::ffi::OsStrExt::as_bytes(value.as_os_str())).show()
            }
            EnvValue::FromCaller => None,
        }
    }
}

impl Show for Grant {
    fn show(&self) -> Option<Value> {
        let path = shown_path(&self.path);
        if self.at.is_none() && !self.optional && self.exec {
            return path.show();
        }
        let mut table = Table::from_iter([("path".to_owned(), Value::String(path))]);
        if let Some(at) = self.at.show() {
            table.insert("at".to_owned(), at);
        }
        if self.optional {
            table.insert("optional".to_owned(), Value::Boolean(true));
        }
        if !self.exec {
            table.insert("exec".to_owned(), Value::Boolean(false));
        }
        Some(Value::Table(table))
    }
}

impl Show for HostPath {
    fn show(&self) -> Option<Value> {
        shown_path(&self.path).show()
    }
}

impl Show for Persistent {
    fn show(&self) -> Option<Value> {
        let path = match self.below.as_os_str().is_empty() {
            true => "~".to_owned(),
            false => format!("~/{}", shown_path(&self.below)),
        };
        let Some(name) = &self.name else { return path.show() };
        let entries = [("path", path), ("name", name.clone())];
        let entries = entries.map(|(key, value)| (key.to_owned(), Value::String(value)));
        Some(Value::Table(Table::from_iter(entries)))
    }
}

impl Show for TmpfsGrant {
    fn show(&self) -> Option<Value> {
        let mut table = Table::new();
        table.insert("path".to_owned(), Value::String(shown_path(&self.at)));
        if let Some(size) = self.size.show() {
            table.insert("size".to_owned(), size);
        }
        if let Some(mode) = self.mode {
            table.insert("mode".to_owned(), Value::String(format!("{mode:o}")));
        }
        if !self.exec {
            table.insert("exec".to_owned(), Value::Boolean(false));
        }
        Some(Value::Table(table))
    }
}

impl Show for SeccompRule {
    fn show(&self) -> Option<Value> {
        let mut table = Table::new();
        table.insert("calls".to_owned(), self.calls.show()?);
        table.insert("action".to_owned(), Value::String(self.action.word().to_owned()));
        if let Some(errno) = &self.errno {
            table.insert("errno".to_owned(), Value::String(errno.name.clone()));
        }
        if let Some(args) = self.args.show() {
            table.insert("args".to_owned(), args);
        }
        Some(Value::Table(table))
    }
}

impl Show for RuleArgument {
    fn show(&self) -> Option<Value> {
        let index = Value::Integer(self.index.into());
        let mut table = Table::from_iter([("index".to_owned(), index)]);
        if let Some(op) = self.op {
            table.insert("op".to_owned(), Value::String(op.0.to_owned()));
        }
        table.insert("value".to_owned(), self.value.0.show()?);
        if let Some(mask) = self.mask {
            table.insert("mask".to_owned(), mask.0.show()?);
        }
        Some(Value::Table(table))
    }
}

fn shown_path(path: &Path) -> String {
    plain(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

fn shown_id(id: &Id) -> String {
    match id {
        Id::Number(number) => number.to_string(),
        Id::Name(name) => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    /// The keys that the strict parser knows, of a table.
    fn known(heading: &str) -> Vec<String> {
        let text = format!("{heading}nothing-of-this-name = 1");
        let error = parse("p", &text).unwrap_err().to_string();
        let (_, list) = error.split_once("expected").unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_key_of_the_language_is_shown() {
        let entries = Profile::default().entries();
        let keys: Vec<&str> = entries.iter().map(|(key, _)| *key).collect();
        for top in known("") {
            let is_plain = keys.contains(&top.as_str());
            if is_plain {
                continue;
            }
            for inner in known(&format!("[{top}]\n")) {
                let key = format!("{top}.{inner}");
                assert!(keys.contains(&key.as_str()), "{key}");
            }
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        let text = r#"
description = "d"
commands = ["x"]
extends = ["default"]
may-degrade = ["landlock"]
[root]
image = "debian"
scratch-size = "64m"
[identity]
user = "5:www"
[files]
read = ["~/a", { path = "/b", at = "/c", optional = true, exec = false }]
tmpfs = ["/s:size=50%,mode=700", { path = "/t", exec = false }]
[environment]
keep = ["A", "LC_*"]
set = { B = "1" }
[limits]
timeout = "5m"
rlimits = { nofile = "1:unlimited" }
memory = "2g"
memory-high = "50%"
swap = "unlimited"
processes = 0
cpus = 65.537
cpu-weight = 50
io-weight = 200
cpuset = "3,0-1"
require = true
[capabilities]
keep = ["NET_RAW"]
[seccomp]
base = "./x.json"
deny = ["ptrace"]
nesting = true
[[seccomp.rule]]
calls = ["ioctl", "@ipc"]
action = "deny"
errno = "ENOTTY"
args = [{ index = 1, value = 0x5412, op = "==", mask = "0xffffffffffffffff" }]
"#;
        let first = parse("p", text).unwrap().profile.to_table();
        let again = toml::to_string(&first).unwrap();
        assert_eq!(parse("p", &again).unwrap().profile.to_table(), first, "{again}");
        assert_eq!(first["limits"]["timeout"], Value::Integer(300));
        assert_eq!(first["limits"]["processes"], Value::String("unlimited".to_owned()));
        assert_eq!(first["limits"]["cpus"], Value::Float(65.537));
        assert_eq!(first["limits"]["cpuset"], Value::String("0-1,3".to_owned()));
        assert!(Profile::default().to_table().is_empty());
    }
}
