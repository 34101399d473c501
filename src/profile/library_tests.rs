use super::*;
use crate::profile::NetworkMode;

fn library(files: &[(&str, &str)]) -> (tempfile::TempDir, Library) {
    let place = tempfile::tempdir().unwrap();
    let profiles = place.path().join("casemate/profiles");
    std::fs::create_dir_all(&profiles).unwrap();
    for (name, text) in files {
        std::fs::write(profiles.join(name), text).unwrap();
    }
    let library = Library::new(Some(place.path()));
    (place, library)
}

#[test]
fn every_shipped_profile_parses_and_says_what_it_is() {
    let library = Library::default();
    for (name, _) in SHIPPED {
        let layers = library.load(name).unwrap_or_else(|error| panic!("{error}"));
        assert!(layers.profile.description.is_some(), "{name}");
    }
    assert!(SHIPPED.is_sorted());
}

#[test]
fn every_file_of_a_profile_is_shipped() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
    files.sort();
    let known: Vec<String> = shipped().map(|name| format!("{name}.toml")).collect();
    assert_eq!(files.len(), known.len());
    assert!(files.iter().all(|file| known.contains(file)), "{files:?}");
}

#[test]
fn every_shipped_profile_is_without_warnings_and_each_program_has_one() {
    let mut commands = std::collections::BTreeMap::new();
    for (name, text) in SHIPPED {
        let lints = Library::default().load(name).unwrap().profile.lint("/home/ann".as_ref());
        let warnings: Vec<_> =
            lints.into_iter().filter(|lint| lint.level == crate::profile::Level::Warning).collect();
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
        for command in parse(name, text).unwrap().profile.commands {
            assert!(!shipped().any(|other| other == command.0), "{name}: {}", command.0);
            let other = commands.insert(command.0.clone(), name);
            assert!(other.is_none(), "{} is in {name} and {other:?}", command.0);
        }
    }
}

#[test]
fn a_name_that_is_none_says_what_is_near() {
    let error = Library::default().load("defualt").unwrap_err();
    assert_eq!(error.to_string(), "profile defualt: there is no profile of this name");
    assert_eq!(error.hints()[0], "did you mean \"default\"?");
    assert_eq!(
        Library::default().load("./none.toml").unwrap_err().to_string(),
        "open profile ./none.toml: No such file or directory"
    );
    assert!(Library::default().load("-p").is_err());
}

#[test]
fn bases_are_merged_from_left_to_right_and_each_counts_once() {
    let (_place, library) = library(&[
        ("base.toml", "[network]\nmode = \"none\"\n[files]\nread = [\"/base\"]"),
        ("net.toml", "extends = [\"base\"]\n[network]\nmode = \"host\""),
        ("build.toml", "extends = [\"base\"]\n[files]\nread = [\"/build\"]\n"),
        ("leaf.toml", "description = \"d\"\ncommands = [\"leaf\"]\nextends = [\"net\", \"build\"]"),
    ]);
    let layers = library.load("leaf").unwrap();
    let names: Vec<&str> =
        layers.names.iter().map(|name| name.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["default", "base.toml", "net.toml", "build.toml", "leaf.toml"]);
    assert_eq!(layers.profile.network.mode, Some(NetworkMode::Host));
    let read: Vec<_> = layers.profile.files.read.iter().map(|grant| grant.path.clone()).collect();
    assert_eq!(read, [PathBuf::from("/base"), PathBuf::from("/build")]);
    assert_eq!(layers.profile.description.as_deref(), Some("d"));
    assert_eq!(layers.profile.commands.len(), 1);
}

#[test]
fn a_circle_is_refused_where_it_closes() {
    let (place, library) = library(&[
        ("a.toml", "extends = [\"b\"]"),
        ("b.toml", "description = \"x\"\nextends = [\"a\"]"),
        ("self.toml", "extends = [\"self\"]"),
    ]);
    let error = library.load("a").unwrap_err().to_string();
    let directory = place.path().join("casemate/profiles");
    let name = |file: &str| directory.join(file).display().to_string();
    assert_eq!(
        error,
        format!(
            "{}:2:12: extends: a circle: {1} extends {0} extends {1}",
            name("b.toml"),
            name("a.toml")
        )
    );
    // Its own name is the shipped one's, which there is not.
    let error = library.load("self").unwrap_err().to_string();
    assert!(error.ends_with("self.toml:1:12: profile self: there is no profile of this name"));
}

#[test]
fn a_users_profile_stands_for_the_shipped_one_and_may_build_on_it() {
    let (_place, library) =
        library(&[("default.toml", "extends = [\"default\"]\n[network]\nmode = \"host\"")]);
    let layers = library.load("default").unwrap();
    assert_eq!(layers.names.len(), 2);
    assert_eq!(layers.profile.network.mode, Some(NetworkMode::Host));
    let listed = library.list().unwrap();
    let (_place, own) = self::library(&[("ssh.toml", "extends = [\"ssh\"]")]);
    assert_eq!(own.for_command("scp").unwrap().as_deref(), Some("ssh"));
    let (_place, own) = self::library(&[("ssh.toml", "commands = [\"sftp\"]")]);
    assert_eq!(own.for_command("scp").unwrap(), None);
    assert!(listed.iter().all(|one| one.path.is_some() == (one.name == "default")));
}

#[test]
fn a_file_builds_on_files_beside_it() {
    let (place, library) = library(&[]);
    std::fs::create_dir(place.path().join("d")).unwrap();
    std::fs::write(place.path().join("d/a.toml"), "extends = [\"../b.toml\"]").unwrap();
    std::fs::write(place.path().join("b.toml"), "[network]\nmode = \"host\"").unwrap();
    let word = place.path().join("d/a.toml").display().to_string();
    assert_eq!(library.load(&word).unwrap().profile.network.mode, Some(NetworkMode::Host));
    let pathless = parse("p", "extends = [\"./b.toml\"]").unwrap();
    let error = library.over(library.default_layers().unwrap(), pathless).unwrap_err();
    assert!(error.to_string().contains("only names can stand here"), "{error}");
}

#[test]
fn a_program_has_the_profile_of_its_name_or_the_one_that_lists_it() {
    let (_place, library) =
        library(&[("npm.toml", "commands = [\"npx\"]"), ("broken.toml", "commands = 5")]);
    assert_eq!(library.for_command("npm").unwrap().as_deref(), Some("npm"));
    assert_eq!(library.for_command("npx").unwrap().as_deref(), Some("npm"));
    assert_eq!(library.for_command("nmp").unwrap(), None);
    // Of the shipped ones.
    assert_eq!(library.for_command("soffice").unwrap().as_deref(), Some("libreoffice"));
    let listed = library.list().unwrap();
    let broken = listed.iter().find(|listed| listed.name == "broken").unwrap();
    assert!(broken.description.as_ref().unwrap_err().contains("broken.toml:1:12"));
}

#[test]
fn names_lead_nowhere() {
    for bad in ["", "..", ".x", "a/b", "-x", "a b", "x\n", &"a".repeat(65)] {
        assert!(!is_name(bad), "{bad:?}");
    }
    assert!(is_name("7z") && is_name("cli-net") && is_name("python3.11"));
}
