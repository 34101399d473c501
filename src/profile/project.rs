//! The profile of a project, `.casemate.toml`: found upwards from the working directory, and laid over
//! the one that was named. It comes with the project's other files, from whoever wrote them; so it
//! may only take away, unless the user has trusted this very content at this very place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Difference, Effect, Layers, Library, Paths, parse};
use crate::error::{During, Error, Result};
use crate::image::Digest;

/// The file's name.
pub const PROJECT_FILE: &str = ".casemate.toml";

/// As of any profile.
const LIMIT: u64 = 1 << 20;

/// A project's profile, read once: what is trusted is what is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its path, without symbolic links in the directories.
    pub path: PathBuf,
    text: String,
}

/// What was found on the way up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// The nearest one.
    pub project: Option<Project>,
    /// Files that belong to somebody else, and so say nothing.
    pub foreign: Vec<PathBuf>,
}

impl Project {
    /// Looks in a directory and those above it; not above the home, where the search began in it.
    pub fn find(from: &Path, home: Option<&Path>, uid: u32) -> Result<Search> {
        let mut search = Search::default();
        for directory in from.ancestors() {
            let path = directory.join(PROJECT_FILE);
            match read(&path, uid)? {
                Some(Ok(text)) => {
                    search.project = Some(Project { path, text });
                    break;
                }
                Some(Err(Foreign)) => search.foreign.push(path),
                None => {}
            }
            if home == Some(directory) {
                break;
            }
        }
        Ok(search)
    }

    /// The one with this path.
    pub fn open(path: &Path, uid: u32) -> Result<Project> {
        let path = std::fs::canonicalize(path).at("open", path)?;
        match read(&path, uid)? {
            Some(Ok(text)) => Ok(Project { path, text }),
            Some(Err(Foreign)) => {
                Err(Error::new(format!("{}: belongs to somebody else", path.display()))
                    .hint("copy it, and read the copy before you trust it"))
            }
            None => Err(Error::os("open", path.display(), nix::errno::Errno::ENOENT)),
        }
    }

    /// It, with what it builds on, over other profiles; and what it allows beyond them.
    pub fn over(&self, library: &Library, below: Layers) -> Result<(Layers, Vec<Difference>)> {
        let named = parse(&self.path.display().to_string(), &self.text)?;
        let before = below.profile.clone();
        let mut layers = library.over(below, named)?;
        layers.profile.files.lower_repeats(&before.files);
        let mut widening = before.differences(&layers.profile, Paths::Exact);
        widening.retain(|difference| difference.effect == Effect::Widens);
        Ok((layers, widening))
    }

    /// The same content elsewhere means other files, and is another name here.
    fn name(&self) -> String {
        Digest::of(&[self.path.as_os_str().as_bytes(), b"\0", self.text.as_bytes()].concat()).hex()
    }
}

/// What the user has trusted: a file for each, named by what it is, with the path in it.
#[derive(Debug, Clone)]
pub struct Trust(PathBuf);

impl Trust {
    /// `data` is the directory for the user's data.
    pub fn new(data: &Path) -> Trust {
        Trust(data.join("casemate/trusted"))
    }

    /// Whether it was trusted as it is.
    pub fn holds(&self, project: &Project) -> Result<bool> {
        let path = self.0.join(project.name());
        match std::fs::symlink_metadata(&path) {
            Ok(found) => Ok(found.is_file()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::os("look at", path.display(), &error)),
        }
    }

    /// Trusts it, in the place of what was trusted at this path before.
    pub fn add(&self, project: &Project) -> Result<()> {
        self.revoke(&project.path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).at("make", &self.0)?;
        let path = self.0.join(project.name());
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .at("make", &path)?;
        file.write_all(project.path.as_os_str().as_bytes()).at("write", &path)
    }

    /// Ends the trust in whatever is at this path. False where there was none.
    pub fn revoke(&self, project: &Path) -> Result<bool> {
        let mut found = false;
        for (file, path) in self.all()? {
            if path == project {
                std::fs::remove_file(&file).at("remove", &file)?;
                found = true;
            }
        }
        Ok(found)
    }

    /// The paths, sorted.
    pub fn list(&self) -> Result<Vec<PathBuf>> {
        let mut all: Vec<PathBuf> = self.all()?.into_iter().map(|(_, path)| path).collect();
        all.sort();
        Ok(all)
    }

    fn all(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::os("read", self.0.display(), &error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let file = entry.at("read", &self.0)?.path();
            let mut path = Vec::new();
            let opened = File::open(&file).at("open", &file)?;
            opened.take(libc::PATH_MAX as u64).read_to_end(&mut path).at("read", &file)?;
            all.push((file, PathBuf::from(std::ffi::OsStr::from_bytes(&path))));
        }
        Ok(all)
    }
}

/// It is somebody else's: in a directory that others can write too, anyone may have put it there
/// (CVE-2022-24765 was git's case of it).
struct Foreign;

fn read(path: &Path, uid: u32) -> Result<Option<Result<String, Foreign>>> {
    // A link of somebody else's would choose among the user's own files.
    let by_name = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES)
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Error::os("look at", path.display(), &error)),
    };
    if by_name.uid() != uid {
        return Ok(Some(Err(Foreign)));
    }
    // A pipe of this name would wait for ever otherwise.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).at("open", path)?;
    let found = file.metadata().at("stat", path)?;
    if found.uid() != uid {
        return Ok(Some(Err(Foreign)));
    }
    if !found.is_file() {
        return Err(Error::new(format!("{}: not a file", path.display()))
            .hint("remove it, or say --no-project"));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::new(format!("read {}: larger than 1 MiB", path.display())));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(format!("read {}: not UTF-8, which TOML is", path.display())))?;
    Ok(Some(Ok(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid() -> u32 {
        nix::unistd::getuid().as_raw()
    }

    #[test]
    fn the_nearest_of_ones_own_is_found() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("home/project/src")).unwrap();
        let find = |at: &str| {
            Project::find(&top.join(at), Some(&top.join("home")), uid()).unwrap().project
        };
        assert_eq!(find("home/project/src"), None);
        std::fs::write(top.join(PROJECT_FILE), "").unwrap();
        assert_eq!(find("home/project/src"), None, "above the home");
        std::fs::write(top.join("home").join(PROJECT_FILE), "").unwrap();
        std::fs::write(top.join("home/project").join(PROJECT_FILE), "").unwrap();
        let found = find("home/project/src").unwrap();
        assert_eq!(found.path, top.join("home/project").join(PROJECT_FILE));
        let search = Project::find(&top.join("home/project"), None, uid() + 1).unwrap();
        assert_eq!(search.project, None);
        assert!(search.foreign.len() >= 3);
    }

    #[test]
    fn trust_is_in_a_content_at_a_place() {
        let place = tempfile::tempdir().unwrap();
        let trust = Trust::new(place.path());
        let project = |path: &str, text: &str| Project { path: path.into(), text: text.into() };
        let first = project("/a/.casemate.toml", "[network]");
        assert!(!trust.holds(&first).unwrap());
        trust.add(&first).unwrap();
        assert!(trust.holds(&first).unwrap());
        assert!(!trust.holds(&project("/b/.casemate.toml", "[network]")).unwrap());
        let second = project("/a/.casemate.toml", "[network] ");
        assert!(!trust.holds(&second).unwrap());
        trust.add(&second).unwrap();
        assert!(!trust.holds(&first).unwrap(), "what was there before");
        assert_eq!(trust.list().unwrap(), [PathBuf::from("/a/.casemate.toml")]);
        assert!(trust.revoke(&second.path).unwrap() && !trust.revoke(&second.path).unwrap());
    }

    #[test]
    fn what_widens_is_named() {
        let library = Library::default();
        let over = |text: &str| {
            let project = Project { path: "/p/.casemate.toml".into(), text: text.into() };
            let below = library.default_layers()?;
            project.over(&library, below).map(|(_, widening)| widening.len())
        };
        assert_eq!(over("[files]\nhide = [\"./x\"]\n[limits]\ntimeout = 5").unwrap(), 0);
        assert_eq!(over("[network]\nmode = \"host\"\n[files]\nread = [\"/\"]").unwrap(), 2);
        assert_eq!(over("[files]\ntmpfs = [\"/x\"]").unwrap(), 1);
        assert!(over("extends = [\"./x.toml\"]").is_err());
    }
}
