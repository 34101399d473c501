//! What git executes, or is led by, in a repository: the settings and hooks of the directory that
//! `.git` is or names, of the repository that a linked worktree belongs to, and of its submodules.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::guard::{Guard, Missing};
use crate::host::World;

/// A `.git` file has one line; `commondir` too.
const LINE: u64 = 8 << 10;

/// How many submodules and worktrees are looked at, and how deep submodules may be within others.
const MOST: usize = 512;
const DEPTH: usize = 8;

/// What of a repository is to be kept, whose work tree is at `tree`.
pub(super) fn guards(tree: &Path, world: &mut dyn World) -> Vec<Guard> {
    let dot_git = tree.join(".git");
    let mut guards = Vec::new();
    let Ok(found) = world.open(&dot_git) else {
        guards.push(Guard::new(dot_git, Missing::Directory));
        return guards;
    };
    // The file that names the repository, or the link: the program must not make it another.
    if !found.identity.is_dir() || found.path != dot_git {
        guards.push(Guard::new(dot_git.clone(), Missing::Nothing));
    }
    let directory = if found.identity.is_dir() {
        Some(found.path)
    } else {
        pointer(&dot_git, b"gitdir:", tree, world)
    };
    let Some(directory) = directory else { return guards };
    let common = pointer(&directory.join("commondir"), b"", &directory, world);
    if let Some(common) = common.filter(|common| *common != directory) {
        // A linked worktree's own directory; hooks and settings are the repository's.
        guards.push(Guard::new(directory.join("commondir"), Missing::Nothing));
        guards.push(Guard::new(directory.join("config.worktree"), Missing::Nothing));
        repository(&common, 0, &mut guards, world);
    } else {
        repository(&directory, 0, &mut guards, world);
    }
    guards
}

fn repository(directory: &Path, depth: usize, guards: &mut Vec<Guard>, world: &mut dyn World) {
    let mut keep = |name: &str, missing| guards.push(Guard::new(directory.join(name), missing));
    keep("config", Missing::File(""));
    keep("hooks", Missing::Directory);
    // It would lead to other settings and hooks. This content says what its absence says.
    keep("commondir", Missing::File(".\n"));
    keep("config.worktree", Missing::Nothing);
    keep("info/attributes", Missing::Nothing);
    let worktrees = directory.join("worktrees");
    for name in world.names(&worktrees, MOST).unwrap_or_default() {
        for file in ["commondir", "gitdir", "config.worktree"] {
            guards.push(Guard::new(worktrees.join(&name).join(file), Missing::Nothing));
        }
    }
    modules(&directory.join("modules"), depth, guards, world);
}

/// Submodules are named by their paths, so that one may be several directories down.
fn modules(directory: &Path, depth: usize, guards: &mut Vec<Guard>, world: &mut dyn World) {
    if depth >= DEPTH || guards.len() > MOST {
        return;
    }
    for name in world.names(directory, MOST).unwrap_or_default() {
        let module = directory.join(name);
        if world.open(&module.join("HEAD")).is_ok() {
            repository(&module, depth + 1, guards, world);
        } else if world.open(&module).is_ok_and(|found| found.identity.is_dir()) {
            modules(&module, depth + 1, guards, world);
        }
    }
}

/// The path in a file of one line, behind a word.
fn pointer(file: &Path, word: &[u8], base: &Path, world: &mut dyn World) -> Option<PathBuf> {
    let content = world.read(file, LINE).ok()?;
    let line = content.trim_ascii().strip_prefix(word)?.trim_ascii();
    let path = base.join(PathBuf::from(OsString::from_vec(line.to_vec())));
    // Without links and `..`, as grants are known.
    world.open(&path).ok().map(|found| found.path)
}
