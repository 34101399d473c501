//! Commands of the tests: as the unprivileged user, with a clean environment, and bounded in time.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::leftovers::Shared;
use super::stream::Stream;
use super::user::{is_root, user};

/// How long a command may take unless the test says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many times as long a command may take: CASEMATE_TEST_SLOWNESS, for an emulated machine. What is
/// done very often elsewhere is done so many times less often there.
pub fn slowness() -> u32 {
    std::env::var("CASEMATE_TEST_SLOWNESS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// A command that is being put together.
pub struct Run {
    program: OsString,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    stdin: Option<Vec<u8>>,
    keep_stdin: bool,
    patience: Duration,
    by_root: bool,
}

/// `casemate` with these arguments.
pub fn casemate<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Run {
    Run::new(user().casemate()).args(arguments)
}

impl Run {
    /// A program to run as the test user, outside of any box.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let user = user();
        let environment = [
            ("HOME", user.home.as_os_str()),
            ("USER", OsStr::new(&user.name)),
            ("LOGNAME", OsStr::new(&user.name)),
            ("PATH", OsStr::new("/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")),
            ("LANG", OsStr::new("C.UTF-8")),
            ("XDG_DATA_HOME", user.data().as_os_str()),
            ("XDG_CACHE_HOME", user.cache().as_os_str()),
            ("XDG_RUNTIME_DIR", user.runtime().as_os_str()),
        ]
        .map(|(name, value)| (name.into(), value.to_os_string()))
        .into();
        Run {
            program: program.as_ref().to_os_string(),
            arguments: Vec::new(),
            environment,
            directory: user.home.clone(),
            stdin: None,
            keep_stdin: false,
            patience: PATIENCE,
            by_root: false,
        }
    }

    /// A bash script; `$casemate` and `$probe` in it are the paths of the two.
    pub fn bash(script: &str) -> Self {
        Run::new("bash")
            .args(["--norc", "--noprofile", "-c", script])
            .env("casemate", user().casemate())
            .env("probe", super::probe())
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_os_string());
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_os_string()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.as_ref().into(), value.as_ref().into());
        self
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.remove(OsStr::new(name));
        self
    }

    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.directory = path.as_ref().to_path_buf();
        self
    }

    /// What the command reads; without this its input is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Leaves the input open, for `Running::write`.
    pub fn open_stdin(mut self) -> Self {
        self.keep_stdin = true;
        self
    }

    pub fn timeout(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it as root, who must have started the suite.
    pub fn by_root(mut self) -> Self {
        assert!(is_root(), "this test needs a suite that root started");
        self.by_root = true;
        self
    }

    /// Gives it a /dev/fuse that is open to everybody, as on most systems, where this one has none
    /// such: root does that in a mount namespace, which is the command's from then on.
    pub fn with_fuse(self) -> Self {
        self.with_fuse_device(0o666)
    }

    /// As `with_fuse`, with a device of this mode.
    pub fn with_fuse_device(self, mode: u32) -> Self {
        if !is_root() {
            return self;
        }
        let device = user().base.join(format!("fuse-{mode:o}"));
        if !device.exists() {
            let _lock = super::user::lock("fuse");
            let _ = std::fs::remove_file(&device);
            let kind = nix::sys::stat::SFlag::S_IFCHR;
            let number = nix::sys::stat::makedev(10, 229);
            nix::sys::stat::mknod(&device, kind, nix::sys::stat::Mode::empty(), number).unwrap();
            let bits = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&device, bits).unwrap();
        }
        let script = "mount --bind \"$1\" /dev/fuse && shift && exec setpriv --reuid \"$1\" \
            --regid \"$2\" --clear-groups -- \"${@:3}\"";
        let (uid, gid) = (user().uid.to_string(), user().gid.to_string());
        let device = device.to_string_lossy().into_owned();
        let words = ["--mount", "bash", "-c", script, "bash", &device, &uid, &gid];
        self.wrapped_in("unshare", &words).by_root()
    }

    /// The command line, for messages.
    fn describe(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// The command for the standard library, without streams.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory);
        if is_root() && !self.by_root {
            // With a uid and no list of groups, the standard library clears the groups.
            command.uid(user().uid).gid(user().gid);
        }
        command
    }

    /// Other arguments instead of those given so far.
    pub(super) fn replace_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(OsString::from).collect();
        self
    }

    /// The command under another program, such as `setsid`.
    pub fn wrapped_in(mut self, program: &str, arguments: &[&str]) -> Self {
        let inner = std::mem::replace(&mut self.program, program.into());
        let rest = std::mem::take(&mut self.arguments);
        self.args(arguments).arg(inner).args(rest)
    }

    /// Starts it, with all three streams as pipes.
    pub fn spawn(self) -> Running {
        let shared = Shared::take();
        let mut command = self.command();
        let piped = self.keep_stdin || self.stdin.is_some();
        command
            .stdin(if piped { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child =
            command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", self.describe()));
        if let Some(bytes) = self.stdin.clone() {
            let mut pipe = child.stdin.take().unwrap();
            // The reader may leave early, which is not this thread's business.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let stdout = Stream::collect(child.stdout.take().unwrap());
        let stderr = Stream::collect(child.stderr.take().unwrap());
        let deadline = Instant::now() + self.patience * slowness();
        Running { description: self.describe(), child, stdout, stderr, deadline, _shared: shared }
    }

    /// Runs it to its end.
    pub fn output(self) -> Output {
        self.spawn().wait()
    }

    /// Runs it, demands success, and returns its stdout without the last newline.
    pub fn text(self) -> String {
        self.output().succeeds().text()
    }
}

/// A command that runs.
pub struct Running {
    description: String,
    child: Child,
    pub stdout: Stream,
    pub stderr: Stream,
    deadline: Instant,
    _shared: Shared,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Writes to the input of a command that was started with `open_stdin`.
    pub fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends the input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for a word on stdout.
    pub fn expect(&self, pattern: &str) -> String {
        let patience = self.deadline.saturating_duration_since(Instant::now());
        match self.stdout.wait_for(pattern, patience) {
            Some(text) => text,
            None => panic!(
                "{}: no {pattern:?}\n--- stdout\n{}\n--- stderr\n{}",
                self.description,
                self.stdout.text(),
                self.stderr.text()
            ),
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end, and kills and fails when it does not come in time.
    pub fn wait(mut self) -> Output {
        drop(self.child.stdin.take());
        let status = wait_until(&mut self.child, self.deadline);
        let Some(status) = status else {
            self.kill_all();
            panic!(
                "{} did not end in time\n--- stdout\n{}\n--- stderr\n{}",
                self.description,
                self.stdout.text(),
                self.stderr.text()
            );
        };
        let streams = [&self.stdout, &self.stderr].map(|s| s.finish(Duration::from_secs(10)));
        let [Some(stdout), Some(stderr)] = streams else {
            panic!("{} ended, but something that it started holds its output", self.description);
        };
        Output { description: self.description.clone(), status, stdout, stderr }
    }

    fn kill_all(&mut self) {
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill_all();
        }
    }
}

/// Waits for a child up to a moment.
pub(super) fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Output {
    description: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// Demands exit code 0.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.fails(0)
    }

    /// Demands this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert!(
            self.status.code() == Some(code),
            "{}\nended with {} instead of {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.description,
            self.status,
            self.out(),
            self.err()
        );
        self
    }

    /// Demands that it fails for a reason of casemate's own: the code, one message on stderr that holds
    /// all the words, and nothing on stdout.
    #[track_caller]
    pub fn refuses(self, code: i32, words: &[&str]) -> Self {
        let output = self.fails(code);
        let err = output.err();
        let messages = err.lines().filter(|line| line.starts_with("casemate: ")).count();
        assert_eq!(messages, 1, "{}: one message and no more:\n{err}", output.description);
        for word in words {
            assert!(err.contains(word), "{}: no {word:?} in:\n{err}", output.description);
        }
        assert!(!err.contains("panicked"), "{err}");
        assert_eq!(output.out(), "", "{}: stdout is the program's", output.description);
        output
    }

    /// The exit code, if it ended by itself.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Stdout without the last newline.
    pub fn text(&self) -> String {
        self.out().trim_end_matches('\n').to_string()
    }
}
