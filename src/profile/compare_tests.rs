use super::super::parse;
use super::*;

fn differences(a: &str, b: &str) -> Vec<String> {
    let read = |text| parse("p", text).unwrap().profile;
    let found = read(a).differences(&read(b), Paths::ByName);
    found.iter().map(|d| format!("{:?} {} {}", d.effect, d.key, d.text)).collect()
}

fn effect(a: &str, b: &str) -> Vec<Effect> {
    let read = |text| parse("p", text).unwrap().profile;
    read(a).differences(&read(b), Paths::ByName).iter().map(|found| found.effect).collect()
}

#[test]
fn the_same_and_its_words_are_no_difference() {
    assert!(effect("", "").is_empty());
    assert!(effect("description = \"a\"", "commands = [\"x\"]").is_empty());
}

#[test]
fn more_widens_and_less_narrows() {
    for (less, more) in [
        ("", "[network]\nmode = \"host\""),
        ("[network]\nmode = \"none\"", "[network]\nmode = \"host\""),
        ("", "[files]\nread = [\"/a\"]"),
        ("[files]\nread = [\"/a\"]", "[files]\nwrite = [\"/a\"]"),
        ("[files]\nwrite = [\"/a\"]\nread = [\"/a/b\"]", "[files]\nwrite = [\"/a\"]"),
        ("[files]\nread = [{ path = \"/a\", exec = false }]", "[files]\nread = [\"/a\"]"),
        ("[files]\nread = [\"/a\"]\nhide = [\"/a/b\"]", "[files]\nread = [\"/a\"]"),
        (
            "[files]\nread = [\"/a\"]\nhide = [\"/a/b\"]",
            "[files]\nread = [\"/a\", \"/a/b/c\"]\nhide = [\"/a/b\"]",
        ),
        ("[files]\noverlay = [\"/a\"]", "[files]\nwrite = [\"/a\"]"),
        ("[network]\ntcp-connect = []", ""),
        ("[network]\ntcp-bind = []", "[network]\ntcp-bind = [80]"),
        ("", "[capabilities]\nkeep = [\"net_raw\"]"),
        ("[seccomp]\ndeny = [\"socket\"]", ""),
        ("", "[seccomp]\nallow = [\"ptrace\"]"),
        ("", "[seccomp]\nbase = \"none\""),
        ("", "[seccomp]\nnesting = true"),
        ("[seccomp]\ndebug = false", "[seccomp]\ndebug = true"),
        ("", "may-degrade = [\"landlock\"]"),
        ("require = [\"landlock\"]", ""),
        ("[root]\nread-only = true", ""),
        ("[limits]\ntimeout = 5", ""),
        ("[limits]\ntimeout = 5", "[limits]\ntimeout = 50"),
        ("[limits]\nmemory-high = \"1g\"", ""),
        ("[limits]\nmemory-high = \"10%\"", "[limits]\nmemory-high = \"unlimited\""),
        ("[limits]\nmemory = \"64m\"", "[limits]\nmemory = \"1g\""),
        ("[limits]\nmemory = \"64m\"", "[limits]\nmemory = 0"),
        ("[limits]\nmemory = \"64m\"", ""),
        ("[limits]\nmemory = \"1g\"", "[limits]\nmemory = \"1g\"\nswap = \"1m\""),
        ("[limits]\nmemory = \"1g\"", "[limits]\nmemory = \"1g\"\nswap = -1"),
        ("[limits]\nswap = 0", ""),
        ("[limits]\nswap = 0", "[limits]\nswap = \"1m\""),
        ("[limits]\nswap = \"1m\"", ""),
        ("[limits]\nswap = \"1m\"", "[limits]\nswap = \"2m\""),
        ("[limits]\nprocesses = 5", ""),
        ("[limits]\nprocesses = 5", "[limits]\nprocesses = 0"),
        ("[limits]\nprocesses = 5", "[limits]\nprocesses = 50"),
        ("[limits]\ncpus = 0.5", "[limits]\ncpus = 1"),
        ("[limits]\ncpus = 2", "[limits]\ncpus = 2.5"),
        ("[limits]\ncpus = 2", "[limits]\ncpus = 0"),
        ("[limits]\ncpu-weight = 50", ""),
        ("", "[limits]\ncpu-weight = 150"),
        ("[limits]\nio-weight = 9", "[limits]\nio-weight = 10"),
        ("[limits]\ncpuset = \"0-3\"", ""),
        ("[limits]\ncpuset = \"1,3\"", "[limits]\ncpuset = \"0-3\""),
        ("[limits]\nrequire = true", ""),
        ("require = [\"limits\"]", ""),
        ("", "may-degrade = [\"limits\"]"),
        ("[limits.rlimits]\nnofile = 5", "[limits.rlimits]\nnofile = \"5:6\""),
        ("[environment]\nkeep = [\"LC_ALL\"]", "[environment]\nkeep = [\"LC_*\"]"),
        ("[root]\nscratch-size = \"10%\"", "[root]\nscratch-size = \"20%\""),
    ] {
        assert_eq!(effect(less, more), [Effect::Widens], "{less} → {more}");
        assert_eq!(effect(more, less), [Effect::Narrows], "{more} → {less}");
    }
}

#[test]
fn what_cannot_be_compared_widens_both_ways() {
    for (a, b) in [
        ("", "[lsm]\napparmor = \"a\""),
        ("[root]\nimage = \"a\"", "[root]\nimage = \"b\""),
        ("[environment]\nset = { A = \"1\" }", "[environment]\nset = { A = \"2\" }"),
        ("[program]\nworkdir = \"/a\"", "[program]\nworkdir = \"/b\""),
        ("[root]\nscratch-size = \"10%\"", "[root]\nscratch-size = 1000000"),
        ("[limits]\nmemory = \"1g\"\nswap = 0", "[limits]\nmemory = \"10%\"\nswap = 0"),
        ("[limits]\ncpuset = \"0,1\"", "[limits]\ncpuset = \"1,2\""),
        ("[limits.rlimits]\ncore = 1", "[limits.rlimits]\ncore = 0"),
        ("[files]\nread = [\"/a\"]", "[files]\nread = [{ path = \"/b\", at = \"/a\" }]"),
    ] {
        assert_eq!(effect(a, b), [Effect::Widens], "{a} → {b}");
        assert_eq!(effect(b, a), [Effect::Widens], "{b} → {a}");
    }
}

#[test]
fn what_is_said_may_be_so_anyway_or_grant_nothing() {
    for (a, b) in [
        ("[limits]\nmemory = \"1g\"", "[limits]\nmemory = \"1g\"\nswap = 0"),
        ("", "[limits]\nmemory = \"unlimited\""),
        ("", "[limits]\nswap = \"unlimited\""),
        ("", "[limits]\nprocesses = -1"),
        ("[limits]\ncpus = 0", ""),
        ("[limits]\nio-weight = 100", ""),
        ("", "[limits]\nrequire = false"),
        ("", "[root]\nxattrs = true"),
        ("[root]\nxattrs = true", "[root]\nxattrs = false"),
    ] {
        assert_eq!(effect(a, b), [Effect::Differs], "{a} → {b}");
        assert_eq!(effect(b, a), [Effect::Differs], "{b} → {a}");
    }
}

#[test]
fn a_directory_holds_what_is_below_it_by_component() {
    let a = "[files]\nwrite = [\"~/work\"]";
    assert!(effect(a, "[files]\nwrite = [\"~/work\", \"~/work/x\"]").is_empty());
    assert_eq!(
        differences(a, "[files]\nwrite = [\"~/work\", \"~/work2\"]"),
        ["Widens files.write ~/work2: write (was nothing)"]
    );
    assert_eq!(
        differences(a, "[files]\nwrite = [\"~/work\"]\nread = [\"~/work/x\"]"),
        ["Narrows files.read ~/work/x: read (was write)"]
    );
    // What leads up is not below, and the home not below the working directory.
    for other in ["../x", "./a/../../x", "~", "/x"] {
        let b = format!("[files]\nwrite = [\".\", \"{other}\"]");
        assert_eq!(effect("[files]\nwrite = [\".\"]", &b), [Effect::Widens], "{other}");
    }
    assert!(effect("[files]\nwrite = [\".\"]", "[files]\nwrite = [\".\", \"./x\"]").is_empty());
}

#[test]
fn a_link_below_a_directory_may_lead_anywhere() {
    let read = |text| parse("p", text).unwrap().profile;
    let a = read("[files]\nread = [\".\"]");
    let b = read("[files]\nread = [\".\", \"./link\"]");
    assert_eq!(a.differences(&b, Paths::Exact)[0].effect, Effect::Widens);
    assert!(a.differences(&b, Paths::ByName).is_empty());
}
