//! What a test needs from the machine. A test that cannot be made here fails, with the reason, unless
//! CASEMATE_TEST_SKIP names what is missing: a list of words such as `tiocsti,root`.

use super::user::is_root;

/// Demands the positive control of an attack, or anything else that a test needs: true when it holds.
/// Where it does not, the test fails, or returns false when CASEMATE_TEST_SKIP has the word.
#[track_caller]
#[must_use = "a test whose requirement was waived must end"]
pub fn control(word: &str, holds: bool, reason: &str) -> bool {
    if holds {
        return true;
    }
    let waived = std::env::var("CASEMATE_TEST_SKIP").unwrap_or_default();
    if waived.split(',').any(|waived| waived.trim() == word) {
        eprintln!("not tested, as CASEMATE_TEST_SKIP says ({word}): {reason}");
        return false;
    }
    panic!("{reason}\nthis machine cannot make the test; CASEMATE_TEST_SKIP={word} waives it");
}

/// A test that acts as root on the host's side.
#[track_caller]
#[must_use = "a test whose requirement was waived must end"]
pub fn require_root() -> bool {
    control("root", is_root(), "this test needs root on the host's side")
}
