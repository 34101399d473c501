//! The extended attribute that has what an ordinary user cannot give a file: owner, mode and type, in
//! the form that containers/storage and fuse-overlayfs read, `uid:gid:0mode[:type]`.

use std::ffi::CStr;
use std::fmt;

use super::Kind;

/// The attribute's name.
pub const NAME: &CStr = c"user.containers.override_stat";

/// The longest value that is one: three numbers, and a type with two more.
pub const LONGEST: usize = 64;

/// What the attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits, 0o7777.
    pub mode: u32,
    /// What the file is, where the attribute says so.
    pub kind: Option<Kind>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

impl Override {
    /// Reads a value; `None` for one that is none.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= LONGEST)?;
        let mut fields = text.split(':');
        let (uid, gid) = (decimal(fields.next()?)?, decimal(fields.next()?)?);
        let mode = fields.next()?;
        let is_octal = !mode.is_empty() && mode.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| is_octal && *mode <= 0o7777)?;
        let (kind, device) = match fields.next() {
            None => (None, (0, 0)),
            Some(kind) => {
                let (kind, device) = kind_of(kind)?;
                (Some(kind), device)
            }
        };
        fields.next().is_none().then_some(Override { uid, gid, mode, kind, device })
    }
}

/// The value again.
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:04o}", self.uid, self.gid, self.mode)?;
        let (major, minor) = self.device;
        match self.kind {
            None | Some(Kind::Whiteout) => Ok(()),
            Some(Kind::File) => f.write_str(":file"),
            Some(Kind::Directory) => f.write_str(":dir"),
            Some(Kind::Symlink) => f.write_str(":symlink"),
            Some(Kind::Fifo) => f.write_str(":pipe"),
            Some(Kind::Socket) => f.write_str(":socket"),
            Some(Kind::CharDevice) => write!(f, ":char-{major}-{minor}"),
            Some(Kind::BlockDevice) => write!(f, ":block-{major}-{minor}"),
        }
    }
}

fn kind_of(text: &str) -> Option<(Kind, (u32, u32))> {
    let mut parts = text.split('-');
    let kind = match parts.next()? {
        "file" => Kind::File,
        "dir" => Kind::Directory,
        "symlink" => Kind::Symlink,
        "pipe" => Kind::Fifo,
        "socket" => Kind::Socket,
        "char" => Kind::CharDevice,
        "block" => Kind::BlockDevice,
        _ => return None,
    };
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice => (decimal(parts.next()?)?, decimal(parts.next()?)?),
        _ => (0, 0),
    };
    parts.next().is_none().then_some((kind, device))
}

/// A number without a sign, which `parse` would take.
fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in [
            "0:0:0755:dir",
            "4294967295:8:7777:file",
            "1:2:0000",
            "0:0:0600:char-1-3",
            "0:6:0660:block-4294967295-0",
            "0:0:0777:symlink",
            "0:0:0644:pipe",
            "0:0:0644:socket",
        ] {
            let read = Override::parse(text.as_bytes()).expect(text);
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(Override::parse(b"0:0:755").map(|read| read.mode), Some(0o755));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "0",
            "0:0",
            "0:0:",
            "0:0:8",
            "0:0:+7",
            "+0:0:7",
            "-1:0:7",
            "0:0:17777",
            "0:0:7:",
            "0:0:7:thing",
            "0:0:7:char",
            "0:0:7:char-1",
            "0:0:7:char-1-2-3",
            "0:0:7:char-1-x",
            "0:0:7:file-1",
            "0:0:7:file:",
            "4294967296:0:7",
            "0:0:7:dir\n",
            " 0:0:7",
            ":0:7",
        ] {
            assert_eq!(Override::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Override::parse(b"\xff:0:7"), None);
        assert_eq!(Override::parse(&[b'0'; 65]), None);
    }
}
