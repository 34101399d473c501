//! The manual is complete: what the program knows, its pages say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use casemate::cli::Cli;
use casemate::error::Exit;
use casemate::host::{IDS, Step};
use casemate::profile::parse;
use clap::CommandFactory;

fn manual() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

fn page(name: &str) -> String {
    let path = manual().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether the word stands in the text with neither end inside a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let is_inner = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_inner) && !after.is_some_and(is_inner)
    })
}

/// Whether the page names the option: every flag of mdoc(7) is an argument of `Fl`, of which one
/// may have several.
fn has_flag(text: &str, flag: &str) -> bool {
    text.lines().filter(|line| line.starts_with('.')).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.windows(2).any(|pair| pair[0].ends_with("Fl") && pair[1] == flag)
    })
}

/// Whether the page has the word as an argument of `Cm`, as it has every key.
fn has_key(text: &str, key: &str) -> bool {
    let mut lines = text.lines().filter(|line| line.starts_with('.') && line.contains("Cm "));
    lines.any(|line| line.split_whitespace().any(|word| word == key))
}

/// The words between backquotes after "expected".
fn expected(message: &str) -> Vec<String> {
    let (_, list) = message.split_once("expected").unwrap_or_else(|| panic!("{message}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The keys of a table, as the strict parser lists them. `text` holds the key `nothing` there.
fn keys(text: &str) -> Vec<String> {
    let error = parse("p", text).unwrap_err().to_string();
    assert!(error.contains("unknown field `nothing`"), "{text}: {error}");
    expected(&error)
}

const TABLES: [&str; 10] = [
    "root",
    "identity",
    "program",
    "files",
    "environment",
    "network",
    "limits",
    "capabilities",
    "seccomp",
    "lsm",
];

#[test]
fn every_option_is_in_its_commands_page() {
    let mut cli = Cli::command();
    cli.build();
    let mut pages = vec![(cli.clone(), "casemate.1".to_owned())];
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("casemate-{}.1", command.get_name());
        assert!(has_word(&page("casemate.1"), command.get_name()), "{}", command.get_name());
        // A command below a command is in the page of that.
        for inner in command.get_subcommands() {
            assert!(has_key(&page(&name), inner.get_name()), "{}", inner.get_name());
            pages.push((inner.clone(), name.clone()));
        }
        pages.push((command.clone(), name));
    }
    assert!(pages.len() > 5);
    for (command, name) in pages {
        let text = page(&name);
        for argument in command.get_arguments() {
            let longs = argument.get_long_and_visible_aliases().unwrap_or_default();
            for long in longs {
                assert!(has_flag(&text, &format!("-{long}")), "{name}: --{long}");
            }
            for short in argument.get_short_and_visible_aliases().unwrap_or_default() {
                assert!(has_flag(&text, &short.to_string()), "{name}: -{short}");
            }
        }
    }
}

/// Also the other way round: no page of `run` or `explain` has an option that is none.
#[test]
fn no_option_is_invented() {
    let mut cli = Cli::command();
    cli.build();
    let known: BTreeSet<String> = cli
        .get_subcommands()
        .flat_map(|command| command.get_subcommands().chain([command]))
        .chain([&cli])
        .flat_map(|command| command.get_arguments())
        .filter_map(clap::Arg::get_long_and_visible_aliases)
        .flatten()
        .map(|long| format!("-{long}"))
        .collect();
    for name in names() {
        let text = page(&name);
        for line in text.lines().filter(|line| line.starts_with('.')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[0].ends_with("Fl")) {
                let long = pair[1].starts_with('-') && pair[1] != "-";
                assert!(!long || known.contains(pair[1]), "{name}: -{}", pair[1]);
            }
        }
    }
}

#[test]
fn every_key_of_the_profile_language_is_in_its_page() {
    let text = page("casemate.toml.5");
    let mut all = keys("nothing = 1");
    for table in TABLES {
        assert!(all.iter().any(|key| key == table), "{table}");
        assert!(text.contains(&format!("[{table}]")), "{table} has no section");
        all.extend(keys(&format!("[{table}]\nnothing = 1")));
    }
    all.extend(keys("[files]\nread = [{ path = \"/a\", nothing = 1 }]"));
    all.extend(keys("[files]\npersist = [{ path = \"~/a\", nothing = 1 }]"));
    all.extend(keys("[files]\ntmpfs = [{ path = \"/a\", nothing = 1 }]"));
    let rule = "[[seccomp.rule]]\ncalls = [\"read\"]\naction = \"deny\"\n";
    all.extend(keys(&format!("{rule}nothing = 1")));
    all.extend(keys(&format!("{rule}args = [{{ index = 1, value = 1, nothing = 1 }}]")));
    assert!(all.len() > 50, "{all:?}");
    for key in all.iter().filter(|key| !TABLES.contains(&key.as_str())) {
        assert!(has_key(&text, key), "{key}");
    }
}

/// A table that is in the language and not in `TABLES` would escape the test above.
#[test]
fn every_table_is_looked_into() {
    for key in keys("nothing = 1") {
        let error = parse("p", &format!("[{key}]\nnothing = 1")).unwrap_err().to_string();
        if error.contains("unknown field `nothing`") {
            assert!(TABLES.contains(&key.as_str()), "{key}");
        }
    }
}

#[test]
fn every_reserved_key_is_listed_as_one() {
    let text = page("casemate.toml.5");
    let (_, reserved) = text.split_once(".Sh RESERVED KEYS").unwrap();
    let (reserved, _) = reserved.split_once(".Sh ").unwrap();
    // Where the key stands: `files.overlay` is reserved, `root.overlay` is not.
    let tables = TABLES.iter().map(|table| (*table, format!("[{table}]\n")));
    for (table, heading) in std::iter::once(("top level", String::new())).chain(tables) {
        let item = reserved.split(".It ").find(|item| item.lines().next() == Some(table));
        for key in keys(&format!("{heading}nothing = 1")) {
            let refused = parse("p", &format!("{heading}{key} = 1"))
                .is_err_and(|error| error.to_string().contains("this key is reserved"));
            let listed = item.is_some_and(|item| has_key(item, &key));
            assert_eq!(refused, listed, "{table}: {key}");
        }
    }
}

#[test]
fn every_word_that_a_key_takes_is_in_the_page() {
    let text = page("casemate.toml.5");
    for profile in [
        "may-degrade = [\"?\"]",
        "[root]\noverlay = \"?\"",
        "[root]\npull = \"?\"",
        "[root]\nscratch = \"?\"",
        "[identity]\nids = \"?\"",
        "[program]\nterminal = \"?\"",
        "[network]\nmode = \"?\"",
        "[limits.rlimits]\n\"?\" = 1",
        "[seccomp]\nbase = \"?\"",
        "[[seccomp.rule]]\ncalls = [\"read\"]\naction = \"?\"",
    ] {
        let error = parse("p", profile).unwrap_err().to_string();
        let (_, words) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
        for word in words.split(", ") {
            assert!(has_word(&text, word), "{profile}: {word}");
        }
    }
}

#[test]
fn every_name_of_a_group_or_protected_path_is_in_the_page() {
    let text = page("casemate.toml.5");
    for group in casemate::confine::seccomp::groups() {
        assert!(text.contains(&format!(".It Cm {group}\n")), "{group}");
    }
    for name in casemate::profile::protected::names() {
        assert!(has_key(&text, &name), "{name}");
    }
}

/// The examples of the page are profiles that are read without an error.
#[test]
fn the_examples_of_profiles_are_profiles() {
    let text = page("casemate.toml.5");
    let (_, examples) = text.split_once(".Sh EXAMPLES").unwrap();
    let blocks: Vec<&str> = examples
        .split(".Bd -literal -offset indent\n")
        .skip(1)
        .map(|block| block.split(".Ed").next().unwrap())
        .collect();
    assert!(blocks.len() > 2);
    for block in blocks {
        parse("example", block).unwrap_or_else(|error| panic!("{block}{error}"));
    }
}

#[test]
fn the_error_that_the_page_shows_is_the_programs() {
    let error = parse("./build.toml", "[root]\nimage = \"debian\"\nread-onyl = true").unwrap_err();
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = format!("casemate: {error} {}", error.excerpt_text().unwrap());
    assert!(plain(&page("casemate.toml.5")).contains(&plain(&shown)), "{shown}");
}

#[test]
fn every_exit_code_is_in_the_pages() {
    for name in ["casemate.1", "casemate-run.1"] {
        let text = page(name);
        let (_, section) = text.split_once(".Sh EXIT STATUS").unwrap();
        let (section, _) = section.split_once("\n.Sh ").unwrap();
        let own =
            [Exit::TimedOut, Exit::Failed, Exit::CannotExecute, Exit::NotFound, Exit::OutOfMemory];
        for exit in own {
            assert!(section.contains(&format!(".It {}\n", exit.code())), "{name}: {exit:?}");
        }
        assert!(section.contains(".It 128+n\n"), "{name}");
    }
}

#[test]
fn every_step_and_finding_is_in_the_doctors_page() {
    let text = page("casemate-doctor.1");
    for step in Step::ALL {
        assert!(text.contains(&format!("\n{}\n", step.title())), "{}", step.title());
        let name = serde_json::to_value(step).unwrap();
        let name = name.as_str().unwrap();
        assert!(text.contains(&format!(".It {name}\n")), "{name}");
    }
    let sources = [
        include_str!("../src/host/diagnosis.rs"),
        include_str!("../src/host/notes.rs"),
        include_str!("../src/commands/doctor.rs"),
    ];
    // An id is the first argument of what makes a finding.
    let made: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| ["fatal(", "warning(", "note("].map(|call| source.split(call).skip(1)))
        .flatten()
        .filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    assert_eq!(made, BTreeSet::from(IDS));
    for id in IDS {
        let is_there = text.lines().any(|line| {
            let listed = line.strip_prefix(".It ").unwrap_or_default();
            listed.split(" , ").any(|word| word == id)
        });
        assert!(is_there, "{id}");
    }
}

#[test]
fn every_key_of_the_doctors_json_is_in_its_page() {
    let output = common::casemate(["doctor", "--json"]).output();
    let report: serde_json::Value = serde_json::from_str(&output.out()).unwrap();
    let text = page("casemate-doctor.1");
    let lists = ["steps", "findings", "ids"].map(|list| &report[list][0]);
    for value in lists.into_iter().chain([&report]) {
        for key in value.as_object().unwrap().keys() {
            assert!(has_key(&text, key), "{key}");
        }
    }
}

#[test]
fn every_key_of_the_plan_as_json_is_in_its_page() {
    let output = common::casemate(["explain", "--json", "--", "true"]).output().succeeds();
    let plan: serde_json::Value = serde_json::from_str(&output.out()).unwrap();
    let text = page("casemate-explain.1");
    for (key, value) in plan.as_object().unwrap() {
        assert!(text.contains(&format!(".It Cm {key}\n")), "{key}");
        let inner = if matches!(key.as_str(), "program" | "identity" | "landlock") {
            value.as_object()
        } else {
            None
        };
        for key in inner.into_iter().flat_map(|inner| inner.keys()) {
            assert!(has_key(&text, key), "{key}");
        }
    }
}

#[test]
fn every_key_of_the_images_as_json_is_in_its_page() {
    let source = include_str!("../src/commands/images.rs");
    let keys: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\": summary."))
        .map(|(key, _)| key)
        .collect();
    assert!(keys.len() >= 5, "{keys:?}");
    for key in keys {
        assert!(page("casemate-images.1").contains(&format!(".It Cm {key}\n")), "{key}");
    }
}

#[test]
fn every_key_of_other_json_is_in_its_page() {
    let small = common::image(common::Image::Small);
    for (words, page_name) in [
        (&["inspect", "--json", &small][..], "casemate-inspect.1"),
        (&["store", "usage", "--json"], "casemate-store.1"),
        (&["store", "check", "--json"], "casemate-store.1"),
        (&["prune", "--dry-run", "--json"], "casemate-prune.1"),
    ] {
        let output = common::casemate(words.iter().copied()).output().succeeds();
        let json: serde_json::Value = serde_json::from_str(&output.out()).unwrap();
        let whole = json.get(0).unwrap_or(&json).as_object().unwrap();
        let inner = ["layers", "images"].iter().filter_map(|key| whole.get(*key)?.get(0));
        let inner = inner.filter_map(serde_json::Value::as_object);
        let keys: Vec<&String> = inner.chain([whole]).flat_map(|object| object.keys()).collect();
        assert!(keys.len() >= 3, "{keys:?}");
        for key in keys {
            assert!(page(page_name).contains(&format!(".It Cm {key}\n")), "{page_name}: {key}");
        }
        if let Some(config) = whole.get("config").and_then(serde_json::Value::as_object) {
            assert!(config.keys().all(|key| has_key(&page(page_name), key)));
        }
    }
}

/// The names of the pages, sorted.
fn names() -> Vec<String> {
    let entries = std::fs::read_dir(manual()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_page_is_installed_and_says_what_it_is() {
    let makefile =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile")).unwrap();
    assert!(makefile.contains("man/*.[15]"), "the pattern of `make install` is another");
    for name in names() {
        let (title, section) = name.rsplit_once('.').unwrap();
        assert!(matches!(section, "1" | "5"), "{name} is not installed");
        let text = page(&name);
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with(".Dd "), "{name} has no date");
        assert_eq!(lines.next().unwrap(), format!(".Dt {} {section}", title.to_uppercase()));
        assert!(text.contains(&format!("\n.Nm {title}\n.Nd ")), "{name} has no name line");
    }
}

#[test]
fn pages_refer_to_pages_that_are_there() {
    let names = names();
    for name in &names {
        for line in page(name).lines().filter(|line| line.starts_with(".Xr casemate")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let file = format!("{}.{}", words[1], words[2]);
            assert!(names.contains(&file), "{name}: {file}");
        }
    }
}
