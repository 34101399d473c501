//! What `casemate import` is given: an image in one of its archive formats, or a bare root file
//! system. Told apart by content, never by file name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::index::{self, Candidate};
use super::manifest::{self, Manifest};
use super::members::{Index, Members, Section};
use super::tar::Reader;
use super::{Compression, Config, Digest, Inflate, Platform};
use crate::error::{During, Error, Result};
use crate::sys::fs::{Resolve, cwd, identity, openat2};

/// The largest manifest, index or config that is read; registries refuse manifests of 4 MiB.
const MAX_DOCUMENT: u64 = 4 << 20;

/// A source that has been recognised.
pub enum Source {
    /// An image with manifest, config and layers.
    Image(Box<Bundle>),
    /// A root file system as a tar, packed or not.
    Tree(File),
    /// A root file system as a directory.
    Directory(OwnedFd),
}

/// An image in an archive, verified down to its config; the layers are not read yet.
pub struct Bundle {
    members: Members,
    /// The manifest as it is in an OCI layout, with its media type. `docker save` has none.
    pub manifest: Option<(Vec<u8>, String)>,
    /// The config as it is.
    pub config_json: Vec<u8>,
    /// The config as read.
    pub config: Config,
    /// The layers, lowest first, as many as the config has.
    pub layers: Vec<Layer>,
}

/// A layer in an archive.
#[derive(Debug, Clone)]
pub struct Layer {
    member: String,
    /// What the packed bytes must be: digest and size. `docker save` does not say.
    pub packed: Option<(Digest, u64)>,
}

impl Bundle {
    /// Opens the packed bytes of a layer.
    pub fn open(&self, layer: &Layer) -> Result<Section> {
        let section = self.members.find(&layer.member)?;
        let section = section.ok_or_else(|| Error::new(format!("{} is missing", layer.member)))?;
        match layer.packed {
            Some((_, size)) if size != section.len() => Err(Error::new(format!(
                "{} has {} bytes, its manifest says {size}",
                layer.member,
                section.len()
            ))),
            _ => Ok(section),
        }
    }
}

impl Source {
    /// Recognises a source. `scratch` gives an empty file to unpack an archive into that is packed
    /// as a whole; it is called for image archives only.
    pub fn open(
        path: &Path,
        inflate: &dyn Inflate,
        scratch: impl FnOnce() -> Result<File>,
    ) -> Result<Self> {
        // O_NONBLOCK: opening a FIFO must not wait for a writer.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        let fd = openat2(cwd(), path, flags, 0, Resolve::Ordinary).at("open", path)?;
        let kind = identity(&fd).at("stat", path)?;
        let within = |error: Error| error.within(format_args!("read {}", path.display()));
        if kind.is_dir() {
            return directory(fd).map_err(within);
        }
        if !kind.is_file() {
            return Err(Error::new(format!("read {}: not a file or directory", path.display())));
        }
        archive(File::from(fd), inflate, scratch).map_err(within)
    }
}

fn directory(dir: OwnedFd) -> Result<Source> {
    let again = dir.try_clone().during("duplicate", "a descriptor")?;
    let members = Members::Directory(again);
    // A root file system may well have one of these names; not both.
    if members.has("oci-layout")? && members.has("index.json")? {
        return oci_layout(members).map(Box::new).map(Source::Image);
    }
    Ok(Source::Directory(dir))
}

fn archive(
    file: File,
    inflate: &dyn Inflate,
    scratch: impl FnOnce() -> Result<File>,
) -> Result<Source> {
    let packed = whole(&file)?;
    let head = packed.head(512).map_err(|error| unreadable(&error))?;
    if head.is_empty() {
        return Err(Error::new("the file is empty"));
    }
    let compression = Compression::detect(&head)?;
    let mut index = None;
    let mut take = |stream: &mut dyn Read| {
        index = Index::of(&mut Reader::new(stream)).map_err(|error| unreadable(&error))?;
        Ok(())
    };
    if compression == Compression::None {
        rewind(&file)?;
        index = Index::of(&mut Reader::new(&file)).map_err(|error| unreadable(&error))?;
    } else {
        rewind(&file)?;
        inflate.inflate(packed, compression, &mut take)?;
    }
    rewind(&file)?;
    let is_layout = |index: &Index| index.has("oci-layout") && index.has("index.json");
    let Some(index) = index.filter(|i| is_layout(i) || i.has("manifest.json")) else {
        return Ok(Source::Tree(file));
    };
    let file = match compression {
        Compression::None => file,
        _ => expand(&file, compression, inflate, scratch()?)?,
    };
    let is_layout = is_layout(&index);
    let members = Members::Archive { file: Arc::new(file), index };
    // Docker has written both formats into one archive since version 25; they say the same.
    let bundle = if is_layout { oci_layout(members) } else { docker_save(members) };
    bundle.map(Box::new).map(Source::Image)
}

/// Inflates a whole archive, so that its members can be read by position.
fn expand(
    file: &File,
    compression: Compression,
    inflate: &dyn Inflate,
    mut scratch: File,
) -> Result<File> {
    inflate.inflate(whole(file)?, compression, &mut |stream| {
        io::copy(stream, &mut scratch).map(drop).map_err(|error| match error.raw_os_error() {
            Some(_) => Error::os("unpack", "the archive into the store", error),
            None => unreadable(&error),
        })
    })?;
    Ok(scratch)
}

fn whole(file: &File) -> Result<Section> {
    let file = file.try_clone().during("duplicate", "a descriptor")?;
    Section::whole(file).during("stat", "the archive")
}

fn rewind(mut file: &File) -> Result<()> {
    file.seek(SeekFrom::Start(0)).map(drop).during("seek in", "the archive")
}

/// A failure to read an archive: the kernel's words, or what is wrong with the format.
fn unreadable(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) => Error::new(nix::errno::Errno::from_raw(errno).desc()),
        None => Error::new(error.to_string()),
    }
}

fn oci_layout(members: Members) -> Result<Bundle> {
    #[derive(Deserialize)]
    struct Layout {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let layout = members.read("oci-layout", MAX_DOCUMENT)?;
    let layout: Layout = serde_json::from_slice(&layout)
        .map_err(|error| Error::new(format!("oci-layout: {error}")))?;
    if !layout.version.starts_with("1.") {
        let version = layout.version;
        return Err(Error::new(format!("OCI image layout of version {version}: not supported")));
    }
    let chosen = choose(&members, &members.read("index.json", MAX_DOCUMENT)?)?;
    let media_type = chosen.media_type;
    let json = blob(&members, chosen.digest, chosen.size)?;
    let manifest = Manifest::parse(&json, &media_type)?;
    let config_json = blob(&members, manifest.config, manifest.config_size)?;
    let config = Config::parse(&config_json)?;
    manifest.check_config(&config)?;
    let layers = manifest.layers.iter().map(|layer| Layer {
        member: blob_name(layer.digest),
        packed: Some((layer.digest, layer.size)),
    });
    let layers = layers.collect();
    Ok(Bundle { members, manifest: Some((json, media_type)), config_json, config, layers })
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads a document by digest and verifies it.
fn blob(members: &Members, digest: Digest, size: u64) -> Result<Vec<u8>> {
    let content = members.read(&blob_name(digest), MAX_DOCUMENT)?;
    if content.len() as u64 != size {
        let actual = content.len();
        return Err(Error::new(format!("{digest} has {actual} bytes, its descriptor says {size}")));
    }
    let actual = Digest::of(&content);
    if actual != digest {
        return Err(Error::new(format!("{digest}: content has the digest {actual}")));
    }
    Ok(content)
}

/// The one manifest of an index that is for this host.
fn choose(members: &Members, json: &[u8]) -> Result<Candidate> {
    let mut read = |digest: Digest, size: u64, _: &str| blob(members, digest, size);
    let mut fitting = index::choose(json, None, &Platform::host(), &mut read)?;
    // Of one image for several variants of the processor the best is meant.
    let best = fitting[0].clone();
    fitting.retain(|other| other.name != best.name || other.platform == best.platform);
    match fitting.as_slice() {
        [one] => Ok(one.clone()),
        several => {
            let named =
                |one: &Candidate| one.name.clone().unwrap_or_else(|| one.digest.to_string());
            let names: Vec<_> = several.iter().map(named).collect();
            let count = names.len();
            Err(Error::new(format!("holds {count} images: {}", names.join(", ")))
                .hint("copy one of them out, for example: skopeo copy oci:DIR:NAME oci:NEW:NAME"))
        }
    }
}

fn docker_save(members: Members) -> Result<Bundle> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Saved {
        config: String,
        #[serde(default)]
        repo_tags: Option<Vec<String>>,
        #[serde(default)]
        layers: Option<Vec<String>>,
    }
    let json = members.read("manifest.json", MAX_DOCUMENT)?;
    let mut saved: Vec<Saved> = serde_json::from_slice(&json)
        .map_err(|error| Error::new(format!("manifest.json: {error}")))?;
    if saved.len() > 1 {
        let names: Vec<_> = saved.iter().flat_map(|s| s.repo_tags.iter().flatten()).collect();
        let names: Vec<_> = names.into_iter().map(String::as_str).collect();
        return Err(Error::new(format!("holds {} images: {}", saved.len(), names.join(", ")))
            .hint("save one image to one archive"));
    }
    let Some(saved) = saved.pop() else {
        return Err(Error::new("manifest.json: names no image"));
    };
    let config_json = members.read(&saved.config, MAX_DOCUMENT)?;
    // The config is named by its digest, in both the old form and the new.
    let stem = saved.config.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    if let Some(named) = Digest::from_hex(stem)
        && named != Digest::of(&config_json)
    {
        let actual = Digest::of(&config_json);
        return Err(Error::new(format!("{}: content has the digest {actual}", saved.config)));
    }
    let config = Config::parse(&config_json)?;
    let layers = saved.layers.unwrap_or_default().into_iter();
    let layers: Vec<_> = layers.map(|member| Layer { member, packed: None }).collect();
    manifest::check_counts(&config, layers.len())?;
    Ok(Bundle { members, manifest: None, config_json, config, layers })
}
