//! The names that stand for directories at the beginning of a path of the host.

use std::path::{Path, PathBuf};

/// Variables, with what they are below the home where they are not set (XDG base directory
/// specification); the runtime directory has no such default.
pub const VARIABLES: [(&str, Option<&str>); 6] = [
    ("HOME", Some("")),
    ("XDG_CONFIG_HOME", Some(".config")),
    ("XDG_CACHE_HOME", Some(".cache")),
    ("XDG_DATA_HOME", Some(".local/share")),
    ("XDG_STATE_HOME", Some(".local/state")),
    ("XDG_RUNTIME_DIR", None),
];

/// The user's directories: the word, the name in user-dirs.dirs(5), and what it is below the home
/// where that file does not exist.
pub const USER_DIRECTORIES: [(&str, &str, &str); 8] = [
    ("xdg-desktop", "XDG_DESKTOP_DIR", "Desktop"),
    ("xdg-documents", "XDG_DOCUMENTS_DIR", "Documents"),
    ("xdg-download", "XDG_DOWNLOAD_DIR", "Downloads"),
    ("xdg-music", "XDG_MUSIC_DIR", "Music"),
    ("xdg-pictures", "XDG_PICTURES_DIR", "Pictures"),
    ("xdg-public-share", "XDG_PUBLICSHARE_DIR", "Public"),
    ("xdg-templates", "XDG_TEMPLATES_DIR", "Templates"),
    ("xdg-videos", "XDG_VIDEOS_DIR", "Videos"),
];

/// What a path of the host begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The home.
    Home,
    /// One of [`VARIABLES`], by its index.
    Variable(usize),
    /// One of [`USER_DIRECTORIES`], by its index.
    UserDirectory(usize),
    /// The root.
    Root,
    /// The working directory.
    Here,
}

/// Splits a path into what it begins with and the rest. The error says which names there are.
pub fn start(path: &Path) -> Result<(Start, PathBuf), String> {
    let mut parts = path.components();
    let first = parts.next().map(|part| part.as_os_str().to_owned()).unwrap_or_default();
    let rest = parts.as_path().to_owned();
    let Some(word) = first.to_str() else { return Ok((Start::Here, path.to_owned())) };
    if word == "/" {
        return Ok((Start::Root, path.to_owned()));
    }
    if word == "~" {
        return Ok((Start::Home, rest));
    }
    if let Some(name) = word.strip_prefix('$') {
        return match VARIABLES.iter().position(|(known, _)| *known == name) {
            Some(index) => Ok((Start::Variable(index), rest)),
            None => {
                let all: Vec<String> =
                    VARIABLES.iter().map(|(name, _)| format!("${name}")).collect();
                Err(format!(
                    "unknown directory {word:?}, expected one of {}; a file of this name is ./{word}",
                    all.join(", ")
                ))
            }
        };
    }
    if word.starts_with("xdg-") {
        return match USER_DIRECTORIES.iter().position(|(known, ..)| *known == word) {
            Some(index) => Ok((Start::UserDirectory(index), rest)),
            None => {
                let all = USER_DIRECTORIES.map(|(word, ..)| word).join(", ");
                Err(format!(
                    "unknown directory {word:?}, expected one of {all}; a file of this name is ./{word}"
                ))
            }
        };
    }
    if word.starts_with('~') {
        return Err(format!("{word:?}: only ~ and ~/… are known; a file of this name is ./{word}"));
    }
    Ok((Start::Here, path.to_owned()))
}

/// The directory that user-dirs.dirs(5) has for a name, where it has one: absolute, or below the
/// home. One that is the home itself is switched off, as xdg-user-dirs says, and is `Some(None)`.
pub fn user_directory(text: &str, name: &str, home: &Path) -> Option<Option<PathBuf>> {
    let value = text.lines().rev().find_map(|line| {
        let value = line.trim().strip_prefix(name)?.trim_start().strip_prefix('=')?;
        value.trim().strip_prefix('"')?.strip_suffix('"').map(str::to_owned)
    })?;
    let mut plain = String::new();
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    let path = match plain.strip_prefix("$HOME") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        _ if plain.starts_with('/') => PathBuf::from(plain),
        // Another form is no directory, as the tool's own library reads it.
        _ => return None,
    };
    let path: PathBuf = path.components().collect();
    Some((!home.starts_with(&path)).then_some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_with_names() {
        let of = |path: &str| start(Path::new(path)).unwrap();
        assert_eq!(of("~/a/b"), (Start::Home, "a/b".into()));
        assert_eq!(of("$XDG_CACHE_HOME/x"), (Start::Variable(2), "x".into()));
        assert_eq!(of("xdg-download"), (Start::UserDirectory(2), "".into()));
        assert_eq!(of("/a"), (Start::Root, "/a".into()));
        assert_eq!(of("./$HOME"), (Start::Here, "./$HOME".into()));
        assert_eq!(of("a/~"), (Start::Here, "a/~".into()));
        for bad in ["$PATH", "xdg-downloads", "~ann", "$HOME$HOME", "~x/y"] {
            assert!(start(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_users_directories_are_read_as_xdg_user_dirs_does() {
        let text = "# c\nXDG_MUSIC_DIR=\"$HOME/\"\nXDG_DOWNLOAD_DIR=\"$HOME/Down\\\"loads\"\n\
                    XDG_VIDEOS_DIR=\"/media/v\"\nXDG_DESKTOP_DIR=\"relative\"\n\
                    XDG_PICTURES_DIR=\"/home\"\n";
        let of = |name| user_directory(text, name, Path::new("/home/ann"));
        assert_eq!(of("XDG_DOWNLOAD_DIR"), Some(Some("/home/ann/Down\"loads".into())));
        assert_eq!(of("XDG_VIDEOS_DIR"), Some(Some("/media/v".into())));
        // A name for the home would grant all of it.
        assert_eq!(of("XDG_MUSIC_DIR"), Some(None));
        assert_eq!(of("XDG_PICTURES_DIR"), Some(None));
        assert_eq!(of("XDG_DESKTOP_DIR"), None);
        assert_eq!(of("XDG_TEMPLATES_DIR"), None);
    }
}
