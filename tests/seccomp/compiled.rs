//! The programs that are kept compiled are those that would be compiled now.

use std::path::Path;

use casemate::confine::seccomp::{
    Architecture, Filter, Policy, default_program, encode, init_program, verify,
};

#[test]
fn what_is_kept_is_what_would_be_made() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/confine/seccomp/compiled");
    for arch in [Architecture::X86_64, Architecture::Aarch64, Architecture::Riscv64] {
        for (name, policy, kept) in [
            ("default", Policy::default_for(arch), default_program(arch)),
            ("init", Policy::for_init(arch), init_program(arch)),
        ] {
            let made = policy.compile().unwrap();
            if std::env::var_os("CASEMATE_BLESS").is_some() {
                let bytes: Vec<u8> = made.iter().flat_map(encode).collect();
                std::fs::write(place.join(format!("{}-{name}.bpf", arch.name())), bytes).unwrap();
                continue;
            }
            assert!(made == kept.unwrap(), "{}-{name}: CASEMATE_BLESS=1 writes it", arch.name());
            assert!(verify(&made));
        }
    }
}

#[test]
fn a_filter_knows_what_cannot_get_through_it() {
    let keys = ["keyctl", "add_key", "request_key"];
    assert!(Filter::Default.refuses(&keys));
    assert!(!Filter::Default.refuses(&["read"]) && !Filter::Default.refuses(&["clone"]));
    let mut policy = Policy::default_for(Architecture::native());
    policy.allow("keyctl").unwrap();
    assert!(!Filter::Changed(Box::new(policy)).refuses(&keys));
}
