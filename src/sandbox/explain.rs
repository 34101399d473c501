//! The plan as text for people: the same value that `run` executes.

use std::fmt::Write as _;

use super::{Keyring, Mount, Root, Sandbox, What};
use crate::identity::{Extent, IdMap};
use crate::profile::{NetworkMode, ResourceLimit};
use crate::text::plain;
use crate::ui::escape;

/// The whole plan. Foreign text is escaped.
pub fn text(sandbox: &Sandbox) -> String {
    let mut page = Page::default();
    page.section("program");
    page.line("command", &words(&sandbox.program.argv));
    page.line("directory", &path(&sandbox.program.workdir));
    page.line("terminal", terminal(sandbox));
    let timeout = sandbox.timeout.map_or("none".to_owned(), |seconds| format!("{seconds} s"));
    page.line("timeout", &timeout);
    page.section("identity");
    let id = &sandbox.identity;
    page.line(
        "user",
        &format!(
            "{} ({}:{}), on the host {}:{}",
            id.name, id.uid, id.gid, id.host_uid, id.host_gid
        ),
    );
    page.line("why", &id.reason);
    page.line("ids", &id.ids_why);
    if let IdMap::Many { uids, gids, groups, .. } = &id.ids {
        page.line("user ids", &id_map(uids));
        page.line("group ids", &id_map(gids));
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(" ") };
        page.line("groups", &format!("{groups}, and none of yours"));
    }
    page.line("home", &path(&id.home));
    page.line("host name", &sandbox.hostname);
    page.section("root");
    root(&mut page, sandbox);
    page.section("files");
    for mount in &sandbox.mounts {
        page.line(&path(&mount.target), &describe(mount));
    }
    if !sandbox.placeholders.is_empty() {
        page.section("empty on the host while the box runs");
        for placeholder in &sandbox.placeholders {
            let what = if placeholder.content.is_some() { "file" } else { "directory" };
            page.line(&path(&placeholder.path), what);
        }
    }
    page.section("environment");
    for (name, value) in &sandbox.program.environment {
        page.line(&bytes(name), &bytes(value));
    }
    page.section("network");
    page.line(
        "mode",
        match sandbox.network {
            NetworkMode::None => "none: loopback only",
            NetworkMode::Host => "host: everything that you can reach",
        },
    );
    if let Some(cgroup) = &sandbox.cgroup {
        page.section("limits");
        page.line("cgroup", &format!("{}: {}", cgroup.place.describe(), cgroup.why));
        for (key, value) in cgroup.limits.describe() {
            page.line(key, &value);
        }
    }
    page.section("confinement");
    confinement(&mut page, sandbox);
    if !sandbox.degraded.is_empty() {
        page.section("not enforced on this machine");
        for lost in &sandbox.degraded {
            page.line(lost.control.word(), &lost.reason);
        }
    }
    page.section("notes");
    for note in &sandbox.notes {
        page.line("-", note);
    }
    page.finish()
}

/// A map in words: what the box's ids are in the range's namespace.
fn id_map(map: &[Extent]) -> String {
    let extents: Vec<String> = map
        .iter()
        .map(|extent| {
            let last = extent.inside + (extent.count - 1);
            format!("{}-{last} from {}", extent.inside, extent.outside)
        })
        .collect();
    format!("{} of the range", extents.join(", "))
}

/// Sections of lines, a key and a value each, aligned within the section.
#[derive(Default)]
struct Page {
    done: String,
    lines: Vec<(String, String)>,
}

impl Page {
    fn section(&mut self, name: &str) {
        self.flush();
        if !self.done.is_empty() {
            self.done.push('\n');
        }
        self.done.push_str(name);
        self.done.push('\n');
    }

    fn line(&mut self, key: &str, value: &str) {
        self.lines.push((escape(key), escape(value)));
    }

    fn flush(&mut self) {
        let width = self.lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
        for (key, value) in self.lines.drain(..) {
            // Writing to a String cannot fail.
            let _infallible = writeln!(self.done, "  {key:<width$}  {value}");
        }
    }

    fn finish(mut self) -> String {
        self.flush();
        self.done
    }
}

fn root(page: &mut Page, sandbox: &Sandbox) {
    match &sandbox.root {
        Root::Host => page.line("kind", "the host's own system, read-only"),
        Root::Image {
            name,
            digest,
            layers,
            overlay,
            overlay_why,
            xattrs,
            xattrs_why,
            scratch_dir,
            why,
            read_only,
            ..
        } => {
            page.line("kind", &format!("image {name}, {} layers", layers.len()));
            page.line("digest", digest);
            page.line("overlay", &format!("{}; {overlay_why}", overlay.describe()));
            let kept = if *xattrs { "kept" } else { "none" };
            page.line("xattrs", &format!("{kept}; {xattrs_why}"));
            let place = scratch_dir.as_deref().map_or("memory".to_owned(), path);
            let writes = if *read_only {
                "refused".to_owned()
            } else {
                format!("thrown away at the end; in {place}: {why}")
            };
            page.line("writes", &writes);
        }
    }
    page.line("memory", &format!("{} at most, for /tmp and the like too", sandbox.memory));
    page.line("profiles", &sandbox.profiles.join(", "));
}

fn confinement(page: &mut Page, sandbox: &Sandbox) {
    page.line("privileges", "no_new_privs, securebits locked");
    let names: Vec<String> = sandbox.capabilities.iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    page.line("capabilities", &names);
    match &sandbox.landlock {
        None => page.line("landlock", "off"),
        Some(rules) => {
            let scope = if rules.scoped { ", abstract sockets and signals scoped" } else { "" };
            page.line("landlock", &format!("ABI {}{scope}", rules.abi));
            for (what, list) in [("connect", &rules.tcp_connect), ("listen", &rules.tcp_bind)] {
                if let Some(list) = list {
                    let list: Vec<String> = list.iter().map(u16::to_string).collect();
                    let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
                    page.line(
                        "",
                        &format!("{what} to TCP ports: {list}").replace("listen to", "listen on"),
                    );
                }
            }
            for rule in &rules.paths {
                page.line("", &format!("{:?} {}", rule.access, path(&rule.path)).to_lowercase());
            }
        }
    }
    if let Some(labels) = &sandbox.lsm {
        for (what, label) in [("apparmor", &labels.apparmor), ("selinux", &labels.selinux)] {
            if let Some(label) = label {
                page.line(what, label);
            }
        }
    }
    match &sandbox.seccomp {
        None => page.line("seccomp", "off"),
        Some(policy) => {
            for (index, line) in policy.policy().describe().iter().enumerate() {
                page.line(if index == 0 { "seccomp" } else { "" }, line);
            }
        }
    }
    let nesting = if sandbox.nesting { "allowed" } else { "refused, by the kernel's own limit" };
    page.line("namespaces", nesting);
    page.line(
        "keyring",
        match sandbox.keyring {
            Keyring::Shared => "an empty one, out of reach",
            Keyring::Private => "its own",
            Keyring::Callers => "the caller's",
        },
    );
    for rlimit in &sandbox.rlimits {
        page.line("limit", &format!("{} {}", rlimit.name.0, limit(rlimit.limit)));
    }
}

fn limit(limit: ResourceLimit) -> String {
    let value = |value: Option<u64>| value.map_or("unlimited".to_owned(), |v| v.to_string());
    if limit.soft == limit.hard {
        value(limit.soft)
    } else {
        format!("{}:{}", value(limit.soft), value(limit.hard))
    }
}

fn describe(mount: &Mount) -> String {
    let exec = |exec: bool| if exec { "" } else { ", noexec" };
    let what = match &mount.what {
        What::Bind { source, write, exec: may } => format!(
            "{} of {}{}",
            if *write { "writable" } else { "read-only" },
            path(&source.path),
            exec(*may)
        ),
        What::Overlaid { source } => {
            format!("writable over {}, changes are thrown away", path(&source.path))
        }
        What::Itself { write: false, .. } => "as it is, read-only".to_owned(),
        What::Itself { write: true, .. } => "in its place".to_owned(),
        What::Empty { directory: true } => "hidden: an empty directory".to_owned(),
        What::Empty { directory: false } => "hidden: an empty file".to_owned(),
        What::Tmpfs { size, mode, exec: may } => format!(
            "memory of its own, {}, mode {mode:04o}{}",
            size.map_or("50%".to_owned(), |size| size.to_string()),
            exec(*may)
        ),
        What::Private { mode } => format!("private, writable, mode {mode:04o}"),
        What::Directory { mode } => format!("directory, made with mode {mode:04o} if missing"),
        What::Link { to } => format!("link to {}", path(to)),
        What::File { .. } => "written for the box".to_owned(),
        What::Devices => "null zero full random urandom tty, pts and shm of its own".to_owned(),
        What::Proc => "the box's own processes; the host's parts masked".to_owned(),
    };
    format!("{what} [{}]", mount.origin)
}

fn terminal(sandbox: &Sandbox) -> &'static str {
    match sandbox.program.terminal {
        [false, false, false] => "none; input, output and error are passed as they are",
        [true, true, true] => "one of its own",
        _ => "one of its own; what is redirected is passed as it is",
    }
}

fn words(argv: &[std::ffi::OsString]) -> String {
    let quoted = argv.iter().map(|word| {
        let word = bytes(word);
        let plain = !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&b));
        if plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn path(path: &std::path::Path) -> String {
    bytes(path.as_os_str())
}

fn bytes(value: &std::ffi::OsStr) -> String {
    bytes_of(std::os::unix::ffi::OsStrExt::as_bytes(value))
}

fn bytes_of(value: &[u8]) -> String {
    plain(value)
}
