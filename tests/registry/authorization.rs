//! Tokens, and who gets to see a credential.

use std::path::Path;
use std::sync::Arc;

use casemate::image::Digest;
use casemate::registry::{Access, keep};
use serde_json::json;

use crate::common::registry::make_authority;
use crate::server::{Request, Server, Wire, reply};
use crate::{insecure, open, strict, write};

const BASIC: &str = "Basic dTpw";

/// Keeps the user `u` with the password `p` for a registry.
fn log_in(home: &Path, host: &str) {
    keep(&insecure(home), host, "u", "p").unwrap();
}

/// A token server that notes nothing and gives `token`.
fn give(wire: &mut dyn Wire, token: &str) {
    let body = json!({ "access_token": token, "expires_in": 300 }).to_string();
    reply(wire, 200, &[("Content-Type", "application/json")], body.as_bytes());
}

fn challenge(wire: &mut dyn Wire, realm: &str) {
    let value =
        format!("Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:x:pull\"");
    reply(wire, 401, &[("WWW-Authenticate", &value)], b"{}");
}

/// A registry that takes the token `good`, and serves `blob` and any manifest.
fn guarded(realm: String, blob: &'static [u8]) -> impl Fn(&Request, &mut dyn Wire) {
    move |request, wire| {
        if request.header("authorization") != "Bearer good" {
            return challenge(wire, &realm);
        }
        if request.path.contains("/blobs/") {
            return reply(wire, 200, &[], blob);
        }
        let digest = Digest::of(b"{}").to_string();
        reply(wire, 200, &[("Docker-Content-Digest", &digest)], b"");
    }
}

#[test]
fn a_token_is_asked_for_once() {
    let home = tempfile::tempdir().unwrap();
    let tokens = Server::new(|_, wire| give(wire, "good"));
    let server = Server::new(guarded(format!("http://{}/token?a=b", tokens.host()), b"blob"));
    let (remote, reference) =
        open(insecure(home.path()), &format!("{}/x", server.host()), Access::Pull);
    remote.head(&reference).unwrap();
    remote.document(&Digest::of(b"blob"), 4).unwrap();
    assert_eq!(server.lines().len(), 3, "one was refused");
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].line(),
        "GET /token?a=b&service=the%20registry&scope=repository%3Ax%3Apull"
    );
    assert_eq!(asked[0].header("authorization"), "", "nobody is logged in");

    // With a credential the token server sees it, and the registry only the token.
    log_in(home.path(), &server.host());
    let (remote, reference) =
        open(insecure(home.path()), &format!("{}/x", server.host()), Access::Push);
    remote.head(&reference).unwrap();
    let asked = tokens.requests().pop().unwrap();
    assert_eq!(asked.header("authorization"), BASIC);
    assert!(asked.path.ends_with("scope=repository%3Ax%3Apull%2Cpush&account=u"), "{asked:?}");
    assert!(server.requests().iter().all(|r| r.header("authorization") != BASIC));
}

#[test]
fn a_token_that_is_no_longer_good_is_renewed_once() {
    let home = tempfile::tempdir().unwrap();
    let tokens = Server::new(|request, wire| match request.number {
        0 => give(wire, "old"),
        1 => give(wire, "good"),
        _ => give(wire, "never-good"),
    });
    let realm = format!("http://{}/token", tokens.host());
    let server = Server::new(move |request, wire| {
        let is_good = match request.header("authorization") {
            "Bearer old" => request.number < 2,
            "Bearer good" => request.number < 4,
            _ => false,
        };
        if is_good { reply(wire, 200, &[], b"") } else { challenge(wire, &realm) }
    });
    let (remote, reference) =
        open(insecure(home.path()), &format!("{}/x", server.host()), Access::Pull);
    remote.head(&reference).unwrap();
    remote.head(&reference).unwrap();
    assert_eq!(tokens.requests().len(), 2);
    let error = remote.head(&reference).unwrap_err();
    assert!(error.to_string().contains("unauthorized"), "{error}");
    assert_eq!(tokens.requests().len(), 3, "no more than one try");
}

#[test]
fn an_identity_token_is_changed_for_another() {
    let home = tempfile::tempdir().unwrap();
    let tokens = Server::new(|_, wire| give(wire, "good"));
    let server = Server::new(guarded(format!("http://{}/token", tokens.host()), b""));
    let auth = json!({ "auths": { server.host(): { "identitytoken": "id&1" } } });
    write(home.path(), "config/containers/auth.json", auth.to_string());
    let (remote, reference) =
        open(insecure(home.path()), &format!("{}/x", server.host()), Access::Pull);
    remote.head(&reference).unwrap();
    let asked = &tokens.requests()[0];
    assert_eq!(asked.line(), "POST /token");
    let form = String::from_utf8(asked.body.clone()).unwrap();
    assert!(
        form.contains("grant_type=refresh_token") && form.contains("refresh_token=id%261"),
        "{form}"
    );
}

#[test]
fn a_redirect_takes_no_credential_along() {
    let home = tempfile::tempdir().unwrap();
    let storage = Server::new(|_, wire| reply(wire, 200, &[], b"blob"));
    let there = format!("http://{}/bucket?signed=1", storage.host());
    let server = Server::new(move |request, wire| match request.header("authorization") {
        BASIC if request.path == "/v2/x/again" => reply(wire, 307, &[("Location", &there)], b""),
        BASIC => reply(wire, 302, &[("Location", "/v2/x/again")], b"elsewhere"),
        _ => reply(wire, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
    });
    log_in(home.path(), &server.host());
    let (remote, _) = open(insecure(home.path()), &format!("{}/x", server.host()), Access::Pull);
    assert_eq!(remote.document(&Digest::of(b"blob"), 4).unwrap(), b"blob");
    assert_eq!(server.requests().last().unwrap().header("authorization"), BASIC, "control");
    let storage = storage.requests();
    assert_eq!(storage.len(), 1);
    assert!(!storage[0].headers.contains_key("authorization"), "{storage:?}");
}

#[test]
fn somebody_elses_challenge_is_not_answered() {
    let home = tempfile::tempdir().unwrap();
    let other =
        Server::new(|_, wire| reply(wire, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""));
    let there = format!("http://{}/bucket", other.host());
    let server = Server::new(move |_, wire| reply(wire, 302, &[("Location", &there)], b""));
    log_in(home.path(), &server.host());
    log_in(home.path(), &other.host());
    let (remote, _) = open(insecure(home.path()), &format!("{}/x", server.host()), Access::Pull);
    let error = remote.document(&Digest::of(b"blob"), 4).unwrap_err();
    assert!(error.to_string().contains("unauthorized"), "{error}");
    assert!(other.requests().iter().all(|r| !r.headers.contains_key("authorization")));
}

#[test]
fn foreign_layers_are_fetched_by_nobody_in_particular() {
    let home = tempfile::tempdir().unwrap();
    let other = Server::new(|_, wire| reply(wire, 200, &[], b"blob"));
    let server = Server::new(|request, wire| match request.header("authorization") {
        BASIC => reply(wire, 404, &[], b"{}"),
        _ => reply(wire, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
    });
    log_in(home.path(), &server.host());
    log_in(home.path(), &other.host());
    let name = format!("{}/x", server.host());
    let urls = ["ftp://x/".to_owned(), format!("http://{}/layer", other.host())];
    let (remote, _) = open(insecure(home.path()), &name, Access::Pull);
    let mut blob = remote.blob(&Digest::of(b"blob"), 4, &urls).unwrap();
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut blob, &mut content).unwrap();
    assert_eq!(content, b"blob");
    let other = other.requests();
    assert!(other.len() == 1 && !other[0].headers.contains_key("authorization"), "{other:?}");
    assert!(server.lines().iter().all(|line| line.contains("/blobs/")), "asked first");
}

#[test]
fn with_tls_nothing_leads_out_of_it() {
    let home = tempfile::tempdir().unwrap();
    make_authority(home.path());
    let plain = Arc::new(Server::new(|_, wire| give(wire, "good")));
    let (realm, there) =
        (format!("http://{}/token", plain.host()), format!("http://{}/layer", plain.host()));
    let urls = [there.clone()];
    let server = Server::tls(home.path(), move |request, wire| match request.path.as_str() {
        path if path.contains("/manifests/") => challenge(wire, &realm),
        path if path.contains("/uploads/") => reply(wire, 202, &[("Location", &there)], b""),
        path if path.contains(&Digest::of(b"gone").hex()) => reply(wire, 404, &[], b""),
        _ => reply(wire, 307, &[("Location", &there)], b""),
    });
    let authority = std::fs::read(home.path().join("ca.crt")).unwrap();
    let certs = format!("config/containers/certs.d/{}/ca.crt", server.host());
    write(home.path(), &certs, authority);
    log_in(home.path(), &server.host());
    let (remote, reference) =
        open(strict(home.path()), &format!("{}/x", server.host()), Access::Push);
    let error = remote.manifest(&reference).unwrap_err().to_string();
    assert!(error.contains("is without TLS"), "{error}");
    let error = remote.document(&Digest::of(b"blob"), 4).unwrap_err().to_string();
    assert!(error.contains("from https to http"), "{error}");
    let error = remote.upload(Some(1), &Digest::of(b"x"), &b"x"[..]).unwrap_err().to_string();
    assert!(error.contains("from https to http"), "{error}");
    let error = remote.blob(&Digest::of(b"gone"), 4, &urls).err().unwrap().to_string();
    assert!(error.contains("without TLS"), "{error}");
    assert_eq!(plain.lines(), [] as [&str; 0]);
    assert!(server.requests().len() >= 4, "control: it was asked");
}

#[test]
fn an_upload_goes_elsewhere_without_a_credential() {
    let home = tempfile::tempdir().unwrap();
    let storage = Server::new(|_, wire| reply(wire, 201, &[], b""));
    let there = format!("http://{}/put?key=1", storage.host());
    let server = Server::new(move |request, wire| match request.header("authorization") {
        BASIC => reply(wire, 202, &[("Location", &there)], b""),
        _ => reply(wire, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
    });
    log_in(home.path(), &server.host());
    let (remote, _) = open(insecure(home.path()), &format!("{}/x", server.host()), Access::Push);
    let digest = Digest::of(b"content");
    remote.upload(Some(7), &digest, &b"content"[..]).unwrap();
    let put = &storage.requests()[0];
    assert_eq!(put.line(), format!("PUT /put?key=1&digest={digest}"));
    assert_eq!((put.body.as_slice(), put.headers.get("authorization")), (&b"content"[..], None));
}
