//! The AppArmor profile that allows casemate user namespaces, where the system takes them from
//! programs without one (kernel.apparmor_restrict_unprivileged_userns).

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{During, Error, Result};

/// A profile for the program at the path where it is.
pub struct Profile {
    /// The text of its file, with the commands that install it in comments.
    pub text: String,
    /// Why installing it is dangerous, where it is.
    pub danger: Option<String>,
}

/// Makes it for this program.
pub fn profile() -> Result<Profile> {
    let program = std::env::current_exe().during("find", "casemate's own file")?;
    let program = program.canonicalize().at("find", &program)?;
    Ok(Profile { text: text(&program)?, danger: changeable(&program).map(|path| danger(&path)) })
}

fn danger(path: &Path) -> String {
    format!(
        "{}: others than root can change it, and a profile for a path gives user namespaces to whatever is put there; install casemate for root first, for example by sudo install -m 755 casemate /usr/local/bin/",
        path.display()
    )
}

/// The text for a program at a path.
fn text(program: &Path) -> Result<String> {
    let quoted = quoted(program)?;
    Ok(format!(
        "# Lets casemate make user namespaces where AppArmor takes them from programs without a\n\
         # profile. It confines nothing: what a box may do is casemate's to see to. Install it:\n\
         #\n\
         #   casemate doctor --apparmor | sudo tee /etc/apparmor.d/casemate >/dev/null\n\
         #   sudo apparmor_parser --replace /etc/apparmor.d/casemate\n\
         \n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         \n\
         profile casemate {quoted} flags=(unconfined) {{\n  \
           userns,\n\
         \n  \
           include if exists <local/casemate>\n\
         }}\n"
    ))
}

/// A path as apparmor.d(5) takes it: in quotes, every character of patterns and of variables
/// escaped.
fn quoted(path: &Path) -> Result<String> {
    let is_plain = |text: &&str| !text.chars().any(char::is_control);
    let Some(text) = str::from_utf8(path.as_os_str().as_bytes()).ok().filter(is_plain) else {
        return Err(Error::new(format!(
            "AppArmor profile for {}: the path is no text",
            path.display()
        ))
        .hint("install casemate elsewhere, such as in /usr/local/bin"));
    };
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if "\"\\*?[]{}^@".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Ok(quoted)
}

/// The part of a path that somebody other than root could put another file in place of.
fn changeable(path: &Path) -> Option<PathBuf> {
    let is_changeable = |path: &&Path| match std::fs::metadata(path) {
        // In a directory with the sticky bit only owners replace what is theirs.
        Ok(found) => {
            let sticky = found.is_dir() && found.mode() & libc::S_ISVTX != 0;
            found.uid() != 0 || (found.mode() & 0o022 != 0 && !sticky)
        }
        Err(_) => true,
    };
    path.ancestors().find(is_changeable).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_pattern() {
        let quote = |path: &str| quoted(Path::new(path)).unwrap();
        assert_eq!(quote("/usr/bin/casemate"), "\"/usr/bin/casemate\"");
        assert_eq!(quote("/a b/{x,*}/@{HOME}"), "\"/a b/\\{x,\\*\\}/\\@\\{HOME\\}\"");
        assert!(quoted(Path::new("/a\nb")).is_err());
        assert!(
            text(Path::new("/x/casemate")).unwrap().contains("profile casemate \"/x/casemate\"")
        );
    }

    #[test]
    fn only_what_is_roots_alone_is_safe() {
        assert_eq!(changeable(Path::new("/usr/bin/env")), None);
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("casemate");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        assert_eq!(changeable(&file).as_deref(), Some(&*file));
    }
}
