//! Where an image is imported from, in the words of containers-transports(5).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What stands for the source of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `-`, also as the path of an archive: standard input.
    Stdin {
        /// What it must be.
        form: Form,
        /// The name of the image that is meant.
        tag: Option<String>,
    },
    /// A file or directory of this form, and which of the images in it.
    File {
        /// What it must be.
        form: Form,
        /// Where it is.
        path: PathBuf,
        /// The name of the image that is meant.
        tag: Option<String>,
    },
    /// An image in another tool's store.
    Storage {
        /// Whose.
        transport: Transport,
        /// What it is called there, in that tool's words.
        name: OsString,
    },
}

/// What a source must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Whatever its content says.
    Any,
    /// `oci`: an OCI image layout as a directory.
    Oci,
    /// `oci-archive`: one as a tar.
    OciArchive,
    /// `docker-archive`: a tar as `docker save` writes it.
    DockerArchive,
    /// `dir`: the directory that skopeo writes under that name.
    Dir,
}

/// Another tool's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// podman's and buildah's.
    ContainersStorage,
    /// The docker daemon's.
    DockerDaemon,
}

impl Form {
    /// The word before the colon; none for any.
    pub fn word(self) -> &'static str {
        match self {
            Form::Any => "",
            Form::Oci => "oci",
            Form::OciArchive => "oci-archive",
            Form::DockerArchive => "docker-archive",
            Form::Dir => "dir",
        }
    }

    /// What it is, with its article.
    pub fn kind(self) -> &'static str {
        match self {
            Form::Any => "an image",
            Form::Oci => "an OCI image layout",
            Form::OciArchive => "an OCI image layout in a tar",
            Form::DockerArchive => "a docker archive",
            Form::Dir => "a directory of skopeo's",
        }
    }
}

impl Transport {
    /// The word before the colon.
    pub fn word(self) -> &'static str {
        match self {
            Transport::ContainersStorage => "containers-storage",
            Transport::DockerDaemon => "docker-daemon",
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location::File { form: Form::Any, path, tag: None }
    }
}

impl Location {
    /// The words that may stand before a colon.
    pub const WORDS: &str =
        "oci, oci-archive, docker-archive, dir, containers-storage and docker-daemon";

    /// Reads one. What has none of the prefixes is a path, as is everything with a slash before the
    /// first colon.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        if text == "-" {
            return Ok(Location::Stdin { form: Form::Any, tag: None });
        }
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err("it is empty".to_owned());
        }
        let (word, rest) = match bytes.iter().position(|byte| *byte == b':') {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&[][..], &[][..]),
        };
        let transport = match word {
            b"containers-storage" => Some(Transport::ContainersStorage),
            b"docker-daemon" => Some(Transport::DockerDaemon),
            b"docker" => {
                return Err("an image in a registry comes with `casemate pull`".to_owned());
            }
            _ => None,
        };
        if let Some(transport) = transport {
            let name = OsStr::from_bytes(rest).to_owned();
            return match rest {
                b"" => Err("the name after the colon is missing".to_owned()),
                _ => Ok(Location::Storage { transport, name }),
            };
        }
        let forms = [Form::Oci, Form::OciArchive, Form::DockerArchive, Form::Dir];
        let Some(form) = forms.into_iter().find(|form| form.word().as_bytes() == word) else {
            return Ok(PathBuf::from(text).into());
        };
        // skopeo's dir knows no names, so that its path may have a colon.
        let (path, tag) = match rest.iter().position(|byte| *byte == b':') {
            Some(at) if form != Form::Dir => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err("the path after the colon is missing".to_owned());
        }
        let tag = match tag {
            None | Some(b"") => None,
            Some(tag) => match str::from_utf8(tag) {
                Ok(tag) => Some(tag.to_owned()),
                Err(_) => return Err("the name of the image is not UTF-8".to_owned()),
            },
        };
        if path == b"-" && matches!(form, Form::OciArchive | Form::DockerArchive) {
            return Ok(Location::Stdin { form, tag });
        }
        Ok(Location::File { form, path: PathBuf::from(OsStr::from_bytes(path)), tag })
    }
}

/// As the user would type it.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Stdin { .. } => f.write_str("standard input"),
            Location::File { form: Form::Any, path, .. } => path.display().fmt(f),
            Location::File { form, path, tag } => {
                write!(f, "{}:{}", form.word(), path.display())?;
                tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
            }
            Location::Storage { transport, name } => {
                write!(f, "{}:{}", transport.word(), name.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Location {
        Location::parse(OsStr::new(text)).unwrap()
    }

    #[test]
    fn prefixes_are_skopeos() {
        let file = |form, path: &str, tag: Option<&str>| Location::File {
            form,
            path: path.into(),
            tag: tag.map(str::to_owned),
        };
        for (text, expected) in [
            ("-", Location::Stdin { form: Form::Any, tag: None }),
            ("oci-archive:-:a", Location::Stdin { form: Form::OciArchive, tag: Some("a".into()) }),
            ("./-", file(Form::Any, "./-", None)),
            ("a.tar", file(Form::Any, "a.tar", None)),
            ("./oci:x", file(Form::Any, "./oci:x", None)),
            ("x:y", file(Form::Any, "x:y", None)),
            ("oci", file(Form::Any, "oci", None)),
            ("oci:a", file(Form::Oci, "a", None)),
            ("oci:/a/b:c.io/d:1", file(Form::Oci, "/a/b", Some("c.io/d:1"))),
            ("oci-archive:a.tar:", file(Form::OciArchive, "a.tar", None)),
            ("docker-archive:a:b:c", file(Form::DockerArchive, "a", Some("b:c"))),
            ("dir:a:b", file(Form::Dir, "a:b", None)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        let stored = parse("containers-storage:localhost/a:1");
        assert_eq!(stored.to_string(), "containers-storage:localhost/a:1");
        assert_eq!(parse("oci:a:b").to_string(), "oci:a:b");
        let odd = Location::parse(OsStr::from_bytes(b"dir:\xff")).unwrap();
        assert_eq!(odd, file_of(b"\xff"));
    }

    fn file_of(path: &[u8]) -> Location {
        let path = PathBuf::from(OsStr::from_bytes(path));
        Location::File { form: Form::Dir, path, tag: None }
    }

    #[test]
    fn what_is_half_said_is_refused() {
        for text in ["", "oci:", "dir:", "docker-archive::a", "docker-daemon:", "docker://debian"] {
            assert!(Location::parse(OsStr::new(text)).is_err(), "{text}");
        }
    }
}
