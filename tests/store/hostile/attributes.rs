//! Extended attributes that the kernel, overlayfs or container tools would obey: they are left out.

use std::path::Path;

use super::{Case, refused, unpacked};
use crate::common::*;

/// A file with this attribute, beside one of the image's own that stays.
fn with(key: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    archive([Entry::file("x", "content")
        .pax(&format!("SCHILY.xattr.{key}"), value)
        .pax("SCHILY.xattr.user.own", "kept")])
}

fn left_out(case: &'static str, key: &'static str, value: &[u8]) -> Case {
    unpacked(case, with(key, value), move |tree: &Path| {
        assert_eq!(names(&tree.join("x")), ["user.containers.override_stat", "user.own"]);
        let stat = xattr(&tree.join("x"), c"user.containers.override_stat");
        assert_eq!(stat.as_deref(), Some("0:0:0644:file"));
        assert_eq!(std::fs::read_to_string(tree.join("x")).unwrap(), "content");
    })
}

/// The names of a file's attributes, in order.
fn names(path: &Path) -> Vec<String> {
    let print = "import os, sys; print('\\n'.join(sorted(os.listxattr(sys.argv[1]))))";
    let listed = tool("python3", &["-c", print, path.to_str().unwrap()], Path::new("/"));
    listed.lines().map(str::to_owned).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let many: Vec<u8> = (0..20_000)
        .flat_map(|n| record(&format!("SCHILY.xattr.user.{n}"), b"some value"))
        .collect();
    let capability = [1, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        left_out("an opaque mark as attribute", "user.overlay.opaque", b"y"),
        left_out("a whiteout as attribute", "user.overlay.whiteout", b"y"),
        // With it the file could not even be opened.
        left_out("a file without data", "user.overlay.metacopy", b""),
        left_out("a directory that is elsewhere", "user.overlay.redirect", b"/etc"),
        left_out("an origin", "user.overlay.origin", b"\0\xfb\x1d\0\0"),
        left_out("another owner", "user.containers.override_stat", b"1000:1000:06777"),
        left_out(
            "another owner for fuse-overlayfs",
            "user.fuseoverlayfs.override_stat",
            b"1:1:06777",
        ),
        left_out("another owner for umoci", "user.rootlesscontainers", b"\x08\x01"),
        left_out("overlayfs's own as root", "trusted.overlay.opaque", b"y"),
        left_out("any trusted one", "trusted.x", b"y"),
        left_out("capabilities", "security.capability", &capability),
        left_out("a label", "security.selinux", b"system_u:object_r:shadow_t:s0\0"),
        left_out("an integrity measurement", "security.ima", b"\x01"),
        left_out("an access list", "system.posix_acl_access", &[2, 0, 0, 0]),
        left_out("an inode's flags", "system.nfs4_acl", b"x"),
        left_out("no namespace at all", "overlay.opaque", b"y"),
        refused("attribute with a NUL in its name", "NUL", with("user.a\0b", "x")),
        refused("attribute without a name", "entry x: ", with("user.", "x")),
        refused(
            "attribute with a name of 300 bytes",
            "entry x: ",
            with(&format!("user.{}", "n".repeat(300)), "x"),
        ),
        refused("attribute of 100 KiB", "entry x: ", with("user.large", vec![b'x'; 100 << 10])),
        refused(
            "20,000 attributes",
            "entry x: ",
            archive([Entry::file("pax", many).kind(b'x'), Entry::file("x", "")]),
        ),
        unpacked(
            "directory with an opaque mark as attribute",
            archive([Entry::dir("x").pax("SCHILY.xattr.user.overlay.opaque", "y")]),
            |tree| {
                assert_eq!(xattr(&tree.join("x"), c"user.overlay.opaque"), None);
            },
        ),
    ]
}
