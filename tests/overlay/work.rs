//! Real work on the root of a box, in each mode: what people do with many files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::user::lock;
use crate::common::{Image, image, user};
use crate::modes::{Mode, at_work};

/// Runs the script in /work of the image with the tools, in a box of each mode.
pub(crate) fn in_every_mode(script: &str, expected: &str) {
    in_modes(|_| script.to_string(), expected);
}

fn in_modes(script: impl Fn(Mode) -> String, expected: &str) {
    in_modes_with(&[], script, expected);
}

fn in_modes_with(options: &[&str], script: impl Fn(Mode) -> String, expected: &str) {
    let name = image(Image::Tools);
    for mode in at_work() {
        let script = format!("set -euo pipefail; mkdir -p /work/tmp; cd /work; {}", script(mode));
        let options = [&["-e", "TMPDIR=/work/tmp"], options].concat();
        let run = mode.run(&name, &options).args(["bash", "-c", &script]);
        let output = run.timeout(Duration::from_secs(240)).output();
        assert_eq!(output.code(), Some(0), "{}: {}{}", mode.name, output.out(), output.err());
        assert_eq!(output.text(), expected, "{}", mode.name);
    }
}

#[test]
fn git_keeps_twenty_thousand_files() {
    let script = r#"
        export GIT_CONFIG_GLOBAL=/work/gitconfig
        git config --global user.name Tester; git config --global user.email tester@example.org
        git config --global init.defaultBranch main; git config --global gc.auto 0
        python3 -c '
import os
for d in range(200):
    os.makedirs(f"repository/d{d % 10}/e{d}")
    for f in range(100):
        with open(f"repository/d{d % 10}/e{d}/f{f}", "w") as file: file.write(f"{d} {f}\n" * 20)
'
        cd repository
        git init -q; git add .; git commit -q -m first
        git ls-files | wc -l
        git clone -q . ../clone
        cd ../clone
        git mv d1 moved; rm -rf d2; echo more >>d3/e3/f3; git add -A; git commit -q -m second
        git status --short | wc -l; git diff --stat HEAD~1 | tail -n 1
        git checkout -q HEAD~1; git checkout -q main; git stash list
        git gc -q; git fsck --strict; git count-objects
        git push -q origin main:second
        git -C ../repository merge -q second; diff -r --exclude=.git . ../repository && echo same
        git worktree add -q ../tree HEAD~1; ls ../tree | wc -l; rm -rf ../repository ../tree; ls
    "#;
    let expected = "20000\n0\n 4001 files changed, 1 insertion(+), 40000 deletions(-)\n\
                    0 objects, 0 kilobytes\nsame\n10\nd0\nd3\nd4\nd5\nd6\nd7\nd8\nd9\nmoved";
    in_every_mode(script, expected);
}

#[test]
fn make_builds_what_has_changed() {
    let script = r#"
        mkdir src; cd src
        echo 'int total(void);' >total.h
        for n in $(seq 60); do
            printf '#include <stdio.h>\n#include "total.h"\nint part%s(void) { return %s; }\n' $n $n >part$n.c
        done
        { for n in $(seq 60); do echo "int part$n(void);"; done
          echo 'int total(void) { return 0'; for n in $(seq 60); do echo "+ part$n()"; done; echo '; }'; } >total.c
        printf '#include <stdio.h>\n#include "total.h"\nint main(void) { printf("%%d\\n", total()); }\n' >main.c
        cat >Makefile <<'END'
OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))
program: libparts.a main.o ; $(CC) -o $@ main.o libparts.a
libparts.a: $(filter-out main.o,$(OBJECTS)) ; $(AR) rcs $@ $^
%.o: %.c total.h ; @echo $< >>built; $(CC) -O1 -c -o $@ $<
END
        make -s -j4; ./program; wc -l <built
        make -q && echo nothing to do
        echo >>part7.c; make -s -j4; tail -n 1 built; wc -l <built
        # A file of the image: what depends on it is built anew.
        sed 's/total.h/total.h \/usr\/include\/stdio.h/' Makefile >new; mv new Makefile
        make -q || true; touch /usr/include/stdio.h; make -s -j4; ./program; wc -l <built
    "#;
    in_every_mode(script, "1830\n62\nnothing to do\npart7.c\n63\n1830\n125");
}

/// The compiler that builds this test, where the user can reach it: links of its files where that is
/// possible. Cargo is in it too.
fn toolchain() -> PathBuf {
    let _lock = lock("toolchain");
    let place = user().base.join("toolchain");
    if !place.exists() {
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
        let sysroot = PathBuf::from(OsStr::from_bytes(sysroot.trim_ascii_end()));
        let partial = place.with_extension("partial");
        let script = r#"
            set -e; rm -rf "$1"; mkdir -p "$1/bin"; cd "$0"
            copy() { cp -al "$@" 2>/dev/null || cp -a "$@"; }
            copy bin/rustc bin/cargo "$1/bin/"; copy lib "$1/lib"
        "#;
        let run = Command::new("sh").args(["-c", script]).arg(&sysroot).arg(&partial).status();
        assert!(run.unwrap().success(), "copy the toolchain in {}", sysroot.display());
        fs::rename(&partial, &place).unwrap();
    }
    place
}

/// The sources of a crate that casemate itself is built from, where the user can reach them.
fn sources(name: &str) -> PathBuf {
    let _lock = lock("sources");
    let place = user().base.join(format!("crate-{name}"));
    if !place.exists() {
        let cargo = ["metadata", "--offline", "--locked", "--format-version", "1"];
        let known = Command::new(env!("CARGO"))
            .args(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let known: serde_json::Value = serde_json::from_slice(&known.stdout).unwrap();
        let packages = known["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let copied = Command::new("cp")
            .arg("-rT")
            .args([manifest.parent().unwrap(), &place])
            .status()
            .unwrap();
        assert!(copied.success());
    }
    place
}

#[test]
fn cargo_builds_a_crate() {
    let (compiler, sources) = (toolchain(), sources("memchr"));
    let volumes = [(compiler, "/run/toolchain:ro,exec"), (sources, "/run/sources:ro")]
        .map(|(from, to)| format!("{}:{to}", from.display()));
    let options = ["-v", &volumes[0], "-v", &volumes[1], "-e", "CARGO_HOME=/work/cargo"];
    let script = r#"
        export PATH=/run/toolchain/bin:$PATH CARGO_NET_OFFLINE=true CARGO_TERM_COLOR=never
        mkdir -p program/src memchr; cp -r /run/sources/src memchr/src
        cat >memchr/Cargo.toml <<'END'
[package]
name = "memchr"
version = "2.0.0"
edition = "2021"
[features]
default = ["std"]
std = ["alloc"]
alloc = []
END
        cat >program/Cargo.toml <<'END'
[package]
name = "program"
version = "1.0.0"
edition = "2021"
[dependencies]
memchr = { path = "../memchr" }
END
        echo 'fn main() { println!("{}", memchr::memmem::find_iter(b"abcabcab", "ab").count()); }' >program/src/main.rs
        cd program
        cargo build -q 2>/dev/null; target/debug/program
        cargo build -v 2>&1 | grep -c Fresh
        sleep 0.1; sed -i 's/count()/count() + 1/' src/main.rs
        cargo build -v 2>&1 | grep -c '^ *\(Fresh\|Compiling\)'; target/debug/program
        cargo build -v 2>&1 | grep -c Fresh
        cargo build -q --release 2>/dev/null; target/release/program
        mv target moved; mv moved target; cargo build -v 2>&1 | grep -c Fresh
        cargo clean -q; ls
    "#;
    let expected = "3\n2\n2\n4\n2\n4\n2\nCargo.lock\nCargo.toml\nsrc";
    in_modes_with(&options, |_| script.to_string(), expected);
}

#[test]
fn npm_installs_from_local_archives() {
    let script = r#"
        export npm_config_cache=/work/cache HOME=/work
        mkdir -p leaf/deep tree
        echo '{"name":"leaf","version":"1.2.3","main":"deep/index.js","bin":{"leaf":"deep/run.js"}}' >leaf/package.json
        echo 'module.exports = n => n * 2' >leaf/deep/index.js
        printf '#!/usr/bin/env node\nconsole.log(require("leaf")(21))\n' >leaf/deep/run.js
        for n in $(seq 200); do echo "module.exports = $n" >leaf/deep/file$n.js; done
        (cd leaf; npm pack --silent)
        cd tree; echo '{"name":"tree","version":"1.0.0","private":true}' >package.json
        npm install --silent --offline --no-audit --no-fund ../leaf/leaf-1.2.3.tgz
        node_modules/.bin/leaf; ls node_modules/leaf/deep | wc -l
        rm -rf node_modules; npm ci --silent --offline --no-audit --no-fund; npx --offline leaf
        npm ls --parseable | wc -l
    "#;
    in_every_mode(script, "leaf-1.2.3.tgz\n42\n202\n42\n2");
}

#[test]
fn two_processes_write_one_sqlite_database() {
    let script = r#"
        sqlite3 base 'pragma journal_mode = wal; create table t (who, n)' >/dev/null
        write() { for n in $(seq 300); do
            echo "begin immediate; insert into t values ($1, $n), ($1, -$n); commit;"; done |
            sqlite3 -cmd '.timeout 20000' base; }
        write 1 & first=$!; write 2 & second=$!
        for n in $(seq 20); do sqlite3 -cmd '.timeout 20000' base 'select count(*) % 2 from t'; done | sort -u
        wait $first; wait $second
        sqlite3 base 'select who, count(*), sum(n) from t group by who; pragma integrity_check; pragma wal_checkpoint(truncate); vacuum'
        sqlite3 base 'pragma journal_mode = delete; insert into t values (3, 3); select count(*) from t'; ls
    "#;
    let expected = "0\n1|600|0\n2|600|0\nok\n0|0|0\ndelete\n1201\nbase\ntmp";
    in_every_mode(script, expected);
}

/// What no box of one id can do, whatever its root: chown(2) to an id that is not mapped is EINVAL.
const NOT_IN_A_BOX: &str = "*.test_chown_without_permission";
/// What compares the numbers of directory entries with those of stat(2).
const NUMBERS: &str = "*.TestScandir.test_attributes";

/// What goes through more than 20 symbolic links in one path. The kernel allows 40, but where it has
/// to begin a path anew, since an entry that FUSE vouches for changed under way, it goes on counting
/// (`total_link_count` in fs/namei.c), so that ELOOP comes now and then while others work beside it.
const LINKS: &str = "*.SymlinkLoopGlobTests.test_selflink";

#[test]
fn pythons_own_tests_of_files_pass() {
    // Without attributes those tests that set some would be left out.
    in_modes_with(
        &["--xattrs"],
        |mode| {
            let numbers =
                if mode.lists_other_numbers { format!("-i {NUMBERS}") } else { String::new() };
            let links = if mode.has_server { format!("-i {LINKS}") } else { String::new() };
            format!(
                "python3 -m test --tempdir /work/tmp -j2 -i {NOT_IN_A_BOX} {numbers} {links} test_os \
                 test_posix test_shutil test_tempfile test_pathlib test_glob test_fileio test_mmap \
                 test_largefile test_dbm_dumb test_filecmp test_genericpath \
                 test_posixpath test_fcntl >log 2>&1 || {{ cat log; exit 1; }}; grep '^Tests result' log"
            )
        },
        "Tests result: SUCCESS",
    );
}

#[test]
fn trees_are_copied_compared_and_removed() {
    let script = r#"
        from=/usr/lib/python3
        files=$(find /usr/lib/python3* -type f | wc -l)
        mkdir copies; cp -a /usr/lib/python3* copies/; diff -r $from copies/python3
        [ $(find copies -type f | wc -l) = $files ] && echo copied
        rsync -a copies/ synced/; rsync -an --delete --itemize-changes --checksum copies/ synced/ | wc -l
        echo changed >>synced/python3/added; rm -rf synced/python3*/[a-d]*
        rsync -a --delete copies/ synced/; diff -r copies synced && echo synced
        tar -C copies -c . | (mkdir untarred; tar -C untarred -x)
        diff -r copies untarred && echo untarred
        sizes() { find $1 -type f -printf '%s\n' | sort | sha256sum; }
        [ "$(sizes synced)" = "$(sizes untarred)" ] && echo as large
        [ $(du -s synced | cut -f 1) -gt $(($(du -s --apparent-size untarred | cut -f 1) * 9 / 10)) ]
        cp -al copies linked; find linked -type f -links 2 | wc -l | grep -qx $files && echo linked
        rm -rf copies; find linked -type f -links 1 | wc -l | grep -qx $files && echo alone
        rm -rf /usr/lib/python3* synced linked; ls /usr/lib | grep -c python3 || true
        mv untarred/python3* /usr/lib/; find untarred /usr/lib/python3* -type f | wc -l | grep -qx $files && echo back
        find / -xdev -type f | wc -l >/dev/null; ls
    "#;
    in_every_mode(
        script,
        "copied\n0\nsynced\nuntarred\nas large\nlinked\nalone\n0\nback\ntmp\nuntarred",
    );
}
