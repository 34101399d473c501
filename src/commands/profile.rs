//! `casemate profile`

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::profile_edit;
use crate::cli::{
    ProfileCheckArgs, ProfileCommand, ProfileDiffArgs, ProfileListArgs, ProfilePathArgs,
    ProfileShowArgs,
};
use crate::error::{Error, Result};
use crate::host::Directories;
use crate::profile::{Effect, Level, Library, Lint, Paths};
use crate::text::plain;
use crate::ui;

pub(super) fn profile(command: &ProfileCommand, directories: &Directories) -> Result<i32> {
    let library = Library::new(directories.config.as_deref());
    match command {
        ProfileCommand::List(args) => list(args, &library).map(|()| 0),
        ProfileCommand::Show(args) => show(args, &library).map(|()| 0),
        ProfileCommand::Check(args) => check(args, &library, directories),
        ProfileCommand::Diff(args) => diff(args, &library),
        ProfileCommand::New(args) => profile_edit::new(args, &library).map(|()| 0),
        ProfileCommand::Edit(args) => profile_edit::edit(args, &library).map(|()| 0),
        ProfileCommand::Path(args) => path(args, &library).map(|()| 0),
    }
}

fn list(args: &ProfileListArgs, library: &Library) -> Result<()> {
    #[derive(Serialize)]
    struct Row {
        name: String,
        kind: &'static str,
        path: Option<String>,
        description: Option<String>,
        error: Option<String>,
        commands: Vec<String>,
    }
    let all = library.list()?;
    if args.quiet {
        let names: Vec<String> = all.iter().map(|one| ui::escape(&one.name) + "\n").collect();
        return ui::output(&names.concat());
    }
    let rows = all.into_iter().map(|one| Row {
        name: one.name,
        kind: if one.path.is_some() { "user" } else { "shipped" },
        path: one.path.as_deref().map(shown),
        error: one.description.as_ref().err().cloned(),
        description: one.description.ok(),
        commands: one.commands,
    });
    if args.json {
        return ui::json(&rows.collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = rows
        .map(|row| {
            let text = row.description.or(row.error.map(|error| format!("broken: {error}")));
            vec![row.name, row.kind.to_owned(), text.unwrap_or_default()]
        })
        .collect();
    ui::output(&ui::table(&["NAME", "FROM", "DESCRIPTION"], &rows))
}

fn show(args: &ProfileShowArgs, library: &Library) -> Result<()> {
    if args.source {
        let (text, _) = library.source(&args.profile)?;
        let lines: Vec<String> = text.lines().map(|line| escape_line(line) + "\n").collect();
        return ui::output(&lines.concat());
    }
    let layers = library.load(&args.profile)?;
    let table = layers.profile.to_table();
    if args.json {
        return ui::json(&table);
    }
    let text = toml::to_string_pretty(&table)
        .map_err(|error| Error::new(format!("write TOML: {error}")))?;
    let names: Vec<String> = layers.names.iter().map(|name| ui::escape(name)).collect();
    let mut shown = format!("# {}\n", names.join(", "));
    for line in text.lines() {
        shown.push_str(&escape_line(line));
        shown.push('\n');
    }
    ui::output(&shown)
}

/// A tab is no danger, and stays what it was.
fn escape_line(line: &str) -> String {
    line.split('\t').map(ui::escape).collect::<Vec<_>>().join("\t")
}

fn check(args: &ProfileCheckArgs, library: &Library, directories: &Directories) -> Result<i32> {
    #[derive(Serialize)]
    struct Found {
        profile: String,
        #[serde(flatten)]
        lint: Lint,
    }
    let words = match args.profiles.as_slice() {
        [] => {
            let all = library.list()?.into_iter();
            all.filter(|listed| listed.path.is_some()).map(|listed| listed.name).collect()
        }
        words => words.to_vec(),
    };
    let home = directories.caller.home.clone().unwrap_or_else(|| PathBuf::from("/nonexistent"));
    let mut found = Vec::new();
    let mut broken = None;
    for word in words {
        match library.load(&word) {
            Ok(layers) => {
                let lints = layers.profile.lint(&home).into_iter();
                found.extend(lints.map(|lint| Found { profile: word.clone(), lint }));
            }
            // The others are looked at all the same; the last one is the error of the command.
            Err(error) => {
                if let Some(earlier) = broken.replace(error) {
                    ui::error(&earlier);
                }
            }
        }
    }
    if args.json {
        ui::json(&found)?;
    } else {
        let lines: Vec<String> = found
            .iter()
            .map(|Found { profile, lint }| {
                let level = match lint.level {
                    Level::Warning => "warning",
                    Level::Note => "note",
                };
                let line =
                    format!("{profile}: {level}: {}: {} [{}]", lint.place, lint.text, lint.id);
                ui::escape(&line) + "\n"
            })
            .collect();
        ui::output(&lines.concat())?;
    }
    match broken {
        Some(error) => Err(error),
        None => Ok(i32::from(found.iter().any(|one| one.lint.level == Level::Warning))),
    }
}

fn diff(args: &ProfileDiffArgs, library: &Library) -> Result<i32> {
    let (a, b) = (library.load(&args.profile)?, library.load(&args.other_profile)?);
    let mut found = a.profile.differences(&b.profile, Paths::ByName);
    if args.widening {
        found.retain(|difference| difference.effect == Effect::Widens);
    }
    if args.json {
        ui::json(&found)?;
    } else {
        let lines: Vec<String> = found
            .iter()
            .map(|difference| {
                let effect = match difference.effect {
                    Effect::Widens => "widens",
                    Effect::Narrows => "narrows",
                    Effect::Differs => "differs",
                };
                let line = format!("{effect:<8} {} {}", difference.key, difference.text);
                ui::escape(&line) + "\n"
            })
            .collect();
        ui::output(&lines.concat())?;
    }
    Ok(i32::from(!found.is_empty()))
}

fn path(args: &ProfilePathArgs, library: &Library) -> Result<()> {
    let path = match &args.profile {
        None => profile_edit::directory(library)?.to_owned(),
        Some(word) => library.source(word)?.1.ok_or_else(|| {
            Error::new(format!("profile {word}: it is part of casemate and has no file"))
                .hint(format!("casemate profile edit {word}: makes one that builds on it"))
        })?,
    };
    ui::output(&format!("{}\n", ui::escape(&shown(&path))))
}

fn shown(path: &Path) -> String {
    plain(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}
