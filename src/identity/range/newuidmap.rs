//! newuidmap(1) and newgidmap(1): programs of the system's own that may write an id map for a user
//! whom /etc/subuid and /etc/subgid list. The only setuid programs that casemate ever starts, and only
//! where the user's own settings say so.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::namespace::Waiting;
use crate::error::{During, Error, Result};
use crate::identity::Caller;
use crate::identity::map::Extent;
use crate::identity::subid::{self, Asker, Fault, Span};

/// Where systems have them. Never looked up in PATH.
const DIRECTORIES: [&str; 3] = ["/usr/bin", "/bin", "/run/wrappers/bin"];

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// More is no such file.
const LIMIT: u64 = 16 << 20;

/// Which ids.
struct Kind {
    what: &'static str,
    tool: &'static str,
    list: &'static str,
    accounts: &'static str,
    option: Option<&'static str>,
}

const USERS: Kind = Kind {
    what: "user",
    tool: "newuidmap",
    list: "/etc/subuid",
    accounts: "/etc/passwd",
    option: None,
};

const GROUPS: Kind = Kind {
    what: "group",
    tool: "newgidmap",
    list: "/etc/subgid",
    accounts: "/etc/group",
    option: Some("-g"),
};

/// Gives the namespace all ids that the system lists for the user, and the own one behind them.
pub(super) fn give(waiting: &Waiting, caller: &Caller) -> Result<()> {
    let kinds = [(USERS, caller.uid), (GROUPS, caller.gid)];
    let mut prepared = Vec::new();
    // All that can be wrong is known before anything is started.
    for (kind, own) in &kinds {
        let tool = find(kind.tool)?;
        let spans = spans(kind, caller)?;
        prepared.push((kind, tool, subid::map(&spans, *own)));
    }
    for (kind, tool, map) in prepared {
        write(kind, &tool, waiting.pid(), &map)?;
    }
    Ok(())
}

/// What is missing for it, found out without starting it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The programs are not installed, or not as they must be.
    Programs(Error),
    /// The system lists no range for the user, or none that can be used.
    Range(Error),
}

/// Whether it could be asked, apart from whether it may.
pub fn lack(caller: &Caller) -> Option<Lack> {
    let kinds = [USERS, GROUPS];
    for kind in &kinds {
        if let Err(error) = find(kind.tool) {
            return Some(Lack::Programs(error));
        }
    }
    let missing = |kind| spans(kind, caller).err();
    kinds.iter().find_map(missing).map(Lack::Range)
}

/// The program, which must be root's and nobody else's to change.
fn find(name: &str) -> Result<std::path::PathBuf> {
    for directory in DIRECTORIES {
        let path = Path::new(directory).join(name);
        let Ok(found) = std::fs::metadata(&path) else { continue };
        if !found.is_file() || found.uid() != 0 || found.mode() & 0o022 != 0 {
            return Err(Error::new(format!(
                "{}: not a program that only root can change",
                path.display()
            )));
        }
        return Ok(path);
    }
    Err(Error::new(format!("{name}: not installed")).hint("sudo apt install uidmap"))
}

fn spans(kind: &Kind, caller: &Caller) -> Result<Vec<Span>> {
    let asker = Asker { uid: caller.uid, name: caller.name.as_deref() };
    let (source, text) = match listed_elsewhere() {
        true => ("getsubids".to_owned(), ask(kind, caller)?),
        false => (kind.list.to_owned(), read(Path::new(kind.list))?),
    };
    let accounts = accounts(&read(Path::new(kind.accounts))?.unwrap_or_default());
    let found = match text {
        Some(text) => subid::parse(&text, asker, &accounts),
        None => Err(Fault::NoFile),
    };
    found.map_err(|fault| {
        let error = Error::new(format!("{source}: {fault}"));
        let option = if kind.what == "user" { "--add-subuids" } else { "--add-subgids" };
        match fault {
            Fault::NoFile | Fault::None { .. } | Fault::Short { .. } => error.hint(format!(
                "pick a block of 65536 ids that is in neither /etc/subuid nor /etc/subgid, and give it to the user: sudo usermod {option} FIRST-LAST \"$USER\""
            )),
            _ => error.hint(format!("mend {source}")),
        }
    })
}

/// Whether a name service has the lists instead of files (nsswitch.conf(5), `subid`).
fn listed_elsewhere() -> bool {
    let text = read(Path::new("/etc/nsswitch.conf")).ok().flatten().unwrap_or_default();
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"subid:"))
        .filter_map(|rest| str::from_utf8(rest).ok())
        .flat_map(str::split_ascii_whitespace)
        .next()
        .is_some_and(|first| first != "files")
}

fn ask(kind: &Kind, caller: &Caller) -> Result<Option<Vec<u8>>> {
    let tool = find("getsubids")?;
    let name = caller.name.clone().unwrap_or_else(|| caller.uid.to_string());
    let mut command = Command::new(&tool);
    command.args(kind.option).arg(&name);
    let (_, output, _) = run(command, "getsubids")?;
    // It fails where it has nothing, too.
    Ok(Some(subid::from_getsubids(&output)))
}

/// The names and ids of a passwd or group file: the first and third field of either.
fn accounts(text: &[u8]) -> Vec<(String, u32)> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = str::from_utf8(fields.next()?).ok()?.to_owned();
            let id = str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
            Some((name, id))
        })
        .collect()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.at("open", path)?,
    };
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).at("read", path)?;
    Ok(Some(text))
}

/// One write of the map, by the program. It names the process by its number, which stays that
/// process's: it is a child of this one that nobody has waited for.
fn write(kind: &Kind, tool: &Path, pid: i32, map: &[Extent]) -> Result<()> {
    let mut command = Command::new(tool);
    command.arg(pid.to_string());
    for Extent { inside, outside, count } in map {
        command.args([inside, outside, count].map(u32::to_string));
    }
    let (succeeded, _, said) = run(command, kind.tool)?;
    if succeeded {
        return Ok(());
    }
    let said = crate::text::plain(said.trim_ascii());
    Err(Error::new(format!("{} refuses the map of {} ids: {said}", kind.tool, kind.what)))
}

/// Runs one of them to its end, with an empty environment: whether it succeeded, and what it said.
fn run(mut command: Command, name: &str) -> Result<(bool, Vec<u8>, Vec<u8>)> {
    let deadline = Instant::now() + PATIENCE;
    let mut child = command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .during("start", name)?;
    let status = loop {
        if let Some(status) = child.try_wait().during("wait for", name)? {
            break status;
        }
        if Instant::now() >= deadline {
            // It may be another user's by now, and then ends by itself.
            let _may_be_roots = child.kill();
            return Err(Error::os("wait for", name, nix::errno::Errno::ETIMEDOUT));
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    // More than a pipe holds it cannot have said, or it would wait still.
    let mut output = [Vec::new(), Vec::new()];
    let [first, second] = &mut output;
    if let Some(pipe) = child.stdout.take() {
        pipe.take(1 << 16).read_to_end(first).during("read from", name)?;
    }
    if let Some(pipe) = child.stderr.take() {
        pipe.take(1 << 16).read_to_end(second).during("read from", name)?;
    }
    let [first, second] = output;
    Ok((status.success(), first, second))
}
