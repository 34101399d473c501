//! Inherited descriptors, casemate's own executable, and what /proc tells.

use std::fs;

use sha2::{Digest, Sha256};

use crate::common::probe::volume;
use crate::common::{Run, Workspace, boxed_probe, casemate, plain_probe, probe, user};

const OPEN: &str = "exec 9<\"$HOME\" 200</; ";

fn with_descriptors(command: &str) -> Run {
    Run::bash(&format!("{OPEN} exec {command}")).env("volume", volume())
}

#[test]
fn escape_06_no_descriptor_of_the_host_is_inherited() {
    let plain = with_descriptors("\"$probe\" fds").text();
    assert!(["9", "200"].iter().all(|wanted| plain.split(' ').any(|fd| fd == *wanted)), "{plain}");
    let through = with_descriptors("bwrap --unshare-all --bind / / -- \"$probe\" openat 9 ..");
    assert_eq!(through.text(), "ok", "the control: out of a plain sandbox by a descriptor");

    let boxed = |arguments: &str| {
        with_descriptors(&format!("\"$casemate\" run -v \"$volume\" -- /run/probe {arguments}"))
            .text()
    };
    assert_eq!(boxed("fds"), "0 1 2");
    assert_eq!(boxed("openat 9 .."), "EBADF");
    assert_eq!(boxed("openat 200 etc"), "EBADF");
}

#[test]
fn escape_06_a_working_directory_by_descriptor_is_refused() {
    for workdir in ["/proc/self/fd/9", "/proc/self/fd/200", "/proc/1/root", "/proc/self/cwd"] {
        let run = with_descriptors(&format!("\"$casemate\" run -w {workdir} -- pwd"));
        run.output().refuses(125, &[workdir]);
    }
    assert_eq!(boxed_probe(&["-w", "/usr"], &["cwd"]), "/usr");
    let cwd = boxed_probe(&[], &["cwd"]);
    assert!(cwd.starts_with('/'), "the working directory is in the box: {cwd}");
}

#[test]
fn escape_07_the_executable_of_pid_1_cannot_be_opened() {
    // The control: PID 1 of a plain PID namespace, and its executable through /proc.
    let script = "exec unshare -Urpf --mount-proc -- \"$probe\" open /proc/1/exe path";
    assert_eq!(Run::bash(script).text(), "ok");

    for way in ["path", "read", "write"] {
        let answer = boxed_probe(&[], &["open", "/proc/1/exe", way]);
        assert!(["EACCES", "ENOENT"].contains(&answer.as_str()), "{way}: {answer}");
    }
    for link in ["root", "cwd", "fd", "mem", "environ", "maps"] {
        let path = format!("/proc/1/{link}");
        let answer = boxed_probe(&[], &["open", &path]);
        assert!(["EACCES", "ENOENT", "EPERM"].contains(&answer.as_str()), "{path}: {answer}");
    }
}

#[test]
fn escape_07_a_script_cannot_run_casemate_as_its_interpreter() {
    // The user can write to this copy, as to any program in a home directory.
    let space = Workspace::new();
    let copy = space.file("casemate", fs::read(user().casemate()).unwrap());
    Run::new("chmod").args(["755", &copy]).output().succeeds();
    let digest = || Sha256::digest(fs::read(&copy).unwrap());
    let before = digest();
    // The control: a plain launcher that starts the script becomes the interpreter itself.
    space.script("tool/plain", "#!/proc/self/exe ids\n");
    let launched = Run::new(probe()).args(["exec", &space.at("tool/plain")]).text();
    assert_eq!(launched, plain_probe(&["ids"]), "the control");

    space.script("tool/script", "#!/proc/self/exe --version\n");
    let volume = format!("{}:/tool:rw,exec", space.at("tool"));
    let output = Run::new(&copy).args(["run", "-v", &volume, "--", "/tool/script"]).output();
    output.refuses(126, &["/tool/script"]);
    assert_eq!(digest(), before, "casemate's own file was changed");
}

/// The paths that the OCI runtimes mask.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

#[test]
fn escape_16_what_proc_tells_about_the_host_is_masked() {
    let keys = Run::bash("exec keyctl session - \"$probe\" read /proc/keys").text();
    assert!(keys.starts_with("ok ") && keys != "ok 0", "the control: /proc/keys outside: {keys}");

    for path in MASKED {
        let answer = boxed_probe(&[], &["read", path]);
        match answer.as_str() {
            "ok 0" | "ENOENT" | "EACCES" | "EPERM" => {}
            "EISDIR" => {
                let listing = casemate(["run", "--", "ls", "-A", path]).output();
                assert_eq!(listing.text(), "", "{path} is not empty");
            }
            other => panic!("{path}: {other}"),
        }
    }
}

#[test]
fn escape_16_the_kernel_cannot_be_set_through_proc() {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/proc/self/uid_map",
        "/proc/self/setgroups",
    ] {
        let answer = boxed_probe(&[], &["write", path, "1"]);
        let refused = ["EROFS", "EACCES", "EPERM", "ENOENT"].contains(&answer.as_str());
        assert!(refused, "{path}: {answer}");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}
