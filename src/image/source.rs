//! What `casemate import` is given: an image in one of its archive formats, or a bare root file
//! system. Told apart by content, never by file name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::index::{self, Candidate};
use super::location::Form;
use super::manifest::{self, Manifest};
use super::members::{Index, Members, Section};
use super::tar::Reader;
use super::{Compression, Config, Digest, Inflate, Platform, Reference};
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

/// What the user said of a source.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// What it must be.
    pub form: Form,
    /// Which of the images in it is meant.
    pub tag: Option<&'a str>,
    /// For which platform; without it, for this machine.
    pub platform: Option<&'a Platform>,
}

/// An image in an archive, verified down to its config; the layers are not read yet.
pub struct Bundle {
    members: Members,
    /// The names that it goes by there, in full first. They need not be names for casemate.
    pub names: Vec<String>,
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

impl Bundle {
    /// The name that it brings along, if that is one: an image layout may have tags alone, which do
    /// not say what image they are of.
    pub fn name(&self) -> Option<Reference> {
        self.names.iter().find_map(|name| {
            let is_tag = |name: &str| {
                let version = name.strip_prefix('v').unwrap_or(name);
                name == "latest" || version.starts_with(|c: char| c.is_ascii_digit())
            };
            let tag_alone = !name.contains(['/', ':', '@']) && is_tag(name);
            Reference::parse(name).ok().filter(|_| !tag_alone)
        })
    }
}

impl Source {
    /// Recognises a source, or holds it to the form that was named. `scratch` gives an empty file to
    /// unpack an archive into that is packed as a whole; it is called for image archives only.
    pub fn open(
        path: &Path,
        choice: &Choice<'_>,
        inflate: &dyn Inflate,
        scratch: impl FnOnce() -> Result<File>,
    ) -> Result<Self> {
        // O_NONBLOCK: opening a FIFO must not wait for a writer.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        let fd = openat2(cwd(), path, flags, 0, Resolve::Ordinary).at("open", path)?;
        let kind = identity(&fd).at("stat", path)?;
        let within = |error: Error| error.within(format_args!("read {}", path.display()));
        if kind.is_dir() {
            return directory(fd, choice).map_err(within);
        }
        if !kind.is_file() {
            let error = format!("read {}: not a file or directory", path.display());
            return Err(Error::new(error).hint("a pipe is read from standard input: `… import -`"));
        }
        Source::of_file(File::from(fd), choice, inflate, scratch).map_err(within)
    }

    /// As [`Source::open`], for an open file.
    pub fn of_file(
        file: File,
        choice: &Choice<'_>,
        inflate: &dyn Inflate,
        scratch: impl FnOnce() -> Result<File>,
    ) -> Result<Self> {
        if matches!(choice.form, Form::Oci | Form::Dir) {
            return Err(is_not(choice.form, "a directory"));
        }
        let source = archive(file, choice, inflate, scratch)?;
        choice.check(source)
    }
}

/// Whether the beginning of a tar alone tells that it is a root file system. `head` is its first
/// part, which need not be whole.
pub fn is_tree(mut head: File, inflate: &dyn Inflate) -> Result<bool> {
    let packed = whole(&head)?;
    let compression = Compression::detect(&packed.head(512).map_err(|e| unreadable(&e))?)?;
    rewind(&head)?;
    let mut found = false;
    if compression == Compression::None {
        // A head ends where it ends: only a name that no image archive has says something.
        found = matches!(Index::of(&mut Reader::new(&head)), Ok(None));
    } else {
        let mut take = |stream: &mut dyn Read| {
            found = matches!(Index::of(&mut Reader::new(stream)), Ok(None));
            Ok(())
        };
        let _cut_short = inflate.inflate(packed, compression, &mut take);
    }
    head.rewind().during("seek in", "the archive")?;
    Ok(found)
}

impl Choice<'_> {
    fn platform(&self) -> Platform {
        self.platform.cloned().unwrap_or_else(Platform::host)
    }

    /// What was said must be said of an image.
    fn check(&self, source: Source) -> Result<Source> {
        match &source {
            Source::Image(bundle) => {
                let made = bundle.config.platform();
                match self.platform {
                    Some(wanted) if wanted.distance(&made).is_none() => {
                        Err(Error::new(format!("no image for {wanted}, only for {made}")))
                    }
                    _ => Ok(source),
                }
            }
            _ if self.form != Form::Any => Err(is_not(self.form, self.form.kind())),
            _ if self.platform.is_some() => {
                Err(Error::new("a root file system does not say which platform it is for")
                    .hint("leave --platform out"))
            }
            _ => Ok(source),
        }
    }
}

fn is_not(form: Form, what: &str) -> Error {
    Error::new(format!("{}: is not {what}", form.word()))
        .hint("without the prefix casemate looks at the content itself")
}

fn directory(dir: OwnedFd, choice: &Choice<'_>) -> Result<Source> {
    if matches!(choice.form, Form::OciArchive | Form::DockerArchive) {
        return Err(is_not(choice.form, "a file"));
    }
    let again = dir.try_clone().during("duplicate", "a descriptor")?;
    let members = Members::Directory(again);
    let bundle = match choice.form {
        Form::Dir => skopeo_directory(members, choice)?,
        // A root file system may well have one of these names; not both.
        _ if members.has("oci-layout")? && members.has("index.json")? => {
            oci_layout(members, choice)?
        }
        _ => return choice.check(Source::Directory(dir)),
    };
    choice.check(Source::Image(Box::new(bundle)))
}

fn archive(
    file: File,
    choice: &Choice<'_>,
    inflate: &dyn Inflate,
    scratch: impl FnOnce() -> Result<File>,
) -> Result<Source> {
    let packed = whole(&file)?;
    let head = packed.head(512).map_err(|error| unreadable(&error))?;
    if head.is_empty() {
        return Err(Error::new("it is empty"));
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
    let is_layout = |index: &Index| {
        choice.form != Form::DockerArchive && index.has("oci-layout") && index.has("index.json")
    };
    let is_docker = |index: &Index| choice.form != Form::OciArchive && index.has("manifest.json");
    let Some(index) = index.filter(|index| is_layout(index) || is_docker(index)) else {
        return Ok(Source::Tree(file));
    };
    let file = match compression {
        Compression::None => file,
        _ => expand(&file, compression, inflate, scratch()?)?,
    };
    let is_layout = is_layout(&index);
    let members = Members::Archive { file: Arc::new(file), index };
    // Docker has written both formats into one archive since version 25; they say the same.
    let bundle = if is_layout { oci_layout(members, choice) } else { docker_save(members, choice) };
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
        None if error.kind() == io::ErrorKind::UnexpectedEof => Error::new(error.to_string())
            .hint("bring the archive here again; what made or copied it did not finish"),
        None => Error::new(error.to_string()).hint(
            "a source is an image or a root file system, as a directory or a tar (plain, gzip or \
             zstd)",
        ),
    }
}

fn oci_layout(members: Members, choice: &Choice<'_>) -> Result<Bundle> {
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
    let index = members.read("index.json", MAX_DOCUMENT)?;
    let mut read = |digest: Digest, size: u64, _: &str| {
        verified(digest, size, members.read(&blob_name(digest), MAX_DOCUMENT)?)
    };
    let chosen = choose(&index, None, choice, &mut read)?;
    let json = read(chosen.digest, chosen.size, &chosen.media_type)?;
    let media_type = chosen.media_type;
    bundle(members, (json, media_type), chosen.names, blob_name)
}

/// A directory as skopeo writes it for `dir:`, of which the manifest has no descriptor.
fn skopeo_directory(members: Members, choice: &Choice<'_>) -> Result<Bundle> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    if let Some(tag) = choice.tag {
        return Err(Error::new(format!("no image {tag:?}: it holds one, without a name")));
    }
    if !members.has("manifest.json")? {
        return Err(is_not(Form::Dir, "a directory of skopeo's: manifest.json is missing"));
    }
    let json = members.read("manifest.json", MAX_DOCUMENT)?;
    let kind: Kind = serde_json::from_slice(&json)
        .map_err(|error| Error::new(format!("manifest.json: {error}")))?;
    let media_type = kind.media_type.unwrap_or_else(|| {
        let oci = if kind.manifests.is_some() {
            manifest::INDEX_MEDIA_TYPE
        } else {
            manifest::MANIFEST_MEDIA_TYPE
        };
        oci.to_owned()
    });
    let bare = |digest: Digest| digest.hex();
    if !manifest::is_index(&media_type) {
        return bundle(members, (json, media_type), Vec::new(), bare);
    }
    let mut read = |digest: Digest, size: u64, media_type: &str| {
        let name = if manifest::target(media_type).is_some() {
            format!("{}.manifest.json", digest.hex())
        } else {
            digest.hex()
        };
        verified(digest, size, members.read(&name, MAX_DOCUMENT)?)
    };
    let chosen = choose(&json, Some(&media_type), choice, &mut read)?;
    let json = read(chosen.digest, chosen.size, &chosen.media_type)?;
    bundle(members, (json, chosen.media_type), Vec::new(), bare)
}

/// The image of a manifest, with its blobs named as `name` says.
fn bundle(
    members: Members,
    (json, media_type): (Vec<u8>, String),
    names: Vec<String>,
    name: impl Fn(Digest) -> String,
) -> Result<Bundle> {
    let manifest = Manifest::parse(&json, &media_type)?;
    let config_json = members.read(&name(manifest.config), MAX_DOCUMENT)?;
    let config_json = verified(manifest.config, manifest.config_size, config_json)?;
    let config = Config::parse(&config_json)?;
    manifest.check_config(&config)?;
    let layers = manifest.layers.iter().map(|layer| Layer {
        member: name(layer.digest),
        packed: Some((layer.digest, layer.size)),
    });
    let layers = layers.collect();
    Ok(Bundle { members, names, manifest: Some((json, media_type)), config_json, config, layers })
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A document, if it is the one that its descriptor says.
fn verified(digest: Digest, size: u64, content: Vec<u8>) -> Result<Vec<u8>> {
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

/// The one manifest of an index that is meant, and runs here.
fn choose(
    json: &[u8],
    media_type: Option<&str>,
    choice: &Choice<'_>,
    read: &mut index::ReadDocument<'_>,
) -> Result<Candidate> {
    let platform = choice.platform();
    let mut fitting = index::choose_named(json, media_type, choice.tag, &platform, read)?;
    // A layout into which a newer image was copied under the same name keeps the older one, which
    // has lost its name.
    if fitting.iter().any(|one| !one.names.is_empty()) {
        fitting.retain(|one| !one.names.is_empty());
    }
    // Of one image for several variants of the processor the best is meant.
    let best = fitting[0].clone();
    fitting.retain(|other| other.names != best.names || other.platform == best.platform);
    match fitting.as_slice() {
        [one] => Ok(one.clone()),
        several => {
            let named = |one: &Candidate| {
                one.names.first().cloned().unwrap_or_else(|| one.digest.to_string())
            };
            Err(ambiguous(several.iter().map(named).collect()))
        }
    }
}

fn ambiguous(names: Vec<String>) -> Error {
    Error::new(format!("holds {} images: {}", names.len(), names.join(", ")))
        .hint("name one: oci:DIR:NAME, oci-archive:FILE:NAME or docker-archive:FILE:NAME")
}

fn docker_save(members: Members, choice: &Choice<'_>) -> Result<Bundle> {
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
    let all: Vec<String> =
        saved.iter().flat_map(|saved| saved.repo_tags.iter().flatten()).cloned().collect();
    if let Some(tag) = choice.tag {
        let meant = Reference::parse(tag).ok();
        let is_it =
            |own: &String| own == tag || (meant.is_some() && Reference::parse(own).ok() == meant);
        saved.retain(|saved| saved.repo_tags.iter().flatten().any(is_it));
        if saved.is_empty() {
            let there = all.join(", ");
            return Err(Error::new(format!("no image {tag:?} is in it; those in it are: {there}")));
        }
    }
    if saved.len() > 1 {
        return Err(ambiguous(all));
    }
    let Some(saved) = saved.pop() else {
        return Err(Error::new("manifest.json: names no image"));
    };
    let mut names = saved.repo_tags.unwrap_or_default();
    // The one that was asked for is the one that it is known by.
    names.sort_by_key(|name| choice.tag.is_some_and(|tag| name != tag));
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
    Ok(Bundle { members, names, manifest: None, config_json, config, layers })
}
