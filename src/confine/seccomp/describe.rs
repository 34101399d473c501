//! The policy in words.

use std::fmt::Write as _;

use super::{Action, Condition, Operator, Policy, Rule};

impl Policy {
    /// A few lines for `explain`: how many calls get what, the rules that look at arguments, and
    /// what differs from the default policy.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let names: Vec<_> = self.architectures.iter().map(|arch| arch.name()).collect();
        lines.push(format!("calls of {}; through any other ABI: kill", names.join(" and ")));
        let mut counts = std::collections::BTreeMap::new();
        for rule in self.rules.values().filter(|rule| rule.clauses.is_empty()) {
            *counts.entry(rule.otherwise).or_insert(0usize) += 1;
        }
        let counts: Vec<_> =
            counts.iter().map(|(action, count)| format!("{count} {}", word(*action))).collect();
        lines.push(format!("{}; all others {}", counts.join(", "), word(self.default)));
        for (name, rule) in self.rules.iter().filter(|(_, rule)| !rule.clauses.is_empty()) {
            lines.push(format!("{name}: {}", sentence(rule)));
        }
        lines.extend(self.changes());
        lines
    }

    /// Every call that has a rule, a line each.
    pub fn listing(&self) -> Vec<String> {
        let names: Vec<_> = self.architectures.iter().map(|arch| arch.name()).collect();
        let first = format!("# calls of {}; through any other ABI: kill", names.join(" and "));
        let rules = self.rules.iter().map(|(name, rule)| format!("{name}: {}", sentence(rule)));
        let last = format!("all others: {}", word(self.default));
        [first].into_iter().chain(rules).chain([last]).collect()
    }

    /// The rules that differ from the default policy, one line each.
    fn changes(&self) -> Vec<String> {
        let Some(arch) = self.architectures.first() else { return Vec::new() };
        let default = Policy::default_for(*arch);
        if self.default != default.default {
            // Another policy altogether: a list of everything would not explain it.
            return Vec::new();
        }
        let names = self
            .rules
            .keys()
            .chain(default.rules.keys().filter(|name| !self.rules.contains_key(*name)));
        let mut changed: Vec<_> = names
            .filter(|name| self.rules.get(*name) != default.rules.get(*name))
            .map(|name| {
                let say = |rule: Option<&Rule>| match rule {
                    Some(rule) => sentence(rule),
                    None => word(self.default),
                };
                let (ours, theirs) = (self.rules.get(name), default.rules.get(name));
                format!("changed: {name}: {} (default: {})", say(ours), say(theirs))
            })
            .collect();
        changed.sort();
        changed
    }
}

fn sentence(rule: &Rule) -> String {
    let mut text = String::new();
    for clause in &rule.clauses {
        let conditions: Vec<_> = clause.conditions.iter().map(condition).collect();
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{} if {}; ", word(clause.action), conditions.join(" and "));
    }
    if !text.is_empty() {
        text.push_str("else ");
    }
    text + &word(rule.otherwise)
}

fn condition(condition: &Condition) -> String {
    let operator = match condition.operator {
        Operator::Equal => "==",
        Operator::NotEqual => "!=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
    };
    let argument = condition.argument;
    match condition.mask {
        u64::MAX => format!("arg{argument} {operator} {:#x}", condition.value),
        0xffff_ffff => format!("int arg{argument} {operator} {:#x}", condition.value),
        mask => format!("arg{argument} & {mask:#x} {operator} {:#x}", condition.value),
    }
}

fn word(action: Action) -> String {
    match action {
        Action::Allow => "allowed".into(),
        Action::Log => "allowed and logged".into(),
        Action::Errno(0) => "succeeds without effect".into(),
        Action::Errno(errno) => {
            format!("{:?}", nix::errno::Errno::from_raw(i32::from(errno)))
        }
        Action::Trap => "SIGSYS".into(),
        Action::KillThread => "kill the thread".into(),
        Action::KillProcess => "kill".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Architecture;
    use super::*;

    #[test]
    fn the_default_in_words() {
        let lines = Policy::default_for(Architecture::X86_64).describe();
        assert_eq!(lines[0], "calls of x86_64; through any other ABI: kill");
        assert!(lines[1].ends_with("; all others ENOSYS"), "{}", lines[1]);
        assert_eq!(lines[2], "clone: EPERM if arg0 & 0x7e020000 != 0x0; else allowed");
        assert!(
            lines[6]
                .ends_with("allowed if int arg0 == 0x10 and int arg2 == 0x0; else EAFNOSUPPORT")
        );
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn changes_are_named() {
        let mut policy = Policy::default_for(Architecture::X86_64).with_debug();
        policy.deny("openat2", nix::errno::Errno::EPERM).unwrap();
        let lines = policy.describe();
        assert!(
            lines.contains(&"changed: ptrace: allowed (default: EPERM)".to_owned()),
            "{lines:?}"
        );
        assert!(lines.contains(&"changed: openat2: EPERM (default: allowed)".to_owned()));
    }
}
