//! The network: none by default, the host's when asked.

use std::io::Write;
use std::net::TcpListener;

use crate::common::casemate;

#[test]
fn without_asking_there_is_only_an_empty_loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"from the host\n");
        }
    });
    let get = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && cat <&3");
    let reach =
        |mode: &[&str]| casemate(["run"]).args(mode).args(["--", "bash", "-c", &get]).output();

    assert_eq!(reach(&["--network", "host"]).text(), "from the host", "the control");
    for mode in [&[][..], &["--network", "none"]] {
        let output = reach(mode);
        assert_eq!(output.code(), Some(1));
        assert!(output.err().contains("Connection refused"), "{output:?}");
    }
    let devices = casemate(["run", "--", "cat", "/proc/net/dev"]).text();
    let names: Vec<&str> = devices.lines().skip(2).filter_map(|l| l.split(':').next()).collect();
    assert!(
        names.iter().all(|name| ["lo", "tunl0", "sit0", "ip6tnl0"].contains(&name.trim())),
        "{devices}"
    );
}

#[test]
fn the_loopback_of_a_box_works() {
    let script = "import socket\n\
                  s = socket.create_server(('127.0.0.1', 0))\n\
                  c = socket.create_connection(s.getsockname())\n\
                  a, _ = s.accept(); c.sendall(b'looped'); print(a.recv(10).decode())";
    let name = crate::common::image(crate::common::Image::Debian);
    let run = casemate(["run", "--image", &name, "--", "python3", "-c", script]);
    assert_eq!(run.text(), "looped");
}

#[test]
fn a_mode_that_does_not_exist_is_refused() {
    let output = casemate(["run", "--network", "everything", "--", "true"]).output();
    output.refuses(125, &["everything"]);
}
