//! `casemate profile new` and `edit`

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{ProfileEditArgs, ProfileNewArgs};
use crate::error::{During, Error, Result};
use crate::profile::Library;
use crate::ui;

pub(super) fn new(args: &ProfileNewArgs, library: &Library) -> Result<()> {
    if let Some(base) = &args.base_profile {
        // A base that is none, or broken, is told of before the file is there.
        library.load(base)?;
    }
    let path = make(&args.new_name, args.base_profile.as_deref(), library)?;
    ui::output(&format!("{}\n", ui::escape(&path.display().to_string())))
}

pub(super) fn edit(args: &ProfileEditArgs, library: &Library) -> Result<()> {
    let path = match library.source(&args.profile)? {
        (_, Some(path)) => path,
        (_, None) => make(&args.profile, Some(&args.profile), library)?,
    };
    let chosen = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()));
    // As git does it: the variable may hold arguments, and the shell splits it.
    let mut editor = Command::new("sh");
    editor.args(["-c", "eval \"exec $0 \\\"\\$@\\\"\""]);
    editor.arg(chosen.unwrap_or_else(|| "vi".into())).arg(&path);
    let status = editor.status().during("start", "the editor")?;
    if !status.success() {
        return Err(Error::new(format!("edit {}: the editor failed ({status})", path.display()))
            .hint("VISUAL or EDITOR names another one"));
    }
    library.load(&args.profile).map(drop)
}

/// The directory of the user's profiles.
pub(super) fn directory(library: &Library) -> Result<&Path> {
    library.directory().ok_or_else(|| {
        Error::new("profiles: no place for them, as no home directory is known")
            .hint("set HOME, or XDG_CONFIG_HOME, to an absolute path")
    })
}

fn make(name: &str, base: Option<&str>, library: &Library) -> Result<PathBuf> {
    let directory = directory(library)?;
    let path = directory.join(format!("{name}.toml"));
    // The name is checked as every name is; that there is none yet is what is wanted.
    if let Ok((_, Some(path))) = library.source(name) {
        return Err(Error::new(format!("profile {name}: {} is there already", path.display()))
            .hint(format!("casemate profile edit {name}")));
    }
    library.check_name(name)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory).at("make", directory)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .at("make", &path)?;
    file.write_all(text(base).as_bytes()).at("write", &path)?;
    Ok(path)
}

fn text(base: Option<&str>) -> String {
    let extends = base.map_or(String::new(), |base| format!("extends = [\"{}\"]\n", quoted(base)));
    format!(
        "# casemate.toml(5) has every key. `casemate profile check` reads this file, and\n\
         # `casemate explain -p` prints what comes of it.\n\
         description = \"\"\n{extends}\n\
         [files]\n\
         # The directory that the program is started in.\n\
         write = [\".\"]\n"
    )
}

/// Within a basic string of TOML.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
