//! The last look before the program: what is mounted is what was planned, and nothing is mounted
//! that could raise privileges.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{During, Error, Result};
use crate::sandbox::{Mount, Sandbox, What};
use crate::sys::fs::{self, Resolve};

/// Reads the box's own mount table and compares it with the plan.
pub(super) fn mounts(sandbox: &Sandbox) -> Result<()> {
    let table = table().at("read", "/proc/self/mountinfo")?;
    let cwd = nix::unistd::getcwd().during("find", "the working directory")?;
    if cwd != Path::new("/") {
        return Err(Error::new("verify the box: the working directory is outside the root"));
    }
    let found: Vec<Line<'_>> = table.split(|byte| *byte == b'\n').filter_map(Line::parse).collect();
    let planned: Vec<&Mount> =
        sandbox.mounts.iter().filter(|mount| is_mount(&mount.what)).collect();
    for line in &found {
        check(line, &planned, sandbox.root.is_writable())?;
    }
    for mount in &planned {
        if found.iter().any(|line| *line.target == *mount.target.as_os_str().as_bytes()) {
            continue;
        }
        // A link of the image may lead to the place; then the table has where it leads to.
        let is_led = |above: &Path| above.is_symlink() && !is_shared(above, &planned);
        if !mount.target.ancestors().skip(1).any(is_led) {
            return Err(Error::new(format!(
                "verify the box: nothing is mounted at {}",
                mount.target.display()
            ))
            .hint("a symbolic link in a directory that boxes can write must not lead to a grant"));
        }
    }
    Ok(())
}

/// Whether it lies in a directory of the host that is writable, where another box may turn a link
/// from here to there while this one is made.
fn is_shared(path: &Path, planned: &[&Mount]) -> bool {
    let path = path.as_os_str().as_bytes();
    planned.iter().filter(|mount| *mount.target.as_os_str().as_bytes() != *path).any(|mount| {
        matches!(mount.what, What::Bind { write: true, .. })
            && lies_in(path, mount.target.as_os_str().as_bytes())
    })
}

/// Read with a large buffer: the kernel formats the table anew for every read(2).
fn table() -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut file = std::fs::File::open("/proc/self/mountinfo")?;
    let mut table = vec![0; 32 << 10];
    let mut length = 0;
    loop {
        match file.read(&mut table[length..])? {
            0 => break,
            count => length += count,
        }
        if length == table.len() {
            table.resize(2 * length, 0);
        }
    }
    table.truncate(length);
    Ok(table)
}

fn is_mount(what: &What) -> bool {
    matches!(
        what,
        What::Bind { .. }
            | What::Overlaid { .. }
            | What::Empty { .. }
            | What::Itself { .. }
            | What::Tmpfs { .. }
            | What::Private { .. }
            | What::Devices
            | What::Proc
    )
}

/// Every mount is nosuid; all but device nodes and terminals are nodev; what was to be read-only
/// is, with all that lies below it.
fn check(line: &Line<'_>, planned: &[&Mount], root_is_writable: bool) -> Result<()> {
    let wrong = |what: &str| {
        let target = crate::text::plain(&line.target);
        Err(Error::new(format!("verify the box: {target} is mounted {what}")))
    };
    if !line.has("nosuid") {
        return wrong("without nosuid");
    }
    let device = line.target.starts_with(b"/dev/");
    if !device && !line.has("nodev") {
        return wrong("without nodev");
    }
    let owner = planned
        .iter()
        .filter(|mount| lies_in(&line.target, mount.target.as_os_str().as_bytes()))
        .max_by_key(|mount| mount.target.as_os_str().len());
    let writable = match owner.map(|mount| &mount.what) {
        Some(What::Bind { write, .. } | What::Itself { write, .. }) => *write,
        Some(What::Empty { .. }) => false,
        Some(_) => true,
        None => root_is_writable || *line.target != *b"/",
    };
    if !writable && !line.has("ro") && !is_covered(line) {
        return wrong("writable");
    }
    Ok(())
}

/// Whether its place leads to another mount, which was put over it or over what it is on: a grant
/// brings the mounts below it along, and what protects one of them lies over it.
fn is_covered(line: &Line<'_>) -> bool {
    let path = Path::new(OsStr::from_bytes(&line.target));
    let Ok(top) = fs::openat2(fs::cwd(), path, libc::O_PATH, 0, Resolve::NoSymlinks) else {
        return false;
    };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", top.as_raw_fd()));
    let info = info.unwrap_or_default();
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.is_some_and(|id| id.trim().as_bytes() != line.id)
}

/// Whether one path is the other or lies below it, both without `.` and doubled slashes.
fn lies_in(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A line of mountinfo (proc_pid_mountinfo(5)), as far as it matters here.
struct Line<'a> {
    id: &'a [u8],
    target: Cow<'a, [u8]>,
    options: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = fields.next()?;
        let (target, options) = (fields.nth(3)?, fields.next()?);
        let target = if target.contains(&b'\\') {
            Cow::Owned(unescape(target))
        } else {
            Cow::Borrowed(target)
        };
        Some(Line { id, target, options })
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(|byte| *byte == b',').any(|have| have == option.as_bytes())
    }
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_escapes() {
        let line = Line::parse(b"22 1 0:5 / /a\\040b\\134c ro,nosuid - tmpfs t rw").unwrap();
        assert_eq!(*line.target, *b"/a b\\c");
        assert_eq!(line.id, b"22");
        assert!(lies_in(b"/a/b", b"/a") && lies_in(b"/a", b"/a") && !lies_in(b"/ab", b"/a"));
        assert!(line.has("ro") && line.has("nosuid") && !line.has("rw"));
        assert!(Line::parse(b"").is_none());
    }
}
