//! Capabilities, set-uid programs and the flags that bar the way back to them.

use crate::common::{
    Image, Run, boxed_probe, casemate, image, plain_probe, probe, require_root, user,
};

const NONE: &str = "\
CapInh: 0000000000000000
CapPrm: 0000000000000000
CapEff: 0000000000000000
CapBnd: 0000000000000000
CapAmb: 0000000000000000
NoNewPrivs: 1
Seccomp: 2";

#[test]
fn escape_10_all_five_capability_sets_are_empty() {
    let plain = plain_probe(&["status"]);
    assert!(!plain.contains("CapBnd: 0000000000000000"), "the control: {plain}");
    let mapped_root = Run::bash("exec unshare -Ur -- \"$probe\" status").text();
    assert!(!mapped_root.contains("CapEff: 0000000000000000"), "the control: {mapped_root}");

    assert_eq!(boxed_probe(&[], &["status"]), NONE);
    // And so for a process that the program starts.
    let grandchild = casemate(["run", "-v", &crate::common::probe::volume(), "--", "sh", "-c"])
        .arg("/run/probe status; true");
    assert_eq!(grandchild.text(), NONE);
}

#[test]
fn escape_10_nothing_gives_a_capability_back() {
    assert_eq!(Run::bash("exec unshare -Ur -- \"$probe\" setuid 0").text(), "ok", "the control");
    assert_eq!(boxed_probe(&[], &["raise-cap", "21"]), "EPERM");
    for (call, id) in [("setuid", "0"), ("setgid", "0"), ("setgroups", "0")] {
        let answer = boxed_probe(&[], &[call, id]);
        assert!(["EPERM", "EINVAL"].contains(&answer.as_str()), "{call} {id}: {answer}");
    }
    // NOROOT, NO_SETUID_FIXUP, KEEP_CAPS_LOCKED and NO_CAP_AMBIENT_RAISE, all locked.
    assert_eq!(plain_probe(&["securebits"]), "0");
    assert_eq!(boxed_probe(&[], &["securebits"]), "0xef");
}

#[test]
fn escape_25_a_set_uid_program_of_the_host_gives_nothing() {
    if !require_root() {
        return;
    }
    let program = user().base.join("bin/probe-suid");
    crate::common::user::install_program(probe(), &program, 0o4755);
    let (uid, gid) = (user().uid, user().gid);
    let plain = Run::new(&program).arg("ids").text();
    assert_eq!(plain, format!("{uid} 0 0 {gid} {gid} {gid}"), "the control");

    let volume = format!("{}:/run/suid:ro,exec", program.display());
    let boxed = casemate(["run", "-v", &volume, "--", "/run/suid", "ids"]).text();
    assert_eq!(boxed, format!("{uid} {uid} {uid} {gid} {gid} {gid}"));
}

#[test]
fn escape_25_a_set_uid_program_of_an_image_gives_nothing() {
    let name = image(Image::Hostile("suid"));
    let layers = "for blob in $(tar -tf \"$0\" | grep blobs/sha256/.); do \
                  tar -xOf \"$0\" \"$blob\" | tar -tzv 2>/dev/null; done | grep bin/suid";
    let listing = Run::bash(layers).arg(Image::Hostile("suid").archive()).text();
    assert!(listing.starts_with("-rwsr-xr-x 0/0"), "the control: {listing}");
    let own = casemate(["run", "--image", &name, "--", "id", "-u"]).text();
    assert_eq!(casemate(["run", "--image", &name, "--", "/bin/suid"]).text(), own);
    assert_ne!(own, "0");
}
