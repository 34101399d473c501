//! What one program writes while others read it: they see what was there before or after each write,
//! and never what was not written.

use std::time::Duration;

use crate::common::{Image, Run, image, user};
use crate::work::in_every_mode;

/// Records that tell their place are added to a file, and a number grows in another one, through a
/// descriptor that was made for writing only. Readers look all the time, by read(2) and in memory.
const SCRIPT: &str = r#"
import mmap, os, struct, time
SECONDS = 1.5
def record(n): return struct.pack('<Q', n) * 8
def make(name): return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), os.open(name, os.O_RDONLY)
def child(work):
    pid = os.fork()
    if pid == 0:
        end, n = time.monotonic() + SECONDS, 0
        while time.monotonic() < end: work(n); n += 1
        os._exit(0)
    return lambda: os.waitpid(pid, os.WNOHANG)[0] != 0

write, read = make('added')
ended = child(lambda n: os.write(write, record(n)))
wrong = 0
while True:
    last = ended()
    size = os.fstat(read).st_size
    start = max(0, size - 8192) // 64 * 64
    data = os.pread(read, size - start, start)
    wrong += sum(data[at:at + 64] != record((start + at) // 64) for at in range(0, len(data), 64))
    if last: break
data = os.pread(read, 1 << 30, 0)
print('added', wrong, data == b''.join(map(record, range(len(data) // 64))), len(data) > 64)

for kind in ['read', 'mapped']:
    write, read = make(kind)
    os.write(write, bytes(4096))
    pages = mmap.mmap(read, 4096, prot=mmap.PROT_READ) if kind == 'mapped' else None
    said = mmap.mmap(-1, 8)
    def grow(n):
        os.pwrite(write, struct.pack('<Q', n + 1), 1000)
        said[:8] = struct.pack('<Q', n + 1)
    ended = child(grow)
    stale = backwards = looks = before = 0
    while True:
        last = ended()
        least = struct.unpack('<Q', said[:8])[0]
        seen = struct.unpack('<Q', pages[1000:1008] if pages else os.pread(read, 8, 1000))[0]
        stale += seen < least; backwards += seen < before; before = seen; looks += 1
        if looks % 3 == 0: os.posix_fadvise(read, 0, 0, os.POSIX_FADV_DONTNEED)
        if last: break
    print(kind, stale, backwards, before > 0)

# A page that one changes in memory and another by pwrite(2): neither takes the other's bytes away.
write, read = make('both')
os.write(write, bytes(4096))
other = os.open('both', os.O_RDWR)
pages = mmap.mmap(other, 4096)
def store(n): pages[:8] = struct.pack('<Q', n + 1); n % 20 or os.posix_fadvise(other, 0, 0, os.POSIX_FADV_DONTNEED)
ended = child(store)
lost = n = 0
while True:
    last = ended()
    n += 1
    os.pwrite(write, struct.pack('<Q', n), 2000)
    lost += struct.unpack('<Q', os.pread(read, 8, 2000))[0] != n
    if n % 7 == 0: os.posix_fadvise(read, 0, 0, os.POSIX_FADV_DONTNEED)
    if last: break
print('both', lost, struct.unpack('<Q', os.pread(read, 8, 0))[0] > 0)
"#;

const EXPECTED: &str = "added 0 True True\nread 0 0 True\nmapped 0 0 True\nboth 0 True";

/// Python's program as a shell's, in the directory that the shell is in.
fn python(program: &str) -> String {
    format!("python3 - <<'END'\n{program}\nEND")
}

#[test]
fn readers_see_what_was_written_in_every_mode() {
    in_every_mode(&python(SCRIPT), EXPECTED);
}

#[test]
fn a_server_with_one_thread_serves_readers_and_writers() {
    let run = Run::new("taskset")
        .args(["-c", "0"])
        .arg(user().casemate())
        .args(["run", "--overlay", "fuse", "--image", &image(Image::Tools), "--"])
        .args(["bash", "-c", &format!("mkdir /work && cd /work && {}", python(SCRIPT))])
        .with_fuse();
    let output = run.timeout(Duration::from_secs(60)).output();
    assert_eq!(output.text(), EXPECTED, "{}", output.err());
}

/// A write takes setuid and setgid away, as others see at once.
#[test]
fn a_write_takes_setuid_away() {
    let script = r#"
import os, shutil
write = os.open('file', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
os.write(write, b'first')
os.chmod('file', 0o6755); before = os.stat('file').st_mode
os.write(write, b'second'); after = os.stat('file').st_mode
print(oct(before & 0o7777), oct(after & 0o7777))
shutil.copyfile('/usr/bin/env', 'copy')
print(open('copy', 'rb').read() == open('/usr/bin/env', 'rb').read())
os.ftruncate(write, 3); os.write(write, b'!')
print(open('file', 'rb').read())
"#;
    let expected = "0o6755 0o755\nTrue\nb'fir\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00!'";
    in_every_mode(&python(script), expected);
}
