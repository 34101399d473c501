//! passwd(5) and group(5) as bytes that may come from an image: lines that do not fit are passed
//! over, as getpwent(3) does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// One line of /etc/passwd, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswdEntry {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: String,
}

/// One line of /etc/group, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEntry {
    /// Group name.
    pub name: String,
    /// Group id.
    pub gid: u32,
}

/// The first entry of a passwd file that fits.
pub fn find_user(text: &[u8], fits: impl Fn(&PasswdEntry) -> bool) -> Option<PasswdEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_user).find(fits)
}

/// The first entry of a group file that fits.
pub fn find_group(text: &[u8], fits: impl Fn(&GroupEntry) -> bool) -> Option<GroupEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_group).find(fits)
}

/// The groups that name a user as a member, as initgroups(3) finds them; no more than `most`.
pub fn groups_of(text: &[u8], user: &str, most: usize) -> Vec<u32> {
    let is_member = |line: &&[u8]| {
        let members = line.split(|byte| *byte == b':').nth(3).unwrap_or_default();
        members.split(|byte| *byte == b',').any(|member| member == user.as_bytes())
    };
    let mut groups: Vec<u32> = text
        .split(|byte| *byte == b'\n')
        .filter(is_member)
        .filter_map(|line| parse_group(line).map(|group| group.gid))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups.truncate(most);
    groups
}

fn parse_user(line: &[u8]) -> Option<PasswdEntry> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = name(fields.next()?)?;
    fields.next()?;
    let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
    fields.next()?;
    let home = PathBuf::from(OsStr::from_bytes(fields.next()?));
    let shell = str::from_utf8(fields.next().unwrap_or_default()).ok()?.to_owned();
    Some(PasswdEntry { name, uid, gid, home, shell })
}

fn parse_group(line: &[u8]) -> Option<GroupEntry> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = name(fields.next()?)?;
    fields.next()?;
    Some(GroupEntry { name, gid: id(fields.next()?)? })
}

fn name(field: &[u8]) -> Option<String> {
    let name = str::from_utf8(field).ok()?;
    (!name.is_empty() && !name.starts_with('#')).then(|| name.to_owned())
}

fn id(field: &[u8]) -> Option<u32> {
    let digits = str::from_utf8(field).ok()?;
    // `parse` would take a leading plus.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_lines_are_passed_over() {
        let text = b"\n#x\n:x:1:1::/:/bin/sh\nbad:x:+1:1::/:\nshort:x:1\n\xff:x:1:1::/:\nok:x:1:2:a,b:/h:/s\n";
        let entry = find_user(text, |entry| entry.uid == 1).unwrap();
        assert_eq!((entry.name.as_str(), entry.gid, entry.shell.as_str()), ("ok", 2, "/s"));
        assert_eq!(find_group(b"a:x:4294967295:\nb:x:5:u\n", |_| true).unwrap().name, "b");
        assert_eq!(find_user(b"", |_| true), None);
    }
}
