//! What one profile grants beyond another. Whatever is not known to take away is taken to widen:
//! a key that nobody thought of here must not pass for harmless.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use super::show::UNLIMITED;
use super::{CpuSet, Pattern, Profile};

/// What a difference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The second profile allows something that the first one does not.
    Widens,
    /// The second one allows less.
    Narrows,
    /// Neither.
    Differs,
}

/// One difference of two profiles.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What it does.
    pub effect: Effect,
    /// The key, with its table.
    pub key: String,
    /// What is different, in the words of the language.
    pub text: String,
}

/// How paths of grants are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// What lies below a granted directory by its name is granted with it.
    ByName,
    /// Only the very same path: whoever writes in the directory could put a symbolic link below it.
    Exact,
}

impl Profile {
    /// What is different in `other`, by key. Both are whole: with all that they build on.
    pub fn differences(&self, other: &Profile, paths: Paths) -> Vec<Difference> {
        let (ours, theirs) = (self.to_table(), other.to_table());
        let mut found = Found(Vec::new());
        let keys: BTreeSet<String> = flat(&ours).chain(flat(&theirs)).collect();
        for key in keys {
            let (a, b) = (value(&ours, &key), value(&theirs, &key));
            match key.as_str() {
                // What is said about the profile, and not about the box.
                "description" | "commands" | "extends" => {}
                "files.read" | "files.write" | "files.overlay" | "files.hide" => {}
                "environment.keep" => found.patterns(self, other),
                "limits.swap" => found.swap(&ours, &theirs),
                _ if a == b => {}
                _ => found.compare(&key, a, b),
            }
        }
        found.files(self, other, paths);
        found.0.sort_by(|a, b| (a.effect, &a.key).cmp(&(b.effect, &b.key)));
        found.0
    }
}

/// The keys of a profile, those of its tables with the name of the table. The tables within are values.
fn flat(table: &Table) -> impl Iterator<Item = String> + '_ {
    table.iter().flat_map(|(key, value)| match value {
        Value::Table(inner) => inner.keys().map(|name| format!("{key}.{name}")).collect(),
        _ => vec![key.clone()],
    })
}

fn value<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, name)) => table.get(section)?.as_table()?.get(name),
        None => table.get(key),
    }
}

/// What more or less of a key does.
enum Kind {
    /// A list of what is allowed.
    Allows,
    /// A list of what is refused.
    Refuses,
    /// A number that is an upper bound; nothing said is none.
    Bound,
    /// A number that is a share; nothing said is that of others.
    Share,
    /// A list of processors; nothing said is all.
    Processors,
    /// A table of upper bounds.
    Bounds,
    /// A list of what is allowed, without which all is.
    Ports,
    /// Words from the narrowest to the widest; the first is what counts when nothing is said.
    Steps(&'static [&'static str]),
    /// True allows more.
    Switch,
    /// True allows less.
    Guard,
    /// It grants nothing.
    Harmless,
    /// Any change may widen.
    Any,
}

fn kind(key: &str) -> Kind {
    match key {
        "may-degrade"
        | "capabilities.keep"
        | "seccomp.allow"
        | "network.allow"
        | "network.publish"
        | "environment.from-file"
        | "files.persist"
        | "files.unprotect"
        | "files.tmpfs" => Kind::Allows,
        "require" | "seccomp.deny" | "network.deny" | "files.protect" => Kind::Refuses,
        "network.tcp-connect" | "network.tcp-bind" => Kind::Ports,
        "root.read-only" | "limits.require" => Kind::Guard,
        "identity.fake-root" | "seccomp.nesting" | "seccomp.debug" | "seccomp.compat32" => {
            Kind::Switch
        }
        "network.mode" => Kind::Steps(&["none", "host"]),
        "seccomp.base" => Kind::Steps(&["strict", "default", "none"]),
        "limits.rlimits" => Kind::Bounds,
        "root.scratch-size" | "limits.timeout" | "limits.memory" | "limits.memory-high"
        | "limits.processes" | "limits.cpus" => Kind::Bound,
        "limits.cpu-weight" | "limits.io-weight" => Kind::Share,
        "limits.cpuset" => Kind::Processors,
        // Attributes are thrown away with the box, or are not there: nothing else sees them.
        "identity.hostname" | "program.terminal" | "root.xattrs" => Kind::Harmless,
        _ => Kind::Any,
    }
}

struct Found(Vec<Difference>);

impl Found {
    fn add(&mut self, effect: Effect, key: &str, text: String) {
        self.0.push(Difference { effect, key: key.to_owned(), text });
    }

    fn compare(&mut self, key: &str, a: Option<&Value>, b: Option<&Value>) {
        let change = format!("{} (was {})", shown(b), shown(a));
        let by = |wider: Option<bool>| match wider {
            Some(true) => Effect::Widens,
            Some(false) => Effect::Narrows,
            None => Effect::Differs,
        };
        match kind(key) {
            Kind::Allows => self.lists(key, a, b, Effect::Widens, Effect::Narrows),
            Kind::Refuses => self.lists(key, a, b, Effect::Narrows, Effect::Widens),
            Kind::Ports if a.is_some() && b.is_some() => {
                self.lists(key, a, b, Effect::Widens, Effect::Narrows);
            }
            Kind::Ports => self.add(by(Some(b.is_none())), key, change),
            Kind::Bound => self.add(by(bound(a, b)), key, change),
            Kind::Share => {
                let share = |value: Option<&Value>| value.map_or(Some(100), Value::as_integer);
                let wider = match (share(a), share(b)) {
                    (Some(a), Some(b)) => (a != b).then_some(b > a),
                    _ => Some(true),
                };
                self.add(by(wider), key, change);
            }
            Kind::Processors => {
                let cpus = |value: Option<&Value>| value?.as_str()?.parse::<CpuSet>().ok();
                let less = match (cpus(a), cpus(b)) {
                    (None, Some(_)) => a.is_none(),
                    (Some(a), Some(b)) => b.is_within(&a),
                    _ => false,
                };
                self.add(by(Some(!less)), key, change);
            }
            Kind::Bounds => self.bounds(key, a, b),
            Kind::Steps(words) => {
                let step = |value: Option<&Value>| match value.and_then(Value::as_str) {
                    // "default" is what seccomp is when nothing is said.
                    None => words.iter().position(|word| *word == "default").or(Some(0)),
                    Some(word) => words.iter().position(|known| *known == word),
                };
                let wider = match (step(a), step(b)) {
                    (Some(a), Some(b)) if a == b => None,
                    (Some(a), Some(b)) => Some(b > a),
                    _ => Some(true),
                };
                self.add(by(wider), key, change);
            }
            Kind::Switch | Kind::Guard => {
                let is = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
                let more = matches!(kind(key), Kind::Switch) == is(b);
                let wider = (is(a) != is(b)).then_some(more);
                self.add(by(wider), key, change);
            }
            Kind::Harmless => self.add(Effect::Differs, key, change),
            Kind::Any => self.add(Effect::Widens, key, change),
        }
    }

    fn lists(
        &mut self,
        key: &str,
        a: Option<&Value>,
        b: Option<&Value>,
        more: Effect,
        less: Effect,
    ) {
        let items = |value: Option<&Value>| {
            value
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_else(|| value.into_iter().cloned().collect())
        };
        let (a, b) = (items(a), items(b));
        for item in b.iter().filter(|item| !a.contains(item)) {
            self.add(more, key, item.to_string());
        }
        for item in a.iter().filter(|item| !b.contains(item)) {
            self.add(less, key, format!("no {item}"));
        }
    }

    /// Swap alone is bounded where nothing is said: a limit of memory leaves none. And 0 is none
    /// here, where it is no limit elsewhere.
    fn swap(&mut self, ours: &Table, theirs: &Table) {
        let key = "limits.swap";
        let said = |table| value(table, key);
        let effective = |table| match said(table) {
            Some(swap) => Some(swap.clone()),
            None => value(table, "limits.memory")
                .filter(|memory| !is_unlimited(memory))
                .map(|_| Value::Integer(0)),
        };
        let (a, b) = (effective(ours), effective(theirs));
        let is_none = |swap: &Option<Value>| *swap == Some(Value::Integer(0));
        let wider = match () {
            () if a == b => None,
            () if is_none(&b) => Some(false),
            () if is_none(&a) => Some(true),
            () => bound(a.as_ref(), b.as_ref()),
        };
        let effect = match wider {
            Some(true) => Effect::Widens,
            Some(false) => Effect::Narrows,
            None if said(ours) == said(theirs) => return,
            None => Effect::Differs,
        };
        self.add(effect, key, format!("{} (was {})", shown(b.as_ref()), shown(a.as_ref())));
    }

    /// Limits by name, each a soft and a hard one.
    fn bounds(&mut self, key: &str, a: Option<&Value>, b: Option<&Value>) {
        let get = |table: Option<&Value>, name: &str| {
            let text = table.and_then(|table| table.get(name)).and_then(Value::as_str);
            let number = |word: &str| word.parse().unwrap_or(u64::MAX);
            let (soft, hard) = text?.split_once(':')?;
            Some((number(soft), number(hard)))
        };
        let names = |table: Option<&Value>| -> Vec<String> {
            table.and_then(Value::as_table).map(|t| t.keys().cloned().collect()).unwrap_or_default()
        };
        let all: BTreeSet<String> = names(a).into_iter().chain(names(b)).collect();
        for name in all {
            let (was, is) = (get(a, &name), get(b, &name));
            let none = (u64::MAX, u64::MAX);
            let (old, new) = (was.unwrap_or(none), is.unwrap_or(none));
            // A core limit of 0 lets a core dump reach the host's helper, which 1 does not (core(5)).
            let odd = name == "core" && old != new;
            let effect = match () {
                () if old == new => continue,
                () if odd || new.0 > old.0 || new.1 > old.1 => Effect::Widens,
                () => Effect::Narrows,
            };
            let value = b.and_then(|table| table.get(&name));
            self.add(effect, key, format!("{name} = {}", shown(value)));
        }
    }

    fn patterns(&mut self, a: &Profile, b: &Profile) {
        let (a, b) = (&a.environment.keep, &b.environment.keep);
        let covered =
            |pattern: &Pattern, by: &[Pattern]| by.iter().any(|have| covers(have, pattern));
        let mut once = |effect, pattern: &Pattern, no: &str| {
            let text = match pattern {
                Pattern::Name(name) => format!("{no}{:?}", name.0),
                Pattern::Prefix(prefix) => format!("{no}\"{prefix}*\""),
            };
            self.add(effect, "environment.keep", text);
        };
        for pattern in b.iter().filter(|pattern| !covered(pattern, a)) {
            once(Effect::Widens, pattern, "");
        }
        for pattern in a.iter().filter(|pattern| !covered(pattern, b)) {
            once(Effect::Narrows, pattern, "no ");
        }
    }

    /// At each place that either names: what the one shows there, and what the other.
    fn files(&mut self, a: &Profile, b: &Profile, paths: Paths) {
        let (ours, theirs) = (Access::of(a), Access::of(b));
        let places: BTreeSet<&PathBuf> =
            ours.iter().chain(&theirs).map(|access| &access.place).collect();
        for place in places {
            let (was, is) = (at(&ours, place, paths), at(&theirs, place, paths));
            let effect = match (&was, &is) {
                (None, None) => continue,
                (Some(_), None) => Effect::Narrows,
                (None, Some(_)) => Effect::Widens,
                (Some(was), Some(is)) => {
                    let more = |a: &Shown<'_>, b: &Shown<'_>| {
                        b.access.write && !a.access.write || b.access.exec && !a.access.exec
                    };
                    match () {
                        () if was.source != is.source || more(was, is) => Effect::Widens,
                        () if more(is, was) => Effect::Narrows,
                        () => continue,
                    }
                }
            };
            let hidden = [&ours, &theirs]
                .iter()
                .any(|all| all.iter().any(|access| access.hidden && access.place == *place));
            let writes = is.as_ref().or(was.as_ref()).is_some_and(|shown| shown.access.write);
            let key = match (hidden, writes) {
                (true, _) => "files.hide",
                (_, true) => "files.write",
                _ => "files.read",
            };
            let words = |shown: Option<Shown<'_>>| match shown {
                None => "nothing".to_owned(),
                Some(shown) => shown.words(place),
            };
            self.add(
                effect,
                key,
                format!("{}: {} (was {})", place.display(), words(is), words(was)),
            );
        }
    }
}

/// What a profile shows at a place in the box.
struct Access {
    place: PathBuf,
    source: PathBuf,
    write: bool,
    exec: bool,
    /// Shown as empty.
    hidden: bool,
}

impl Access {
    /// In the order in which they count: of several at one place, the last.
    fn of(profile: &Profile) -> Vec<Access> {
        let files = &profile.files;
        let all = files.write.iter().map(|grant| (grant, true));
        // What is thrown away at the end changes nothing on the host.
        let read = files.overlay.iter().chain(&files.read).map(|grant| (grant, false));
        let grants = all.chain(read).map(|(grant, write)| {
            let place = tidy(grant.at.as_ref().unwrap_or(&grant.path));
            let source = tidy(&grant.path);
            (grant.rank, Access { place, source, write, exec: grant.exec, hidden: false })
        });
        let hidden = files.hide.iter().map(|path| {
            let place = tidy(&path.path);
            let source = PathBuf::new();
            (path.rank, Access { place, source, write: false, exec: false, hidden: true })
        });
        let mut all: Vec<(u32, Access)> = grants.chain(hidden).collect();
        all.sort_by_key(|(rank, _)| *rank);
        all.into_iter().map(|(_, access)| access).collect()
    }
}

/// What is at one place.
struct Shown<'a> {
    /// Where on the host it comes from.
    source: PathBuf,
    access: &'a Access,
}

impl Shown<'_> {
    fn words(&self, place: &Path) -> String {
        let mut words = if self.access.write { "write" } else { "read" }.to_owned();
        if !self.access.exec {
            words.push_str(" without exec");
        }
        if self.source != place {
            words.push_str(&format!(" of {}", self.source.display()));
        }
        words
    }
}

/// What is at a place, by the innermost grant that holds it.
fn at<'a>(all: &'a [Access], place: &Path, paths: Paths) -> Option<Shown<'a>> {
    let upward = |access: &Access| access.place.components().any(|c| c == Component::ParentDir);
    let holds = |access: &&Access| {
        access.place == place
            || paths == Paths::ByName
                && !upward(access)
                && !place.components().any(|part| part == Component::ParentDir)
                && place.starts_with(&access.place)
                // `.` is tidied to nothing, which everything begins with.
                && (access.place != Path::new("") || place.is_relative() && !place.starts_with("~"))
    };
    let innermost =
        all.iter().filter(holds).max_by_key(|access| access.place.components().count())?;
    if innermost.hidden {
        return None;
    }
    let below = place.strip_prefix(&innermost.place).unwrap_or(Path::new(""));
    let source = if below == Path::new("") {
        innermost.source.clone()
    } else {
        innermost.source.join(below)
    };
    Some(Shown { source, access: innermost })
}

fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Whether every variable that the second one matches is matched by the first.
fn covers(a: &Pattern, b: &Pattern) -> bool {
    match (a, b) {
        (Pattern::Name(a), Pattern::Name(b)) => a == b,
        (Pattern::Name(_), Pattern::Prefix(_)) => false,
        (Pattern::Prefix(a), Pattern::Name(b)) => b.0.starts_with(a),
        (Pattern::Prefix(a), Pattern::Prefix(b)) => b.starts_with(a),
    }
}

/// Whether the second bound allows more; `None` where they are the same.
fn bound(a: Option<&Value>, b: Option<&Value>) -> Option<bool> {
    let number = |value: &Value| match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            digits.parse().ok()
        }
        _ => None,
    };
    let percent = |value: &Value| value.as_str().is_some_and(|text| text.ends_with('%'));
    let none = |value: Option<&Value>| value.is_none_or(is_unlimited);
    match (a, b) {
        _ if none(a) && none(b) => None,
        (_, b) if none(b) => Some(true),
        (a, _) if none(a) => Some(false),
        (Some(a), Some(b)) if percent(a) == percent(b) => match (number(a), number(b)) {
            (Some(a), Some(b)) if a == b => None,
            (Some(a), Some(b)) => Some(b > a),
            _ => Some(true),
        },
        _ => Some(true),
    }
}

/// Whether a bound is none. As podman's --timeout: 0 is none. Where it is the smallest of all, this
/// errs to the safe side.
fn is_unlimited(value: &Value) -> bool {
    match value {
        Value::Integer(number) => *number == 0,
        Value::Float(number) => *number == 0.0,
        Value::String(text) => text == UNLIMITED,
        _ => false,
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or("nothing".to_owned(), ToString::to_string)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
