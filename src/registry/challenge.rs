//! WWW-Authenticate (RFC 9110, section 11): what a registry wants to see before it answers.

/// A scheme that is known here. Others are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A user name and password with every request.
    Basic,
    /// A token, which `realm` gives (the distribution project's token specification).
    Bearer {
        /// The address that gives tokens.
        realm: String,
        /// For whom the token is to be.
        service: Option<String>,
        /// What it is to allow.
        scope: Option<String>,
    },
}

/// Longer values than this are no challenges.
const MAX_LENGTH: usize = 16 * 1024;

/// Reads the value of one header, which may hold several challenges.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut current: Option<(String, Vec<(String, String)>)> = None;
    let mut rest = header.get(..header.len().min(MAX_LENGTH)).unwrap_or_default();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let value = value.trim_start();
                let (value, after) = match value.strip_prefix('"') {
                    Some(quoted) => unquote(quoted),
                    None => {
                        let (value, after) = token(value);
                        (value.to_owned(), after)
                    }
                };
                if let Some((_, parameters)) = &mut current {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                // What is no parameter is a token68, of a scheme that is not known here.
                rest = after.trim_start_matches('=');
            }
            None => {
                challenges.extend(current.take().and_then(known));
                current = Some((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    challenges.extend(current.and_then(known));
    challenges
}

fn known((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let mut parameters = parameters;
    let mut take = |name: &str| {
        let at = parameters.iter().position(|(key, _)| key == name)?;
        Some(parameters.swap_remove(at).1).filter(|value| !value.is_empty())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: take("realm")?,
            service: take("service"),
            scope: take("scope"),
        }),
        _ => None,
    }
}

/// A token as RFC 9110 has it, and also the characters of a token68 (`/`), which some send bare.
fn token(text: &str) -> (&str, &str) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

/// The string up to the closing quote, or to the end where there is none.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: text(service), scope: text(scope) }
    }

    #[test]
    fn what_registries_send_is_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull,push""#;
        assert_eq!(
            parse(hub),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/debian:pull,push")
            )]
        );
        assert_eq!(parse(r#"Basic realm="Registry, \"ours\"""#), [Challenge::Basic]);
        assert_eq!(parse("basic"), [Challenge::Basic]);
        assert_eq!(parse("BEARER realm = https://a.io/t"), [bearer("https://a.io/t", None, None)]);
        assert_eq!(
            parse(r#"Negotiate YII==, Bearer realm="r", Basic realm="b""#),
            [bearer("r", None, None), Challenge::Basic]
        );
    }

    #[test]
    fn what_makes_no_sense_is_no_challenge() {
        for text in
            ["", ",", "=", "Bearer", "Bearer realm=", "Digest realm=\"x\"", "\u{e9}", "\"Basic"]
        {
            assert_eq!(parse(text), [], "{text:?}");
        }
        assert_eq!(parse(r#"Bearer realm="open"#), [bearer("open", None, None)]);
        assert!(parse(&"Basic,".repeat(100_000)).len() < MAX_LENGTH);
    }
}
