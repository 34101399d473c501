//! What an image says about the program it is for.

use oci_spec::image::ImageConfiguration;
use serde::Serialize;

use super::{Digest, Platform};
use crate::error::{Error, Result};

/// The part of an OCI (or docker) image configuration that matters for running it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// `NAME=VALUE`, as the image has them.
    pub env: Vec<String>,
    /// The words before the command.
    pub entrypoint: Vec<String>,
    /// The command, or the arguments of the entrypoint.
    pub cmd: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Where the program starts.
    pub working_dir: Option<String>,
    /// Directories that the program writes, sorted.
    pub volumes: Vec<String>,
    /// The signal that asks the program to end.
    pub stop_signal: Option<String>,
    /// When it was made, as RFC 3339 text.
    pub created: Option<String>,
    /// The processor, in Go's words (`amd64`).
    pub architecture: String,
    /// The processor's variant (`v7`), where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system, in Go's words (`linux`).
    pub os: String,
    /// The digests of the layers as uncompressed tar streams, lowest first.
    pub diff_ids: Vec<Digest>,
}

impl Config {
    /// Reads the JSON that a manifest's config descriptor points to.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let wrong = |why: &dyn std::fmt::Display| Error::new(format!("image config: {why}"));
        let whole: ImageConfiguration =
            serde_json::from_slice(json).map_err(|error| wrong(&error))?;
        if whole.rootfs().typ() != "layers" {
            return Err(wrong(&format_args!("rootfs type {:?} is unknown", whole.rootfs().typ())));
        }
        let diff_ids = whole.rootfs().diff_ids().iter().map(|id| Digest::parse(id));
        let diff_ids = diff_ids.collect::<Result<_>>().map_err(|error| wrong(&error))?;
        let run = whole.config().clone().unwrap_or_default();
        // Docker writes the empty string for what is not set.
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut volumes = run.volumes().clone().unwrap_or_default();
        volumes.sort();
        Ok(Config {
            env: run.env().clone().unwrap_or_default(),
            entrypoint: run.entrypoint().clone().unwrap_or_default(),
            cmd: run.cmd().clone().unwrap_or_default(),
            user: set(run.user()),
            working_dir: set(run.working_dir()),
            volumes,
            stop_signal: set(run.stop_signal()),
            created: set(whole.created()),
            architecture: whole.architecture().to_string(),
            variant: set(whole.variant()),
            os: whole.os().to_string(),
            diff_ids,
        })
    }

    /// What the image was made for.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_docker_config_with_nulls_and_empty_strings_is_read() {
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z",
            "config":{{"Hostname":"","User":"","Env":null,"Cmd":["sh"],"Entrypoint":null,
            "Volumes":{{"/b":{{}},"/a":{{}}}},"WorkingDir":"","Labels":null,"OnBuild":null}},
            "rootfs":{{"type":"layers","diff_ids":["{ID}"]}}}}"#
        );
        let config = Config::parse(json.as_bytes()).unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.volumes, ["/a", "/b"]);
        assert_eq!((config.user, config.working_dir), (None, None));
        assert_eq!(config.architecture, "amd64");
        assert_eq!(config.diff_ids, [Digest::parse(ID).unwrap()]);
    }

    #[test]
    fn a_config_without_layers_list_is_refused() {
        assert!(Config::parse(br#"{"architecture":"amd64","os":"linux"}"#).is_err());
        assert!(Config::parse(b"[]").is_err());
        let json = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"x","diff_ids":[]}}"#;
        assert!(Config::parse(json).unwrap_err().to_string().contains("type \"x\""));
    }
}
