//! Which of the images in an index is meant.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageIndex};

use super::manifest::{self, Manifest, Target};
use super::{Config, Digest, Platform, Reference};
use crate::error::{Error, Result};

/// How deep an index may point to further indexes, how many of these are read, and how many manifests
/// there may be.
const MAX_NESTING: usize = 4;
const MAX_INDEXES: usize = 100;
const MAX_MANIFESTS: usize = 1000;
/// How many of what there is an error lists.
const MAX_SHOWN: usize = 30;

/// An image manifest that an index points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The names it goes by in an image layout, in full first; indexes in registries name nothing.
    pub names: Vec<String>,
    /// The digest of the manifest.
    pub digest: Digest,
    /// The size of the manifest in bytes.
    pub size: u64,
    /// The media type of the manifest.
    pub media_type: String,
    /// What it was made for, where the index or the image's config says so.
    pub platform: Option<Platform>,
}

impl Candidate {
    /// Whether it is meant by a name, which may be written in another way.
    fn is_called(&self, name: &str) -> bool {
        let meant = Reference::parse(name).ok();
        self.names
            .iter()
            .any(|own| own == name || (meant.is_some() && Reference::parse(own).ok() == meant))
    }
}

/// Reads a document by digest, size and media type, and verifies it.
pub type ReadDocument<'a> = dyn FnMut(Digest, u64, &str) -> Result<Vec<u8>> + 'a;

/// The images of an index that are for a platform, the best first and each once; at least one.
/// Indexes in the index are looked into. What is no image (a signature, an attestation) is left
/// out, as the specification says. `json` is the index; `media_type` what it was called by, if it
/// was.
pub fn choose(
    json: &[u8],
    media_type: Option<&str>,
    wanted: &Platform,
    read: &mut ReadDocument<'_>,
) -> Result<Vec<Candidate>> {
    choose_named(json, media_type, None, wanted, read)
}

/// As [`choose`], among those that go by a name if there is one.
pub(super) fn choose_named(
    json: &[u8],
    media_type: Option<&str>,
    name: Option<&str>,
    wanted: &Platform,
    read: &mut ReadDocument<'_>,
) -> Result<Vec<Candidate>> {
    let index = manifest::parse_index(json, media_type)?;
    let mut found = Vec::new();
    let mut indexes = 0;
    let mut read_index = |digest: Digest, size: u64, media_type: &str| {
        indexes += 1;
        if indexes > MAX_INDEXES {
            return Err(Error::new(format!("more than {MAX_INDEXES} indexes in the index")));
        }
        read(digest, size, media_type)
    };
    flatten(&index, &[], 0, &mut read_index, &mut found)?;
    let mut found = distinct(found);
    if let Some(name) = name {
        let there: BTreeSet<_> = found.iter().flat_map(|found| found.names.first()).collect();
        let there: Vec<_> = there.into_iter().take(MAX_SHOWN).map(String::as_str).collect();
        let there = if there.is_empty() { "without names".to_owned() } else { there.join(", ") };
        let error = Error::new(format!("no image {name:?} is in it; those in it are: {there}"));
        found.retain(|candidate| candidate.is_called(name));
        if found.is_empty() {
            return Err(error);
        }
    }
    if found.is_empty() {
        return Err(Error::new("the index has no image manifest"));
    }
    // An image that stands alone has nothing that it could be mistaken for.
    if found.len() > 1 {
        for candidate in found.iter_mut().filter(|candidate| candidate.platform.is_none()) {
            candidate.platform = Some(platform_of_config(candidate, read)?);
        }
    }
    let distance = |candidate: &Candidate| {
        candidate.platform.as_ref().map_or(Some(0), |made| wanted.distance(made))
    };
    let mut fitting: Vec<_> =
        found.iter().filter_map(|candidate| Some((distance(candidate)?, candidate))).collect();
    // Stable: among equals the first in the index is meant.
    fitting.sort_by_key(|(distance, _)| *distance);
    if fitting.is_empty() {
        let there: BTreeSet<_> = found.iter().filter_map(|found| found.platform.as_ref()).collect();
        let there: Vec<_> = there.into_iter().take(MAX_SHOWN).map(Platform::to_string).collect();
        return Err(Error::new(format!("no image for {wanted}, only for {}", there.join(", "))));
    }
    Ok(fitting.into_iter().map(|(_, candidate)| candidate.clone()).collect())
}

/// Each image once, with all its names.
fn distinct(found: Vec<Candidate>) -> Vec<Candidate> {
    let mut distinct: Vec<Candidate> = Vec::new();
    for candidate in found {
        match distinct.iter_mut().find(|other| other.digest == candidate.digest) {
            Some(other) => {
                let new = candidate.names.into_iter().filter(|name| !other.names.contains(name));
                other.names.extend(new.collect::<Vec<_>>());
            }
            None => distinct.push(candidate),
        }
    }
    distinct
}

/// An index that does not say what an image was made for leaves it to the image's config.
fn platform_of_config(candidate: &Candidate, read: &mut ReadDocument<'_>) -> Result<Platform> {
    let json = read(candidate.digest, candidate.size, &candidate.media_type)?;
    let manifest = Manifest::parse(&json, &candidate.media_type)?;
    let config = read(manifest.config, manifest.config_size, manifest::CONFIG_MEDIA_TYPE)?;
    Ok(Config::parse(&config)?.platform())
}

/// Collects the manifests of an index and the indexes in it, each with the names it goes by.
fn flatten(
    index: &ImageIndex,
    names: &[String],
    depth: usize,
    read: &mut ReadDocument<'_>,
    found: &mut Vec<Candidate>,
) -> Result<()> {
    for descriptor in index.manifests() {
        let annotations = descriptor.annotations().as_ref();
        let named = |key: &str| annotations.and_then(|annotations| annotations.get(key)).cloned();
        let own = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let own: Vec<_> = own.into_iter().filter_map(named).collect();
        let names = if own.is_empty() { names } else { own.as_slice() };
        let media_type = descriptor.media_type().to_string();
        match manifest::target(&media_type) {
            // What buildkit attests about an image is a manifest of its own beside it.
            Some(_) if is_attestation(descriptor) => (),
            Some(Target::Manifest) => {
                if found.len() >= MAX_MANIFESTS {
                    return Err(Error::new(format!("more than {MAX_MANIFESTS} manifests")));
                }
                found.push(Candidate {
                    names: names.to_vec(),
                    digest: manifest::digest(descriptor)?,
                    size: descriptor.size(),
                    media_type,
                    platform: Platform::of(descriptor),
                });
            }
            Some(Target::Index) if depth < MAX_NESTING => {
                let json = read(manifest::digest(descriptor)?, descriptor.size(), &media_type)?;
                let inner = manifest::parse_index(&json, Some(&media_type))?;
                flatten(&inner, names, depth + 1, read, found)?;
            }
            Some(Target::Index) => {
                return Err(Error::new(format!("indexes nested more than {MAX_NESTING} deep")));
            }
            // Signatures and the like: the specification says to leave them out.
            None => (),
        }
    }
    Ok(())
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    let unknown = |platform: &Platform| platform.os == "unknown";
    Platform::of(descriptor).as_ref().is_some_and(unknown)
        || descriptor.annotations().as_ref().is_some_and(|annotations| {
            annotations
                .get("vnd.docker.reference.type")
                .is_some_and(|t| t == "attestation-manifest")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::MANIFEST_MEDIA_TYPE;
    use std::collections::BTreeMap;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn entry(media_type: &str, content: &[u8], more: &str) -> String {
        let (digest, size) = (Digest::of(content), content.len());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{more}}}"#)
    }

    fn platform(os: &str, architecture: &str) -> String {
        format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
    }

    fn index(entries: &[String]) -> Vec<u8> {
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")).into_bytes()
    }

    fn nothing(digest: Digest, _: u64, _: &str) -> Result<Vec<u8>> {
        Err(Error::new(format!("{digest} was read")))
    }

    #[test]
    fn the_platform_chooses() {
        let json = index(&[
            entry(MANIFEST_MEDIA_TYPE, b"arm", &platform("linux", "arm64")),
            entry(MANIFEST_MEDIA_TYPE, b"amd", &platform("linux", "amd64")),
            entry(MANIFEST_MEDIA_TYPE, b"proof", &platform("unknown", "unknown")),
            entry("application/vnd.example", b"other", &platform("linux", "amd64")),
        ]);
        let chosen = |text: &str| choose(&json, Some(INDEX), &text.parse()?, &mut nothing);
        assert_eq!(chosen("linux/amd64").unwrap()[0].digest, Digest::of(b"amd"));
        assert_eq!(chosen("linux/arm64/v8").unwrap().len(), 1);
        let error = chosen("linux/s390x").unwrap_err().to_string();
        assert_eq!(error, "no image for linux/s390x, only for linux/amd64, linux/arm64");
    }

    #[test]
    fn the_nearest_variant_is_first() {
        let with = |variant: &str| {
            format!(r#","platform":{{"os":"linux","architecture":"arm","variant":"{variant}"}}"#)
        };
        let json = index(&[
            entry(MANIFEST_MEDIA_TYPE, b"5", &with("v5")),
            entry(MANIFEST_MEDIA_TYPE, b"7", &with("v7")),
        ]);
        let first = |text: &str| {
            choose(&json, None, &text.parse().unwrap(), &mut nothing).unwrap()[0].digest
        };
        assert_eq!(first("linux/arm/v7"), Digest::of(b"7"));
        assert_eq!(first("linux/arm/v6"), Digest::of(b"5"));
    }

    #[test]
    fn the_config_is_believed_where_the_index_is_silent() {
        let mut documents = BTreeMap::new();
        let mut entries = Vec::new();
        for architecture in ["arm64", "amd64"] {
            let config = format!(
                r#"{{"architecture":"{architecture}","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}}}}"#
            );
            let manifest = crate::image::compose_manifest(config.as_bytes(), &[]);
            entries.push(entry(MANIFEST_MEDIA_TYPE, &manifest, ""));
            documents.insert(Digest::of(config.as_bytes()), config.into_bytes());
            documents.insert(Digest::of(&manifest), manifest);
        }
        let mut read = |digest: Digest, _: u64, _: &str| Ok(documents[&digest].clone());
        let chosen = choose(&index(&entries), None, &"linux/amd64".parse().unwrap(), &mut read);
        let chosen = chosen.unwrap();
        assert_eq!(
            (chosen.len(), chosen[0].platform.as_ref().unwrap().architecture.as_str()),
            (1, "amd64")
        );
    }

    #[test]
    fn indexes_nest_to_a_bound() {
        let mut json = index(&[entry(MANIFEST_MEDIA_TYPE, b"m", "")]);
        let mut documents = BTreeMap::new();
        for depth in 0..6 {
            let mut read = |digest: Digest, _: u64, _: &str| {
                documents.get(&digest).cloned().ok_or_else(|| Error::new("missing"))
            };
            let chosen = choose(&json, None, &Platform::host(), &mut read);
            assert_eq!(chosen.is_ok(), depth <= MAX_NESTING, "{depth}: {chosen:?}");
            let outer = index(&[entry(INDEX, &json, "")]);
            documents.insert(Digest::of(&json), json);
            json = outer;
        }
    }

    #[test]
    fn an_index_that_fans_out_is_given_up() {
        let wide = index(&vec![entry(INDEX, b"inner", ""); 1000]);
        let mut reads = 0;
        let mut read = |_, _, _: &str| {
            reads += 1;
            Ok(wide.clone())
        };
        let error = choose(&wide, None, &Platform::host(), &mut read).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
        assert!(reads <= MAX_INDEXES);
    }
}
