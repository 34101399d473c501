//! Whatever parses foreign bytes is fed broken ones: real inputs with bytes changed, cut, doubled
//! and swapped, from a fixed seed for a bounded number of rounds. Nothing may panic, hang, or write
//! outside of where it should. `CASEMATE_FUZZ_ROUNDS` multiplies the rounds, `CASEMATE_FUZZ_SEED`
//! starts elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use casemate::image::tar::{Kind, Reader};
use casemate::image::{
    Config, Digest, MANIFEST_MEDIA_TYPE, Manifest, Platform, Reference, choose, compose_manifest,
};
use casemate::index::{self, LayerIndex, Node, override_stat::Override};
use casemate::registry::{self, AuthFile, Configuration};
use casemate::store::{Progress, Store, Wanted, import};
use casemate::{identity, profile};

/// xorshift64*: enough to wander, and the same on every machine.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("CASEMATE_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
        Random(seed.unwrap_or(0x9e37_79b9_7f4a_7c15_u64) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit.max(1)
    }

    /// One to four changes.
    fn mutate(&mut self, input: &[u8]) -> Vec<u8> {
        const ODD: [u8; 12] = [0, 1, b'"', b'[', b'=', b'{', b'/', b'.', 0x7f, 0x80, 0xff, b'\n'];
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] = ODD[self.below(ODD.len())],
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 => bytes.insert(at.min(bytes.len()), ODD[self.below(ODD.len())]),
                4 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    let piece = bytes[at.min(end)..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                5 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    bytes.drain(at.min(end)..end);
                }
                _ if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(1),
                _ => {}
            }
        }
        bytes
    }
}

fn rounds(usual: usize) -> usize {
    let factor = std::env::var("CASEMATE_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    usual * factor.unwrap_or(1)
}

#[test]
fn profiles() {
    let seeds = [
        include_str!("../profiles/default.toml"),
        "[files]\nread = [\"~/a\", { path = \"/b\", at = \"/c\", optional = true, exec = false }]\nwrite = [\".\"]\ntmpfs = [\"/t\", { path = \"/u\", size = \"8m\", mode = \"1777\" }]\n[identity]\nuser = \"a:b\"\n[limits]\ntimeout = \"5m\"\nrlimits = { nofile = \"1:2\", core = 1 }\n[seccomp]\nallow = [\"ptrace\"]\n[environment]\nset = { A = \"b\" }\nkeep = [\"LC_*\"]\n[root]\nimage = \"debian:12\"\n",
    ];
    let mut random = Random::new();
    for round in 0..rounds(20_000) {
        let bytes = random.mutate(seeds[round % seeds.len()].as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = profile::parse("fuzz", &text) {
            assert!(error.to_string().starts_with("fuzz:"), "{error} for {text:?}");
        }
    }
}

#[test]
fn names_of_users_and_images() {
    let passwd = b"root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n";
    let references = ["debian", "docker.io/library/debian:12-slim", "localhost:5000/a/b:c"];
    let mut random = Random::new();
    for round in 0..rounds(50_000) {
        let bytes = random.mutate(passwd);
        if let Some(entry) = identity::find_user(&bytes, |entry| entry.uid == 1000) {
            assert!(!entry.name.is_empty());
        }
        let bytes = random.mutate(references[round % references.len()].as_bytes());
        if let Ok(reference) = Reference::parse(&String::from_utf8_lossy(&bytes)) {
            let again = Reference::parse(&reference.to_string()).unwrap();
            assert_eq!(again.full(), reference.full());
        }
    }
}

/// D-Bus messages, which a bus passes on as anybody sent them.
#[test]
fn messages_of_a_manager() {
    let field = |code: u8, kind: u8, value: &[u8]| {
        let mut bytes = vec![code, 1, kind, 0];
        if kind != b'g' {
            bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        } else {
            bytes.push(u8::try_from(value.len()).unwrap());
        }
        bytes.extend(value);
        bytes.push(0);
        bytes
    };
    let message = |kind: u8, fields: &[Vec<u8>], body: &[u8]| {
        let mut all = Vec::new();
        for field in fields {
            all.resize(all.len().next_multiple_of(8), 0);
            all.extend(field);
        }
        let mut bytes = vec![b'l', kind, 0, 1];
        for number in [body.len(), 7, all.len()] {
            bytes.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
        bytes.extend(all);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        [bytes, body.to_vec()].concat()
    };
    let job = b"\x01\0\0\0\x02\0\0\0/j\0\0\x07\0\0\0a.scope\0\x04\0\0\0done\0";
    let seeds = [
        message(4, &[field(3, b's', b"JobRemoved"), field(8, b'g', b"uoss")], job),
        message(3, &[field(4, b's', b"org.x.Error"), field(8, b'g', b"s")], b"\x02\0\0\0no\0"),
        message(2, &[field(8, b'g', b"v")], b"\x01s\0\0\x02\0\0\0/a\0"),
    ];
    let whole: Vec<_> =
        seeds.iter().map(|seed| casemate::cgroup::read_message(seed).unwrap()).collect();
    assert_eq!(whole[0], ["", "/j", "a.scope", "done"]);
    assert_eq!((whole[1][0].as_str(), whole[2][1].as_str()), ("no", "/a"));
    let mut random = Random::new();
    let mut read = 0;
    for round in 0..rounds(60_000) {
        let bytes = random.mutate(&seeds[round % seeds.len()]);
        if let Ok(texts) = casemate::cgroup::read_message(&bytes) {
            assert!(texts.iter().map(String::len).sum::<usize>() <= bytes.len());
            read += 1;
        }
    }
    assert!(read > 0);
}

/// Lists of subordinate ids: what is taken from one is whole, and makes a map that holds it.
#[test]
fn lists_of_subordinate_ids() {
    use casemate::identity::subid::{Asker, from_getsubids, map, parse};
    let list = b"# ids\nann:100000:65536\nbob:165536:65536\n1000:300000:40000\n1001:400000:65536\n";
    let said = b"0: ann 100000 65536\n1: ann 300000 40000\n";
    let accounts = [("root".to_owned(), 0), ("nobody".to_owned(), 65534)];
    let asker = Asker { uid: 1000, name: Some("ann") };
    let mut random = Random::new();
    let mut taken = 0;
    for _ in 0..rounds(40_000) {
        let text = match random.below(4) {
            0 => from_getsubids(&random.mutate(said)),
            _ => random.mutate(list),
        };
        let Ok(spans) = parse(&text, asker, &accounts) else { continue };
        taken += 1;
        let map = map(&spans, 1000);
        let ids: u64 = map.iter().map(|extent| u64::from(extent.count)).sum();
        assert_eq!(ids, 65537, "{}", text.escape_ascii());
        let first = map.iter().map(|extent| extent.outside).min().unwrap();
        assert!(first > 0, "{}", text.escape_ascii());
    }
    assert!(taken > 0);
}

/// Maps and words of ids: whatever is taken is within the range, and no id is two.
#[test]
fn maps_of_ids() {
    use casemate::identity::map::{self, Extent, Wanted, compose};
    use casemate::profile::{Ids, MapLine};
    let range = [
        Extent { inside: 0, outside: 100_000, count: 65536 },
        Extent { inside: 65536, outside: 1000, count: 1 },
    ];
    let mut random = Random::new();
    let mut made = 0;
    for _ in 0..rounds(40_000) {
        let lines: Vec<MapLine> = (0..=random.below(4))
            .filter_map(|_| {
                let seeds: [&[u8]; 4] = [b"0:1:1000", b"1000:0:1", b"2000:1001:64000", b"0:0"];
                let seed = seeds[random.below(4)];
                let text = random.mutate(seed);
                str::from_utf8(&text).ok()?.parse().ok()
            })
            .collect();
        let text = random.mutate(b"keep-id:uid=1000,gid=65535");
        let ids = str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        let wanted = match ids {
            Some(Ids::KeepId { uid: Some(uid), .. }) if random.below(2) == 0 => Wanted::Keep(uid),
            _ => Wanted::Lines(&lines),
        };
        let Ok(map) = compose(wanted, &range, 1000, "user") else { continue };
        made += 1;
        assert_eq!(map::parse(&map::text(&map)).as_deref(), Some(&map[..]));
        for side in [|extent: &Extent| extent.inside, |extent: &Extent| extent.outside] {
            let mut parts: Vec<_> = map.iter().map(|it| (side(it), it.count)).collect();
            parts.sort_unstable();
            let apart = parts.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
            assert!(apart, "{map:?} of {lines:?}");
        }
        assert!(map.iter().all(|extent| extent.outside + extent.count <= 65537), "{map:?}");
    }
    assert!(made > 100, "{made}");
}

#[test]
fn image_configurations() {
    let seed = br#"{"created":"2026-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"User":"1000:1000","Env":["PATH=/bin","A=b"],"Entrypoint":["/e"],"Cmd":["c"],"WorkingDir":"/w","Volumes":{"/v":{}},"StopSignal":"SIGTERM"},"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]},"history":[]}"#;
    let mut random = Random::new();
    for _ in 0..rounds(20_000) {
        // An error or a configuration; nothing else can happen.
        drop(Config::parse(&random.mutate(seed)));
    }
}

#[test]
fn challenges() {
    let seeds = [
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull,push""#,
        r#"Negotiate YII==, Basic realm="a \"b\"", bearer realm = x , Digest a=b"#,
    ];
    let mut random = Random::new();
    for round in 0..rounds(50_000) {
        let bytes = random.mutate(seeds[round % seeds.len()].as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        assert!(registry::parse_challenges(&text).len() <= text.len());
    }
}

#[test]
fn registries_conf() {
    let seed = "unqualified-search-registries = [\"quay.io\", \"docker.io\"]\nshort-name-mode = \"permissive\"\n[aliases]\n\"tool\" = \"ghcr.io/owner/tool\"\n[[registry]]\nprefix = \"*.a.io\"\nlocation = \"b.io/c\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"m.io:5000\"\npull-from-mirror = \"tag-only\"\n[[registry]]\nlocation = \"d.io\"\nblocked = true\n";
    let names = ["tool", "debian:12", "x.a.io/y", "d.io/z"].map(|n| Reference::parse(n).unwrap());
    let mut random = Random::new();
    let mut accepted = 0;
    for _ in 0..rounds(20_000) {
        let bytes = random.mutate(seed.as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        let mut configuration = Configuration::default();
        match configuration.add("fuzz", &text) {
            Err(error) => assert!(error.to_string().starts_with("fuzz:"), "{error} for {text:?}"),
            Ok(()) => accepted += 1,
        }
        for name in &names {
            if let Ok(candidates) = configuration.candidates(name) {
                assert!(!candidates.is_empty());
            }
        }
    }
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn files_of_credentials() {
    let seed = br#"{"auths":{"a.io":{"auth":"dTpw"},"https://index.docker.io/v1/":{"username":"u","password":"p","identitytoken":""}},"credHelpers":{"b.io":"pass"},"credsStore":"secretservice"}"#;
    let names = ["a.io/x", "a.io", "docker.io", "index.docker.io"].map(str::to_owned);
    let mut random = Random::new();
    for _ in 0..rounds(20_000) {
        if let Ok(file) = AuthFile::parse(&random.mutate(seed)) {
            drop(file.find(&names));
        }
    }
}

#[test]
fn indexes_and_platforms() {
    let seed = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":5,"platform":{"os":"linux","architecture":"amd64"}},{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000001","size":5}]}"#;
    let platforms = ["linux/arm64/v8", "amd64", "linux/arm"];
    let mut random = Random::new();
    for round in 0..rounds(20_000) {
        let json = random.mutate(seed);
        let mut again = |_, _, _: &str| Ok(json.clone());
        if let Ok(chosen) = choose(&json, None, &Platform::host(), &mut again) {
            assert!(!chosen.is_empty());
        }
        let text = random.mutate(platforms[round % platforms.len()].as_bytes());
        if let Ok(platform) = String::from_utf8_lossy(&text).parse::<Platform>() {
            let again: Platform = platform.to_string().parse().unwrap();
            assert_eq!(again, platform);
        }
    }
}

struct Silent;

impl Progress for Silent {
    fn begin(&self, _: usize, _: u64) {}
    fn layer(&self, _: usize, _: &Digest) {}
    fn read(&self, _: u64) {}
}

#[test]
fn manifests() {
    const ID: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let seed = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_MEDIA_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{ID}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{ID}","size":3,"urls":["https://a.example/b"]}}],"annotations":{{"a":"b"}}}}"#
    );
    let mut random = Random::new();
    let mut accepted = 0;
    for _ in 0..rounds(20_000) {
        let json = random.mutate(seed.as_bytes());
        if let Ok(manifest) = Manifest::parse(&json, MANIFEST_MEDIA_TYPE) {
            accepted += 1;
            // What is read can be written, and reads the same.
            let again = compose_manifest(b"{}", &manifest.layers);
            let again = Manifest::parse(&again, MANIFEST_MEDIA_TYPE).unwrap();
            let digests = |m: &Manifest| m.layers.iter().map(|l| l.digest).collect::<Vec<_>>();
            assert_eq!(digests(&again), digests(&manifest));
        }
    }
    assert!(accepted > 0);
}

/// Entries alone, many more of them than can be imported: the reader ends, and what it says of
/// sizes and offsets holds.
#[test]
fn tar_entries() {
    let mut seed = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    seed.append_pax_extensions([("path", &b"a/long"[..]), ("mtime", b"1.5"), ("size", b"5")])
        .unwrap();
    seed.append_data(&mut header, "short", &b"12345"[..]).unwrap();
    seed.append_pax_extensions([
        ("GNU.sparse.major", &b"0"[..]),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.size", b"9999"),
        ("GNU.sparse.map", b"10,2,500,3"),
    ])
    .unwrap();
    seed.append_data(&mut header, "sparse", &b"12345"[..]).unwrap();
    header.set_size(0);
    seed.append_link(&mut header, "x".repeat(200), "y".repeat(200)).unwrap();
    let seed = seed.into_inner().unwrap();
    let mut random = Random::new();
    for _ in 0..rounds(20_000) {
        let bytes = fix_checksums(random.mutate(&seed));
        let mut reader = Reader::new(&bytes[..]);
        while let Ok(Some(entry)) = reader.next_entry() {
            assert!(entry.offset <= bytes.len() as u64);
            let data: u64 = entry.extents.iter().map(|extent| extent.length).sum();
            if entry.kind == Kind::File {
                assert_eq!(data, entry.stored, "{entry:?}");
                let mut end = 0;
                for extent in &entry.extents {
                    assert!(extent.offset >= end, "{entry:?}");
                    end = extent.offset.checked_add(extent.length).unwrap();
                }
                assert!(end <= entry.size, "{entry:?}");
            }
        }
    }
}

/// Broken root file systems, imported into a store for real.
#[test]
fn archives() {
    let mut seed = tar::Builder::new(Vec::new());
    for (name, kind, link) in [
        ("./", tar::EntryType::Directory, None),
        ("etc/", tar::EntryType::Directory, None),
        ("etc/passwd", tar::EntryType::Regular, None),
        ("etc/hard", tar::EntryType::Link, Some("etc/passwd")),
        ("bin", tar::EntryType::Symlink, Some("../../outside")),
        ("etc/.wh.shadow", tar::EntryType::Regular, None),
        ("etc/.wh.passwd", tar::EntryType::Regular, None),
        ("var/.wh..wh..opq", tar::EntryType::Regular, None),
        ("etc/passwd", tar::EntryType::Regular, None),
        ("fifo", tar::EntryType::Fifo, None),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_mtime(1);
        let content: &[u8] = if kind.is_file() { b"root:x:0:0::/:/bin/sh\n" } else { b"" };
        header.set_size(content.len() as u64);
        match link {
            Some(link) => seed.append_link(&mut header, name, link).unwrap(),
            None => seed.append_data(&mut header, name, content).unwrap(),
        }
    }
    let seed = seed.into_inner().unwrap();
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("canary"), "unchanged").unwrap();
    let archive = place.path().join("archive.tar");
    let data = place.path().join("data");
    let store = Store::open(&data).unwrap();
    let name = Reference::parse("fuzz").unwrap();
    let mut random = Random::new();
    let mut accepted = 0;
    for _ in 0..rounds(400) {
        let bytes = fix_checksums(random.mutate(&seed));
        std::fs::write(&archive, &bytes).unwrap();
        if import(&store, &name, &archive).is_ok() {
            accepted += 1;
            // Whatever was taken is whole, and is the very stream that came.
            let layers = store.image(&name).unwrap().layers;
            assert_eq!(store.check(&[Wanted::of(&name)], &Silent).unwrap().faults, []);
            let mut again = Vec::new();
            store.write_layer(&layers[0], &mut again).unwrap();
            assert!(again == bytes, "the stream changed on its way through the store");
            assert_indexed(&store.layer_path(&layers[0]));
        }
        let staging = data.join("casemate/store/staging");
        assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0, "something stayed behind");
    }
    assert!(accepted > 0, "no archive was good enough to be unpacked");
    let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!((names(&outside), names(place.path())), (1, 3));
    assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "unchanged");
}

/// The index beside a layer's tree, where it has one, is the one that a walk gives.
fn assert_indexed(tree: &Path) -> bool {
    let Ok(file) = std::fs::File::open(tree.with_file_name("index")) else { return false };
    let made = LayerIndex::open(&file).unwrap();
    let walked = index_of(index::walk(&std::fs::File::open(tree).unwrap().into()).unwrap());
    assert_eq!(index::differences(&made, &walked), [""; 0]);
    assert_eq!((made.len(), made.names()), (walked.len(), walked.names()));
    true
}

fn index_of(builder: index::Builder) -> LayerIndex {
    let mut file = BufWriter::new(tempfile::tempfile().unwrap());
    builder.write(&mut file).unwrap();
    LayerIndex::open(&file.into_inner().unwrap()).unwrap()
}

/// Legal archives at random, of few names, so that entries replace each other all the time: what the
/// unpacker thinks that it has made is what it has made.
#[test]
fn indexes_of_archives() {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    const NAMES: [&str; 5] = ["a", "b", "c", ".wh.a", ".wh..wh..opq"];
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("archive.tar");
    let store = Store::open(&place.path().join("data")).unwrap();
    let name = Reference::parse("fuzz").unwrap();
    let mut random = Random::new();
    let (mut accepted, mut links) = (0, 0);
    for _ in 0..rounds(400) {
        let mut tar = tar::Builder::new(Vec::new());
        // A link must lead to what is there, or the archive is refused.
        let mut files: Vec<String> = Vec::new();
        for _ in 0..1 + random.below(12) {
            let depth = 1 + random.below(3);
            let mut path = (1..depth).map(|_| NAMES[random.below(3)]).collect::<Vec<_>>();
            path.push(NAMES[[0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4][random.below(11)]]);
            let path = path.join("/");
            let kind = match random.below(12) {
                0..4 => Directory,
                4..7 => Regular,
                7 => Symlink,
                8 => Fifo,
                9 => Char,
                10 => Block,
                _ if files.is_empty() => Regular,
                _ => Link,
            };
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(random.below(0o10000) as u32);
            header.set_uid(random.below(3) as u64);
            header.set_gid(random.below(3) as u64);
            header.set_mtime(random.below(1 << 31) as u64);
            header.set_device_major(random.below(9) as u32).unwrap();
            header.set_device_minor(random.below(9) as u32).unwrap();
            let content = vec![1; if kind == Regular { random.below(9000) } else { 0 }];
            header.set_size(content.len() as u64);
            if random.below(4) == 0 {
                let key = format!("SCHILY.xattr.user.{}", NAMES[random.below(3)]);
                let value = [random.below(256) as u8];
                tar.append_pax_extensions([(key.as_str(), &value[..])]).unwrap();
            }
            match kind {
                Symlink => tar.append_link(&mut header, &path, "../to").unwrap(),
                Link => {
                    let target = &files[random.below(files.len())];
                    tar.append_link(&mut header, &path, target).unwrap();
                    links += 1;
                }
                _ => tar.append_data(&mut header, &path, &content[..]).unwrap(),
            }
            if !path.contains(".wh.") && kind != Directory {
                files.push(path);
            }
        }
        std::fs::write(&archive, tar.into_inner().unwrap()).unwrap();
        if import(&store, &name, &archive).is_ok() {
            accepted += 1;
            let layers = store.image(&name).unwrap().layers;
            assert!(assert_indexed(&store.layer_path(&layers[0])));
            assert_eq!(store.check(&[Wanted::of(&name)], &Silent).unwrap().faults, []);
        }
    }
    assert!(accepted > 50 && links > 50, "{accepted} {links}");
}

/// Reads all that there is to read of an index. Whoever goes down from the root, or up to it, comes
/// to an end.
fn read_all(index: &LayerIndex) -> usize {
    let mut seen = 0;
    let mut left = vec![Node::ROOT];
    while let Some(dir) = left.pop() {
        for position in 0..index.children_len(dir).min(1 << 16) {
            let Some((name, node)) = index.child_at(dir, position) else { continue };
            assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/'));
            let _may_be_out_of_order = index.child(dir, name);
            if index.attributes(node).unwrap().kind == index::Kind::Directory {
                left.push(node);
            }
            seen += 1;
            assert!(seen <= index.names() as usize, "a loop");
        }
    }
    for node in (0..index.len().saturating_add(2).min(1 << 16)).map(Node) {
        let _whatever_it_is = (index.attributes(node), index.target(node));
        assert!(index.path(node).is_none_or(|path| path.len() <= 4095));
        assert!(index.place(node).is_none_or(|(dir, _)| dir < node));
        assert!(index.xattrs(node).all(|(name, _)| name.starts_with(b"user.")));
        for name in [&b"bin"[..], b"", b"..", b"\xff", b"zzz"] {
            let _may_be_there = index.child(node, name);
        }
    }
    seen
}

#[test]
fn indexes_that_are_broken() {
    let mut seed = index::Builder::new(index::Limits { entries: 1000, bytes: 1 << 20 });
    let mut dirs = vec![Node::ROOT];
    let of = |kind| index::Attributes { kind, size: 99, ..index::Attributes::implied() };
    let mut random = Random::new();
    for number in 0..40 {
        let dir = dirs[random.below(dirs.len())];
        let name = format!("name{number}");
        let kind =
            [index::Kind::Directory, index::Kind::File, index::Kind::Symlink][random.below(3)];
        let node = seed.make(dir, name.as_bytes(), &of(kind), b"target").unwrap();
        match kind {
            index::Kind::Directory => dirs.push(node),
            index::Kind::File => seed.set_xattr(node, b"user.x", b"value").unwrap(),
            _ => seed.link(Node::ROOT, format!("link{number}").as_bytes(), node).unwrap(),
        }
    }
    let mut bytes = Vec::new();
    seed.write(&mut bytes).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut open = |bytes: &[u8]| {
        file.set_len(0).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(bytes).unwrap();
        LayerIndex::open(&file)
    };
    let whole = read_all(&open(&bytes).unwrap());
    let begin = Instant::now();
    let (mut opened, mut other) = (0, 0);
    for round in 0..rounds(20_000) {
        let mut broken = bytes.clone();
        match round % 4 {
            0 => broken = random.mutate(&bytes),
            // A number that is another's, or nobody's.
            1 | 2 => {
                for _ in 0..=random.below(4) {
                    let at = 16 + random.below(broken.len() / 4 - 4) * 4;
                    let number = [random.below(50) as u32, u32::MAX, random.next() as u32];
                    broken[at..at + 4].copy_from_slice(&number[random.below(3)].to_le_bytes());
                }
            }
            _ => {
                let start = 32 + random.below(broken.len() - 32);
                broken[start..].iter_mut().for_each(|byte| *byte = random.next() as u8);
            }
        }
        if let Ok(index) = open(&broken) {
            opened += 1;
            other += usize::from(read_all(&index) != whole);
            drop(index::differences(&index, &index));
        }
    }
    assert!(opened > 1000 && other > 100, "{opened} {other}");
    assert!(begin.elapsed() < Duration::from_secs(300) * rounds(1) as u32);
    // Nothing but chance, behind a header that fits.
    for _ in 0..rounds(2000) {
        let (nodes, entries, rest) = (random.below(60), random.below(60), random.below(500));
        let mut all = bytes[..16].to_vec();
        for number in [nodes, entries, rest, 3] {
            all.extend_from_slice(&(number as u32).to_le_bytes());
        }
        for _ in 0..nodes * 64 + entries * 16 + rest {
            all.push(random.next() as u8 & [0xff, 3, 1][random.below(3)]);
        }
        if all.len() > 96 {
            all[32 + 30] = 2;
        }
        if let Ok(index) = open(&all) {
            read_all(&index);
        }
    }
}

#[test]
fn kept_owners() {
    let mut random = Random::new();
    let seeds = [&b"0:0:0755:dir"[..], b"1000:4294967295:4755:file", b"0:6:0660:block-8-1"];
    for round in 0..rounds(50_000) {
        let bytes = random.mutate(seeds[round % seeds.len()]);
        if let Some(read) = Override::parse(&bytes) {
            assert!(read.mode <= 0o7777);
            assert_eq!(Override::parse(read.to_string().as_bytes()), Some(read));
        }
    }
}

/// Makes the headers' checksums right again, so that what is behind them is reached.
fn fix_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}
