//! From a path as a profile says it to one of this host.

use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::host::{Host, World};
use crate::profile::places::{self, Start};

/// More than any user-dirs.dirs(5) has.
const LIMIT: u64 = 64 << 10;

/// A path of the host, absolute. A directory that has a name and that this user does not have is an
/// error of the kind ENOENT.
pub(super) fn on_host(path: &Path, host: &Host, world: &dyn World) -> Result<PathBuf> {
    let (start, rest) = places::start(path)
        .map_err(|reason| Error::new(format!("{}: {reason}", path.display())))?;
    let base = match start {
        Start::Root => return Ok(lexical(path)),
        Start::Here => host.cwd.clone().ok_or_else(|| {
            Error::new(format!("{}: the working directory is gone", path.display()))
        })?,
        Start::Home => home(path, host)?.to_owned(),
        Start::Variable(index) => variable(path, index, host)?,
        Start::UserDirectory(index) => user_directory(path, index, host, world)?,
    };
    Ok(lexical(&base.join(rest)))
}

fn home<'a>(path: &Path, host: &'a Host) -> Result<&'a Path> {
    host.caller.home.as_deref().ok_or_else(|| {
        Error::new(format!("{}: no home directory is known", path.display())).hint("set HOME")
    })
}

fn variable(path: &Path, index: usize, host: &Host) -> Result<PathBuf> {
    let (name, default) = places::VARIABLES[index];
    if name == "HOME" {
        return home(path, host).map(Path::to_owned);
    }
    // As the specification has it, a relative path is as good as none.
    let set = host.environment.get(std::ffi::OsStr::new(name)).map(PathBuf::from);
    match (set.filter(|path| path.is_absolute()), default) {
        (Some(set), _) => Ok(set),
        (None, Some(default)) => Ok(home(path, host)?.join(default)),
        (None, None) => Err(Error::new(format!("{}: {name} is not set", path.display()))
            .kind(Errno::ENOENT)
            .hint("`optional = true` lets a grant be missing")),
    }
}

fn user_directory(path: &Path, index: usize, host: &Host, world: &dyn World) -> Result<PathBuf> {
    let (word, name, default) = places::USER_DIRECTORIES[index];
    let home = home(path, host)?;
    let config = on_host(Path::new("$XDG_CONFIG_HOME/user-dirs.dirs"), host, world)?;
    let text = match world.read(&config, LIMIT) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::os("read", config.display(), &error)),
    };
    let text = String::from_utf8(text)
        .map_err(|_| Error::new(format!("read {}: not UTF-8", config.display())))?;
    match places::user_directory(&text, name, home) {
        None => Ok(home.join(default)),
        Some(Some(directory)) => Ok(directory),
        Some(None) => Err(Error::new(format!(
            "{}: {} has no directory for {word}, but the home itself",
            path.display(),
            config.display()
        ))
        .kind(Errno::ENOENT)
        .hint("name the directory by its path")),
    }
}

/// Drops `.` components and doubled slashes; `..` stays, for the kernel to resolve.
fn lexical(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
