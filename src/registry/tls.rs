//! Whom a registry's certificate must be signed by, and what we show it in turn.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::environment::{Environment, read};
use crate::error::{During, Error, Result};

const MAX_FILE: u64 = 4 << 20;
const MAX_FILES: usize = 1000;

/// The certificates that this machine trusts, read once and only when TLS is spoken.
#[derive(Default)]
pub(super) struct Roots(OnceLock<Vec<CertificateDer<'static>>>);

impl Roots {
    /// `$SSL_CERT_FILE`, `$SSL_CERT_DIR`, or the system's bundle.
    fn system(&self) -> &[CertificateDer<'static>] {
        // A machine without any may still have certs.d; what is missing shows as an unknown issuer.
        self.0.get_or_init(|| rustls_native_certs::load_native_certs().certs)
    }

    /// How TLS is spoken with a host (as a reference names it, with its port).
    pub(super) fn config(
        &self,
        environment: &Environment,
        host: &str,
        verify: bool,
    ) -> Result<TlsConfig> {
        let own = Own::find(environment, host)?;
        let provider = Arc::new(ring::default_provider());
        let mut builder = TlsConfig::builder();
        if verify {
            let trusted = self.system().iter().chain(&own.authorities);
            let trusted: Vec<_> =
                trusted.map(|der| Certificate::from_der(der).to_owned()).collect();
            builder = builder.root_certs(RootCerts::new_with_certs(&trusted));
        } else {
            builder = builder.disable_verification(true);
        }
        let client = own.client.map(|client| client.checked(&provider)).transpose()?;
        Ok(builder.client_cert(client).unversioned_rustls_crypto_provider(provider).build())
    }
}

/// What containers-certs.d(5) has for a host.
#[derive(Default)]
struct Own {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<Client>,
}

/// A certificate of ours, with its key.
struct Client {
    path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    /// In PEM.
    key: Vec<u8>,
}

impl Own {
    /// Reads the first directory that there is for the host: the user's, podman's, docker's.
    fn find(environment: &Environment, host: &str) -> Result<Self> {
        let docker = environment.system.as_ref().map(|system| system.join("docker"));
        for base in environment.containers().chain(docker) {
            let directory = base.join("certs.d").join(host);
            match std::fs::read_dir(&directory) {
                Ok(entries) => {
                    let mut names = Vec::new();
                    for entry in entries.take(MAX_FILES) {
                        names.push(entry.at("list", &directory)?.path());
                    }
                    names.sort();
                    return Own::read(&names);
                }
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
                Err(error) => return Err(error).at("list", &directory),
            }
        }
        Ok(Own::default())
    }

    fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut own = Own::default();
        let ending = |path: &Path| path.extension().and_then(|e| e.to_str()).map(str::to_owned);
        for path in paths {
            match ending(path).as_deref() {
                Some("crt") => own.authorities.extend(certificates(path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !paths.contains(&key) {
                        return Err(Error::new(format!(
                            "{}: there is no {} beside it",
                            path.display(),
                            key.file_name().unwrap_or_default().display()
                        ))
                        .hint("a client certificate is NAME.cert, its key NAME.key; authorities are NAME.crt"));
                    }
                    let chain = certificates(path)?;
                    let key = content(&key)?;
                    own.client = own.client.or(Some(Client { path: path.clone(), chain, key }));
                }
                _ => {}
            }
        }
        Ok(own)
    }
}

impl Client {
    /// The client that speaks HTTP takes it for granted that certificate and key fit together.
    fn checked(self, provider: &CryptoProvider) -> Result<ClientCert> {
        let bad = |why: &dyn std::fmt::Display| {
            Error::new(format!("client certificate {}: {why}", self.path.display()))
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            bad(&format_args!("its key: {error}")).hint("a key is in PEM, without a pass phrase")
        })?;
        CertifiedKey::from_der(self.chain.clone(), key, provider).map_err(|error| bad(&error))?;
        let chain: Vec<_> =
            self.chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let key = PrivateKey::from_pem(&self.key).map_err(|error| bad(&error))?;
        Ok(ClientCert::new_with_certs(&chain, key))
    }
}

fn content(path: &Path) -> Result<Vec<u8>> {
    read(path, MAX_FILE)?
        .ok_or_else(|| Error::os("open", path.display(), nix::errno::Errno::ENOENT))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = content(path)?;
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let wrong = |why: &dyn std::fmt::Display| {
        Error::new(format!("read {}: {why}", path.display())).hint("certificates are in PEM")
    };
    let found = read.map_err(|error| wrong(&error))?;
    if found.is_empty() {
        return Err(wrong(&"it has no certificate"));
    }
    Ok(found)
}
