//! Servers that break, lie, or never end.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use casemate::image::{Digest, Reference};
use casemate::registry::{Access, Notice, Options, Registries, Remote, broken};

use crate::server::{self, Request, Server, Wire, raw, reply};
use crate::{insecure, open};

const MIB: usize = 1 << 20;

fn remote(server: &Server) -> (Remote, Reference) {
    let home = tempfile::tempdir().unwrap();
    open(insecure(home.path()), &format!("{}/x", server.host()), Access::Pull)
}

fn content() -> Vec<u8> {
    pattern(3 * MIB + 17)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + (at >> 8)) as u8).collect()
}

/// Reads a blob to its end: the bytes, or the words of the failure.
fn read(remote: &Remote, size: usize) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let text = |error: casemate::error::Error| error.to_string();
    let mut blob = remote.blob(&Digest::of(b"any"), size as u64, &[]).map_err(text)?;
    blob.read_to_end(&mut content).map_err(|error| text(broken(error)))?;
    Ok(content)
}

fn start_of(request: &Request) -> usize {
    let range = request.header("range");
    range.strip_prefix("bytes=").map_or(0, |r| r.trim_end_matches('-').parse().unwrap())
}

/// Announces the rest of the blob, and gives at most `most` bytes of it.
fn give_part(request: &Request, wire: &mut dyn Wire, blob: &[u8], most: usize) {
    let start = start_of(request);
    let rest = &blob[start..];
    let head = match start {
        0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", rest.len()),
        _ => format!(
            "HTTP/1.1 206 Part\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n\r\n",
            rest.len(),
            blob.len() - 1,
            blob.len()
        ),
    };
    raw(wire, &head);
    let _gone = wire.write_all(&rest[..most.min(rest.len())]);
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    // More breaks than would be allowed without progress between them.
    const PART: usize = MIB + 5;
    let blob = pattern(7 * PART);
    let served = blob.clone();
    let server = Server::new(move |request, wire| give_part(request, wire, &served, PART));
    let (remote, _) = remote(&server);
    assert!(read(&remote, blob.len()).unwrap() == blob);
    let starts: Vec<_> = server.requests().iter().map(start_of).collect();
    assert_eq!(starts, [0, 1, 2, 3, 4, 5, 6].map(|part| part * PART));
}

#[test]
fn a_server_without_ranges_is_read_over() {
    let server = Server::new(|request, wire| {
        let blob = content();
        let most = if request.number == 0 { 2 * MIB } else { blob.len() };
        raw(wire, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", blob.len()));
        let _gone = wire.write_all(&blob[..most]);
    });
    let (remote, _) = remote(&server);
    assert!(read(&remote, content().len()).unwrap() == content());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_server_that_only_breaks_is_given_up() {
    let notices = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&notices);
    let server = Server::new(|request, wire| give_part(request, wire, &content(), 100));
    let home = tempfile::tempdir().unwrap();
    let notify = move |notice: &Notice<'_>| {
        assert!(matches!(notice, Notice::Retrying { .. }), "{notice:?}");
        count.fetch_add(1, Ordering::Relaxed);
    };
    let options = Options { notify: Some(Arc::new(notify)), ..insecure(home.path()) };
    let (remote, _) = open(options, &format!("{}/x", server.host()), Access::Pull);
    let error = read(&remote, content().len()).unwrap_err();
    assert!(error.contains("closed"), "{error}");
    assert!(error.contains("from 600 of"), "{error}");
    assert_eq!((server.requests().len(), notices.load(Ordering::Relaxed)), (6, 5));
}

#[test]
fn a_wrong_range_is_an_error() {
    let server = Server::new(|request, wire| match request.number {
        0 => give_part(request, wire, &content(), MIB),
        _ => reply(wire, 206, &[("Content-Range", "bytes 0-99/100")], &[0; 100]),
    });
    let (remote, _) = remote(&server);
    let error = read(&remote, content().len()).unwrap_err();
    assert!(error.contains("\"bytes 0-99/100\""), "{error}");
}

#[test]
fn a_blob_has_the_size_that_was_said() {
    let server = Server::new(|request, wire| match request.number {
        0 => reply(wire, 200, &[], b"12345"),
        1 => reply(wire, 200, &[], b"123456789"),
        // Without a length, to the end of the connection: six where five are expected.
        2 => raw(wire, "HTTP/1.1 200 OK\r\n\r\n123456"),
        3 => raw(wire, "HTTP/1.1 200 OK\r\n\r\n12345"),
        _ => raw(
            wire,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
        ),
    });
    let (remote, _) = remote(&server);
    assert_eq!(read(&remote, 5).unwrap(), b"12345");
    assert!(read(&remote, 5).unwrap_err().contains("has 9 bytes there, its descriptor says 5"));
    assert!(read(&remote, 5).unwrap_err().contains("more than the 5 bytes"));
    assert_eq!(read(&remote, 5).unwrap(), b"12345");
    assert_eq!(read(&remote, 5).unwrap(), b"12345");
}

#[test]
fn a_document_is_what_its_digest_says() {
    let server = Server::new(|_, wire| reply(wire, 200, &[], b"other"));
    let (remote, _) = remote(&server);
    let error = remote.document(&Digest::of(b"right"), 5).unwrap_err().to_string();
    assert!(error.contains(&Digest::of(b"other").to_string()), "{error}");
    let error = remote.document(&Digest::of(b"right"), 5 << 20).unwrap_err().to_string();
    assert!(error.contains("too many for a document"), "{error}");
}

#[test]
fn manifests_that_are_none_are_told_apart() {
    let oci = "application/vnd.oci.image.manifest.v1+json";
    for (media_type, body, words) in [
        ("text/html; charset=utf-8", "<!doctype html>", "a web page"),
        ("application/octet-stream", "\n <html>", "a web page"),
        (oci, "{\"schemaVersion\":2", "no JSON"),
        ("application/json", "{\"schemaVersion\":1,\"name\":\"x\"}", "schema 1"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}", "schema 1"),
    ] {
        let server = Server::new(move |_, wire| {
            reply(wire, 200, &[("Content-Type", media_type)], body.as_bytes());
        });
        let (remote, reference) = remote(&server);
        let error = remote.manifest(&reference).unwrap_err().to_string();
        assert!(error.contains(words), "{media_type}: {error}");
    }
    for (media_type, body, own) in [
        ("application/json", format!("{{\"mediaType\":\"{oci}\"}}"), oci),
        ("text/plain", "{\"manifests\":[]}".into(), "application/vnd.oci.image.index.v1+json"),
    ] {
        let server = Server::new(move |_, wire| {
            reply(wire, 200, &[("Content-Type", media_type)], body.as_bytes());
        });
        let (remote, reference) = remote(&server);
        assert_eq!(remote.manifest(&reference).unwrap().media_type, own);
    }
}

#[test]
fn a_manifest_with_another_digest_is_refused() {
    let other = Digest::of(b"other").to_string();
    let said = other.clone();
    let server = Server::new(move |request, wire| {
        let headers = [("Docker-Content-Digest", said.as_str())];
        reply(wire, 200, if request.path.ends_with("/latest") { &headers } else { &[] }, b"{}");
    });
    let (remote, reference) = remote(&server);
    let error = remote.manifest(&reference).unwrap_err().to_string();
    assert!(error.contains(&format!("{other} was promised")), "{error}");
    let error = remote.manifest_at(Digest::of(b"other")).unwrap_err().to_string();
    assert!(error.contains("was promised"), "{error}");
    assert!(remote.manifest_at(Digest::of(b"{}")).is_ok());
}

#[test]
fn what_never_ends_is_cut_off() {
    let server = Server::new(|request, wire| {
        if request.path.ends_with("/blobs") {
            return;
        }
        let (head, block) = match request.number {
            0 => ("HTTP/1.1 200 OK\r\n\r\n", vec![b' '; 64 * 1024]),
            1 => ("HTTP/1.1 200 OK\r\n", b"X-More: 0123456789\r\n".repeat(1000)),
            2 => (
                "HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"1\r\n{\r\n".repeat(10_000),
            ),
            _ => ("", vec![b'A'; 64 * 1024]),
        };
        raw(wire, head);
        while wire.write_all(&block).is_ok() {}
    });
    let (remote, reference) = remote(&server);
    let started = Instant::now();
    let error = remote.manifest(&reference).unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
    for _ in 0..3 {
        let error = remote.manifest(&reference).unwrap_err().to_string();
        assert!(error.len() < 600, "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let server = Server::new(|request, wire| match request.number {
        0 => reply(wire, 429, &[("Retry-After", "1")], b"slow down"),
        1 => reply(wire, 503, &[], b""),
        _ => reply(wire, 200, &[], b"{}"),
    });
    let waits = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&waits);
    let notify = move |notice: &Notice<'_>| {
        if let Notice::Retrying { wait, error } = notice {
            seen.lock().unwrap().push((*wait, error.to_string()));
        }
    };
    let home = tempfile::tempdir().unwrap();
    let options = Options { notify: Some(Arc::new(notify)), ..insecure(home.path()) };
    let (remote, reference) = open(options, &format!("{}/x", server.host()), Access::Pull);
    remote.manifest(&reference).unwrap();
    let waits = waits.lock().unwrap();
    assert_eq!(waits[0].0, Duration::from_secs(1));
    assert!(waits[0].1.contains("too many requests"), "{waits:?}");
    let second = Duration::from_millis(1000)..=Duration::from_millis(1250);
    assert!(second.contains(&waits[1].0) && waits[1].1.contains("503"), "{waits:?}");
}

#[test]
fn what_is_refused_is_refused_at_once_in_the_registrys_words() {
    let server = Server::new(|request, wire| match request.number {
        0 => reply(
            wire,
            403,
            &[],
            br#"{"errors":[{"code":"DENIED","message":"not yours\u001b[m"}]}"#,
        ),
        1 => reply(wire, 400, &[], b"plain"),
        2 => reply(wire, 302, &[("Location", "gopher://x")], b""),
        3 => reply(wire, 200, &[("Content-Encoding", "gzip")], b""),
        4 => reply(wire, 404, &[("Content-Type", "text/html")], b"<html>"),
        _ => reply(wire, 302, &[("Location", "/v2/x/manifests/again")], b""),
    });
    let (remote, reference) = remote(&server);
    for words in [
        "access denied: not yours\u{1b}[m (DENIED)",
        "answered 400 Bad Request",
        "a redirect that leads nowhere",
        "which was not asked for",
        "a web page",
        "more than 10 redirects",
    ] {
        let error = remote.manifest(&reference).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(server.requests().len(), 5 + 11);
}

#[test]
fn nobody_there_is_said_in_words() {
    let home = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (host, words) in [
        (format!("127.0.0.1:{port}"), "connection refused"),
        ("no-such-host.invalid".into(), "no such host"),
    ] {
        let registries = Registries::load(insecure(home.path())).unwrap();
        let reference = Reference::parse(&format!("{host}/x")).unwrap();
        let remote = registries.open(&reference, Access::Pull).unwrap();
        let error = remote.manifest(&reference).unwrap_err();
        assert!(error.to_string().contains(&format!("{host}: {words}")), "{error}");
        assert_eq!(error.hints().len(), 1);
    }
}

#[test]
fn a_proxy_is_asked_for_what_is_not_here() {
    let proxy = Server::new(|request, wire| {
        if request.method == "CONNECT" {
            raw(wire, "HTTP/1.1 200 Connected\r\n\r\n");
            // Nothing, where TLS is tried.
            let Some(inner) = server::read(wire) else { return };
            assert_eq!(inner.header("host"), "registry.invalid:5000");
            reply(wire, 200, &[], b"{}");
        }
    });
    let home = tempfile::tempdir().unwrap();
    let ask = |no_proxy: Option<&str>| {
        let mut options = insecure(home.path());
        let address = Some(format!("http://u:p@{}", proxy.host()));
        options.environment.http_proxy.clone_from(&address);
        options.environment.https_proxy = address;
        options.environment.no_proxy = no_proxy.map(str::to_owned);
        let (remote, reference) = open(options, "registry.invalid:5000/x", Access::Pull);
        remote.manifest(&reference)
    };
    ask(None).unwrap();
    let lines = proxy.lines();
    assert_eq!(lines, ["CONNECT registry.invalid:5000", "CONNECT registry.invalid:5000"]);
    assert_eq!(proxy.requests()[0].header("proxy-authorization"), "Basic dTpw");
    let error = ask(Some(".invalid")).unwrap_err().to_string();
    assert!(error.contains("no such host"), "{error}");
    assert_eq!(proxy.lines().len(), 2);
}

/// It takes a minute, which is what is tested.
#[test]
#[ignore = "takes more than a minute"]
fn a_server_that_falls_silent_is_left() {
    let server = Server::new(|request, wire| match request.number {
        0 => {
            give_part(request, wire, &content(), MIB);
            std::thread::sleep(Duration::from_secs(90));
        }
        _ => give_part(request, wire, &content(), content().len()),
    });
    let (remote, _) = remote(&server);
    let started = Instant::now();
    assert!(read(&remote, content().len()).unwrap() == content());
    let minute = Duration::from_secs(59)..Duration::from_secs(75);
    assert!(minute.contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[test]
#[ignore = "takes more than a minute"]
fn a_server_that_drips_is_left() {
    let server = Server::new(|request, wire| match request.number {
        0 => {
            give_part(request, wire, &content(), 10);
            while wire.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_secs(2));
            }
        }
        // What dripped was wrong; whoever reads compares the digest.
        _ => give_part(request, wire, &content(), content().len()),
    });
    let (remote, _) = remote(&server);
    let started = Instant::now();
    assert_eq!(read(&remote, content().len()).unwrap().len(), content().len());
    let minute = Duration::from_secs(59)..Duration::from_secs(75);
    assert!(minute.contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(server.requests().len(), 2);
}

#[test]
#[ignore = "takes more than a minute"]
fn a_server_that_drips_what_is_there_already_is_left() {
    let server = Server::new(|request, wire| match request.number {
        0 => give_part(request, wire, &content(), MIB),
        1 => {
            raw(wire, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content().len()));
            while wire.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_secs(2));
            }
        }
        _ => give_part(request, wire, &content(), content().len()),
    });
    let (remote, _) = remote(&server);
    let started = Instant::now();
    assert!(read(&remote, content().len()).unwrap() == content());
    let minute = Duration::from_secs(59)..Duration::from_secs(75);
    assert!(minute.contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(server.requests().len(), 3);
}
