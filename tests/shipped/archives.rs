//! Programs that turn files into files, behind the strict filter.

use crate::Home;

/// Packs and unpacks, and does not find what is outside.
fn goes_there_and_back(pack: &str, unpack: &str, thief: &[&str]) {
    let home = Home::new();
    home.file("data/one", "one\n".repeat(10_000));
    home.file("data/two", "two\n");
    home.script(pack).output().succeeds();
    home.outside("mv data was").output().succeeds();
    home.script(unpack).output().succeeds();
    home.outside("diff -r was data").output().succeeds();
    if let Some((program, rest)) = thief.split_first() {
        home.keeps_the_secret(&format!("{program} {}", rest.join(" ")), home.casemate(thief));
    }
}

#[test]
fn tar_packs_and_unpacks() {
    let pack = "casemate tar czf x.tar.gz data; casemate tar cJf x.tar.xz data";
    goes_there_and_back(pack, "casemate tar xzf x.tar.gz", &["tar", "cf", "-", "../secret"]);
    goes_there_and_back(pack, "casemate tar xJf x.tar.xz", &[]);
}

#[test]
fn zip_and_unzip_work() {
    goes_there_and_back("casemate zip -qr x.zip data", "casemate unzip -q x.zip", &[]);
    let home = Home::new();
    home.keeps_the_secret("zip -0 - ../secret", home.casemate(&["zip", "-0", "-", "../secret"]));
}

#[test]
fn seven_zip_packs_and_unpacks() {
    goes_there_and_back("casemate 7z a x.7z data", "casemate 7z x x.7z", &[]);
    let home = Home::new();
    let control = "7z a -ttar -so x.tar ../secret";
    home.keeps_the_secret(
        control,
        home.casemate(&["7z", "a", "-ttar", "-so", "x.tar", "../secret"]),
    );
}

#[test]
fn single_files_are_packed_and_unpacked() {
    for (pack, unpack) in
        [("xz", "unxz"), ("gzip", "gunzip"), ("bzip2", "bunzip2"), ("zstd", "unzstd")]
    {
        let remove = if pack == "zstd" { "--rm " } else { "" };
        let pack = format!("casemate {pack} {remove}data/one data/two");
        let unpack = format!("casemate {unpack} {remove}data/*.*");
        goes_there_and_back_in_place(&pack, &unpack);
    }
    let home = Home::new();
    let threads = home.script("head -c 30000000 /dev/zero >z; casemate xz -T2 -0 z; ls z.xz");
    assert_eq!(threads.output().succeeds().out(), "z.xz\n");
    home.keeps_the_secret("xz -c ../secret | xz -dc", home.casemate(&["xz", "-c", "../secret"]));
}

fn goes_there_and_back_in_place(pack: &str, unpack: &str) {
    let home = Home::new();
    home.file("data/one", "one\n".repeat(10_000));
    home.file("data/two", "two\n");
    let script = format!("cp -r data was; {pack}; ls data; {unpack}; diff -r was data");
    let output = home.script(&script).output().succeeds();
    assert!(output.out().starts_with("one."), "{pack}: {}", output.out());
}

#[test]
fn jq_filters() {
    let home = Home::new();
    home.file("x.json", "{\"a\": [1, 42]}");
    assert_eq!(home.casemate(&["jq", ".a[1]", "x.json"]).text(), "42");
    assert_eq!(home.casemate(&["jq", ".a"]).stdin("{\"a\": 7}").text(), "7");
    let words = ["jq", "-R", ".", "../secret"];
    home.keeps_the_secret("jq -R . ../secret", home.casemate(&words));
}

#[test]
fn sqlite_keeps_a_database() {
    let home = Home::new();
    let run = |sql: &str| home.casemate(&["sqlite3", "x.db", sql]).text();
    run("PRAGMA journal_mode = wal; CREATE TABLE t (a); INSERT INTO t VALUES (42)");
    assert_eq!(run("SELECT a FROM t"), "42");
    let read = "SELECT CAST(readfile('../secret') AS TEXT)";
    home.keeps_the_secret(
        &format!("sqlite3 x.db \"{read}\""),
        home.casemate(&["sqlite3", "x.db", read]),
    );
}
