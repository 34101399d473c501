//! Random policies: the program says what the policy says.

use casemate::confine::seccomp::{
    Action, Architecture, Clause, Condition, MAX_INSTRUCTIONS, Operator, Policy, Rule, resolve,
    verify,
};

use crate::interpreter::{Call, Numbers, run};

const ACTIONS: [(Action, u32); 8] = [
    (Action::Allow, 0x7fff_0000),
    (Action::Log, 0x7ffc_0000),
    (Action::Errno(1), 0x0005_0001),
    (Action::Errno(38), 0x0005_0026),
    (Action::Errno(4095), 0x0005_0fff),
    (Action::Trap, 0x0003_0000),
    (Action::KillThread, 0),
    (Action::KillProcess, 0x8000_0000),
];

const OPERATORS: [Operator; 6] = [
    Operator::Equal,
    Operator::NotEqual,
    Operator::Less,
    Operator::LessOrEqual,
    Operator::Greater,
    Operator::GreaterOrEqual,
];

/// Values that meet often, so that comparisons come out both ways in both halves.
fn value(numbers: &mut Numbers) -> u64 {
    const HALVES: [u64; 8] = [0, 1, 2, 0x5412, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
    match numbers.below(8) {
        0 => numbers.next(),
        _ => numbers.pick(&HALVES) << 32 | numbers.pick(&HALVES),
    }
}

fn mask(numbers: &mut Numbers) -> u64 {
    match numbers.below(5) {
        0 => u64::MAX,
        1 => 0xffff_ffff,
        2 => 0xffff_ffff_0000_0000,
        3 => 0x7e02_0000,
        _ => value(numbers),
    }
}

fn rule(numbers: &mut Numbers) -> Rule {
    let condition = |numbers: &mut Numbers| Condition {
        argument: numbers.below(6) as u8,
        mask: mask(numbers),
        operator: numbers.pick(&OPERATORS),
        value: value(numbers),
    };
    let clause = |numbers: &mut Numbers| Clause {
        conditions: (0..numbers.below(4)).map(|_| condition(numbers)).collect(),
        action: numbers.pick(&ACTIONS).0,
    };
    let clauses = if numbers.below(3) == 0 { numbers.below(6) } else { 0 };
    Rule {
        clauses: (0..clauses).map(|_| clause(numbers)).collect(),
        otherwise: numbers.pick(&ACTIONS).0,
    }
}

#[test]
fn programs_say_what_their_policies_say() {
    let names: Vec<_> = Policy::default_for(Architecture::X86_64).rules.into_keys().collect();
    let mut numbers = Numbers(1);
    let (mut longest, mut widest) = (0, 0);
    for round in 0..300 {
        let arch = numbers.pick(&Architecture::ALL);
        let mut policy = Policy::new(arch, numbers.pick(&ACTIONS).0);
        if numbers.below(2) == 0 {
            policy = policy.with_compat32();
        }
        for _ in 0..numbers.below(if round % 10 == 0 { 400 } else { 40 }) {
            let name = names[numbers.below(names.len())].clone();
            policy.rules.insert(name, rule(&mut numbers));
        }
        let program = match policy.compile() {
            Ok(program) => program,
            Err(error) => {
                let text = error.to_string();
                let twice = text.contains("another name of call");
                assert!(twice || text.contains("instructions"), "{text}");
                continue;
            }
        };
        assert!(verify(&program) && program.len() <= MAX_INSTRUCTIONS);
        longest = longest.max(program.len());
        widest = widest.max(program.iter().map(|i| i.jt.max(i.jf)).max().unwrap());
        for arch in &policy.architectures {
            let rules = policy.numbered(*arch).unwrap();
            for _ in 0..2000 {
                let number = numbers.below(600) as u32;
                let arguments = [(); 6].map(|()| value(&mut numbers));
                let action = rules.get(&number).map_or(policy.default, |r| r.evaluate(&arguments));
                let expected = ACTIONS.iter().find(|(known, _)| *known == action).unwrap().1;
                let call = Call::new(*arch, number, arguments);
                assert_eq!(run(&program, &call).0, expected, "round {round}, {call:x?}");
            }
        }
    }
    // The distances that need stepping stones did occur.
    assert!(longest > 1000 && widest == 255, "{longest} {widest}");
}

#[test]
fn evaluate_agrees_with_the_program() {
    let policy = Policy::default_for(Architecture::X86_64).with_compat32();
    let program = policy.compile().unwrap();
    let mut numbers = Numbers(2);
    let tokens = [Architecture::X86_64, Architecture::I386, Architecture::Arm].map(|a| a.token());
    for _ in 0..300 {
        let arguments = [(); 6].map(|()| value(&mut numbers));
        let number = numbers.pick(&[0, 0x4000_0000]) | numbers.below(500) as u32;
        let call = Call { token: numbers.pick(&tokens), number, arguments };
        let action = policy.evaluate(call.token, number, &arguments).unwrap();
        let expected = ACTIONS.iter().find(|(known, _)| *known == action);
        let value = match (expected, action) {
            (Some((_, value)), _) => *value,
            (None, Action::Errno(errno)) => 0x0005_0000 | u32::from(errno),
            (None, other) => panic!("{other:?}"),
        };
        assert_eq!(run(&program, &call).0, value, "{call:x?}");
    }
}

#[test]
fn what_cannot_be_compiled_is_refused() {
    let mut policy = Policy::new(Architecture::X86_64, Action::Errno(4096));
    assert_eq!(policy.compile().unwrap_err().to_string(), "seccomp: 4096 is no errno");
    policy.default = Action::Allow;
    let argument = Condition { argument: 6, ..Condition::int(0, 1) };
    let clause = |value| Clause {
        conditions: vec![Condition { value, ..Condition::int(1, 0) }],
        action: Action::Trap,
    };
    let bad = Clause { conditions: vec![argument], action: Action::Trap };
    policy.set("read", Rule { clauses: vec![bad], otherwise: Action::Allow }).unwrap();
    assert!(policy.compile().unwrap_err().to_string().contains("argument 6"));
    let clauses = (0..5000).map(clause).collect();
    policy.set("read", Rule { clauses, otherwise: Action::Allow }).unwrap();
    assert!(resolve("read", Architecture::X86_64).is_some());
    assert!(policy.compile().unwrap_err().to_string().contains("the kernel takes 4096"));
}
