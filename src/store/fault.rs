//! What is wrong in a store, and what came of mending it.

use std::fmt;
use std::path::PathBuf;

use crate::image::Digest;

/// What a store was found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many layers were verified.
    pub layers: usize,
    /// How many manifests and configurations.
    pub documents: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What; a line each.
    pub what: Vec<String>,
    /// The images that it concerns, by their names, sorted.
    pub images: Vec<String>,
    /// What would mend it.
    pub remedy: Remedy,
    /// What came of that.
    pub state: State,
    /// The directory of a layer that was looked at: another one may have its name since.
    pub(super) directory: Option<(u64, u64)>,
}

/// Where a fault is. Paths are those below the store's directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The list of names, `oci/index.json`.
    Index,
    /// What says that `oci` is an image layout, `oci/oci-layout`.
    Layout,
    /// A manifest or configuration.
    Document(Digest),
    /// A layer.
    Layer(Digest),
    /// Something that casemate does not put there.
    Stray(PathBuf),
    /// What a command left that was killed.
    Staging(PathBuf),
}

impl Place {
    /// What kind of place it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Place::Index => "index",
            Place::Layout => "layout",
            Place::Document(_) => "document",
            Place::Layer(_) => "layer",
            Place::Stray(_) => "file",
            Place::Staging(_) => "staging",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Index => f.write_str("oci/index.json"),
            Place::Layout => f.write_str("oci/oci-layout"),
            Place::Document(digest) | Place::Layer(digest) => digest.fmt(f),
            Place::Stray(path) | Place::Staging(path) => path.display().fmt(f),
        }
    }
}

/// What mends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Unpacking the layer again from its own stream, which is whole.
    Unpack,
    /// Removing it: no image needs it.
    Remove,
    /// Removing it, and bringing the images that need it again.
    Bring,
    /// Writing the file again, which is always the same; of a layer, its index.
    Write,
    /// Nothing that casemate could do.
    Nothing,
}

/// What came of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing was done.
    Found,
    /// It is no more.
    Mended,
    /// What was damaged is gone, and the images are to be brought again.
    Missing,
    /// It stays, for this reason.
    Stays(String),
}

impl State {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            State::Found => "found",
            State::Mended => "mended",
            State::Missing => "missing",
            State::Stays(_) => "stays",
        }
    }
}

impl Fault {
    pub(super) fn new(place: Place, what: Vec<String>, remedy: Remedy) -> Self {
        let images = Vec::new();
        Fault { place, what, images, remedy, state: State::Found, directory: None }
    }

    /// Whether nothing is left to do.
    pub fn is_mended(&self) -> bool {
        self.state == State::Mended
    }
}
