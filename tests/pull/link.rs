//! A link between casemate and a registry that is slow, or breaks.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBuf;

const PIECE: usize = 16 << 10;

/// What the link does to what comes from the registry.
#[derive(Default)]
pub(crate) struct Fault {
    /// It breaks after so many bytes, each connection anew; 0 is never.
    pub(crate) cut: AtomicU64,
    /// It lets so many bytes through in a second, each connection; 0 is all.
    pub(crate) rate: AtomicU64,
    passed: AtomicU64,
    cuts: AtomicU64,
}

/// A port that leads to a registry.
pub(crate) struct Link {
    address: SocketAddr,
    pub(crate) fault: Arc<Fault>,
}

impl Link {
    pub(crate) fn new(to: String, cut: u64, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fault = Arc::new(Fault { cut: cut.into(), rate: rate.into(), ..Fault::default() });
        let shared = Arc::clone(&fault);
        // It ends with the test program.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // As long as the registry is away, whoever comes is sent away.
                let Ok(server) = TcpStream::connect(&to) else { continue };
                // What the kernel keeps would come even from a registry that is dead.
                setsockopt(&server, RcvBuf, &(64 << 10)).unwrap();
                let (from, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || copy(&from, &back, &Fault::default()));
                let fault = Arc::clone(&shared);
                std::thread::spawn(move || copy(&server, &client, &fault));
            }
        });
        Link { address, fault }
    }

    /// `HOST:PORT`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// How much came from the registry.
    pub(crate) fn passed(&self) -> u64 {
        self.fault.passed.load(Ordering::Relaxed)
    }

    /// How often it broke.
    pub(crate) fn cuts(&self) -> u64 {
        self.fault.cuts.load(Ordering::Relaxed)
    }

    /// Another rate, from now on.
    pub(crate) fn set_rate(&self, rate: u64) {
        self.fault.rate.store(rate, Ordering::Relaxed);
    }

    /// Waits until so much came.
    #[track_caller]
    pub(crate) fn wait_for(&self, bytes: u64) {
        for _ in 0..4000 {
            if self.passed() >= bytes {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("only {} of {bytes} bytes came", self.passed());
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, fault: &Fault) {
    let mut piece = vec![0; PIECE];
    let mut count = 0;
    while let Ok(read) = from.read(&mut piece) {
        if read == 0 || to.write_all(&piece[..read]).is_err() {
            break;
        }
        count += read as u64;
        fault.passed.fetch_add(read as u64, Ordering::Relaxed);
        let (cut, rate) = (fault.cut.load(Ordering::Relaxed), fault.rate.load(Ordering::Relaxed));
        if cut > 0 && count >= cut {
            fault.cuts.fetch_add(1, Ordering::Relaxed);
            break;
        }
        if rate > 0 {
            std::thread::sleep(Duration::from_secs_f64(read as f64 / rate as f64));
        }
    }
    let _gone = from.shutdown(Shutdown::Both);
    let _gone = to.shutdown(Shutdown::Both);
}
