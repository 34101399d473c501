//! `casemate login` and `casemate logout`: credentials for registries.

use std::io::{IsTerminal, Read};

use super::registries;
use crate::cli::{LoginArgs, LogoutArgs, RegistryArgs};
use crate::error::{During, Error, Result};
use crate::host::Directories;
use crate::registry::{self, Credential, Kept, Registries};
use crate::ui;

/// Longer than any token that is in use.
const MAX_PASSWORD: u64 = 64 * 1024;

/// Has the registry try the credential, and keeps it if it is taken.
pub(super) fn login(args: &LoginArgs, directories: &Directories) -> Result<()> {
    let name = registry::registry_name(&args.name)?;
    let options = registries::options(&args.registry, directories, false);
    let user = match &args.username {
        Some(user) => user.clone(),
        None if args.password_stdin => {
            return Err(Error::new("log in: --password-stdin needs a user name")
                .hint("name the user: --username NAME"));
        }
        None => ask(|| ui::ask(&format!("User name at {name}: ")))?,
    };
    if user.is_empty() || user.contains([':', '\n', '\r', '\0']) {
        return Err(Error::new(format!("log in: {user:?} is no user name"))
            .hint("a user name has no colon and no line breaks"));
    }
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => password_from_stdin()?,
        None => ask(|| ui::ask_secret(&format!("Password of {user} at {name}: ")))?,
    };
    if password.is_empty() {
        return Err(Error::new("log in: the password is empty"));
    }
    // Before anything is sent: what cannot be kept need not be tried.
    registry::login_file(&options)?;
    let credential = Credential::Password { user: user.clone(), password: password.clone() };
    Registries::load(options.clone())?.verify(&name, &credential)?;
    match registry::keep(&options, &name, &user, &password)? {
        Kept::File(path) => ui::note(&format!("logged in to {name}, kept in {}", path.display())),
        Kept::Helper(helper) => {
            ui::note(&format!("logged in to {name}, kept by docker-credential-{helper}"));
        }
    }
    Ok(())
}

fn ask(question: impl FnOnce() -> Result<String>) -> Result<String> {
    if std::io::stdin().is_terminal() {
        return question();
    }
    Err(Error::new("log in: standard input is no terminal to ask at")
        .hint("give --username NAME and --password-stdin"))
}

/// All of standard input, without the line break that `echo` adds.
fn password_from_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_PASSWORD + 1)
        .read_to_end(&mut bytes)
        .during("read", "the password from standard input")?;
    let wrong = |why: &str| Error::new(format!("read the password from standard input: {why}"));
    if bytes.len() as u64 > MAX_PASSWORD {
        return Err(wrong("it is too long"));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Forgets what `login` kept.
pub(super) fn logout(args: &LogoutArgs, directories: &Directories) -> Result<()> {
    let how = RegistryArgs { authfile: args.authfile.clone(), tls_verify: None };
    let options = registries::options(&how, directories, false);
    let Some(name) = &args.name else {
        let count = registry::forget_all(&options)?;
        ui::note(&match count {
            1 => "removed the credential of 1 registry".to_owned(),
            count => format!("removed the credentials of {count} registries"),
        });
        return Ok(());
    };
    let name = registry::registry_name(name)?;
    if registry::forget(&options, &name)? {
        ui::note(&format!("logged out of {name}"));
        return Ok(());
    }
    let path = registry::login_file(&options)?;
    Err(Error::new(format!("log out of {name}: {} has no credential for it", path.display()))
        .hint("one of docker's is in its own file, and removed by docker logout"))
}
