//! Programs by their own names: `casemate NAME …`, and a link of this name that leads to casemate.
//! Both become `run -p PROFILE -- NAME …`, with nothing between casemate and the box.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Exit, Result};
use crate::host::Directories;
use crate::profile::Library;
use crate::sandbox::DEFAULT_PATH;

/// The directory of the links.
pub(super) fn shims(data: &Path) -> PathBuf {
    data.join("casemate/shims")
}

/// The command line that is meant where casemate was called through one of its links; `None` where it
/// was called as itself.
pub(crate) fn by_link(args: &[OsString]) -> Result<Option<Vec<OsString>>> {
    let Some((own, rest)) = args.split_first() else { return Ok(None) };
    let Some(name) = Path::new(own).file_name().and_then(OsStr::to_str) else { return Ok(None) };
    if name == "casemate" {
        return Ok(None);
    }
    let directories = Directories::find();
    let Some(data) = &directories.data else { return Ok(None) };
    if !shims(data).join(name).is_symlink() {
        return Ok(None);
    }
    // In a box the link would lead into another one, and so on (systemd.io/CONTAINER_INTERFACE).
    if std::env::var_os("container").is_some_and(|value| value == "casemate") {
        return Err(Error::new(format!("{name}: this is a box already"))
            .hint("call the program by its path"));
    }
    let profile =
        Library::new(directories.config.as_deref()).for_command(name)?.ok_or_else(|| {
            Error::new(format!("{name}: there is no profile for it any more"))
                .hint(format!("casemate shim remove {name}"))
        })?;
    command_line(&profile, name, rest, &directories).map(Some)
}

/// The command line that is meant by words of which the first is no command, but the name of a
/// program that has a profile.
pub(crate) fn by_profile(args: &[OsString]) -> Result<Option<Vec<OsString>>> {
    let Some((name, rest)) = args.get(1..).and_then(|words| words.split_first()) else {
        return Ok(None);
    };
    let name = name.to_str().filter(|name| !name.starts_with('-') && *name != "default");
    let Some(name) = name else { return Ok(None) };
    let directories = Directories::find();
    match Library::new(directories.config.as_deref()).for_command(name)? {
        Some(profile) => command_line(&profile, name, rest, &directories).map(Some),
        None => Ok(None),
    }
}

fn command_line(
    profile: &str,
    name: &str,
    rest: &[OsString],
    directories: &Directories,
) -> Result<Vec<OsString>> {
    let library = Library::new(directories.config.as_deref());
    // An image brings its own programs; of the host, what a box finds by name goes by its name.
    let command = if library.load(profile)?.profile.root.image.is_some() {
        OsString::from(name)
    } else {
        let path = behind(name, directories).ok_or_else(|| {
            Error::new(format!("{name}: there is no program of this name in PATH"))
                .exit(Exit::NotFound)
        })?;
        let in_box = DEFAULT_PATH.split(':').any(|place| path.parent() == Some(Path::new(place)));
        if in_box { OsString::from(name) } else { path.into_os_string() }
    };
    let words = ["casemate", "run", "-p", profile, "--"].map(OsString::from);
    Ok(words.into_iter().chain([command]).chain(rest.iter().cloned()).collect())
}

/// The program that a name means when casemate's own links are not looked at.
pub(super) fn behind(name: &str, directories: &Directories) -> Option<PathBuf> {
    let own = std::fs::canonicalize("/proc/self/exe").ok();
    let shims = directories.data.as_deref().map(shims);
    search_path().into_iter().filter(|place| Some(place) != shims.as_ref()).find_map(|place| {
        let path = place.join(name);
        let is_own = std::fs::canonicalize(&path).ok().is_some_and(|path| Some(path) == own);
        (!is_own && is_program(&path)).then_some(path)
    })
}

/// The directories of PATH that have absolute names; another would mean something else everywhere.
pub(super) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|place| place.is_absolute()).collect()
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether a shell takes the name as one word, and as no option.
pub(super) fn is_plain(name: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"-_.+".contains(b);
    !name.starts_with('-') && !name.is_empty() && OsStr::new(name).as_bytes().iter().all(inner)
}
