//! containers-registries.conf(5), version 2: what short names mean, where repositories really are,
//! mirrors, and which registries may be spoken to without TLS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::environment::{Environment, read};
use super::{Access, Location};
use crate::error::{During, Error, Result};
use crate::image::Reference;
use crate::place::located;

const MAX_FILE: u64 = 1 << 20;
const MAX_DROP_INS: usize = 1000;
const DEFAULT_SEARCH: &str = "docker.io";

/// What all files together say.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    search: Option<Vec<String>>,
    enforcing: bool,
    aliases: BTreeMap<String, String>,
    registries: BTreeMap<String, Registry>,
    /// Programs to ask for credentials before the files, in order.
    pub(super) helpers: Vec<String>,
}

#[derive(Debug, Clone)]
struct Registry {
    /// Empty where it is the name itself, for a prefix with a star.
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Clone)]
struct Mirror {
    location: String,
    insecure: bool,
    serves: Serves,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Serves {
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ShortNames {
    Enforcing,
    Permissive,
    Disabled,
}

/// A file as it is. Keys that are not known here belong to other tools that read it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    unqualified_search_registries: Option<Vec<Spanned<String>>>,
    short_name_mode: Option<ShortNames>,
    credential_helpers: Option<Vec<String>>,
    aliases: BTreeMap<String, Spanned<String>>,
    registry: Vec<Spanned<Table>>,
    /// Version 1.
    registries: Option<Spanned<toml::Table>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Table {
    prefix: Option<String>,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Spanned<MirrorTable>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Serves>,
}

impl Configuration {
    /// Reads the main file, the user's own if there is one, and then what is dropped in beside it,
    /// the system's and the user's. A later file wins.
    pub fn load(environment: &Environment) -> Result<Self> {
        let mut all = Configuration::default();
        let mains: Vec<PathBuf> = match &environment.registries_conf {
            Some(path) => vec![path.clone()],
            None => environment.containers().map(|dir| dir.join("registries.conf")).collect(),
        };
        let mut found = false;
        for path in mains {
            if all.add_file(&path)? {
                found = true;
                break;
            }
        }
        if let (false, Some(path)) = (found, &environment.registries_conf) {
            return Err(nix::errno::Errno::ENOENT)
                .at("open", path)
                .map_err(|error: Error| error.hint("CONTAINERS_REGISTRIES_CONF names the file"));
        }
        let mut directories: Vec<_> =
            environment.containers().map(|dir| dir.join("registries.conf.d")).collect();
        directories.reverse();
        for directory in directories {
            for path in drop_ins(&directory)? {
                all.add_file(&path)?;
            }
        }
        // What the user chose when podman asked; it keeps that here.
        if let Some(cache) = &environment.cache {
            all.add_file(&cache.join("containers/short-name-aliases.conf"))?;
        }
        Ok(all)
    }

    fn add_file(&mut self, path: &Path) -> Result<bool> {
        let Some(content) = read(path, MAX_FILE)? else { return Ok(false) };
        let name = path.display().to_string();
        let text = String::from_utf8(content)
            .map_err(|_| Error::new(format!("read {name}: it is not UTF-8 text")))?;
        self.add(&name, &text)?;
        Ok(true)
    }

    /// Adds the text of the file that goes by `name` in messages.
    pub fn add(&mut self, name: &str, text: &str) -> Result<()> {
        let file: File = toml::from_str(text)
            .map_err(|error| located(name, text, error.span().unwrap_or(0..0), error.message()))?;
        let wrong = |span, message: &str| located(name, text, span, message);
        if let Some(old) = file.registries {
            return Err(wrong(old.span(), "the format of version 1 is not read").hint(
                "write unqualified-search-registries = [\"…\"] and [[registry]] tables, as in \
                 containers-registries.conf(5)",
            ));
        }
        if let Some(search) = file.unqualified_search_registries {
            for host in &search {
                check_location(host.as_ref()).map_err(|why| wrong(host.span(), why))?;
            }
            self.search = Some(search.into_iter().map(Spanned::into_inner).collect());
        }
        if let Some(mode) = file.short_name_mode {
            self.enforcing = mode == ShortNames::Enforcing;
        }
        if let Some(helpers) = file.credential_helpers {
            self.helpers = helpers;
        }
        for (alias, target) in file.aliases {
            // An empty one takes an alias of an earlier file away.
            if target.as_ref().is_empty() {
                self.aliases.remove(&alias);
                continue;
            }
            let is_full = Reference::parse(target.as_ref()).is_ok_and(|full| !full.is_short());
            if !is_full || target.as_ref().contains('@') {
                let message = "an alias stands for HOST/NAME without tag or digest";
                return Err(wrong(target.span(), message));
            }
            self.aliases.insert(alias, target.into_inner());
        }
        for table in file.registry {
            let span = table.span();
            let (prefix, registry) = registry(table.into_inner(), &wrong, span)?;
            self.registries.insert(prefix, registry);
        }
        Ok(())
    }

    /// The full names that a name may stand for, in the order in which they are tried.
    pub fn candidates(&self, reference: &Reference) -> Result<Vec<Reference>> {
        if !reference.is_short() {
            self.find(reference)?;
            return Ok(vec![reference.clone()]);
        }
        let short = reference.repository();
        if let Some(full) = self.aliases.get(short) {
            let full = reference.in_repository(full)?;
            self.find(&full)?;
            return Ok(vec![full]);
        }
        let default = [DEFAULT_SEARCH.to_owned()];
        let search = self.search.as_deref().unwrap_or(&default);
        if search.is_empty() {
            return Err(Error::new(format!("{short}: no registry is named"))
                .hint(format!("write it out, for example docker.io/library/{short}"))
                .hint("or name registries in registries.conf: unqualified-search-registries"));
        }
        let mut candidates = Vec::new();
        let mut blocked = None;
        for host in search {
            let full = reference.in_repository(&format!("{host}/{short}"))?;
            match self.find(&full) {
                Ok(_) => candidates.push(full),
                Err(error) => blocked = blocked.or(Some(error)),
            }
        }
        if candidates.len() > 1 && self.enforcing {
            let names: Vec<_> = search.iter().map(|host| format!("{host}/{short}")).collect();
            return Err(Error::new(format!(
                "{short}: it may be any of {}, and short-name-mode is enforcing",
                names.join(", ")
            ))
            .hint("write the name out, or give it an alias in registries.conf"));
        }
        match (candidates.is_empty(), blocked) {
            (true, Some(error)) => Err(error),
            _ => Ok(candidates),
        }
    }

    /// Where an image is to be had or put: its own place, and the mirrors to ask first.
    pub(super) fn locations(
        &self,
        reference: &Reference,
        access: Access,
    ) -> Result<(Location, Vec<Location>)> {
        let (host, path) = reference.registry();
        let name = format!("{host}/{path}");
        let Some((prefix, registry)) = self.find(reference)? else {
            return Ok((Location::parse(&name, false)?, Vec::new()));
        };
        let moved = |location: &str| match (location, prefix.starts_with("*.")) {
            ("", _) => name.clone(),
            // A star stands for the host: it is what is replaced.
            (location, true) => format!("{location}/{path}"),
            (location, false) => {
                format!("{location}{}", name.get(prefix.len()..).unwrap_or_default())
            }
        };
        let mut mirrors = Vec::new();
        if access == Access::Pull {
            let wanted = |serves| match serves {
                Serves::All => true,
                Serves::DigestOnly => reference.digest().is_some(),
                Serves::TagOnly => reference.digest().is_none(),
            };
            for mirror in registry.mirrors.iter().filter(|mirror| wanted(mirror.serves)) {
                mirrors.push(Location::parse(&moved(&mirror.location), mirror.insecure)?);
            }
        }
        Ok((Location::parse(&moved(&registry.location), registry.insecure)?, mirrors))
    }

    /// Whether a registry as a whole (`HOST[:PORT]`) may be spoken to without verified TLS.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        self.longest(host).is_some_and(|(_, registry)| registry.insecure)
    }

    fn find(&self, reference: &Reference) -> Result<Option<(&str, &Registry)>> {
        let (host, path) = reference.registry();
        let found = self.longest(&format!("{host}/{path}"));
        if let Some((prefix, Registry { blocked: true, .. })) = found {
            return Err(Error::new(format!("look up {host}/{path}: the registry is blocked"))
                .hint(format!("registries.conf says blocked = true for {prefix}")));
        }
        Ok(found)
    }

    fn longest(&self, name: &str) -> Option<(&str, &Registry)> {
        let host = name.split(['/', ':']).next().unwrap_or(name);
        let fits = |prefix: &str| match prefix.strip_prefix("*.") {
            Some(domain) => {
                host.strip_suffix(domain).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.'))
            }
            None => name
                .strip_prefix(prefix)
                // Another port is another registry.
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        let fitting = self.registries.iter().filter(|(prefix, _)| fits(prefix));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(p, registry)| (p.as_str(), registry))
    }
}

type Span = std::ops::Range<usize>;

fn registry(
    table: Table,
    wrong: &dyn Fn(Span, &str) -> Error,
    span: Span,
) -> Result<(String, Registry)> {
    let trim = |text: &str| text.trim_end_matches('/').to_owned();
    let location = trim(table.location.as_deref().unwrap_or_default());
    let prefix = trim(table.prefix.as_deref().unwrap_or(&location));
    let is_wild = prefix.starts_with("*.");
    if location.is_empty() && !is_wild {
        return Err(wrong(span, "a [[registry]] needs a location"));
    }
    for text in [&location, &prefix].into_iter().filter(|text| !text.is_empty()) {
        check_location(text.strip_prefix("*.").unwrap_or(text))
            .map_err(|why| wrong(span.clone(), why))?;
    }
    if is_wild && prefix.contains(['/', ':']) {
        return Err(wrong(span, "a prefix with a star is *.DOMAIN and no more"));
    }
    let mut mirrors = Vec::new();
    for mirror in table.mirror {
        let span = mirror.span();
        let mirror = mirror.into_inner();
        let location = trim(&mirror.location);
        check_location(&location).map_err(|why| wrong(span, why))?;
        let serves = match table.mirror_by_digest_only {
            true => Serves::DigestOnly,
            false => mirror.pull_from_mirror.unwrap_or(Serves::All),
        };
        mirrors.push(Mirror { location, insecure: mirror.insecure, serves });
    }
    let Table { insecure, blocked, .. } = table;
    Ok((prefix, Registry { location, insecure, blocked, mirrors }))
}

/// A host, with a port and a path where it has them.
fn check_location(text: &str) -> std::result::Result<(), &'static str> {
    if text.contains("://") {
        return Err("a registry is named HOST[:PORT][/PATH], without https://");
    }
    // A name can follow it: that is all that a location is for.
    match super::is_authority(text.split('/').next().unwrap_or_default()) {
        true => Ok(()),
        false => Err("this is not HOST[:PORT][/PATH]"),
    }
}

fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Ok(Vec::new());
        }
        entries => entries.at("list", directory)?,
    };
    let mut paths = Vec::new();
    for entry in entries.take(MAX_DROP_INS) {
        let path = entry.at("list", directory)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
