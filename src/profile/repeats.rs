//! What a project's profile says again. How late a grant is said decides between it and what hides or
//! replaces it; saying it once more must not undo that.

use std::path::{Component, Path, PathBuf};

use super::{Files, Grant};

impl Files {
    /// Makes what was said over `before`, and is there already or takes away from what is there, as late
    /// as what is there. What allows more stays as late as it was said: it is for the user to trust.
    pub(super) fn lower_repeats(&mut self, before: &Files) {
        let again = |grant: &mut Grant, write: bool| {
            if let Some(rank) = before.rank_of(grant, write) {
                grant.rank = rank;
            }
        };
        self.write.iter_mut().skip(before.write.len()).for_each(|grant| again(grant, true));
        self.overlay.iter_mut().skip(before.overlay.len()).for_each(|grant| again(grant, false));
        self.read.iter_mut().skip(before.read.len()).for_each(|grant| again(grant, false));
        for stays in self.persist.iter_mut().skip(before.persist.len()) {
            let same =
                |there: &&super::Persistent| there.below == stays.below && there.name == stays.name;
            if let Some(there) = before.persist.iter().filter(same).max_by_key(|there| there.rank) {
                stays.rank = there.rank;
            }
        }
    }

    /// How late something that allows as much or more was said for the place of a grant, if that is what
    /// counts there.
    fn rank_of(&self, grant: &Grant, write: bool) -> Option<u32> {
        let place = place(grant);
        let writable = self.write.iter().map(|there| (there, true));
        let readable = self.overlay.iter().chain(&self.read).map(|there| (there, false));
        // Of one rank the last counts: what is read-only.
        let (there, may_write) = writable
            .chain(readable)
            .filter(|(there, _)| self::place(there) == place)
            .max_by_key(|(there, _)| there.rank)?;
        let is_hidden =
            self.hide.iter().any(|path| path.rank >= there.rank && tidy(&path.path) == place);
        let is_less = tidy(&there.path) == tidy(&grant.path)
            && (may_write || !write)
            && (there.exec || !grant.exec);
        (is_less && !is_hidden).then_some(there.rank)
    }
}

/// Where the box has it, as far as its text tells.
fn place(grant: &Grant) -> PathBuf {
    tidy(grant.at.as_ref().unwrap_or(&grant.path))
}

fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Profile, parse};

    /// The ranks of what is readable, writable and stays, after the second was laid over the first as a
    /// project's.
    fn ranks(before: &[&str], over: &str) -> [Vec<u32>; 3] {
        let parsed = |text: &str| parse("p", &format!("[files]\n{text}")).unwrap().profile;
        let before = before.iter().fold(Profile::default(), |all, text| all.overlaid(parsed(text)));
        let mut all = before.clone().overlaid(parsed(over));
        all.files.lower_repeats(&before.files);
        let of = |grants: &[super::Grant]| grants.iter().map(|grant| grant.rank).collect();
        let persist = all.files.persist.iter().map(|stays| stays.rank).collect();
        [of(&all.files.read), of(&all.files.write), persist]
    }

    #[test]
    fn what_is_said_again_is_no_later() {
        let base = ["read = [\"~/a\"]\nwrite = [\".\"]", "hide = [\"~\"]\npersist = [\"~/c\"]"];
        let [read, write, persist] = ranks(
            &base,
            "read = [\"~/a/\", \"./.\", \"~/b\"]\nwrite = [\".\", \"~/a\"]\npersist = [\"~/c\", \"~/d\"]",
        );
        let first = read[0];
        assert_eq!(read[..3], [first; 3], "repeated, or taking away");
        assert_eq!(write[..2], [first; 2]);
        assert!(read[3] > persist[0] && write[2] > persist[0], "what allows more is later");
        assert!(persist[1] == persist[0] && persist[2] > persist[0]);
        // Hidden itself, it is not there any more.
        let [read, ..] = ranks(&["read = [\"~/a\"]", "hide = [\"~/a\"]"], "read = [\"~/a\"]");
        assert!(read[1] > read[0] + 1);
    }
}
