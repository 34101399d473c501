//! Where profiles come from: the ones that are part of casemate, the user's own, and files that are
//! named by their path; and what a profile builds on (`extends`).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::shipped::SHIPPED;
use super::{Named, Profile, Word, parse};
use crate::error::{During, Error, Result};

/// The profile that lies below all others.
const DEFAULT: &str = "default";

/// The largest profile that is read, in bytes: more than any real one by far.
const LIMIT: u64 = 1 << 20;

/// How many profiles one may build on, in all.
const MOST: usize = 64;

/// How many profiles of the user are looked at.
const MOST_LISTED: usize = 4096;

/// The names of the profiles that are part of casemate.
pub fn shipped() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// All profiles that have a name.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// The directory of the user's own.
    user: Option<PathBuf>,
}

/// Profiles laid over each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Layers {
    /// Their names, the lowest first.
    pub names: Vec<String>,
    /// What they say together.
    pub profile: Profile,
}

impl Layers {
    /// Lays one more over these.
    #[must_use]
    pub fn with(mut self, named: Named) -> Layers {
        self.names.push(named.name);
        Layers { names: self.names, profile: self.profile.overlaid(named.profile) }
    }
}

/// A profile that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// Its file, for one of the user's; a shipped one has none.
    pub path: Option<PathBuf>,
    /// Its line for people, or why it cannot be read.
    pub description: std::result::Result<String, String>,
    /// The programs that it is for.
    pub commands: Vec<String>,
}

/// Which profile it is, whatever it was called.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    Shipped(&'static str),
    File(PathBuf),
}

/// A profile before what it builds on.
struct Found {
    id: Id,
    named: Named,
}

impl Library {
    /// The user's profiles are in `casemate/profiles` below the directory for configuration.
    pub fn new(config: Option<&Path>) -> Library {
        Library { user: config.map(|config| config.join("casemate/profiles")) }
    }

    /// The directory of the user's profiles, which need not exist.
    pub fn directory(&self) -> Option<&Path> {
        self.user.as_deref()
    }

    /// The profile that a word means, with all that it builds on, over the default one. A word with
    /// a slash, or that ends in `.toml`, is the path of a file; any other is the name of a profile
    /// of the user, or else of a shipped one.
    pub fn load(&self, word: &str) -> Result<Layers> {
        let found = match is_path(word) {
            true => file(word.to_owned(), Path::new(word))?,
            false => self.find(word, None)?,
        };
        self.assemble(found)
    }

    /// As [`Library::load`], without the profiles below.
    pub fn load_alone(&self, word: &str) -> Result<Named> {
        match is_path(word) {
            true => file(word.to_owned(), Path::new(word)).map(|found| found.named),
            false => self.find(word, None).map(|found| found.named),
        }
    }

    /// A profile laid over others with what it builds on, which can only be named, not be files: for
    /// one whose own text is all that is known of it.
    pub fn over(&self, below: Layers, named: Named) -> Result<Layers> {
        let mut walk = Walk { library: self, done: Vec::new(), open: Vec::new() };
        // The name of no file: what lies beside it cannot be meant.
        walk.add(Found { id: Id::File(PathBuf::new()), named })?;
        Ok(walk.layers(below))
    }

    /// The shipped default.
    pub fn default_layers(&self) -> Result<Layers> {
        let named = shipped_one(DEFAULT).ok_or_else(|| no_such(DEFAULT))??.named;
        Ok(Layers { names: vec![named.name], profile: named.profile })
    }

    /// The text of the profile that a word means, and its file where it has one.
    pub fn source(&self, word: &str) -> Result<(String, Option<PathBuf>)> {
        if is_path(word) {
            return Ok((read(Path::new(word))?, Some(PathBuf::from(word))));
        }
        if let Some(path) = self.users(word)? {
            return Ok((read(&path)?, Some(path)));
        }
        let text = SHIPPED.iter().find(|(name, _)| *name == word).map(|(_, text)| *text);
        text.map(|text| (text.to_owned(), None)).ok_or_else(|| self.unknown(word))
    }

    /// All that have a name, sorted; one of the user stands for the shipped one of its name.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut all: BTreeMap<String, Listed> = SHIPPED
            .iter()
            .map(|(name, text)| ((*name).to_owned(), listed(name, None, parse(name, text))))
            .collect();
        for (name, path) in self.users_all()? {
            let shown = path.display().to_string();
            let parsed = read(&path).and_then(|text| parse(&shown, &text));
            let mut own = listed(&name, Some(path), parsed);
            // It stands for the shipped one, and so for its programs, unless it names others.
            if let Some(shipped) = all.remove(&name).filter(|_| own.commands.is_empty()) {
                own.commands = shipped.commands;
            }
            all.insert(name, own);
        }
        Ok(all.into_values().collect())
    }

    /// The name of the profile for a program: the one of the same name, or else the one that lists it
    /// among its commands, those of the user first.
    pub fn for_command(&self, command: &str) -> Result<Option<String>> {
        if is_name(command) && (self.users(command)?.is_some() || is_shipped(command)) {
            return Ok(Some(command.to_owned()));
        }
        let mut all = self.list()?;
        all.sort_by_key(|listed| listed.path.is_none());
        let found = all.into_iter().find(|listed| listed.commands.iter().any(|c| c == command));
        Ok(found.map(|listed| listed.name))
    }

    fn assemble(&self, found: Found) -> Result<Layers> {
        let below = self.default_layers()?;
        let mut walk = Walk { library: self, done: Vec::new(), open: Vec::new() };
        walk.add(found)?;
        Ok(walk.layers(below))
    }

    /// A profile by its name. What is shipped builds only on what is shipped; a profile of the user
    /// that names itself means the shipped one that it stands for.
    fn find(&self, name: &str, from: Option<&Id>) -> Result<Found> {
        let only_shipped = matches!(from, Some(Id::Shipped(_)));
        if !only_shipped && let Some(path) = self.users(name)? {
            let found = file(path.display().to_string(), &path)?;
            if from != Some(&found.id) {
                return Ok(found);
            }
        }
        shipped_one(name).ok_or_else(|| self.unknown(name))?
    }

    /// Refuses what cannot be the name of a profile.
    pub fn check_name(&self, name: &str) -> Result<()> {
        if is_name(name) {
            return Ok(());
        }
        Err(Error::new(format!("profile {name}: not the name of a profile")).hint(
            "a name has letters, digits, dashes, dots and underscores; a file is named by its path, such as ./FILE.toml",
        ))
    }

    /// The file of the user's profile of this name, where there is one.
    fn users(&self, name: &str) -> Result<Option<PathBuf>> {
        self.check_name(name)?;
        let Some(directory) = &self.user else { return Ok(None) };
        let path = directory.join(format!("{name}.toml"));
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::os("look at", path.display(), &error)),
        }
    }

    fn users_all(&self) -> Result<Vec<(String, PathBuf)>> {
        let Some(directory) = &self.user else { return Ok(Vec::new()) };
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(Error::os("read", directory.display(), &error)),
        };
        let mut found = Vec::new();
        for entry in entries.take(MOST_LISTED) {
            let path = entry.at("read", directory)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name =
                name.and_then(|name| name.strip_suffix(".toml")).filter(|name| is_name(name));
            if let Some(name) = name {
                found.push((name.to_owned(), path.clone()));
            }
        }
        Ok(found)
    }

    fn unknown(&self, name: &str) -> Error {
        let mut all: Vec<String> = shipped().map(str::to_owned).collect();
        // A directory that cannot be read has been told of where that matters.
        all.extend(self.users_all().unwrap_or_default().into_iter().map(|(name, _)| name));
        let near = all
            .iter()
            .map(|known| (strsim::damerau_levenshtein(name, known), known))
            .min()
            .filter(|(distance, known)| *distance <= 1.max(name.len().min(known.len()) / 3));
        let error = no_such(name);
        match near {
            Some((_, near)) => error.hint(format!("did you mean {near:?}?")),
            None => error,
        }
        .hint(format!(
            "`casemate profile list` lists them; a file is named by its path, such as ./{name}.toml"
        ))
    }
}

fn no_such(name: &str) -> Error {
    Error::new(format!("profile {name}: there is no profile of this name"))
}

fn listed(name: &str, path: Option<PathBuf>, parsed: Result<Named>) -> Listed {
    let (description, commands) = match parsed {
        Ok(named) => (
            Ok(named.profile.description.unwrap_or_default()),
            named.profile.commands.into_iter().map(|command| command.0).collect(),
        ),
        Err(error) => (Err(error.to_string()), Vec::new()),
    };
    Listed { name: name.to_owned(), path, description, commands }
}

/// Collects what a profile builds on, depth first, left to right. One that is reached by several ways
/// counts once, where it was reached first: a base does not undo what was laid over it.
struct Walk<'a> {
    library: &'a Library,
    done: Vec<Found>,
    /// The profiles on the way from the first one to this, with their names.
    open: Vec<(Id, String)>,
}

impl Walk<'_> {
    fn add(&mut self, mut found: Found) -> Result<()> {
        self.open.push((found.id.clone(), found.named.name.clone()));
        for word in std::mem::take(&mut found.named.profile.extends) {
            let base = self.base(&word, &found.id).map_err(|error| error.within(&word.origin))?;
            if let Some(at) = self.open.iter().position(|(id, _)| *id == base.id) {
                let mut circle: Vec<&str> =
                    self.open[at..].iter().map(|(_, name)| name.as_str()).collect();
                circle.push(&base.named.name);
                return Err(Error::new(format!(
                    "{}: extends: a circle: {}",
                    word.origin,
                    circle.join(" extends ")
                ))
                .hint("a profile cannot build on itself"));
            }
            if self.done.iter().any(|done| done.id == base.id) {
                continue;
            }
            if self.done.len() + self.open.len() >= MOST {
                return Err(Error::new(format!(
                    "{}: extends: more than {MOST} profiles",
                    word.origin
                )));
            }
            self.add(base)?;
        }
        self.open.pop();
        self.done.push(found);
        Ok(())
    }

    fn base(&self, word: &Word, from: &Id) -> Result<Found> {
        if !is_path(&word.name) {
            return self.library.find(&word.name, Some(from));
        }
        // Relative to the file that says it, wherever casemate was started.
        match from {
            Id::File(path) if path.parent().is_some() => {
                let beside = path.parent().unwrap_or(path).join(&word.name);
                file(beside.display().to_string(), &beside)
            }
            _ => Err(Error::new(format!("extends {}: only names can stand here", word.name))
                .hint("the profiles that `casemate profile list` lists")),
        }
    }

    fn layers(self, below: Layers) -> Layers {
        let last = self.done.len().saturating_sub(1);
        let mut layers = below;
        for (index, Found { id, mut named }) in self.done.into_iter().enumerate() {
            // As within the walk: what lies below already is not laid over it once more.
            if id == Id::Shipped(DEFAULT) || layers.names.contains(&named.name) {
                continue;
            }
            // What is said about a base is not said about what builds on it.
            if index < last {
                named.profile.description = None;
                named.profile.commands.clear();
            }
            layers = layers.with(named);
        }
        layers
    }
}

fn is_path(word: &str) -> bool {
    word.contains('/') || word.ends_with(".toml")
}

/// Letters, digits and a few signs: nothing that leads out of a directory, or reads as an option.
pub(super) fn is_name(word: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+');
    (1..=64).contains(&word.len())
        && word.bytes().all(inner)
        && word.as_bytes()[0].is_ascii_alphanumeric()
        && !word.ends_with(".toml")
}

fn is_shipped(name: &str) -> bool {
    SHIPPED.iter().any(|(known, _)| *known == name)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

fn shipped_one(name: &str) -> Option<Result<Found>> {
    let (name, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
    Some(parse(name, text).map(|named| Found { id: Id::Shipped(name), named }))
}

fn file(name: String, path: &Path) -> Result<Found> {
    let text = read(path)?;
    // Something that has no name any more, such as a pipe, is nobody else's base.
    let id = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Ok(Found { id: Id::File(id), named: parse(&name, &text)? })
}

/// The text of a profile's file.
pub(super) fn read(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).at("open profile", path)?;
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).at("read profile", path)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::new(format!("read profile {}: larger than 1 MiB", path.display())));
    }
    String::from_utf8(bytes).map_err(|_| {
        Error::new(format!("read profile {}: not UTF-8, which TOML is", path.display()))
    })
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
