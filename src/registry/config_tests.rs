use super::*;

fn read_text(text: &str) -> Configuration {
    let mut configuration = Configuration::default();
    configuration.add("r.conf", text).unwrap();
    configuration
}

fn parse(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn full(configuration: &Configuration, text: &str) -> Vec<String> {
    let candidates = configuration.candidates(&parse(text)).unwrap();
    let name = |reference: &Reference| {
        let (host, path) = reference.registry();
        format!("{host}/{path}:{}", reference.tag())
    };
    candidates.iter().map(name).collect()
}

fn places(configuration: &Configuration, text: &str) -> Vec<String> {
    let (own, mirrors) = configuration.locations(&parse(text), Access::Pull).unwrap();
    let place = |location: &Location| {
        let mark = if location.insecure { "!" } else { "" };
        format!("{mark}{}/{}", location.host, location.repository)
    };
    mirrors.iter().chain([&own]).map(place).collect()
}

#[test]
fn short_names_are_looked_up() {
    assert_eq!(full(&Configuration::default(), "debian:12"), ["docker.io/library/debian:12"]);
    let configuration = read_text(
        "unqualified-search-registries = [\"quay.io\", \"docker.io\"]\n\
         [aliases]\n\"tool\" = \"ghcr.io/owner/tool\"\n",
    );
    assert_eq!(
        full(&configuration, "debian"),
        ["quay.io/debian:latest", "docker.io/library/debian:latest"]
    );
    assert_eq!(full(&configuration, "tool:1"), ["ghcr.io/owner/tool:1"]);
    assert_eq!(full(&configuration, "localhost:5000/x"), ["localhost:5000/x:latest"]);
    // Named in full, it is nobody else's.
    assert_eq!(
        full(&configuration, "docker.io/library/debian"),
        ["docker.io/library/debian:latest"]
    );
}

#[test]
fn no_search_and_enforcing_ask_for_the_whole_name() {
    let none = read_text("unqualified-search-registries = []");
    assert!(none.candidates(&parse("x")).unwrap_err().to_string().contains("no registry is named"));
    let many = read_text(
        "unqualified-search-registries = [\"a.io\", \"b.io\"]\nshort-name-mode = \"enforcing\"",
    );
    let error = many.candidates(&parse("x")).unwrap_err();
    assert!(error.to_string().contains("a.io/x, b.io/x"), "{error}");
    assert!(many.candidates(&parse("c.io/x")).is_ok());
}

#[test]
fn the_longest_prefix_says_where_a_repository_is() {
    let configuration = read_text(
        "[[registry]]\nprefix = \"a.io/team\"\nlocation = \"b.io/other\"\n\
         [[registry]]\nlocation = \"a.io\"\ninsecure = true\n\
         [[registry]]\nprefix = \"*.dev.io\"\ninsecure = true\n\
         [[registry]]\nprefix = \"*.x.dev.io\"\nlocation = \"cache.io/x\"\n",
    );
    assert_eq!(places(&configuration, "a.io/team/x"), ["b.io/other/x"]);
    assert_eq!(places(&configuration, "a.io/teams/x"), ["!a.io/teams/x"]);
    assert_eq!(places(&configuration, "b.dev.io/x"), ["!b.dev.io/x"]);
    assert_eq!(places(&configuration, "b.x.dev.io:1/x"), ["cache.io/x/x"]);
    assert_eq!(places(&configuration, "dev.io/x"), ["dev.io/x"]);
    assert!(configuration.is_insecure("a.io") && !configuration.is_insecure("a.io:5000"));
}

#[test]
fn mirrors_come_first_and_serve_what_they_are_for() {
    let configuration = read_text(
        "[[registry]]\nlocation = \"docker.io\"\n\
         [[registry.mirror]]\nlocation = \"m.local:5000/hub\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"d.io\"\npull-from-mirror = \"digest-only\"\n",
    );
    assert_eq!(
        places(&configuration, "debian"),
        ["!m.local:5000/hub/library/debian", "docker.io/library/debian"]
    );
    let digest = crate::image::Digest::of(b"");
    assert_eq!(places(&configuration, &format!("debian@{digest}")).len(), 3);
    let push = configuration.locations(&parse("debian"), Access::Push).unwrap();
    assert_eq!(push.1, []);
    let tags = read_text(
        "[[registry]]\nlocation = \"a.io\"\nmirror-by-digest-only = true\n\
         [[registry.mirror]]\nlocation = \"m.io\"\n",
    );
    assert_eq!(places(&tags, "a.io/x"), ["a.io/x"]);
}

#[test]
fn a_blocked_registry_is_refused() {
    let configuration = read_text(
        "unqualified-search-registries = [\"a.io\", \"b.io\"]\n\
         [[registry]]\nlocation = \"a.io\"\nblocked = true\n",
    );
    let error = configuration.candidates(&parse("a.io/x")).unwrap_err();
    assert!(error.to_string().contains("blocked"), "{error}");
    assert!(configuration.locations(&parse("a.io/x"), Access::Pull).is_err());
    assert_eq!(full(&configuration, "x"), ["b.io/x:latest"]);
}

#[test]
fn later_files_win() {
    let mut configuration = read_text(
        "unqualified-search-registries = [\"a.io\"]\n[aliases]\nx = \"a.io/x\"\n\
         [[registry]]\nlocation = \"a.io\"\nblocked = true\n",
    );
    let later = "[aliases]\nx = \"\"\n[[registry]]\nlocation = \"a.io\"\n";
    configuration.add("later.conf", later).unwrap();
    assert_eq!(full(&configuration, "x"), ["a.io/x:latest"]);
}

#[test]
fn errors_are_shown_where_they_stand() {
    for (text, place, words) in [
        ("[registries.search]\nregistries = [\"a\"]", "r.conf:1:", "version 1"),
        ("[[registry]]\ninsecure = true", "r.conf:1:1:", "needs a location"),
        ("[[registry]]\nlocation = \"https://a.io\"", "r.conf:1:1:", "without https://"),
        ("[[registry]]\nlocation = 5", "r.conf:2:12:", "invalid type"),
        ("unqualified-search-registries = [\"a.io\", \"b c\"]", "r.conf:1:42:", "HOST"),
        ("[aliases]\nx = \"y\"", "r.conf:2:5:", "HOST/NAME"),
        ("[[registry]", "r.conf:1:", ""),
        ("short-name-mode = \"x\"", "r.conf:1:19:", "enforcing"),
    ] {
        let error = Configuration::default().add("r.conf", text).unwrap_err().to_string();
        assert!(error.starts_with(place) && error.contains(words), "{text}: {error}");
    }
    // Keys of other tools.
    read_text("additional-layer-store-auth-helper = \"x\"\n[other]\na = 1\n");
}
