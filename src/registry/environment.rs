//! Where the user's settings for registries are, as podman, skopeo and docker look for them.

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{During, Result};

/// The part of the environment that this room reads; tests make their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The home directory.
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, or `.config` in the home directory.
    pub config: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// `$XDG_CACHE_HOME`, or `.cache` in the home directory.
    pub cache: Option<PathBuf>,
    /// Where the system's settings are: /etc.
    pub system: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF`.
    pub registries_conf: Option<PathBuf>,
    /// `$REGISTRY_AUTH_FILE`.
    pub auth_file: Option<PathBuf>,
    /// `$DOCKER_CONFIG`, or `.docker` in the home directory.
    pub docker: Option<PathBuf>,
    /// `$HTTP_PROXY`, for names that are asked without TLS. Lower case goes first in all of these.
    pub http_proxy: Option<String>,
    /// `$HTTPS_PROXY`.
    pub https_proxy: Option<String>,
    /// `$ALL_PROXY`.
    pub all_proxy: Option<String>,
    /// `$NO_PROXY`.
    pub no_proxy: Option<String>,
}

impl Environment {
    /// Reads this process's environment.
    pub fn find(home: Option<&Path>) -> Self {
        let path = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
        let below = |name: &str, fallback: &str| {
            absolute(name).or_else(|| home.map(|home| home.join(fallback)))
        };
        let text = |name: &str| {
            let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            set(&name.to_lowercase()).or_else(|| set(name))
        };
        Environment {
            home: home.map(Path::to_owned),
            config: below("XDG_CONFIG_HOME", ".config"),
            runtime: absolute("XDG_RUNTIME_DIR"),
            cache: below("XDG_CACHE_HOME", ".cache"),
            system: Some(PathBuf::from("/etc")),
            registries_conf: path("CONTAINERS_REGISTRIES_CONF"),
            auth_file: path("REGISTRY_AUTH_FILE"),
            docker: path("DOCKER_CONFIG").or_else(|| home.map(|home| home.join(".docker"))),
            http_proxy: text("HTTP_PROXY"),
            https_proxy: text("HTTPS_PROXY"),
            all_proxy: text("ALL_PROXY"),
            no_proxy: text("NO_PROXY"),
        }
    }

    /// The directories of settings that both podman and skopeo read, the user's first.
    pub(super) fn containers(&self) -> impl Iterator<Item = PathBuf> {
        let user = self.config.as_ref().map(|config| config.join("containers"));
        let system = self.system.as_ref().map(|system| system.join("containers"));
        user.into_iter().chain(system)
    }
}

/// The content of a file of settings, which must be a regular file of at most `limit` bytes. `None`
/// where there is none.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path);
    let file = match opened {
        Err(error) if absent(&error) => return Ok(None),
        opened => opened.at("open", path)?,
    };
    if !file.metadata().at("look at", path)?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL)).at("read as a file", path);
    }
    let mut content = Vec::new();
    (&file).take(limit + 1).read_to_end(&mut content).at("read", path)?;
    if content.len() as u64 > limit {
        return Err(io::Error::from_raw_os_error(libc::EFBIG)).at("read", path);
    }
    Ok(Some(content))
}

fn absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}
