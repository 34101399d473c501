//! An HTTP server that says what the test has it say, with TLS or without, one request a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// By lower-case names.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// How many came before it.
    pub(crate) number: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `METHOD /path`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Where the answer goes: bytes as they are, so that it can be as wrong as the test wants.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

type Answer = dyn Fn(&Request, &mut dyn Wire) + Send + Sync;

pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn new(answer: impl Fn(&Request, &mut dyn Wire) + Send + Sync + 'static) -> Self {
        Server::start(None, Arc::new(answer))
    }

    /// With the server's certificate in this directory.
    pub(crate) fn tls(
        directory: &Path,
        answer: impl Fn(&Request, &mut dyn Wire) + Send + Sync + 'static,
    ) -> Self {
        let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&read("server.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Server::start(Some(Arc::new(config)), Arc::new(answer))
    }

    fn start(tls: Option<Arc<rustls::ServerConfig>>, answer: Arc<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = Arc::clone(&requests);
        // It ends with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer, tls) = (Arc::clone(&seen), Arc::clone(&answer), tls.clone());
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        let mut stream = rustls::StreamOwned::new(connection, stream);
                        serve(&mut stream, &seen, &answer);
                        stream.conn.send_close_notify();
                        let _gone = stream.flush();
                        close(&stream.sock);
                    }
                    None => {
                        let mut stream = stream;
                        serve(&mut stream, &seen, &answer);
                        close(&stream);
                    }
                });
            }
        });
        Server { address, requests }
    }

    /// `HOST:PORT`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }
}

/// What was not read yet would make the kernel reset the connection, and the answer with it.
fn close(stream: &TcpStream) {
    let _gone = stream.shutdown(std::net::Shutdown::Write);
    let _later = stream.set_read_timeout(Some(std::time::Duration::from_millis(200)));
    let mut rest = [0; 4096];
    while matches!((&mut &*stream).read(&mut rest), Ok(count) if count > 0) {}
}

fn serve(stream: &mut dyn Wire, seen: &Mutex<Vec<Request>>, answer: &Arc<Answer>) {
    let Some(mut request) = read(stream) else { return };
    {
        let mut seen = seen.lock().unwrap();
        request.number = seen.len();
        seen.push(request.clone());
    }
    answer(&request, stream);
}

/// `None` for what is no HTTP, such as the beginning of TLS.
pub(crate) fn read(stream: &mut dyn Wire) -> Option<Request> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut line = Vec::new();
    reader.by_ref().take(8192).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    if headers.contains_key("expect") {
        reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body, number: 0 })
}

/// A whole answer.
pub(crate) fn reply(wire: &mut dyn Wire, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    let _gone = wire.write_all(head.as_bytes()).and_then(|()| wire.write_all(body));
}

/// The bytes as they are.
pub(crate) fn raw(wire: &mut dyn Wire, text: &str) {
    let _gone = wire.write_all(text.as_bytes());
}
