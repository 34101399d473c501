//! `casemate trust`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::cli::TrustArgs;
use crate::error::{During, Error, Result};
use crate::host::Directories;
use crate::profile::{Difference, Layers, Library, PROJECT_FILE, Project, Trust};
use crate::ui;

pub(super) fn trust(args: &TrustArgs, directories: &Directories) -> Result<()> {
    let trust = Trust::new(directories.store()?);
    if args.list {
        let lines: Vec<String> = trust
            .list()?
            .iter()
            .map(|path| ui::escape(&path.display().to_string()) + "\n")
            .collect();
        return ui::output(&lines.concat());
    }
    if args.revoke {
        return revoke(args, &trust, directories);
    }
    let project = chosen(args.project.as_deref(), directories)?;
    let library = Library::new(directories.config.as_deref());
    let (_, widening) = project.over(&library, library.default_layers()?)?;
    if trust.holds(&project)? {
        ui::note(&format!("{} is trusted already", project.path.display()));
        return Ok(());
    }
    ui::output(&format!(
        "{}\n{}",
        ui::escape(&project.path.display().to_string()),
        lines(&widening)
    ))?;
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Error::new("trust: there is no terminal to ask at")
                .hint("--yes trusts it without asking"));
        }
        let answer =
            ui::ask("Let every box that is started below its directory have this? [y/N] ")?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Error::new("trust: nothing was changed"));
        }
    }
    trust.add(&project)
}

fn revoke(args: &TrustArgs, trust: &Trust, directories: &Directories) -> Result<()> {
    // The file itself may be gone.
    let path = match &args.project {
        Some(path) => {
            let directory = path.parent().filter(|parent| *parent != Path::new(""));
            let directory = directory.unwrap_or(Path::new("."));
            let name = path.file_name().unwrap_or_default();
            std::fs::canonicalize(directory).at("open", directory)?.join(name)
        }
        None => chosen(None, directories)?.path,
    };
    if trust.revoke(&path)? {
        return Ok(());
    }
    Err(Error::new(format!("trust: {} is not trusted", path.display()))
        .hint("casemate trust --list"))
}

fn chosen(path: Option<&Path>, directories: &Directories) -> Result<Project> {
    let uid = directories.caller.uid;
    if let Some(path) = path {
        return Project::open(path, uid);
    }
    let cwd = std::env::current_dir().during("find", "the working directory")?;
    let search = Project::find(&cwd, directories.caller.home.as_deref(), uid)?;
    search.project.ok_or_else(|| {
        Error::new(format!("trust: there is no {PROJECT_FILE} here, nor above"))
            .hint("name the file")
    })
}

/// A line for each grant.
fn lines(widening: &[Difference]) -> String {
    if widening.is_empty() {
        return "  nothing beyond the default profile\n".to_owned();
    }
    let line = |difference: &Difference| {
        format!("  {}\n", ui::escape(&format!("{} {}", difference.key, difference.text)))
    };
    widening.iter().map(line).collect()
}

/// The project's profile laid over others, where there is one: as it is where it only takes away or
/// is trusted; otherwise an error that names each grant.
pub(super) fn with_project(
    library: &Library,
    below: Layers,
    named: Option<&str>,
    directories: &Directories,
) -> Result<Layers> {
    // A directory that is gone has nothing above it that could be found.
    let Ok(cwd) = std::env::current_dir() else { return Ok(below) };
    let home = directories.caller.home.as_deref();
    let search = Project::find(&cwd, home, directories.caller.uid)?;
    for foreign in &search.foreign {
        ui::warning(&format!("{} belongs to somebody else and is passed over", foreign.display()));
    }
    let Some(project) = search.project else { return Ok(below) };
    let path = named.map(PathBuf::from).and_then(|path| std::fs::canonicalize(path).ok());
    if path.as_ref() == Some(&project.path) {
        return Ok(below);
    }
    let (layers, widening) = project.over(library, below)?;
    let is_trusted = widening.is_empty()
        || match &directories.data {
            Some(data) => Trust::new(data).holds(&project)?,
            None => false,
        };
    if is_trusted {
        return Ok(layers);
    }
    let asked = lines(&widening);
    Err(Error::new(format!(
        "{}: allows more than it may, and is not trusted",
        project.path.display()
    ))
    .excerpt(asked.trim_end())
    .hint("`casemate trust` lets it, once you have read it; --no-project runs without it"))
}
