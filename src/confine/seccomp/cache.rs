//! Compiled programs on disk. In a process that has just started, compiling the default policy takes
//! about 100 µs (its first calls into libseccomp fault its tables in) and a hit 40.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libseccomp::ScmpVersion;
use sha2::{Digest, Sha256};

use super::{Action, MAX_INSTRUCTIONS, Operator, Policy, verify};
use crate::error::Result;
use crate::sys::seccomp::Instruction;

/// Changes with the file's layout, the canonical form and the code that the compiler generates.
const VERSION: u8 = 1;
const MAGIC: [u8; 8] = *b"casebpf\x01";
const DIGEST: usize = 32;
const SIZE: usize = size_of::<Instruction>();

/// The program of a policy, from `<cache_dir>/seccomp` or compiled and then kept there.
///
/// A cached program is used only if the file belongs to this user, nobody else may write it, and
/// both its digest and its shape are right. Everything else, also a cache that cannot be written,
/// costs time and nothing more.
///
/// Whoever can write there as this user decides what later boxes may call: the directory must never
/// be granted to a box.
pub fn program(policy: &Policy, cache_dir: Option<&Path>) -> Result<Vec<Instruction>> {
    let Some(dir) = cache_dir.map(|dir| dir.join("seccomp")) else { return policy.compile() };
    let Some(key) = key(policy) else { return policy.compile() };
    let file = dir.join(format!("{key}.bpf"));
    if let Some(program) = load(&file, &key) {
        return Ok(program);
    }
    let program = policy.compile()?;
    // A read-only or full cache must not stop a run that has its program.
    let _ = store(&dir, &file, &key, &program);
    Ok(program)
}

/// Names everything that the program depends on.
fn key(policy: &Policy) -> Option<String> {
    let library = ScmpVersion::current().ok()?;
    let mut text = Vec::with_capacity(16 * 1024);
    text.push(VERSION);
    text.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    text.push(0);
    for part in [library.major, library.minor, library.micro] {
        text.extend_from_slice(&part.to_le_bytes());
    }
    canonical(policy, &mut text);
    Some(hex(&Sha256::digest(&text)))
}

/// The policy as bytes, the same for equal policies only. By hand and without a name resolved: a hit
/// has to cost less than compiling would.
fn canonical(policy: &Policy, to: &mut Vec<u8>) {
    let count = |to: &mut Vec<u8>, count: usize| to.extend_from_slice(&count.to_le_bytes());
    count(to, policy.architectures.len());
    for arch in &policy.architectures {
        to.extend_from_slice(&arch.token().to_le_bytes());
    }
    action(policy.default, to);
    for (name, rule) in &policy.rules {
        to.extend_from_slice(name.as_bytes());
        to.push(0);
        action(rule.otherwise, to);
        to.push(u8::from(!rule.clauses.is_empty()));
        if rule.clauses.is_empty() {
            continue;
        }
        count(to, rule.clauses.len());
        for clause in &rule.clauses {
            action(clause.action, to);
            count(to, clause.conditions.len());
            for condition in &clause.conditions {
                to.push(condition.argument);
                to.push(match condition.operator {
                    Operator::Equal => 0,
                    Operator::NotEqual => 1,
                    Operator::Less => 2,
                    Operator::LessOrEqual => 3,
                    Operator::Greater => 4,
                    Operator::GreaterOrEqual => 5,
                });
                to.extend_from_slice(&condition.mask.to_le_bytes());
                to.extend_from_slice(&condition.value.to_le_bytes());
            }
        }
    }
}

fn action(action: Action, to: &mut Vec<u8>) {
    let (tag, errno) = match action {
        Action::Allow => (0, 0),
        Action::Log => (1, 0),
        Action::Errno(errno) => (2, errno),
        Action::Trap => (3, 0),
        Action::KillThread => (4, 0),
        Action::KillProcess => (5, 0),
    };
    to.push(tag);
    to.extend_from_slice(&errno.to_le_bytes());
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn load(file: &Path, key: &str) -> Option<Vec<Instruction>> {
    // O_NONBLOCK: a FIFO in the place of the file must not hold up the start.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(file).ok()?;
    let meta = file.metadata().ok()?;
    let ours = meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0;
    let limit = MAGIC.len() + 4 + MAX_INSTRUCTIONS * SIZE + DIGEST;
    let size = usize::try_from(meta.len()).ok()?;
    if !meta.is_file() || !ours || size > limit {
        return None;
    }
    let mut bytes = Vec::with_capacity(size + 1);
    (&mut file).take(limit as u64).read_to_end(&mut bytes).ok()?;
    decode(&bytes, key)
}

/// The key is part of it, so that a file under another policy's name is not taken for that one's.
fn digest(body: &[u8], key: &str) -> [u8; DIGEST] {
    Sha256::new().chain_update(key).chain_update(body).finalize().into()
}

fn encode(program: &[Instruction], key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + program.len() * SIZE + DIGEST);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(program.len() as u32).to_le_bytes());
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_le_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_le_bytes());
    }
    let digest = digest(&bytes, key);
    bytes.extend_from_slice(&digest);
    bytes
}

fn decode(bytes: &[u8], key: &str) -> Option<Vec<Instruction>> {
    let (body, found) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    let (count, instructions) = body.strip_prefix(&MAGIC)?.split_first_chunk::<4>()?;
    let (instructions, []) = instructions.as_chunks::<8>() else { return None };
    let whole = u32::try_from(instructions.len()).ok()? == u32::from_le_bytes(*count);
    if !whole || digest(body, key) != *found {
        return None;
    }
    let program: Vec<_> = instructions
        .iter()
        .map(|&[a, b, jt, jf, k @ ..]| Instruction {
            code: u16::from_le_bytes([a, b]),
            jt,
            jf,
            k: u32::from_le_bytes(k),
        })
        .collect();
    verify(&program).then_some(program)
}

fn store(dir: &Path, file: &Path, key: &str, program: &[Instruction]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let (temporary, mut writer) = create(dir, key)?;
    let written =
        writer.write_all(&encode(program, key)).and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Two runs at once may compile the same policy; each has its own file and the last rename wins.
fn create(dir: &Path, key: &str) -> io::Result<(PathBuf, File)> {
    let path = dir.join(format!(".{key}.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    match options.open(&path) {
        // Left by a process of the same id that was killed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&path)?;
            Ok((path.clone(), options.open(&path)?))
        }
        opened => Ok((path, opened?)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Architecture;
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn policy() -> Policy {
        Policy::default_for(Architecture::X86_64)
    }

    fn name() -> String {
        key(&policy()).unwrap()
    }

    fn only_file(dir: &Path) -> PathBuf {
        let files: Vec<_> = fs::read_dir(dir.join("seccomp")).unwrap().collect();
        assert_eq!(files.len(), 1);
        files[0].as_ref().unwrap().path()
    }

    #[test]
    fn a_hit_gives_what_was_compiled() {
        let dir = tempfile::tempdir().unwrap();
        let first = program(&policy(), Some(dir.path())).unwrap();
        let file = only_file(dir.path());
        assert_eq!(load(&file, &name()).unwrap(), first);
        assert_eq!(program(&policy(), Some(dir.path())).unwrap(), first);
        assert_eq!(program(&policy(), None).unwrap(), first);
        assert_eq!(dir.path().join("seccomp").metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn every_difference_has_its_own_key() {
        let mut other = policy();
        other.allow("ptrace").unwrap();
        let mut silent = policy();
        silent.default = Action::Log;
        let all = [
            policy(),
            other,
            silent,
            policy().with_compat32(),
            policy().with_nesting(),
            Policy::for_init(Architecture::X86_64),
            Policy::default_for(Architecture::Aarch64),
        ];
        let keys: std::collections::BTreeSet<_> = all.iter().map(|p| key(p).unwrap()).collect();
        assert_eq!(keys.len(), all.len());
        assert_eq!(key(&policy()), key(&policy()));
    }

    #[test]
    fn a_file_that_is_not_right_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let good = program(&policy(), Some(dir.path())).unwrap();
        let file = only_file(dir.path());
        let bytes = fs::read(&file).unwrap();
        let replace = |content: &[u8]| {
            let _ = fs::remove_file(&file);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let healed = || {
            assert_eq!(program(&policy(), Some(dir.path())).unwrap(), good);
            assert_eq!(fs::read(only_file(dir.path())).unwrap(), bytes);
        };

        let name = name();
        assert_eq!(decode(&bytes, &name), Some(good.clone()));
        assert_eq!(decode(&bytes, &key(&policy().with_debug()).unwrap()), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged, &name), None, "byte {at}");
            assert_eq!(decode(&bytes[..at], &name), None, "cut at {at}");
        }
        replace(&bytes[..100]);
        healed();
        replace(&[]);
        healed();

        // A right digest over a program that would allow everything by falling off its end.
        replace(&encode(&[Instruction { code: 0x20, jt: 0, jf: 0, k: 0 }], &name));
        healed();

        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(load(&file, &name), None);
        healed();

        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert_eq!(load(&file, &name), None);
        healed();
        assert!(!file.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("seccomp"), "in the way").unwrap();
        assert!(program(&policy(), Some(dir.path())).is_ok());
    }
}
