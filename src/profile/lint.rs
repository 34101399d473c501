//! What is dangerous in a profile although every word of it is right.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::{Grant, NetworkMode, Origin, Pattern, Profile, SeccompBase};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It gives away more than a program of this kind can need.
    Warning,
    /// It opens something that the reader should know of.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// What kind, for scripts; these words do not change.
    pub id: &'static str,
    /// How bad.
    pub level: Level,
    /// Where it was said: a place, or a key.
    pub place: String,
    /// What it is.
    pub text: String,
}

/// What holds passwords, keys and tokens, below the home.
const SECRETS: [&str; 32] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".git-credentials",
    ".npmrc",
    ".yarnrc.yml",
    ".pypirc",
    ".pgpass",
    ".my.cnf",
    ".vault-token",
    ".password-store",
    ".cargo/credentials.toml",
    ".config/gcloud",
    ".config/gh",
    ".config/git/credentials",
    ".config/hub",
    ".config/op",
    ".config/rclone",
    ".config/containers/auth.json",
    ".config/chromium",
    ".config/google-chrome",
    ".local/share/keyrings",
    ".local/share/kwalletd",
    ".local/share/uv/credentials",
    ".mozilla",
    ".thunderbird",
    ".bash_history",
    ".zsh_history",
];

/// What lies beside secrets, below the home, and is none.
const PUBLIC: [&str; 1] = [".ssh/known_hosts"];

/// Where shells look for programs, below the home.
const PROGRAMS: [&str; 5] = [".local/bin", "bin", ".cargo/bin", "go/bin", ".npm-global/bin"];

/// Sockets and directories of sockets behind which somebody acts on the host for whoever asks.
const SOCKETS: [&str; 8] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman",
    "/run/containerd",
    "/run/user",
    "/run/dbus",
    "/run/systemd",
    "/tmp/.X11-unix",
];

/// Ends of the names of variables that hold secrets.
const SECRET_VARIABLES: [&str; 6] =
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "ACCESS_KEY"];

/// Secrets that a pattern such as `NPM_*` would pass on.
const SECRETS_BY_PREFIX: [&str; 5] =
    ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "NPM_TOKEN", "OPENAI_API_KEY", "YARN_NPM_AUTH_TOKEN"];

/// Variables that name a socket of an agent, or load code into other programs.
const OTHER_VARIABLES: [&str; 8] = [
    "SSH_AUTH_SOCK",
    "GPG_AGENT_INFO",
    "DBUS_SESSION_BUS_ADDRESS",
    "DOCKER_HOST",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "BASH_ENV",
    "KUBECONFIG",
];

impl Profile {
    /// What in it, with all that it builds on, is dangerous. `home` is the caller's.
    pub fn lint(&self, home: &Path) -> Vec<Lint> {
        let mut found = Vec::new();
        let writable = self.files.write.iter().map(|grant| (grant, true));
        let readable = self.files.overlay.iter().chain(&self.files.read);
        let readable = readable.map(|grant| (grant, false));
        for (grant, write) in writable.chain(readable) {
            self.lint_grant(grant, write, home, &mut found);
        }
        let mut say = |id, level, place: &str, text: String| {
            found.push(Lint { id, level, place: place.to_owned(), text });
        };
        for pattern in &self.environment.keep {
            if let Some(name) = secret_variable(pattern) {
                let text = format!("{name} is passed on, which holds a secret or leads out");
                say("secret-variable", Level::Warning, "environment.keep", text);
            }
        }
        if self.network.mode == Some(NetworkMode::Host) {
            let text = "the host's network, services on 127.0.0.1 among it".to_owned();
            say("host-network", Level::Note, "network.mode", text);
        }
        if self.seccomp.base == Some(SeccompBase::None) {
            let text = "every system call reaches the kernel".to_owned();
            say("no-filter", Level::Warning, "seccomp.base", text);
        }
        if self.seccomp.nesting == Some(true) {
            let text = "namespaces and mounts of its own, and no Landlock".to_owned();
            say("nesting", Level::Note, "seccomp.nesting", text);
        }
        for capability in &self.capabilities.keep {
            let text = format!("{capability} opens more of the kernel to the program");
            say("capability", Level::Note, "capabilities.keep", text);
        }
        found.sort_by_key(|lint| lint.level);
        found
    }

    fn lint_grant(&self, grant: &Grant, write: bool, home: &Path, found: &mut Vec<Lint>) {
        let path = on_paper(&grant.path, home);
        let Some(path) = path else { return };
        let mut say = |id, text: String| {
            let place = match &grant.origin {
                Origin::Place(place) => place.clone(),
                Origin::Offset(_) => "files".to_owned(),
            };
            found.push(Lint { id, level: Level::Warning, place, text });
        };
        if path == Path::new("/") || home.starts_with(&path) {
            say("home", format!("{} holds the whole home", grant.path.display()));
        } else {
            let hidden: Vec<PathBuf> =
                self.files.hide.iter().filter_map(|hide| on_paper(&hide.path, home)).collect();
            let is_public = !write && PUBLIC.iter().any(|public| path == home.join(public));
            for secret in SECRETS.iter().filter(|_| !is_public) {
                let thing = home.join(secret);
                // What is said below a hidden place is an exception that somebody meant.
                let is_hidden = |hide: &PathBuf| thing.starts_with(hide) && !path.starts_with(hide);
                if meets(&path, &thing) && !hidden.iter().any(is_hidden) {
                    say("secret", format!("{} shows ~/{secret}", grant.path.display()));
                }
            }
            for programs in PROGRAMS.iter().filter(|_| write) {
                if meets(&path, &home.join(programs)) {
                    let text = format!(
                        "{} lets the program change what shells run from ~/{programs}",
                        grant.path.display()
                    );
                    say("writable-path", text);
                }
            }
        }
        for socket in SOCKETS {
            if meets(&path, Path::new(socket)) {
                say("host-socket", format!("{} shows {socket}", grant.path.display()));
            }
        }
        if path.starts_with("/run/user") || grant.path.starts_with("$XDG_RUNTIME_DIR") {
            return;
        }
        for system in ["/usr", "/bin", "/sbin", "/etc", "/opt", "/var", "/boot"] {
            if write && path.starts_with(system) {
                say("system", format!("{} is the system's, and writable", grant.path.display()));
            }
        }
    }
}

/// Whether a grant shows a thing: it is it, or holds it, or is in it.
fn meets(granted: &Path, thing: &Path) -> bool {
    thing.starts_with(granted) || granted.starts_with(thing)
}

/// The path as far as it is known without looking at the host; `None` where it depends on where
/// casemate is started.
fn on_paper(path: &Path, home: &Path) -> Option<PathBuf> {
    let text = path.to_str().unwrap_or_default();
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    let base = match first {
        "" => return Some(path.to_owned()),
        "~" | "$HOME" => home.to_owned(),
        "$XDG_CONFIG_HOME" => home.join(".config"),
        "$XDG_CACHE_HOME" => home.join(".cache"),
        "$XDG_DATA_HOME" => home.join(".local/share"),
        "$XDG_STATE_HOME" => home.join(".local/state"),
        "$XDG_RUNTIME_DIR" => PathBuf::from("/run/user/self"),
        _ => return None,
    };
    // Rebuilt without `.`, as the plan does it.
    Some(base.join(rest).components().filter(|part| *part != Component::CurDir).collect())
}

fn secret_variable(pattern: &Pattern) -> Option<String> {
    match pattern {
        Pattern::Name(name) => {
            let is_secret = SECRET_VARIABLES.iter().any(|end| name.0.ends_with(end))
                || OTHER_VARIABLES.contains(&name.0.as_str());
            is_secret.then(|| name.0.clone())
        }
        Pattern::Prefix(prefix) => OTHER_VARIABLES
            .iter()
            .chain(&SECRETS_BY_PREFIX)
            .find(|name| name.starts_with(prefix.as_str()))
            .map(|name| (*name).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn ids(text: &str) -> Vec<&'static str> {
        let profile = parse("p", text).unwrap().profile;
        profile.lint("/home/ann".as_ref()).into_iter().map(|lint| lint.id).collect()
    }

    #[test]
    fn what_gives_too_much_away_is_named() {
        for (text, expected) in [
            ("", &[][..]),
            ("[files]\nwrite = [\".\"]\nread = [\"~/.gitconfig\"]", &[]),
            ("[files]\nread = [\"~/.ssh/known_hosts\"]", &[]),
            ("[files]\nwrite = [\"~/.ssh/known_hosts\"]", &["secret"]),
            ("[files]\nread = [\"~/.ssh/id_rsa\"]", &["secret"]),
            ("[files]\nread = [\"/home\"]", &["home"]),
            ("[files]\nread = [\"~/.config\"]", &["secret"; 9]),
            ("[files]\nread = [\"~/.cargo\"]\nhide = [\"~/.cargo/credentials.toml\"]", &[]),
            ("[files]\nread = [\"~/.local/bin\"]", &[]),
            ("[files]\nwrite = [\"~/.local/bin\"]", &["writable-path"]),
            ("[files]\nread = [\"/run/user/1000\"]", &["host-socket"]),
            ("[files]\nread = [\"/var/run/docker.sock\"]", &["host-socket"]),
            ("[files]\nwrite = [\"/etc/x\"]", &["system"]),
            ("[environment]\nkeep = [\"LANG\", \"NPM_TOKEN\"]", &["secret-variable"]),
            ("[environment]\nkeep = [\"SSH_*\"]", &["secret-variable"]),
            ("[environment]\nkeep = [\"YARN_*\"]", &["secret-variable"]),
            ("[files]\nread = [\"~/.local/share/uv\"]", &["secret"]),
            (
                "[network]\nmode = \"host\"\n[seccomp]\nbase = \"none\"",
                &["no-filter", "host-network"],
            ),
        ] {
            assert_eq!(ids(text), expected, "{text}");
        }
    }

    #[test]
    fn a_grant_is_named_by_its_place() {
        let profile = parse("p", "[files]\nread = [\"~/.aws\"]").unwrap().profile;
        assert_eq!(profile.lint("/home/ann".as_ref())[0].place, "p:2:9");
    }
}
