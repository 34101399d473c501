//! What is seen of a pull: bars on a terminal, lines in a pipe, nothing when quiet; and that nothing
//! foreign drives the terminal.

use crate::archives::{Entry, archive};
use crate::common::Pty;
use crate::images::Layer;
use crate::link::Link;
use crate::scene::Scene;
use crate::server::{Server, reply};

/// A scene behind a slow link, with an image of three layers; its name.
fn slow(rate: u64) -> (Scene, Link, String) {
    let scene = Scene::new();
    let layers = ["a", "b", "c"].map(|name| Layer::noise(name, 250_000));
    scene.put("team/app", &layers);
    let link = Link::new(scene.registry.host(), 0, rate);
    scene.home.insecure(&[&link.host()]);
    let name = format!("{}/team/app", link.host());
    (scene, link, name)
}

/// What stands on a screen of so many columns after all this was written to it.
fn shown(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0usize, 0usize);
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(rest.next(), Some('['), "{text:?}");
                let mut number = String::new();
                while let Some(digit) = rest.next_if(|c| c.is_ascii_digit() || *c == '?') {
                    number.push(digit);
                }
                let count = number.parse().unwrap_or(1);
                match rest.next().unwrap() {
                    'A' => row = row.saturating_sub(count),
                    'B' => row += count,
                    'C' => column += count,
                    'D' => column = column.saturating_sub(count),
                    'K' => match number.as_str() {
                        "2" => lines[row].clear(),
                        "1" => panic!("{text:?}"),
                        _ => lines[row].truncate(column),
                    },
                    'J' => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    'm' | 'h' | 'l' => (),
                    other => panic!("{other:?} in {text:?}"),
                }
            }
            letter => {
                if column == columns {
                    (row, column) = (row + 1, 0);
                }
                while lines.len() <= row {
                    lines.push(Vec::new());
                }
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = letter;
                column += 1;
            }
        }
        while lines.len() <= row {
            lines.push(Vec::new());
        }
    }
    let lines = lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
    let mut lines: Vec<_> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

#[test]
fn bars_on_a_terminal_that_are_gone_at_the_end() {
    let (scene, link, name) = slow(250 << 10);
    let home = &scene.home;
    for columns in [80, 40, 200] {
        let words = ["pull", &name];
        let mut screen = Pty::sized(home.casemate(words), 24, columns);
        screen.expect("KiB of");
        screen.expect("layer 1 of 3");
        screen.expect("KiB/s");
        let (status, text) = screen.end();
        assert!(status.success(), "{text}");
        // No line is as long as the screen is wide, so that none is broken into two.
        let left = shown(&text, columns.into());
        let summary = "3 layers new";
        let joined = left.join("");
        assert!(joined.starts_with("casemate: pulled ") && joined.contains(summary), "{left:#?}");
        assert!(joined.ends_with(&name), "only the message and the name: {left:#?}");
        let lengths: usize = left.iter().map(String::len).sum();
        assert!(lengths < 2 * name.len() + 80, "{left:#?}");
        // Ten pictures a second at the most, and no more of each than what it is.
        assert!(text.len() < 60_000, "{} bytes for three seconds", text.len());
        assert!(!text.contains("\x1b[?25l") || text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"));
        home.casemate(["rmi", &name]).output().succeeds();
    }
    drop(link);
}

#[test]
fn a_message_stands_above_the_bars() {
    let (scene, link, name) = slow(150 << 10);
    let mut screen = Pty::start(scene.home.casemate(["pull", &name]));
    screen.expect("layer 1 of 3");
    link.fault.cut.store(1, std::sync::atomic::Ordering::Relaxed);
    screen.expect("trying again in");
    link.fault.cut.store(0, std::sync::atomic::Ordering::Relaxed);
    let (status, text) = screen.end();
    assert!(status.success(), "{text}");
    let left = shown(&text, 80);
    assert!(
        left[0].starts_with(&format!("casemate: {}: the connection", link.host())),
        "{left:#?}"
    );
    assert_eq!(left.last(), Some(&name), "{left:#?}");
    assert!(!left.iter().any(|line| line.contains("[=")), "{left:#?}");
}

#[test]
fn lines_in_a_pipe_and_none_when_quiet() {
    let (scene, link, name) = slow(0);
    let output = scene.home.casemate(["pull", &name]).output().succeeds();
    assert_eq!(output.text(), name);
    let err = output.err();
    assert!(!err.contains('\x1b') && !err.contains('\r'), "{err:?}");
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), 5, "{err}");
    assert_eq!(lines[0], format!("casemate: pulling {name}: 3 layers, 738 KiB"));
    for number in 1..4 {
        let start = format!("casemate: layer {number} of 3: ");
        assert!(lines[1..4].iter().any(|line| line.starts_with(&start)), "{err}");
    }
    assert!(lines[4].starts_with(&format!("casemate: pulled {name}: 3 layers new (")), "{err}");
    // On a terminal that cannot move its cursor, too.
    scene.home.casemate(["rmi", &name]).output().succeeds();
    let script = "TERM=dumb exec $casemate pull $name";
    let bash = scene.home.dress(crate::common::Run::bash(script).env("name", &name));
    let (status, text) = Pty::start(bash).end();
    assert!(status.success() && !text.contains('\x1b'), "{text:?}");
    for words in [&["rmi", &name][..], &["pull", "-q", &name], &["pull", "-q", &name]] {
        let output = scene.home.casemate(words).output().succeeds();
        assert!(words[0] == "rmi" || output.err().is_empty(), "{}", output.err());
    }
    scene.home.casemate(["rmi", &name]).output().succeeds();
    link.set_rate(400 << 10);
    let (status, text) = Pty::start(scene.home.casemate(["pull", "-q", &name])).end();
    assert!(status.success());
    assert_eq!(text, format!("{name}\r\n"));
}

#[test]
fn nothing_foreign_drives_the_terminal() {
    // What a registry says in its refusals, and what an archive calls its files.
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}1A\u{202e}";
    let answer = serde_json::json!({ "errors": [{ "code": "DENIED", "message": evil }] });
    let server = Server::new(move |_, wire| reply(wire, 403, &[], answer.to_string().as_bytes()));
    let scene = Scene::new();
    scene.home.insecure(&[&server.host(), &scene.registry.host()]);
    let bad = Layer::plain(archive([Entry::file(format!("../{evil}"), "x")]));
    let image = scene.put("app", &[bad]);
    for name in [format!("{}/app", server.host()), image] {
        let (status, text) = Pty::start(scene.home.casemate(["pull", &name])).end();
        assert_eq!(status.code(), Some(125));
        assert!(text.contains("casemate: pull ") || text.contains("casemate: read "), "{text:?}");
        for dangerous in ["\x1b]", "\x07", "\x1b[2J\r", "\u{9b}", "\u{202e}"] {
            assert!(!text.contains(dangerous), "{dangerous:?} in {text:?}");
        }
    }
    // A name that is none is refused before anybody is asked.
    let before = server.requests().len();
    let output = scene.home.casemate(["pull", &format!("{}/{evil}", server.host())]).output();
    let output = output.fails(125);
    assert!(!output.err().contains('\x1b'), "{:?}", output.err());
    assert_eq!(server.requests().len(), before);
}
