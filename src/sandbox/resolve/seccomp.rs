//! The system call filter that a profile asks for.

use nix::errno::Errno;

use super::locate;
use crate::confine::seccomp::{
    Action, Architecture, Condition, Filter, Given, Operator, Policy, from_oci, group,
};
use crate::error::{During, Error, Result};
use crate::host::{Host, World};
use crate::profile::{
    Capability, Profile, RuleAction, RuleArgument, SeccompBase, SeccompRule, Word,
};

/// More than any OCI profile has.
const LIMIT: u64 = 1 << 20;

/// The filter; `None` where the profile wants none. Fails where it names what does not exist.
pub fn filter(
    profile: &Profile,
    fake_root: bool,
    host: &Host,
    world: &dyn World,
) -> Result<Option<Filter>> {
    let wanted = &profile.seccomp;
    let base = wanted.base.as_ref().unwrap_or(&SeccompBase::Default);
    if *base == SeccompBase::None {
        if fake_root {
            return Err(Error::new("--fake-root is done by the filter, and seccomp base is none")
                .hint("leave one of the two out"));
        }
        return without(profile).map(|()| None);
    }
    let changed = fake_root
        || [wanted.nesting, wanted.debug, wanted.compat32].contains(&Some(true))
        || !wanted.allow.is_empty()
        || !wanted.deny.is_empty()
        || !wanted.rule.is_empty();
    let arch = Architecture::native();
    let mut policy = match base {
        SeccompBase::Default if !changed => return Ok(Some(Filter::Default)),
        SeccompBase::Default | SeccompBase::None => Policy::default_for(arch),
        SeccompBase::Strict => Policy::strict_for(arch),
        SeccompBase::File(path) => {
            let path = locate::on_host(path, host, world)?;
            let text = world.read(&path, LIMIT).at("read seccomp profile", &path)?;
            let text = String::from_utf8(text).map_err(|_| {
                Error::new(format!("read seccomp profile {}: not UTF-8", path.display()))
            })?;
            let has = |name: &str| {
                let kept = |capability: &Capability| capability.to_string() == name;
                profile.capabilities.keep.iter().any(kept)
            };
            let given = Given { arch, has_capability: &has, kernel: kernel()? };
            from_oci(&text, &given)
                .map_err(|error| error.within(format!("seccomp profile {}", path.display())))?
        }
    };
    if wanted.nesting == Some(true) {
        policy = policy.with_nesting();
    }
    if wanted.debug == Some(true) {
        policy = policy.with_debug();
    }
    for Word { name, origin } in &wanted.allow {
        let done = match name.starts_with('@') {
            true => policy.allow_group(name),
            false => policy.allow(name),
        };
        done.map_err(|error| error.within(origin))?;
    }
    // Before what is refused: that stays refused.
    if fake_root {
        policy = policy.with_fake_root();
    }
    for Word { name, origin } in &wanted.deny {
        let done = match name.starts_with('@') {
            true => policy.deny_group(name, Errno::EPERM),
            false => policy.deny(name, Errno::EPERM),
        };
        done.map_err(|error| error.within(origin))?;
    }
    for rule in &wanted.rule {
        refine(&mut policy, rule).map_err(|error| error.within(&rule.origin))?;
    }
    if wanted.compat32 == Some(true) {
        if arch.compat32().is_none() {
            return Err(Error::new(format!("seccomp compat32: {arch} has no 32-bit calls"))
                .hint("leave it out on this machine"));
        }
        policy = policy.with_compat32();
    }
    Ok(Some(Filter::Changed(Box::new(policy))))
}

/// Without a filter nothing can be said about calls.
fn without(profile: &Profile) -> Result<()> {
    let wanted = &profile.seccomp;
    let words = wanted.allow.iter().chain(&wanted.deny).next();
    if let Some(call) = words {
        return Err(Error::new(format!(
            "{}: seccomp {}: allow and deny mean nothing with base = \"none\"",
            call.origin, call.name
        )));
    }
    match wanted.rule.first() {
        Some(rule) => Err(Error::new(format!(
            "{}: seccomp rule: it means nothing with base = \"none\"",
            rule.origin
        ))),
        None => Ok(()),
    }
}

fn refine(policy: &mut Policy, rule: &SeccompRule) -> Result<()> {
    let action = match rule.action {
        RuleAction::Allow => Action::Allow,
        RuleAction::Log => Action::Log,
        RuleAction::Kill => Action::KillProcess,
        RuleAction::Deny => {
            Action::Errno(rule.errno.as_ref().map_or(libc::EPERM as u16, |errno| errno.number))
        }
    };
    let lets_through = matches!(action, Action::Allow | Action::Log);
    let conditions: Vec<Condition> =
        rule.args.iter().map(|argument| condition(argument, lets_through)).collect();
    for name in &rule.calls {
        let members = group(name);
        if name.starts_with('@') && members.is_empty() {
            // The group's own error, with the names that there are.
            return policy.allow_group(name);
        }
        for call in members {
            policy.refine(call, conditions.clone(), action)?;
        }
        if !name.starts_with('@') {
            policy.refine(name, conditions.clone(), action)?;
        }
    }
    Ok(())
}

/// The kernel reads many arguments as 32 bits and leaves the rest to anyone. So a rule that refuses
/// looks at these only, where its value fits, and one that allows at all (CVE-2019-10063).
fn condition(argument: &RuleArgument, lets_through: bool) -> Condition {
    let value = argument.value.0;
    let low = u64::from(u32::MAX);
    let mask = match argument.mask {
        Some(mask) => mask.0,
        None if lets_through || value > low => u64::MAX,
        None => low,
    };
    let operator = match argument.op.map_or("==", |op| op.0) {
        "!=" => Operator::NotEqual,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        _ => Operator::Equal,
    };
    Condition { argument: argument.index, mask, operator, value }
}

/// Major and minor version.
fn kernel() -> Result<(u32, u32)> {
    let names = nix::sys::utsname::uname().during("ask for", "the kernel's version")?;
    let text = names.release().to_string_lossy().into_owned();
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(Error::new(format!("the kernel's version {text:?} is none"))),
    }
}
