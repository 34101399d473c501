//! A real registry: docker-registry on loopback, plain or with TLS from an authority of its own, and
//! with a password if wanted. It belongs to one test and ends with it.
//!
//! It leans on nothing else of the suite, so that any test program can take it in.

#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const USER: &str = "ann";
pub const PASSWORD: &str = "pass word:1";
/// htpasswd -Bbn -C 4 ann 'pass word:1'
const HTPASSWD: &str = "ann:$2y$04$imAbhOY7bkMaROdvUh/.i.BlHc2cQbuRSk5ChXLBoA2Jd0arLzCvm\n";

/// What the registry demands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demands {
    /// It speaks TLS.
    pub tls: bool,
    /// It wants `USER` and `PASSWORD`.
    pub password: bool,
    /// It wants a certificate of the client's.
    pub client_certificate: bool,
}

pub struct Registry {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
    demands: Demands,
}

impl Registry {
    /// Without TLS and for everybody.
    pub fn plain() -> Self {
        Registry::start(Demands::default())
    }

    /// With TLS, for everybody.
    pub fn tls() -> Self {
        Registry::start(Demands { tls: true, ..Demands::default() })
    }

    /// With TLS, for who knows the password.
    pub fn with_password() -> Self {
        Registry::start(Demands { tls: true, password: true, ..Demands::default() })
    }

    pub fn start(demands: Demands) -> Self {
        for _ in 0..10 {
            if let Some(registry) = Registry::try_start(demands) {
                return registry;
            }
        }
        panic!("docker-registry does not start");
    }

    /// `None` if somebody else took the port in between.
    fn try_start(demands: Demands) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: test\n",
            at("data").display()
        );
        if demands.tls {
            make_authority(directory.path());
            config.push_str(&format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                at("server.crt").display(),
                at("server.key").display()
            ));
            if demands.client_certificate {
                config.push_str(&format!("    clientcas: [{}]\n", at("ca.crt").display()));
            }
        }
        if demands.password {
            fs::write(at("htpasswd"), HTPASSWD).unwrap();
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                at("htpasswd").display()
            ));
        }
        fs::write(at("config.yml"), config).unwrap();
        let child = serve(directory.path());
        let mut registry = Registry { child, directory, port, demands };
        registry.listens().then_some(registry)
    }

    /// Waits until it does; false if it ended instead.
    fn listens(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                eprintln!("docker-registry: {status}: {}", self.log());
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("docker-registry does not listen: {}", self.log());
    }

    /// Kills it; what it has stays.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again at the same address.
    pub fn start_again(&mut self) {
        self.child = serve(self.directory.path());
        assert!(self.listens(), "somebody else took the port");
    }

    /// Where it keeps a blob, in a file of just its bytes, which it does not verify.
    pub fn blob_path(&self, hex: &str) -> PathBuf {
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Puts a blob into a repository, as it is.
    pub fn put_blob(&self, repository: &str, hex: &str, content: &[u8]) {
        let path = self.blob_path(hex);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self.link(repository, &format!("_layers/sha256/{hex}"), hex);
    }

    /// Puts a manifest into a repository, whatever it says; with a tag if there is one.
    pub fn put_manifest(&self, repository: &str, tag: Option<&str>, hex: &str, content: &[u8]) {
        self.put_blob(repository, hex, content);
        self.link(repository, &format!("_manifests/revisions/sha256/{hex}"), hex);
        if let Some(tag) = tag {
            self.link(repository, &format!("_manifests/tags/{tag}/current"), hex);
            self.link(repository, &format!("_manifests/tags/{tag}/index/sha256/{hex}"), hex);
        }
    }

    fn link(&self, repository: &str, place: &str, hex: &str) {
        let repositories = self.directory.path().join("data/docker/registry/v2/repositories");
        let directory = repositories.join(repository).join(place);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("link"), format!("sha256:{hex}")).unwrap();
    }

    /// `HOST:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority, in PEM.
    pub fn authority(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("ca.crt")).unwrap()
    }

    /// A client's certificate that it takes, and the key, in PEM.
    pub fn client(&self) -> (Vec<u8>, Vec<u8>) {
        let read = |name| fs::read(self.directory.path().join(name)).unwrap();
        (read("client.crt"), read("client.key"))
    }

    /// What it said, with a line for each request it answered.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// The requests it answered so far, as `METHOD /path`.
    pub fn requests(&self) -> Vec<String> {
        let log = self.log();
        let request = |line: &str| {
            let (_, rest) = line.split_once("] \"")?;
            let (request, _) = rest.split_once(" HTTP/")?;
            Some(request.to_owned())
        };
        log.lines().filter_map(request).collect()
    }

    /// Puts an image of an OCI layout (`oci:DIR:TAG`, or anything of skopeo's) there as `name`.
    pub fn push(&self, source: &str, name: &str) {
        let target = format!("docker://{}/{name}", self.host());
        self.skopeo(&["copy", "--all", "--dest-tls-verify=false"], "--dest", &[source, &target]);
    }

    /// Fetches an image with skopeo.
    pub fn pull(&self, name: &str, target: &str) {
        let source = format!("docker://{}/{name}", self.host());
        self.skopeo(&["copy", "--all", "--src-tls-verify=false"], "--src", &[&source, target]);
    }

    fn skopeo(&self, options: &[&str], side: &str, names: &[&str]) {
        let mut command = Command::new("skopeo");
        command.arg("--insecure-policy").args(options);
        if self.demands.password {
            command.arg(format!("{side}-creds={USER}:{PASSWORD}"));
        }
        let output = command.args(names).output().expect("skopeo is installed");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {err}\n{}", self.log());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the registry whose settings are in this directory.
fn serve(directory: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
    Command::new("docker-registry")
        .arg("serve")
        .arg(directory.join("config.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("docker-registry is installed (Debian package docker-registry)")
}

/// An authority, a certificate for 127.0.0.1 and localhost, and one for a client.
pub fn make_authority(directory: &Path) {
    let openssl = |words: &[&str]| {
        let output = Command::new("openssl")
            .args(words)
            .current_dir(directory)
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let make = |name: &str, more: &[&str]| {
        let (subject, file) =
            (format!("/CN=casemate test {name}"), |end: &str| format!("{name}.{end}"));
        let mut words = vec!["req", "-x509", "-days", "2", "-subj", &subject];
        let (crt, private) = (file("crt"), file("key"));
        words.extend(key);
        words.extend(["-out", &crt, "-keyout", &private]);
        words.extend(more);
        openssl(&words);
    };
    make("ca", &["-addext", "keyUsage=critical,keyCertSign"]);
    let signed =
        ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
    make("server", &[&signed[..], &["-addext", names]].concat());
    make("client", &[&signed[..], &["-addext", "extendedKeyUsage=clientAuth"]].concat());
}

/// Writes an OCI layout of one image whose layers are what is given; `oci:DIR:latest`.
pub fn layout(directory: &Path, layers: &[&[u8]]) -> PathBuf {
    use casemate::image::Digest;
    use serde_json::json;
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, content: &[u8]| {
        let digest = Digest::of(content);
        fs::write(blobs.join(digest.hex()), content).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layer = |layer: &&[u8]| blob("application/vnd.oci.image.layer.v1.tar", layer);
    let layers: Vec<_> = layers.iter().map(layer).collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config,
        "layers": layers });
    let mut entry = blob(media_type, manifest.to_string().as_bytes());
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    directory.to_path_buf()
}
