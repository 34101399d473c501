//! `casemate completion` and what its scripts call. The scripts know nothing of the command line:
//! they ask casemate, so that options, commands and the names of images are always those of today.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command, CommandFactory};

use super::boxes;
use crate::cli::{Cli, CompleteArgs, Shell};
use crate::confine::seccomp;
use crate::error::Result;
use crate::host::Directories;
use crate::profile::{Library, protected};
use crate::store::Store;
use crate::ui;

/// Prints the script for a shell.
pub(super) fn script(shell: Shell) -> Result<()> {
    ui::output(match shell {
        Shell::Bash => include_str!("../../completion/casemate.bash"),
        Shell::Zsh => include_str!("../../completion/casemate.zsh"),
        Shell::Fish => include_str!("../../completion/casemate.fish"),
    })
}

/// Prints what may stand at the cursor: on the first line what the shell adds of its own, then a
/// line for each word, with a tab before its description. Whatever fails, fails silently: the user
/// is in the middle of a line.
pub(super) fn complete(args: &CompleteArgs, directories: &Directories) -> Result<()> {
    let mut cli = Cli::command();
    cli.build();
    let images = || {
        let store = Store::find(directories.data.as_deref()?).ok()??;
        Some(store.images().ok()?.into_iter().map(|image| image.name).collect())
    };
    let boxes = || {
        let running = boxes::registry().ok()??.list().ok()?;
        Some(running.into_iter().map(|running| running.record.name).collect())
    };
    let profiles = || {
        let all = Library::new(directories.config.as_deref()).list().unwrap_or_default();
        all.into_iter().map(|listed| listed.name).collect()
    };
    let names = Names {
        images: &|| images().unwrap_or_default(),
        boxes: &|| boxes().unwrap_or_default(),
        profiles: &profiles,
    };
    let answer = answer(&cli, &args.words, &names);
    let mut text = format!(":{}\n", answer.more.word());
    for (word, description) in answer.words {
        let description = description.lines().next().unwrap_or_default().trim_end_matches('.');
        text.push_str(&format!("{}\t{}\n", ui::escape(&word), ui::escape(description)));
    }
    let _nobody_to_tell = ui::output(&text);
    Ok(())
}

/// What the shell completes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Nothing,
    Files,
    Commands,
}

impl More {
    fn word(self) -> &'static str {
        match self {
            More::Nothing => "words",
            More::Files => "files",
            More::Commands => "commands",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    more: More,
    /// Words and what they mean; not filtered by what was typed, which the shells do.
    words: Vec<(String, String)>,
}

impl Answer {
    fn nothing() -> Self {
        Answer { more: More::Nothing, words: Vec::new() }
    }

    fn words<W: Into<String>>(words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(|word| (word.into(), String::new())).collect();
        Answer { more: More::Nothing, words }
    }
}

/// What has a name, asked for only where one is meant.
struct Names<'a> {
    images: &'a dyn Fn() -> Vec<String>,
    boxes: &'a dyn Fn() -> Vec<String>,
    profiles: &'a dyn Fn() -> Vec<String>,
}

/// What was understood of the words before the cursor.
struct Place<'a> {
    command: &'a Command,
    /// An option that waits for its value.
    pending: Option<&'a Arg>,
    /// How many words that are no options stand before.
    positionals: usize,
    options_ended: bool,
}

fn answer(cli: &Command, words: &[OsString], names: &Names<'_>) -> Answer {
    let Some((current, before)) = words.split_last() else { return Answer::nothing() };
    let mut place = Place { command: cli, pending: None, positionals: 0, options_ended: false };
    for word in before {
        if !place.pass(word) {
            return Answer::nothing();
        }
        // From here on all words are the box's.
        if place.positionals > 0 && place.positional().is_some_and(Arg::is_trailing_var_arg_set) {
            return Answer { more: More::Files, words: Vec::new() };
        }
    }
    if let Some(option) = place.pending {
        return values(place.command, option, names);
    }
    let current = current.to_str().unwrap_or_default();
    if !place.options_ended && current.starts_with('-') {
        return match current.split_once('=') {
            Some((name, _)) => match place.long(name) {
                Some(option) => {
                    let mut answer = values(place.command, option, names);
                    for (word, _) in &mut answer.words {
                        *word = format!("{name}={word}");
                    }
                    answer
                }
                None => Answer::nothing(),
            },
            None => options(place.command, current),
        };
    }
    if place.command.has_subcommands() {
        let shown = place.command.get_subcommands().filter(|command| !command.is_hide_set());
        let words = shown.map(|command| {
            (command.get_name().to_owned(), command.get_about().unwrap_or_default().to_string())
        });
        return Answer { more: More::Nothing, words: words.collect() };
    }
    match place.positional() {
        Some(argument) => values(place.command, argument, names),
        None => Answer::nothing(),
    }
}

impl<'a> Place<'a> {
    /// Goes past a word; false where the command line makes no sense from there.
    fn pass(&mut self, word: &OsStr) -> bool {
        if self.pending.take().is_some() {
            return true;
        }
        // A word that is not UTF-8 is no option's name.
        let text = word.to_str().unwrap_or("?");
        if !self.options_ended && text == "--" {
            self.options_ended = true;
        } else if !self.options_ended && text.starts_with("--") {
            if !text.contains('=') {
                self.pending = self.long(text).filter(|option| takes_value(option));
            }
        } else if !self.options_ended && text.starts_with('-') && text.len() > 1 {
            self.pass_short(&text[1..]);
        } else if self.command.has_subcommands() {
            match self.command.find_subcommand(text).filter(|command| !command.is_hide_set()) {
                Some(command) => self.command = command,
                None => return false,
            }
        } else {
            self.positionals += 1;
        }
        true
    }

    /// Options of one letter, of which the last may have its value in the same word or the next.
    fn pass_short(&mut self, letters: &str) {
        for (at, letter) in letters.char_indices() {
            let is_it = |option: &&Arg| {
                option.get_short_and_visible_aliases().is_some_and(|all| all.contains(&letter))
            };
            let option = self.command.get_arguments().find(is_it);
            if let Some(option) = option.filter(|option| takes_value(option)) {
                if at + letter.len_utf8() == letters.len() {
                    self.pending = Some(option);
                }
                return;
            }
        }
    }

    fn long(&self, word: &str) -> Option<&'a Arg> {
        let name = word.strip_prefix("--")?;
        self.command.get_arguments().find(|option| {
            option.get_long_and_visible_aliases().is_some_and(|all| all.contains(&name))
        })
    }

    /// The argument that the next word belongs to.
    fn positional(&self) -> Option<&'a Arg> {
        let all: Vec<&Arg> = self.command.get_positionals().collect();
        let is_many = |argument: &&Arg| {
            argument.get_num_args().is_some_and(|range| range.max_values() > 1)
                || matches!(argument.get_action(), clap::ArgAction::Append)
        };
        let last = all.last().copied();
        all.get(self.positionals).copied().or_else(|| last.filter(is_many))
    }
}

/// Whether the next word is its value.
fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values() && !option.is_require_equals_set()
}

fn options(command: &Command, current: &str) -> Answer {
    let mut words = Vec::new();
    for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
        let help = option.get_help().unwrap_or_default().to_string();
        if let Some(long) = option.get_long() {
            words.push((format!("--{long}"), help.clone()));
        }
        // Short forms are no abbreviation of what was begun with two dashes.
        if let Some(short) = option.get_short().filter(|_| current == "-") {
            words.push((format!("-{short}"), help));
        }
    }
    Answer { more: More::Nothing, words }
}

/// The values of an argument: those that it lists, or by its name. An argument that takes the name
/// of an image in the store is called `image` or `images`.
fn values(command: &Command, argument: &Arg, names: &Names<'_>) -> Answer {
    let listed = argument.get_possible_values();
    if !listed.is_empty() {
        return Answer {
            more: More::Nothing,
            words: listed
                .iter()
                .map(|value| {
                    let help = value.get_help().unwrap_or_default().to_string();
                    (value.get_name().to_owned(), help)
                })
                .collect(),
        };
    }
    let more = |more| Answer { more, words: Vec::new() };
    match (command.get_name(), argument.get_id().as_str()) {
        (_, "image" | "images") | ("images", "name") => Answer::words((names.images)()),
        ("stats" | "kill" | "pause" | "resume", "names") | ("update", "name") => {
            Answer::words((names.boxes)())
        }
        ("kill", "signal") => Answer::words(["KILL", "TERM", "INT", "HUP", "USR1", "USR2"]),
        (_, "base_profile" | "programs") => Answer::words((names.profiles)()),
        (_, "profile" | "profiles" | "other_profile") => {
            Answer { more: More::Files, ..Answer::words((names.profiles)()) }
        }
        (_, "network") => Answer::words(["none", "host"]),
        (_, "overlay") => Answer::words(["auto", "kernel", "hybrid", "fuse"]),
        (_, "scratch") => Answer::words(["auto", "memory", "disk"]),
        (_, "group") => Answer::words(seccomp::groups()),
        (_, "unprotect") => Answer::words(protected::names()),
        (_, "may_degrade") => {
            let mut names = vec!["landlock", "abstract-sockets", "keyring"];
            names.extend(["ids", "tcp-ports", "lsm", "limits"]);
            Answer::words(names)
        }
        (
            _,
            "source" | "project" | "env_file" | "output" | "volumes" | "authfile" | "digestfile",
        )
        | ("import", "name") => more(More::Files),
        (_, "command") => more(More::Commands),
        _ => Answer::nothing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(words: &[&str]) -> Answer {
        let mut cli = Cli::command();
        cli.build();
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let names = Names {
            images: &|| vec!["debian".to_owned(), "tool:1.2".to_owned()],
            boxes: &|| vec!["web".to_owned()],
            profiles: &|| vec!["default".to_owned()],
        };
        answer(&cli, &words, &names)
    }

    fn offered(words: &[&str]) -> Vec<String> {
        ask(words).words.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn commands_options_and_values_are_offered() {
        let commands = offered(&[""]);
        assert!(commands.contains(&"run".to_owned()) && commands.contains(&"store".to_owned()));
        assert!(!commands.contains(&"__complete".to_owned()));
        assert_eq!(offered(&["store", ""])[..2], ["check", "usage"]);
        assert!(offered(&["run", "--"]).contains(&"--image".to_owned()));
        assert!(!offered(&["run", "--"]).contains(&"-v".to_owned()));
        assert!(offered(&["run", "-"]).contains(&"-v".to_owned()));
        assert_eq!(offered(&["completion", ""]), ["bash", "zsh", "fish"]);
        assert_eq!(offered(&["run", "--network", ""]), ["none", "host"]);
        assert_eq!(offered(&["run", "-qp", ""]), ["default"]);
        assert_eq!(ask(&["run", "-qp", ""]).more, More::Files);
        // One that may do without its value has it in the same word.
        assert_eq!(offered(&["run", "--xattrs="]), ["--xattrs=true", "--xattrs=false"]);
        assert_eq!(ask(&["run", "--xattrs", ""]).more, More::Commands);
    }

    #[test]
    fn boxes_are_offered_where_one_is_meant() {
        for words in [&["kill", ""][..], &["pause", "web", ""], &["update", "-m", "1g", ""]] {
            assert_eq!(offered(words), ["web"], "{words:?}");
        }
        assert_eq!(offered(&["kill", "-s", ""])[0], "KILL");
    }

    #[test]
    fn images_are_offered_where_one_is_meant() {
        let all = ["debian", "tool:1.2"];
        for words in [
            &["rmi", ""][..],
            &["rmi", "-f", "debian", ""],
            &["run", "-q", "--image", ""],
            &["explain", "--json", "--image", ""],
            &["inspect", "--", ""],
            &["store", "check", "--repair", ""],
            &["tag", ""],
            &["push", ""],
            &["save", "-o", "x.tar", "debian", ""],
            &["images", "--json", "deb"],
        ] {
            assert_eq!(offered(words), all, "{words:?}");
        }
        assert_eq!(offered(&["run", "--image=d"]), ["--image=debian", "--image=tool:1.2"]);
        assert!(offered(&["tag", "debian", ""]).is_empty());
        assert!(offered(&["images", "debian", ""]).is_empty());
    }

    #[test]
    fn the_boxs_words_are_the_shells() {
        assert_eq!(ask(&["run", "--image", "x", ""]).more, More::Commands);
        assert_eq!(ask(&["run", "--", ""]).more, More::Commands);
        assert_eq!(ask(&["run", "ls", "--im"]), Answer { more: More::Files, words: Vec::new() });
        assert_eq!(ask(&["run", "-v", ""]).more, More::Files);
        // A source may be the first word of an import, or the second.
        assert_eq!(ask(&["import", ""]).more, More::Files);
        assert_eq!(ask(&["import", "a", ""]).more, More::Files);
    }

    #[test]
    fn what_makes_no_sense_is_completed_by_nothing() {
        for words in [&[][..], &["fly", ""], &["__complete", ""], &["rmi", "--nothing="]] {
            assert_eq!(ask(words), Answer::nothing(), "{words:?}");
        }
    }

    /// The lists that clap does not know are those of the parsers.
    #[test]
    fn values_that_are_offered_are_values() {
        for option in ["--network", "--overlay", "--scratch", "--may-degrade", "--unprotect"] {
            let offered = offered(&["run", option, ""]);
            assert!(!offered.is_empty(), "{option}");
            for value in offered {
                use clap::Parser;
                Cli::try_parse_from(["casemate", "run", option, &value]).unwrap();
            }
        }
    }
}
