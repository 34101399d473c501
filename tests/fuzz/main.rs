//! Whatever parses foreign bytes is fed broken ones: real inputs with bytes changed, cut, doubled
//! and swapped, from a fixed seed for a bounded number of rounds. Nothing may panic, hang, or write
//! outside of where it should. `CASEMATE_FUZZ_ROUNDS` multiplies the rounds, `CASEMATE_FUZZ_SEED`
//! starts elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod indexes;

use std::path::Path;

use casemate::image::tar::{Kind, Reader};
use casemate::image::{
    Config, Digest, MANIFEST_MEDIA_TYPE, Manifest, Platform, Reference, choose, compose_manifest,
};
use casemate::index::override_stat::Override;
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
        include_str!("../../profiles/default.toml"),
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
            indexes::assert_indexed(&store.layer_path(&layers[0]));
        }
        let staging = data.join("casemate/store/staging");
        assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0, "something stayed behind");
    }
    assert!(accepted > 0, "no archive was good enough to be unpacked");
    let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!((names(&outside), names(place.path())), (1, 3));
    assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "unchanged");
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
