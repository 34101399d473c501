//! What a run's limits come to on this machine: the part that is decided, and printed, before
//! anything is made.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::limits::{Controller, Limits};
use crate::confine::rlimits::Rlimit;
use crate::error::{Error, Result};
use crate::profile::{Control, Profile, ResourceLimit, ResourceName};

/// What was found out about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Where a box's cgroup can be.
    pub place: Place,
    /// The machine's memory in bytes.
    pub memory: u64,
}

/// Where a box's cgroup can be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// No limit and no name was asked for, so that nobody looked.
    #[default]
    NotAsked,
    /// The user's systemd makes a scope.
    Manager {
        /// By what way it was reached.
        via: &'static str,
        /// What is delegated to it.
        controllers: Vec<Controller>,
    },
    /// Below a cgroup that is the user's.
    Delegated {
        /// Its path.
        path: PathBuf,
        /// What it can give.
        controllers: Vec<Controller>,
    },
    /// Nowhere.
    Nowhere {
        /// Why.
        reason: String,
        /// What to change.
        hints: Vec<String>,
    },
}

/// The cgroup of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What it limits.
    pub limits: Limits,
    /// Where it is.
    pub place: Where,
    /// Why there.
    pub why: String,
}

/// Where a box's cgroup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    /// In a scope of the user's systemd.
    Scope,
    /// Below a cgroup that is the user's.
    Delegated,
    /// There is none: each process is limited alone.
    PerProcess,
}

impl Facts {
    /// Whether a box has limits in total.
    pub fn is_total(&self) -> bool {
        matches!(self.place, Place::Manager { .. } | Place::Delegated { .. })
    }

    /// What limits of a box in total come to on this machine, for `casemate doctor`; and what to
    /// change, where it is not all.
    pub fn survey(&self) -> (String, Vec<String>) {
        let (place, controllers, fix) = match &self.place {
            Place::NotAsked => return (String::new(), Vec::new()),
            Place::Nowhere { reason, hints } => {
                return (
                    format!(
                        "limits of memory and processes count for each process, not for the box in total: {reason}"
                    ),
                    hints.clone(),
                );
            }
            Place::Manager { via, controllers } => (
                format!("a scope of your systemd, by {via}"),
                controllers,
                vec![DROP_IN.to_owned()],
            ),
            Place::Delegated { path, controllers } => {
                (format!("a cgroup below {}", path.display()), controllers, Vec::new())
            }
        };
        let names = |there: bool| {
            let all = Controller::ALL.iter().filter(|one| controllers.contains(one) == there);
            all.map(|one| one.name()).collect::<Vec<_>>()
        };
        let has = match names(true) {
            none if none.is_empty() => "none".to_owned(),
            some => some.join(", "),
        };
        match names(false) {
            none if none.is_empty() => {
                (format!("limits of a box in total: {place}, with {has}"), Vec::new())
            }
            some => (
                format!(
                    "limits of a box in total: {place}, with {has}; not delegated to you: {}",
                    some.join(", ")
                ),
                fix,
            ),
        }
    }
}

impl Where {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Where::Scope => "a scope of your systemd",
            Where::Delegated => "below a cgroup that is yours",
            Where::PerProcess => "none: each process is limited alone, which is weaker",
        }
    }
}

/// What is decided: the cgroup, what each process gets in its place, and what is lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decided {
    /// The cgroup; `None` where none was asked for.
    pub plan: Option<Plan>,
    /// Limits of each process in place of those of the box.
    pub rlimits: Vec<Rlimit>,
    /// What is not enforced as it was said, and why.
    pub lost: Option<String>,
}

/// What mends a controller that is missing (user@.service is the unit of every user's manager).
const DROP_IN: &str = "sudo mkdir -p /etc/systemd/system/user@.service.d; printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf; sudo systemctl daemon-reload; then log out and in";

/// Decides.
pub fn plan(profile: &Profile, facts: &Facts) -> Result<Decided> {
    let limits = Limits::of(&profile.limits, facts.memory);
    limits.suffice()?;
    let require = profile.requires_limits();
    let (place, controllers, why) = match &facts.place {
        Place::NotAsked => return Ok(Decided::default()),
        Place::Manager { via, controllers } => {
            (Where::Scope, controllers, format!("the manager answers by {via}"))
        }
        Place::Delegated { path, controllers } => {
            (Where::Delegated, controllers, format!("{}: no manager answers", path.display()))
        }
        Place::Nowhere { reason, hints } => {
            return nowhere(limits, reason, hints, require);
        }
    };
    let missing: Vec<(Controller, &str)> = limits
        .needs()
        .into_iter()
        .filter(|(controller, _)| !controllers.contains(controller))
        .collect();
    let mut lost = None;
    if let Some((first, key)) = missing.first() {
        if require || !profile.may_lose(Control::Limits) {
            let error = Error::new(format!(
                "limit {key}: the controller {} is not delegated to you",
                first.name()
            ))
            .hint(match place {
                Where::Scope => DROP_IN,
                _ => "run casemate where systemd runs, or enable it in the cgroup.subtree_control of the cgroup above",
            });
            return Err(if require {
                error
            } else {
                error.hint("to run without it, say --may-degrade limits, or may-degrade = [\"limits\"] in the profile")
            });
        }
        let keys: Vec<&str> = missing.iter().map(|(_, key)| *key).collect();
        let mut names: Vec<&str> =
            missing.iter().map(|(controller, _)| controller.name()).collect();
        names.dedup();
        lost = Some(format!(
            "{} without effect: not delegated to you: {}",
            keys.join(", "),
            names.join(", ")
        ));
    }
    let gone: Vec<Controller> = missing.iter().map(|(controller, _)| *controller).collect();
    let plan = Plan { limits: limits.without(&gone), place, why };
    Ok(Decided { plan: Some(plan), rlimits: Vec::new(), lost })
}

/// Without a cgroup: what setrlimit(2) can do in its place.
fn nowhere(limits: Limits, reason: &str, hints: &[String], require: bool) -> Result<Decided> {
    if limits.is_empty() {
        return Ok(Decided::default());
    }
    if require {
        let error = Error::new(format!("limits of the box in total: {reason}"));
        return Err(hints.iter().fold(error, Error::hint));
    }
    let mut rlimits = Vec::new();
    let mut words = Vec::new();
    let mut limit = |name, value| {
        let limit = ResourceLimit { soft: Some(value), hard: Some(value) };
        rlimits.push(Rlimit { name: ResourceName(name), limit });
    };
    if let Some(memory) = limits.memory {
        limit("data", memory);
        words.push("memory counts for each process, not in total".to_owned());
    }
    if let Some(processes) = limits.processes {
        // The box's PID 1 is counted with them.
        limit("nproc", processes.saturating_add(1));
        words.push("processes counts for each user id, not in total".to_owned());
    }
    let without: Vec<&str> = limits
        .needs()
        .into_iter()
        .map(|(_, key)| key)
        .filter(|key| !matches!(*key, "memory" | "processes"))
        .collect();
    if !without.is_empty() {
        words.push(format!("{} without effect", without.join(", ")));
    }
    let lost = (!words.is_empty()).then(|| {
        let mut text = words.join("; ");
        // Writing to a String cannot fail.
        let _infallible = write!(text, ": {reason}");
        text
    });
    let why = reason.to_owned();
    Ok(Decided { plan: Some(Plan { limits, place: Where::PerProcess, why }), rlimits, lost })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile;

    fn said(text: &str) -> Profile {
        profile::parse("p", &format!("[limits]\n{text}")).unwrap().profile
    }

    /// The same, which may lose them.
    fn lax(text: &str) -> Profile {
        Profile { may_degrade: vec![Control::Limits], ..said(text) }
    }

    fn manager(controllers: &[Controller]) -> Facts {
        let place = Place::Manager { via: "its private socket", controllers: controllers.to_vec() };
        Facts { place, memory: 1 << 30 }
    }

    const USUAL: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Pids];

    #[test]
    fn a_limit_without_its_controller_is_refused_or_named() {
        let text = "memory = \"64m\"\nio-weight = 50\ncpuset = \"0\"";
        let error = plan(&said(text), &manager(&USUAL)).unwrap_err();
        assert_eq!(error.to_string(), "limit io-weight: the controller io is not delegated to you");
        assert!(error.hints()[0].contains("Delegate=cpu cpuset io memory pids"));
        assert!(error.hints()[1].contains("--may-degrade limits"));
        let decided = plan(&lax(text), &manager(&USUAL)).unwrap();
        let kept = decided.plan.unwrap();
        assert_eq!((kept.limits.memory, kept.limits.io_weight), (Some(64 << 20), None));
        assert_eq!(
            decided.lost.unwrap(),
            "io-weight, cpuset without effect: not delegated to you: io, cpuset"
        );
        let strict = lax("io-weight = 50\nrequire = true");
        assert!(plan(&strict, &manager(&USUAL)).is_err());
        let required = Profile { require: vec![Control::Limits], ..lax("io-weight = 50") };
        assert!(plan(&required, &manager(&USUAL)).is_err());
        assert!(plan(&said(text), &manager(&Controller::ALL)).unwrap().lost.is_none());
    }

    #[test]
    fn without_a_cgroup_the_limits_are_weaker_or_refused() {
        let facts = Facts {
            place: Place::Nowhere { reason: "nobody".into(), hints: vec!["linger".into()] },
            memory: 1 << 30,
        };
        let decided = plan(&said("memory = \"64m\"\nprocesses = 5\ncpus = 1"), &facts).unwrap();
        assert_eq!(decided.plan.unwrap().place, Where::PerProcess);
        let set: Vec<_> = decided.rlimits.iter().map(|one| (one.name.0, one.limit.soft)).collect();
        assert_eq!(set, [("data", Some(64 << 20)), ("nproc", Some(6))]);
        assert_eq!(
            decided.lost.unwrap(),
            "memory counts for each process, not in total; processes counts for each user id, not in total; cpus without effect: nobody"
        );
        let lost = plan(&said("processes = 5"), &facts).unwrap().lost;
        assert_eq!(lost.unwrap(), "processes counts for each user id, not in total: nobody");
        let error = plan(&lax("processes = 5\nrequire = true"), &facts).unwrap_err();
        assert_eq!(error.to_string(), "limits of the box in total: nobody");
        assert_eq!(error.hints(), ["linger"]);
        let required = Profile { require: vec![Control::Limits], ..said("processes = 5") };
        assert!(plan(&required, &facts).is_err());
        // A name alone asks for nothing that could be lost.
        assert_eq!(plan(&said(""), &facts).unwrap(), Decided::default());
    }

    #[test]
    fn too_little_memory_is_refused() {
        let error = plan(&said("memory = 4096"), &manager(&USUAL)).unwrap_err();
        assert!(error.to_string().contains("less than any box needs"), "{error}");
        assert_eq!(plan(&said(""), &Facts::default()).unwrap(), Decided::default());
    }
}
