//! `casemate seccomp`

use std::io::IsTerminal;

use crate::cli::{FilterForm, SeccompCommand, SeccompGroupsArgs, SeccompShowArgs};
use crate::confine::seccomp::{disassemble, encode, group, groups, reason};
use crate::error::{Error, Result};
use crate::host::{Directories, Host, Live};
use crate::profile::Library;
use crate::sandbox;
use crate::ui;

pub(super) fn seccomp(command: &SeccompCommand, directories: &Directories) -> Result<()> {
    match command {
        SeccompCommand::Show(args) => show(args, directories),
        SeccompCommand::Groups(args) => list(args),
    }
}

fn show(args: &SeccompShowArgs, directories: &Directories) -> Result<()> {
    let library = Library::new(directories.config.as_deref());
    let profile = library.load(args.profile.as_deref().unwrap_or("default"))?.profile;
    let host = Host::probe(directories, false);
    let filter = sandbox::filter(&profile, false, &host, &Live::default())?;
    let Some(filter) = filter else {
        return Err(Error::new("seccomp: this profile has no filter (base = \"none\")"));
    };
    let lines = |lines: Vec<String>| {
        let text: Vec<String> = lines.iter().map(|line| ui::escape(line) + "\n").collect();
        ui::output(&text.concat())
    };
    match args.form {
        FilterForm::Rules => lines(filter.policy().listing()),
        FilterForm::Pseudo => lines(disassemble(&filter.program()?)),
        FilterForm::Json => ui::json(&filter),
        FilterForm::Raw => {
            if std::io::stdout().is_terminal() {
                return Err(Error::new("seccomp: bytes are not for a terminal")
                    .hint("write them to a file: > filter.bpf"));
            }
            ui::bytes_out(&filter.program()?.iter().flat_map(encode).collect::<Vec<u8>>())
        }
    }
}

fn list(args: &SeccompGroupsArgs) -> Result<()> {
    let mut text = String::new();
    let wanted = |name: &&str| args.group.as_deref().is_none_or(|only| only == *name);
    for name in groups().into_iter().filter(wanted) {
        text.push_str(&format!("{name}\n"));
        for call in group(name) {
            let why = reason(call).unwrap_or("its arguments decide");
            text.push_str(&format!("  {call:<24} {why}\n"));
        }
    }
    match &args.group {
        Some(name) if text.is_empty() => {
            Err(Error::new(format!("seccomp: there is no group named {name:?}"))
                .hint("`casemate seccomp groups` prints all"))
        }
        _ => ui::output(&text),
    }
}
