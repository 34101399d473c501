//! Compilers and what drives them.

use std::path::Path;
use std::process::Command;

use crate::{Home, SECRET};

const C: &str = "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 6 * 7); return 0; }\n";

#[test]
fn gcc_and_clang_compile() {
    let home = Home::new();
    home.file("x.c", C);
    home.file("x.cc", "#include <iostream>\nint main() { std::cout << 6 * 7 << '\\n'; }\n");
    for (compiler, source) in [("gcc", "x.c"), ("clang", "x.c"), ("g++", "x.cc")] {
        home.casemate(&[compiler, "-O2", "-o", "x", source]).output().succeeds();
        assert_eq!(home.outside("./x").text(), "42", "{compiler}");
        // What a source includes is read by the compiler, which quotes it in its messages.
        home.file("thief.c", "#include \"../secret\"\n");
        let control = format!("{compiler} thief.c 2>&1");
        home.keeps_the_secret(&control, home.casemate(&[compiler, "thief.c"]));
    }
}

#[test]
fn make_builds_and_its_recipes_see_nothing_else() {
    let home = Home::new();
    home.file("x.c", C);
    let rules =
        "all: a b\n\nx: x.c\n\t$(CC) -o $@ $<\na b: x\n\t./x >$@\nthief:\n\tcat ../secret\n";
    home.file("Makefile", rules);
    home.casemate(&["make", "-j2"]).output().succeeds();
    assert_eq!(home.read("a") + &home.read("b"), "42\n42\n");
    assert!(home.casemate(&["make"]).text().contains("Nothing to be done"));
    home.keeps_the_secret("make thief", home.casemate(&["make", "thief"]));
}

#[test]
fn cmake_configures_builds_and_tests() {
    let home = Home::new();
    home.file("x.c", C);
    let project = "cmake_minimum_required(VERSION 3.10)\nproject(x C)\nadd_executable(x x.c)\nenable_testing()\nadd_test(NAME runs COMMAND x)\nif(THIEF)\nfile(READ ../secret text)\nmessage(\"${text}\")\nendif()\n";
    home.file("CMakeLists.txt", project);
    let script = "casemate cmake -S . -B build; casemate cmake --build build; casemate ctest --test-dir build";
    let output = home.script(script).output().succeeds();
    assert!(output.out().contains("100% tests passed"), "{}", output.out());
    let thief = ["cmake", "-S", ".", "-B", "build", "-D", "THIEF=1"];
    home.keeps_the_secret(&format!("{} 2>&1", thief.join(" ")), home.casemate(&thief));
}

#[test]
fn meson_configures_and_ninja_builds() {
    let home = Home::new();
    home.file("x.c", C);
    home.file("meson.build", "project('x', 'c')\ntest('runs', executable('x', 'x.c'))\n");
    let script =
        "casemate meson setup build; casemate ninja -C build; casemate meson test -C build";
    home.script(script).output().succeeds();
    assert_eq!(home.outside("build/x").text(), "42");
    let thief = "project('x')\nmessage(run_command('cat', '../secret', check: false).stdout())\n";
    home.file("thief/meson.build", thief.replace("../secret", &home.at("secret")));
    let words = ["meson", "setup", "out", "thief"];
    home.keeps_the_secret("meson setup control thief", home.casemate(&words));
    home.file("build.ninja", "rule thief\n  command = cat ../secret\nbuild x: thief\n");
    home.keeps_the_secret("ninja", home.casemate(&["ninja"]));
}

/// The toolchain that builds casemate, where a user has it: in the home, with its programs in
/// ~/.cargo/bin.
fn with_rust(home: &Home) -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().unwrap();
    let sysroot = String::from_utf8(output.stdout).unwrap();
    let sysroot = Path::new(sysroot.trim());
    let toolchain = home.space.directory(".rustup/toolchains/this");
    let bin = home.space.directory(".cargo/bin");
    for name in ["cargo", "rustc"] {
        copy(&sysroot.join("bin").join(name), &format!("{toolchain}/bin/{name}"));
        home.space.symlink(format!("{toolchain}/bin/{name}"), &format!(".cargo/bin/{name}"));
    }
    copy(&sysroot.join("lib"), &format!("{toolchain}/lib"));
    bin
}

/// By links where that can be, since it is half a gibibyte.
fn copy(from: &Path, to: &str) {
    let script = "mkdir -p \"$(dirname \"$2\")\" && { cp -rlL \"$1\" \"$2\" 2>/dev/null || { rm -rf \"$2\"; cp -rL \"$1\" \"$2\"; }; }";
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(from).arg(to).status().unwrap();
    assert!(status.success(), "copy {}", from.display());
}

#[test]
fn cargo_builds_offline_with_a_toolchain_of_the_home() {
    let home = Home::new();
    let bin = with_rust(&home);
    home.file("Cargo.toml", "[package]\nname = \"x\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\ndep = { path = \"dep\" }\n");
    home.file(
        "dep/Cargo.toml",
        "[package]\nname = \"dep\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
    );
    home.file("dep/src/lib.rs", "pub fn value() -> u32 { 42 }\n");
    home.file("src/main.rs", "fn main() { println!(\"{}\", dep::value()) }\n");
    let steal = "fn main() {
    let home = std::env::var(\"HOME\").unwrap();
    let seen = std::fs::read_to_string(home.clone() + \"/secret\").unwrap_or_else(|e| e.to_string());
    std::fs::write(\"seen\", seen).unwrap();
    let _ = std::fs::write(home + \"/.cargo/registry/poison\", \"x\");
}
";
    home.file("build.rs", steal);
    let path = format!("{bin}:/usr/bin:/bin");
    let run = |words: &[&str]| home.casemate(words).env("PATH", &path);
    let output = run(&["cargo", "run", "--offline"]).output().succeeds();
    assert_eq!(output.out(), "42\n");
    assert!(home.read("seen").contains("No such file"), "{}", home.read("seen"));
    assert!(!home.space.path().join(".cargo/registry").exists(), "the user's own is not touched");
    assert_eq!(run(&["cargo", "test", "--offline"]).output().succeeds().code(), Some(0));
    home.file("y.rs", "fn main() { print!(\"{}\", include_str!(\"../secret\")) }\n");
    assert!(run(&["rustc", "y.rs"]).output().err().contains("No such file"));
    home.file("y.rs", "fn main() { print!(\"42\") }\n");
    run(&["rustc", "y.rs"]).output().succeeds();
    assert_eq!(home.outside("./y").text(), "42");
    // The control: outside, the same build script finds the secret.
    home.outside("touch build.rs; cargo build --offline").env("PATH", &path).output().succeeds();
    assert_eq!(home.read("seen"), SECRET);
    // Links to somebody's toolchain, whose modes are not this suite's to change.
    std::fs::remove_dir_all(home.at(".rustup")).unwrap();
}

#[test]
fn go_builds_and_tests_a_module() {
    let home = Home::new();
    home.file("go.mod", "module example.org/x\n\ngo 1.18\n");
    home.file("x.go", "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(6 * 7) }\n");
    let test = "package main\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestX(t *testing.T) {\n\ttext, err := os.ReadFile(\"../secret\")\n\tt.Log(string(text), err)\n}\n";
    home.file("x_test.go", test);
    home.casemate(&["go", "build"]).env("GOPROXY", "off").output().succeeds();
    assert_eq!(home.outside("./x").text(), "42");
    home.keeps_the_secret("go test -v", home.casemate(&["go", "test", "-v"]));
    assert!(home.casemate(&["go", "test", "-v"]).text().contains("--- PASS: TestX"));
    // What was compiled does not stay, since go does not look at it again.
    let persistent = home.at(".local/share/casemate/persistent");
    let names = std::fs::read_dir(persistent).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["go%2Fpkg%2Fmod%2Fcache%2Fdownload"]);
}
