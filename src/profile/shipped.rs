//! Where profiles come from: a file that was named, or one that is part of casemate.

use std::path::Path;

use super::{Named, parse};
use crate::error::{During, Error, Result};

/// The profiles that are part of the binary, by name.
const SHIPPED: [(&str, &str); 1] = [("default", include_str!("../../profiles/default.toml"))];

/// The largest profile that is read, in bytes: more than any real one by far.
const LIMIT: u64 = 1 << 20;

/// The names of the profiles that are part of casemate.
pub fn shipped() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// Loads a profile by the word after `--profile`: a path where it has a slash or ends in `.toml`,
/// else the name of a shipped one.
pub fn load(word: &str) -> Result<Named> {
    if word.contains('/') || word.ends_with(".toml") {
        return parse(word, &read(Path::new(word))?);
    }
    match SHIPPED.iter().find(|(name, _)| *name == word) {
        Some((name, text)) => parse(name, text),
        None => {
            Err(Error::new(format!("profile {word}: there is no shipped profile of this name"))
                .hint(format!(
                    "shipped: {}; a file is named by its path, such as ./{word}.toml",
                    SHIPPED.map(|(name, _)| name).join(", ")
                )))
        }
    }
}

fn read(path: &Path) -> Result<String> {
    use std::io::Read;
    let file = std::fs::File::open(path).at("open profile", path)?;
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).at("read profile", path)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::new(format!("read profile {}: larger than 1 MiB", path.display())));
    }
    String::from_utf8(bytes).map_err(|_| {
        Error::new(format!("read profile {}: not UTF-8, which TOML is", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_parses() {
        for (name, _) in SHIPPED {
            assert!(load(name).unwrap().profile.description.is_some(), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_none_says_which_there_are() {
        let error = load("defualt").unwrap_err();
        assert!(error.hints()[0].contains("shipped: default"));
        assert_eq!(
            load("./none.toml").unwrap_err().to_string(),
            "open profile ./none.toml: No such file or directory"
        );
    }
}
