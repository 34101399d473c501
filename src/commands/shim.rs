//! `casemate shim` and `casemate alias`

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::wrap;
use crate::cli::{AliasArgs, Shell, ShimCommand, ShimInstallArgs, ShimListArgs, ShimRemoveArgs};
use crate::error::{During, Error, Result};
use crate::host::Directories;
use crate::profile::Library;
use crate::ui;

pub(super) fn shim(command: &ShimCommand, directories: &Directories) -> Result<i32> {
    match command {
        ShimCommand::Install(args) => install(args, directories).map(|()| 0),
        ShimCommand::List(args) => list(args, directories).map(|()| 0),
        ShimCommand::Remove(args) => remove(args, directories).map(|()| 0),
        ShimCommand::Doctor(_) => doctor(directories),
    }
}

/// A link, and what comes of it.
#[derive(Debug, Serialize)]
struct Shim {
    name: String,
    profile: Option<String>,
    program: Option<String>,
    #[serde(skip)]
    path: PathBuf,
}

fn install(args: &ShimInstallArgs, directories: &Directories) -> Result<()> {
    let library = Library::new(directories.config.as_deref());
    let own = std::env::current_exe().during("find", "casemate's own program")?;
    let place = wrap::shims(directories.store()?);
    // All are looked at before one is made.
    for name in &args.programs {
        if !wrap::is_plain(name) || name == "casemate" {
            return Err(Error::new(format!("shim {name}: not the name of a program")));
        }
        if library.for_command(name)?.is_none() {
            return Err(Error::new(format!("shim {name}: there is no profile for it"))
                .hint(format!("casemate profile new {name}")));
        }
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&place).at("make", &place)?;
    for name in &args.programs {
        let link = place.join(name);
        if link.is_symlink() {
            std::fs::remove_file(&link).at("replace", &link)?;
        }
        std::os::unix::fs::symlink(&own, &link).at("make", &link)?;
    }
    for finding in findings(directories)? {
        ui::warning(&finding);
    }
    Ok(())
}

fn list(args: &ShimListArgs, directories: &Directories) -> Result<()> {
    let all = installed(directories)?;
    if args.json {
        return ui::json(&all);
    }
    let rows: Vec<Vec<String>> = all
        .into_iter()
        .map(|shim| {
            let word = |value: Option<String>| value.unwrap_or_else(|| "missing".to_owned());
            vec![shim.name, word(shim.profile), word(shim.program)]
        })
        .collect();
    ui::output(&ui::table(&["NAME", "PROFILE", "PROGRAM"], &rows))
}

fn remove(args: &ShimRemoveArgs, directories: &Directories) -> Result<()> {
    let all = installed(directories)?;
    for name in &args.programs {
        if !all.iter().any(|shim| shim.name == *name) {
            return Err(
                Error::new(format!("shim {name}: there is none")).hint("casemate shim list")
            );
        }
    }
    let wanted = |shim: &&Shim| args.all || args.programs.contains(&shim.name);
    for shim in all.iter().filter(wanted) {
        std::fs::remove_file(&shim.path).at("remove", &shim.path)?;
    }
    Ok(())
}

fn doctor(directories: &Directories) -> Result<i32> {
    let found = findings(directories)?;
    let lines: Vec<String> = found.iter().map(|line| ui::escape(line) + "\n").collect();
    ui::output(&lines.concat())?;
    Ok(i32::from(!found.is_empty()))
}

/// The links, sorted.
fn installed(directories: &Directories) -> Result<Vec<Shim>> {
    let place = wrap::shims(directories.store()?);
    let library = Library::new(directories.config.as_deref());
    let entries = match std::fs::read_dir(&place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::os("read", place.display(), &error)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.at("read", &place)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !path.is_symlink() {
            continue;
        }
        let program = wrap::behind(name, directories).map(|path| path.display().to_string());
        let profile = library.for_command(name)?;
        all.push(Shim { name: name.to_owned(), profile, program, path: path.clone() });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Why programs would not start in their boxes.
fn findings(directories: &Directories) -> Result<Vec<String>> {
    let place = wrap::shims(directories.store()?);
    let own = std::env::current_exe().ok().and_then(|own| std::fs::canonicalize(own).ok());
    let search = wrap::search_path();
    let at = search.iter().position(|directory| *directory == place);
    let mut found = Vec::new();
    let all = installed(directories)?;
    if !all.is_empty() && at.is_none() {
        found.push(format!(
            "the directory of the shims is not in PATH: put `export PATH=\"{}:$PATH\"` where your shell reads it",
            place.display()
        ));
    }
    for shim in all {
        let name = &shim.name;
        let leads = std::fs::canonicalize(&shim.path).ok();
        if leads.is_none() || leads != own {
            found.push(format!(
                "{name}: the shim leads to another casemate, or nowhere: casemate shim install {name}"
            ));
        }
        if shim.profile.is_none() {
            found.push(format!("{name}: there is no profile for it: casemate shim remove {name}"));
        }
        let Some(program) = shim.program else {
            found.push(format!("{name}: there is no program of this name behind the shim"));
            continue;
        };
        let directory = Path::new(&program).parent();
        let before = search.iter().position(|place| Some(place.as_path()) == directory);
        if let (Some(at), Some(before)) = (at, before)
            && before < at
        {
            found.push(format!(
                "{name}: {program} comes first in PATH, and starts without a box: put the directory of the shims first"
            ));
        }
    }
    Ok(found)
}

/// `casemate alias`
pub(super) fn alias(args: &AliasArgs, directories: &Directories) -> Result<()> {
    let library = Library::new(directories.config.as_deref());
    let names = if args.programs.is_empty() {
        let mut names: Vec<String> = library
            .list()?
            .into_iter()
            .filter(|listed| listed.description.is_ok() && listed.name != "default")
            .flat_map(|listed| [listed.name].into_iter().chain(listed.commands))
            .filter(|name| wrap::is_plain(name) && wrap::behind(name, directories).is_some())
            .collect();
        names.sort();
        names.dedup();
        names
    } else {
        for name in &args.programs {
            if !wrap::is_plain(name) || library.for_command(name)?.is_none() {
                return Err(Error::new(format!("alias {name}: there is no profile for it"))
                    .hint("casemate profile list"));
            }
        }
        args.programs.clone()
    };
    let line = |name: &String| match args.shell {
        Shell::Bash | Shell::Zsh => format!("alias {name}='casemate {name}'\n"),
        Shell::Fish => format!("alias {name} 'casemate {name}'\n"),
    };
    ui::output(&names.iter().map(line).collect::<String>())
}
