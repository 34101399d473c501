//! What a registry says when it refuses.

use std::time::Duration;

use serde::Deserialize;
use ureq::http::header;

use super::address::authority;
use super::failure::{Failure, MAX_RETRIES, shown};
use super::http::Response;
use crate::error::{Error, Exit};

/// The longest that a server may have us wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How much of an error's own words is read, and how many errors are shown.
const MAX_WORDS: u64 = 64 * 1024;
const SHOWN_ERRORS: usize = 3;

/// An answer that is no success: its status, and the registry's own words.
pub(super) fn refusal(mut response: Response, named: &str) -> Failure {
    let host = authority(&response.uri);
    let status = response.status;
    let wait = retry_after(&response);
    let is_page = response.media_type() == "text/html";
    let body = response.document(MAX_WORDS).unwrap_or_default();
    let words = Words::of(&body);
    let said = |what: &str| match words.text.as_str() {
        "" => Error::new(format!("{host}: {what}")),
        text => Error::new(format!("{host}: {what}: {text}")),
    };
    let error = match status {
        401 | 403 => {
            let what = if status == 401 { "unauthorized" } else { "access denied" };
            said(what)
                .hint(format!("log in with: casemate login {named}"))
                .hint("registries also answer this for images that do not exist")
        }
        404 if is_page => no_registry(&host),
        404 => said("not found").exit(Exit::Failed),
        429 => said("too many requests (429)")
            .hint(format!("wait, or raise the limit by: casemate login {named}")),
        200..=299 => said(&format!("answered {status} where that makes no sense")),
        _ if is_page && status < 500 => no_registry(&host),
        _ => said(&format!("answered {}", status_line(status))),
    };
    let passes = matches!(status, 408 | 429 | 500 | 502..=504);
    Failure {
        retries: if passes { MAX_RETRIES } else { 0 },
        wait,
        status: Some(status),
        ..Failure::lasting(error)
    }
}

/// What answers with pages for people.
pub(super) fn no_registry(host: &str) -> Error {
    Error::new(format!(
        "{host}: answered with a web page; it is no registry, or something stands before it"
    ))
    .hint("check the name; a proxy or a network's log-in page answers like that too")
}

fn status_line(status: u16) -> String {
    match ureq::http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_string(),
    }
}

/// Retry-After in seconds; a date is as good as none.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.header(header::RETRY_AFTER)?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

/// The errors of a registry's answer.
struct Words {
    text: String,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<One>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct One {
    code: String,
    message: String,
}

/// As token servers say it (RFC 6749, section 5.2).
#[derive(Default, Deserialize)]
#[serde(default)]
struct OAuth {
    error: String,
    error_description: String,
    details: String,
}

impl Words {
    fn of(body: &[u8]) -> Self {
        let mut said = Vec::new();
        if let Ok(Errors { errors }) = serde_json::from_slice(body) {
            for One { code, message } in errors.into_iter().take(SHOWN_ERRORS) {
                said.push(match (code.is_empty(), message.is_empty()) {
                    (true, _) => message,
                    (false, true) => code,
                    (false, false) => format!("{message} ({code})"),
                });
            }
        } else if let Ok(oauth) = serde_json::from_slice::<OAuth>(body) {
            said.extend([oauth.error, oauth.error_description, oauth.details]);
        }
        said.retain(|text| !text.is_empty());
        Words { text: shown(&said.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::failure::SHOWN_CHARACTERS;

    #[test]
    fn a_registrys_own_words_are_kept_short() {
        let words = |body: &str| Words::of(body.as_bytes()).text;
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(words(unknown), "manifest unknown (MANIFEST_UNKNOWN)");
        assert_eq!(
            words(r#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(words("<html>"), "");
        assert_eq!(words(r#"{"errors":null}"#), "");
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "ä".repeat(5000));
        assert_eq!(words(&long).chars().count(), SHOWN_CHARACTERS + 1);
    }
}
