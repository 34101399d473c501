//! The server of a root and its device, looked for from inside.

use crate::common::{Image, Run, casemate, image, require_root, user};

/// Everything of a FUSE file system that a process can see and open.
const LOOK: &str = "grep -c -e '- fuse' /proc/self/mountinfo; \
    for path in /dev/fuse /proc/1/root/dev/fuse /proc/*/fd/*; do \
    case \"$(readlink \"$path\")$path\" in */dev/fuse*) \
    if (exec 3<>\"$path\") 2>/dev/null; then echo \"opened\"; break; fi;; esac; done; true";

#[test]
fn neither_the_device_of_the_root_nor_the_merged_layers_can_be_reached() {
    if !require_root() {
        return;
    }
    let plain = Run::new("bash").args(["-c", LOOK]).with_fuse().text();
    assert!(plain.ends_with("opened"), "the control: the device opens outside: {plain}");

    let name = image(Image::Small);
    for options in [&[][..], &["--read-only"], &["--scratch", "disk"]] {
        let boxed = casemate(["run", "--overlay", "hybrid", "--image", &name])
            .args(options)
            .args(["--", "sh", "-c", LOOK])
            .with_fuse();
        assert_eq!(boxed.text(), "0", "{options:?}");
        // There the root itself is such a file system, and nothing else is.
        let boxed = casemate(["run", "--overlay", "fuse", "--image", &name])
            .args(options)
            .args(["--", "sh", "-c", LOOK])
            .with_fuse();
        assert_eq!(boxed.text(), "1", "{options:?}");
        // A node of one's own is none.
        let boxed = casemate(["run", "--overlay", "hybrid", "--image", &name])
            .args(options)
            .args(["--", "sh", "-c", "mknod /tmp/fuse c 10 229"])
            .with_fuse();
        let refused = boxed.output().fails(1);
        // By Landlock, or without it for want of a capability.
        let words = ["Permission denied", "not permitted"];
        assert!(words.iter().any(|word| refused.err().contains(word)), "{}", refused.err());
    }
}

/// Whoever answers at the socket of a shared server gives boxes their root.
#[test]
fn what_leads_to_a_shared_server_cannot_be_forged() {
    let runtime = user().runtime();
    std::fs::create_dir_all(&runtime).unwrap();
    let forge = "mkdir -p casemate/overlay && touch casemate/overlay/forged && \
                 rm casemate/overlay/forged && echo forged";
    let outside = Run::bash(forge).directory(&runtime).text();
    assert_eq!(outside, "forged", "the control: the user may");

    let grant = format!("{}:/granted", runtime.display());
    let script = "cd /granted && echo >other && rm other && \
                  ! touch casemate/overlay/forged && ! mv casemate away && ! rm -r casemate && \
                  echo safe";
    let boxed = casemate(["run", "-v", &grant, "--", "sh", "-c", script]).output().succeeds();
    assert_eq!(boxed.out().trim(), "safe");
    assert!(boxed.err().contains("Read-only file system"), "{}", boxed.err());
}
