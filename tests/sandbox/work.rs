//! Real work in a real Debian, under the default filter.

use std::time::Duration;

use crate::common::{Image, Run, Workspace, casemate, image};

fn debian(options: &[&str], command: &[&str]) -> Run {
    let name = image(Image::Debian);
    let run = casemate(["run", "--image", &name]).args(options).arg("--").args(command);
    run.timeout(Duration::from_secs(240))
}

#[test]
fn bash_runs_scripts() {
    let script = r#"
        set -euo pipefail
        declare -A count
        while read -r word; do count[$word]=$(( ${count[$word]:-0} + 1 )); done < <(printf '%s\n' a b a c a)
        echo "a=${count[a]}" "$(seq 5 | xargs -n1 -P4 sh -c 'echo $(($0 * $0))' | sort -n | paste -sd+ | sed 's/+/ + /g')"
        mkfifo /tmp/pipe; (echo through a pipe >/tmp/pipe) & cat /tmp/pipe; wait
        coproc cat; echo coprocess >&"${COPROC[1]}"; read -r line <&"${COPROC[0]}"; echo "$line"
        exec {fd}<<<'here string'; cat <&"$fd"
        time sleep 0.01 2>/dev/null
        ps -o pid= -p $$ >/dev/null && echo ps works
    "#;
    let text = debian(&[], &["bash", "-c", script]).text();
    let expected = "a=3 1 + 4 + 9 + 16 + 25\nthrough a pipe\ncoprocess\nhere string\nps works";
    assert_eq!(text, expected);
}

#[test]
fn git_clones_changes_and_pushes_a_local_repository() {
    let space = Workspace::new();
    space.directory("repository");
    let git = "git -c user.name=Tester -c user.email=tester@example.org";
    let prepare = format!(
        "cd repository && git init -q -b main && for i in 1 2 3; do echo $i >file$i; git add .; \
         {git} commit -q -m \"change $i\"; done && git clone -q --bare . ../bare.git"
    );
    let volume = format!("{}:/work:rw", space.path().display());
    debian(&["-v", &volume, "-w", "/work"], &["bash", "-ec", &prepare]).output().succeeds();
    let script = format!(
        "git clone -q /work/bare.git /tmp/clone && cd /tmp/clone && git log --oneline | wc -l && \
         git fsck --strict && echo 4 >file4 && git add . && {git} commit -q -m 'change 4' && \
         git push -q origin main && git gc -q && git status --short"
    );
    assert_eq!(debian(&["-v", &volume], &["bash", "-ec", &script]).text(), "3");
    let count =
        debian(&["-v", &volume], &["git", "-C", "/work/bare.git", "rev-list", "--count", "main"]);
    assert_eq!(count.text(), "4");
}

#[test]
fn gcc_and_make_build_a_project() {
    let space = Workspace::new();
    space.file(
        "Makefile",
        "CFLAGS = -O2 -Wall -Wextra -Werror -pthread\nOBJECTS = main.o sum.o\n\nall: program\n\n\
         program: $(OBJECTS)\n\t$(CC) $(CFLAGS) -o $@ $(OBJECTS)\n\n\
         test: program\n\t./program | grep -qx 'sum 499999500000 over 4 threads'\n",
    );
    space.file("sum.h", "long sum(long from, long to);\n");
    space.file(
        "sum.c",
        "#include \"sum.h\"\nlong sum(long from, long to) { long s = 0; while (from < to) s += from++; return s; }\n",
    );
    space.file(
        "main.c",
        "#include <pthread.h>\n#include <stdio.h>\n#include \"sum.h\"\n\
         static void *part(void *p) { long n = *(long *)p; *(long *)p = sum(n * 250000, (n + 1) * 250000); return 0; }\n\
         int main(void) { pthread_t t[4]; long v[4], s = 0; for (long i = 0; i < 4; i++) { v[i] = i; \
         pthread_create(&t[i], 0, part, &v[i]); } for (int i = 0; i < 4; i++) { pthread_join(t[i], 0); s += v[i]; } \
         printf(\"sum %ld over 4 threads\\n\", s); }\n",
    );
    let volume = format!("{}:/project:rw,exec", space.path().display());
    debian(&["-v", &volume, "-w", "/project"], &["make", "-j4", "all", "test"]).output().succeeds();
    // What was built in the box is the user's, outside.
    assert_eq!(Run::new(space.at("program")).text(), "sum 499999500000 over 4 threads");
}

#[test]
fn pythons_own_machinery_works() {
    let script = r#"
import asyncio, concurrent.futures, ctypes, hashlib, json, multiprocessing, os, select, signal
import socket, sqlite3, subprocess, tempfile, threading, unittest

def square(n):
    return n * n

class Machinery(unittest.TestCase):
    def test_subprocess(self):
        done = subprocess.run(["sh", "-c", "cat; exit 3"], input=b"x", capture_output=True)
        self.assertEqual((done.stdout, done.returncode), (b"x", 3))
    def test_threads(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            self.assertEqual(sum(pool.map(square, range(100))), 328350)
    def test_processes(self):
        for method in ("fork", "spawn"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                self.assertEqual(pool.map(square, range(5)), [0, 1, 4, 9, 16])
    def test_asyncio(self):
        async def echo(reader, writer):
            writer.write(await reader.readline()); await writer.drain(); writer.close()
        async def main():
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"echo\n")
            self.assertEqual(await reader.readline(), b"echo\n")
            process = await asyncio.create_subprocess_exec("true")
            self.assertEqual(await process.wait(), 0)
        asyncio.run(main())
    def test_sqlite(self):
        with tempfile.NamedTemporaryFile() as file:
            base = sqlite3.connect(file.name)
            base.execute("pragma journal_mode = wal")
            base.execute("create table t (a)"); base.executemany("insert into t values (?)", [(i,) for i in range(1000)])
            base.commit()
            self.assertEqual(base.execute("select sum(a) from t").fetchone(), (499500,))
    def test_signals(self):
        hit = []
        signal.signal(signal.SIGALRM, lambda *_: hit.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
        self.assertEqual(hit, [1])
    def test_memory_and_fds(self):
        import mmap
        fd = os.memfd_create("x"); os.ftruncate(fd, 8192)
        with mmap.mmap(fd, 8192) as m: m[:3] = b"abc"
        self.assertEqual(os.pread(fd, 3, 0), b"abc")
        poll = select.epoll(); r, w = os.pipe(); poll.register(r, select.EPOLLIN); os.write(w, b"1")
        self.assertEqual(poll.poll(1), [(r, select.EPOLLIN)])
    def test_pty(self):
        import pty
        pid, fd = pty.fork()
        if pid == 0: os.execvp("echo", ["echo", "terminal"])
        self.assertIn(b"terminal", os.read(fd, 100)); os.waitpid(pid, 0)

if __name__ == "__main__":
    unittest.main()
"#;
    let space = Workspace::new();
    space.file("machinery.py", script);
    let volume = format!("{}:/work:ro", space.path().display());
    let output =
        debian(&["-v", &volume], &["python3", "-B", "/work/machinery.py"]).output().succeeds();
    assert!(output.err().contains("Ran 8 tests") && output.err().contains("OK"), "{output:?}");
}

#[test]
fn node_runs_workers_children_and_crypto() {
    let script = r#"
const { Worker, isMainThread, parentPort } = require('worker_threads');
const crypto = require('crypto'), fs = require('fs'), http = require('http'), cp = require('child_process');
if (!isMainThread) { parentPort.postMessage(crypto.createHash('sha256').update('x').digest('hex').slice(0, 8)); return; }
(async () => {
  const hashes = await Promise.all([1, 2, 3, 4].map(() => new Promise((done, fail) => {
    const worker = new Worker(__filename); worker.on('message', done); worker.on('error', fail);
  })));
  console.log(new Set(hashes).size, hashes[0]);
  const { publicKey, privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
  console.log(crypto.verify('sha256', 'm', publicKey, crypto.sign('sha256', 'm', privateKey)));
  await fs.promises.writeFile('/tmp/file', 'written'); console.log(await fs.promises.readFile('/tmp/file', 'utf8'));
  console.log(cp.execFileSync('echo', ['child']).toString().trim());
  const server = http.createServer((_, answer) => answer.end('served')).listen(0, '127.0.0.1', () =>
    http.get({ port: server.address().port, host: '127.0.0.1' }, answer => {
      answer.on('data', data => console.log(data.toString())); answer.on('end', () => server.close()); }));
})();
"#;
    let space = Workspace::new();
    space.file("work.js", script);
    let volume = format!("{}:/work:ro", space.path().display());
    let text = debian(&["-v", &volume], &["node", "/work/work.js"]).text();
    assert_eq!(text, "1 2d711642\ntrue\nwritten\nchild\nserved");
}

#[test]
fn the_hosts_own_tools_work_in_a_box_without_an_image() {
    let space = Workspace::new();
    space.file("a.c", "#include <stdio.h>\nint main(void) { puts(\"built\"); }\n");
    let volume = format!("{}:/work:rw,exec", space.path().display());
    let script =
        "cc -o a a.c && ./a && git init -q r && mv a a.c r && git -C r status --short | wc -l";
    let run = casemate(["run", "-v", &volume, "-w", "/work", "--", "bash", "-ec", script]);
    assert_eq!(run.text(), "built\n2");
}

#[test]
fn a_sandbox_in_the_box_works_where_the_profile_allows_it() {
    let space = Workspace::new();
    let profile = space.file("nesting.toml", "[seccomp]\nnesting = true\n");
    let inner =
        ["bwrap", "--unshare-user", "--unshare-net", "--ro-bind", "/", "/", "echo", "nested"];
    casemate(["run", "--"].iter().chain(&inner).copied()).output().fails(1);
    let text = casemate(["run", "-p", &profile, "--"].iter().chain(&inner).copied()).text();
    assert_eq!(text, "nested");
}
