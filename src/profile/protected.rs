//! What of the host other programs execute, or take orders from: a box that can write it has code run
//! outside, later, by the user's own hand (CVE-2026-25725, CVE-2026-48124). These paths stay as they
//! are below every writable grant, unless a profile names them in `files.unprotect`.

use std::fmt;
use std::str::FromStr;

/// Below the home: what shells, sessions, editors and agents read and obey. A directory stands for all
/// that is in it.
pub const HOME: [&str; 60] = [
    ".aider.conf.yml",
    ".bash_aliases",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".cargo/bin",
    ".cargo/config",
    ".cargo/config.toml",
    ".cargo/env",
    ".claude",
    ".claude.json",
    ".codex",
    ".config/autostart",
    ".config/autostart-scripts",
    ".config/emacs",
    ".config/environment.d",
    ".config/fish",
    ".config/git",
    ".config/helix",
    ".config/nushell",
    ".config/nvim",
    ".config/opencode",
    ".config/plasma-workspace",
    ".config/systemd",
    ".config/zed",
    ".cshrc",
    ".cursor",
    ".direnvrc",
    ".emacs",
    ".emacs.d",
    ".gdbinit",
    ".gemini",
    ".gitconfig",
    ".inputrc",
    ".kshrc",
    ".local/bin",
    ".local/share/applications",
    ".local/share/dbus-1",
    ".local/share/systemd",
    ".login",
    ".mkshrc",
    ".pam_environment",
    ".profile",
    ".ssh",
    ".tcshrc",
    ".tmux.conf",
    ".vim",
    ".vimrc",
    ".xinitrc",
    ".xprofile",
    ".xsession",
    ".xsessionrc",
    ".zlogin",
    ".zlogout",
    ".zprofile",
    ".zshenv",
    ".zshrc",
    "bin",
    "go/bin",
];

/// At the top of a writable directory, also where it does not exist yet: programs on the host obey it
/// without a question.
pub const TREE: [&str; 6] = [".claude", ".codex", ".cursor", ".gemini", ".idea", ".vscode"];

/// At the top of a writable directory, where it exists: programs ask before they obey a new one.
pub const TREE_EXISTING: [&str; 13] = [
    ".aider.conf.yml",
    ".casemate.toml",
    ".devcontainer",
    ".dir-locals.el",
    ".envrc",
    ".exrc",
    ".gitmodules",
    ".husky",
    ".mcp.json",
    ".nvim.lua",
    ".nvimrc",
    ".pre-commit-config.yaml",
    ".zed",
];

/// A repository's own settings: `.git` as a whole where there is none yet, else what git executes or
/// is led by.
pub const GIT: &str = ".git";

/// The name of something that is protected, as `files.unprotect` takes it: one of the tables, those
/// below the home with `~/` before it; or `all`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protected(pub String);

/// The word for everything.
pub const ALL: &str = "all";

/// All names.
pub fn names() -> impl Iterator<Item = String> {
    let tree = TREE.iter().chain(&TREE_EXISTING).map(|name| (*name).to_owned());
    let home = HOME.iter().map(|name| format!("~/{name}"));
    [ALL.to_owned(), GIT.to_owned()].into_iter().chain(tree).chain(home)
}

impl FromStr for Protected {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if names().any(|name| name == text) {
            return Ok(Protected(text.to_owned()));
        }
        let near = names()
            .map(|name| (strsim::damerau_levenshtein(text, &name), name))
            .min()
            .filter(|(distance, _)| *distance <= 2)
            .map_or(String::new(), |(_, near)| format!(", did you mean {near:?}?"));
        Err(format!("nothing protected is named {text:?}{near} (casemate.toml(5) has the names)"))
    }
}

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_or_suggested() {
        assert!(".git".parse::<Protected>().is_ok() && "~/.bashrc".parse::<Protected>().is_ok());
        let error = ".vscde".parse::<Protected>().unwrap_err();
        assert!(error.contains("did you mean \".vscode\"?"), "{error}");
        assert!(".bashrc".parse::<Protected>().is_err());
        assert!(HOME.is_sorted() && TREE.is_sorted());
    }
}
