//! Interpreters.

use std::collections::BTreeMap;

use crate::Home;
use crate::server::Server;

/// Programs that print the files that they are given, and then try to reach a port: each says what it
/// has read, and `reached` where it could connect.
fn reads_and_knocks(home: &Home, program: &str, script: &str) {
    let server = Server::empty();
    let port = server.port.to_string();
    let words = [program, script, "data", "../secret", &port];
    home.file("data", "data-of-the-project\n");
    let control = words.join(" ");
    let output = home.outside(&control).output();
    assert!(output.out().contains("reached"), "{control}: {}{}", output.out(), output.err());
    assert_eq!(server.connections(), 1, "{control}");
    home.keeps_the_secret(&control, home.casemate(&words));
    server.connections();
    let output = home.casemate(&words).output();
    assert!(output.out().contains("data-of-the-project"), "{control}: {}", output.err());
    assert!(!output.out().contains("reached"), "{control}");
    assert_eq!(server.connections(), 0, "{control}");
}

#[test]
fn node_runs_a_script() {
    let home = Home::new();
    let script = "const fs = require('fs'), net = require('net');
for (const name of process.argv.slice(2, 4)) try { console.log(fs.readFileSync(name, 'utf8')) } catch (e) { console.log(e.code) }
net.connect(+process.argv[4], '127.0.0.1', function () { console.log('reached'); this.destroy() }).on('error', e => console.log(e.code));
";
    home.file("x.js", script);
    reads_and_knocks(&home, "node", "x.js");
    // Workers and the just-in-time compiler.
    let threads = "const { Worker } = require('worker_threads'); new Worker('let s = 0; for (let i = 0; i < 1e7; i++) s += i % 7; console.log(s)', { eval: true })";
    assert_eq!(home.casemate(&["node", "-e", threads]).text(), "29999994");
}

#[test]
fn python_runs_a_script() {
    let home = Home::new();
    let script = "import socket, sys
for name in sys.argv[1:3]:
    try: print(open(name).read())
    except OSError as e: print(e)
try: socket.create_connection(('127.0.0.1', int(sys.argv[3]))); print('reached')
except OSError as e: print(e)
";
    home.file("x.py", script);
    reads_and_knocks(&home, "python3", "x.py");
    let pool = "import multiprocessing as m\nif __name__ == '__main__': print(m.Pool(2).map(abs, [-1, 2]))";
    home.file("pool.py", pool);
    assert_eq!(home.casemate(&["python3", "pool.py"]).text(), "[1, 2]");
}

#[test]
fn perl_runs_a_script() {
    let home = Home::new();
    let script = "use IO::Socket::INET;
for (@ARGV[0, 1]) { if (open my $f, '<', $_) { print <$f>, \"\\n\" } else { print \"$!\\n\" } }
print IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $ARGV[2]) ? \"reached\\n\" : \"$!\\n\";
";
    home.file("x.pl", script);
    reads_and_knocks(&home, "perl", "x.pl");
}

#[test]
fn ruby_runs_a_script() {
    let home = Home::new();
    let script = "require 'socket'
ARGV[0, 2].each { |name| begin puts File.read(name) rescue puts $! end }
begin TCPSocket.new('127.0.0.1', ARGV[2]); puts 'reached' rescue puts $! end
";
    home.file("x.rb", script);
    reads_and_knocks(&home, "ruby", "x.rb");
}

#[test]
fn php_runs_a_script() {
    let home = Home::new();
    let script = "<?php
foreach (array_slice($argv, 1, 2) as $name) echo @file_get_contents($name) ?: 'no', \"\\n\";
echo @fsockopen('127.0.0.1', $argv[3]) ? 'reached' : 'refused', \"\\n\";
";
    home.file("x.php", script);
    reads_and_knocks(&home, "php", "x.php");
}

#[test]
fn java_compiles_and_runs_a_program() {
    let home = Home::new();
    let program = "import java.net.*; import java.nio.file.*;
class X {
    public static void main(String[] words) throws Exception {
        for (int i = 0; i < 2; i++) try { System.out.println(Files.readString(Path.of(words[i]))); } catch (Exception e) { System.out.println(e); }
        try { new Socket(\"127.0.0.1\", Integer.parseInt(words[2])); System.out.println(\"reached\"); } catch (Exception e) { System.out.println(e); }
    }
}
";
    home.file("X.java", program);
    reads_and_knocks(&home, "java", "X.java");
    home.casemate(&["javac", "X.java"]).output().succeeds();
    assert!(home.has("X.class"));
}

#[test]
fn shellcheck_finds_a_fault() {
    let home = Home::new();
    home.file("x.sh", "#!/bin/sh\necho $1\n");
    let output = home.casemate(&["shellcheck", "x.sh"]).output().fails(1);
    assert!(output.out().contains("SC2086"), "{}", output.out());
    let read = "shellcheck -x ../secret";
    home.keeps_the_secret(read, home.casemate(&["shellcheck", "-x", "../secret"]));
}

/// A package from a registry, with a script of its own that looks for the secret.
#[test]
fn npm_installs_a_package_from_a_registry_and_from_a_file() {
    let home = Home::new();
    let script = "cat ../../../secret ~/secret >stolen 2>/dev/null; echo ran >ran; true";
    let package = |name: &str| {
        format!(
            "{{\"name\":\"{name}\",\"version\":\"1.0.0\",\"bin\":\"x.js\",\"scripts\":{{\"postinstall\":\"{script}\"}}}}"
        )
    };
    for name in ["fetched", "local"] {
        home.file(&format!("{name}/package.json"), package(name));
        home.file(&format!("{name}/x.js"), "#!/usr/bin/env node\nconsole.log(6 * 7)\n");
        home.script(&format!("cd {name}; casemate npm pack")).output().succeeds();
    }
    let tarball = std::fs::read(home.at("project/fetched/fetched-1.0.0.tgz")).unwrap();
    let server = Server::new(|port| {
        let dist = format!("{{\"tarball\":\"http://127.0.0.1:{port}/fetched.tgz\"}}");
        let version =
            format!("{},\"dist\":{dist}}}", package("fetched").strip_suffix('}').unwrap());
        let all = format!(
            "{{\"name\":\"fetched\",\"dist-tags\":{{\"latest\":\"1.0.0\"}},\"versions\":{{\"1.0.0\":{version}}}}}"
        );
        BTreeMap::from([
            ("/fetched".to_owned(), all.into_bytes()),
            ("/fetched.tgz".to_owned(), tarball),
        ])
    });
    home.space.file(".npmrc", "//registry/:_authToken=the-token\n");
    home.file(
        "app/package.json",
        "{\"name\":\"app\",\"allowScripts\":{\"fetched\":true,\"local\":true}}",
    );
    home.outside("cp local/local-1.0.0.tgz app/").output().succeeds();
    let install = "cd app; casemate npm install --foreground-scripts fetched ./local-1.0.0.tgz; casemate npx fetched";
    let run = home.script(install).env("npm_config_registry", server.url("/"));
    let output = run.output().succeeds();
    assert!(output.out().ends_with("42\n"), "{}{}", output.out(), output.err());
    assert!(server.connections() > 0);
    for name in ["fetched", "local"] {
        assert_eq!(home.read(&format!("app/node_modules/{name}/ran")), "ran\n", "{name}");
        assert_eq!(home.read(&format!("app/node_modules/{name}/stolen")), "", "{name}");
    }
    let token = home.script("casemate npm config get //registry/:_authToken").output();
    assert!(!token.out().contains("the-token"), "{}", token.out());
    assert!(!home.space.path().join(".npm").exists(), "the user's own cache is left alone");
    assert!(
        home.space
            .path()
            .join(".local/share/casemate/persistent/.npm%2F_cacache/content-v2")
            .exists()
    );
}
