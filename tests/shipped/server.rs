//! Servers on loopback: one that answers requests of HTTP with what it was given, and one that counts
//! who connects.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct Server {
    pub(crate) port: u16,
    /// The ports of all that have connected, in the order in which they came.
    peers: Arc<Mutex<Vec<u16>>>,
    /// How many there were when somebody asked.
    last: Mutex<usize>,
}

impl Server {
    /// Answers these paths, and any other with 404. It serves as long as the test program runs.
    pub(crate) fn new(answers: impl FnOnce(u16) -> BTreeMap<String, Vec<u8>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let peers = Arc::new(Mutex::new(Vec::new()));
        let (answers, seen) = (Arc::new(answers(port)), Arc::clone(&peers));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.lock().unwrap().push(stream.peer_addr().map_or(0, |peer| peer.port()));
                let answers = Arc::clone(&answers);
                // One who only knocks has gone already.
                std::thread::spawn(move || drop(answer(&stream, &answers)));
            }
        });
        Server { port, peers, last: Mutex::new(0) }
    }

    /// One at which there is nothing to be had.
    pub(crate) fn empty() -> Server {
        Server::new(|_| BTreeMap::new())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// How many have connected, this very question among them. The kernel hands connections over in
    /// the order in which they were made: when the question is seen, so is everybody before.
    fn all(&self) -> usize {
        let question = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let own = question.local_addr().unwrap().port();
        loop {
            let peers = self.peers.lock().unwrap();
            if let Some(index) = peers.iter().rposition(|port| *port == own) {
                return index + 1;
            }
            drop(peers);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// How many have connected since this was asked the last time.
    pub(crate) fn connections(&self) -> usize {
        let mut last = self.last.lock().unwrap();
        let all = self.all();
        all - std::mem::replace(&mut *last, all) - 1
    }
}

fn answer(stream: &TcpStream, answers: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let found = answers.get(path.split('?').next().unwrap_or_default());
    let (status, body) = match found {
        Some(body) => ("200 OK", body.as_slice()),
        None => ("404 Not Found", &b""[..]),
    };
    let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("mp4") => "video/mp4",
        Some("tgz") => "application/octet-stream",
        _ => "application/json",
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(body)?;
    }
    stream.flush()
}
