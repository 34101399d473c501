//! The manual, the README and the profiles say the same.

use std::path::Path;

use casemate::profile::{parse, shipped};

use crate::Home;

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The list in casemate.toml(5), as the profiles make it.
#[test]
fn the_manual_lists_every_shipped_profile_with_its_line() {
    let mut list = String::new();
    for name in shipped() {
        let profile = parse(name, &text(&format!("profiles/{name}.toml"))).unwrap().profile;
        let description = profile.description.unwrap();
        list.push_str(&format!(".It Cm {name}\n{description}.\n"));
        let commands: Vec<String> = profile.commands.into_iter().map(|name| name.0).collect();
        if !commands.is_empty() {
            list.push_str(&format!("Also for\n.Ql {} .\n", commands.join(" ")));
        }
    }
    let page = text("man/casemate.toml.5");
    let begin = page.find(".Sh SHIPPED PROFILES").unwrap();
    let from = begin + page[begin..].find(".It Cm ").unwrap();
    let to = from + page[from..].find(".El").unwrap();
    if std::env::var_os("CASEMATE_BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/casemate.toml.5");
        std::fs::write(path, format!("{}{list}{}", &page[..from], &page[to..])).unwrap();
        return;
    }
    assert_eq!(&page[from..to], list, "CASEMATE_BLESS=1 writes it anew");
}

/// Each is in the README's table once, as proven or not.
#[test]
fn the_readme_says_of_every_profile_what_proves_it() {
    let readme = text("README.md");
    let (_, section) = readme.split_once("\n## Shipped profiles\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut listed: Vec<String> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.split('|').nth(2))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    listed.sort();
    let all: Vec<&str> = shipped().collect();
    assert_eq!(listed, all);
}

#[test]
fn every_shipped_profile_passes_the_check() {
    let home = Home::new();
    for name in shipped() {
        home.casemate(&["profile", "check", name]).output().succeeds();
        home.casemate(&["profile", "show", name]).output().succeeds();
    }
}
