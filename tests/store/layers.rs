//! What a layer looks like on disk.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::common::*;

const OVERRIDE: &std::ffi::CStr = c"user.containers.override_stat";
const OPAQUE: &std::ffi::CStr = c"user.overlay.opaque";

fn is_whiteout(path: &Path) -> bool {
    let stat = fs::symlink_metadata(path).unwrap();
    stat.file_type().is_char_device() && stat.rdev() == 0
}

user_tests! {
    fn whiteouts_are_devices_and_opaque_directories_are_marked(home) {
        let tree = import_tree(home, &archive([
            Entry::dir("etc"),
            Entry::file("etc/.wh.gone", ""),
            Entry::file("etc/.wh..wh..opq", ""),
            Entry::dir("var"),
            Entry::file("var/kept", "x"),
            Entry::file("var/.wh.kept", ""),
            Entry::file(".wh.sub", ""),
            Entry::file("sub/file", "x"),
            Entry::file(".wh.again", ""),
            Entry::file("again", "new"),
            Entry::file("var/.wh..wh.plnk", ""),
            Entry::dir("late"),
            Entry::file(".wh.late", ""),
        ]));
        assert!(is_whiteout(&tree.join("etc/gone")));
        assert_eq!(xattr(&tree.join("etc"), OPAQUE).as_deref(), Some("y"));
        assert_eq!(xattr(&tree.join("var"), OPAQUE), None);
        assert_eq!(fs::read_to_string(tree.join("var/kept")).unwrap(), "x");
        // A whiteout means the layers below: what this layer has under the name stays.
        assert_eq!(xattr(&tree.join("sub"), OPAQUE).as_deref(), Some("y"));
        assert_eq!(xattr(&tree.join("late"), OPAQUE).as_deref(), Some("y"));
        assert_eq!(fs::read_to_string(tree.join("again")).unwrap(), "new");
        assert!(!fs::exists(tree.join("var/.wh..wh.plnk")).unwrap());
    }

    fn owners_and_modes_are_kept_beside_the_file(home) {
        let uid = nix::unistd::geteuid().as_raw();
        let tree = import_tree(home, &archive([
            Entry::file("root", "").mode(0o4755),
            Entry::file("own", "").owner(uid, uid).mode(0o640),
            Entry::file("closed", "").owner(uid, uid).mode(0o000),
            Entry::dir("tmp").mode(0o1777),
            Entry::dir("shut").owner(1000, 8).mode(0o2050),
            Entry::new("null", b'3').device(1, 3).mode(0o666),
            Entry::new("sda", b'4').device(8, 1).owner(0, 6).mode(0o660),
            Entry::new("zero", b'3').device(0, 0),
            Entry::new("fifo", b'6').mode(0o622),
        ]));
        let seen = |name: &str| {
            let stat = fs::symlink_metadata(tree.join(name)).unwrap();
            (format!("{:o}", stat.mode()), xattr(&tree.join(name), OVERRIDE))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(seen("root"), ("100755".into(), some("0:0:4755:file")));
        assert_eq!(seen("own"), ("100640".into(), None));
        assert_eq!(seen("closed"), ("100600".into(), some(&format!("{uid}:{uid}:0000:file"))));
        assert_eq!(seen("tmp"), ("41777".into(), some("0:0:1777:dir")));
        assert_eq!(seen("shut"), ("40750".into(), some("1000:8:2050:dir")));
        assert_eq!(seen("null"), ("100666".into(), some("0:0:0666:char-1-3")));
        assert_eq!(seen("sda"), ("100660".into(), some("0:6:0660:block-8-1")));
        assert_eq!(seen("zero"), ("100644".into(), some("0:0:0644:char-0-0")));
        let fifo = fs::symlink_metadata(tree.join("fifo")).unwrap();
        assert!(fifo.file_type().is_fifo() && fifo.mode() & 0o777 == 0o622);
        assert_eq!(seen(""), ("40755".into(), some("0:0:0755:dir")));
    }

    fn times_have_nanoseconds_and_directories_keep_theirs(home) {
        let tree = import_tree(home, &archive([
            Entry::dir("dir").pax("mtime", b"123456789.987654321"),
            Entry::file("dir/old", "x").pax("mtime", b"-5.5"),
            Entry::symlink("dir/link", "old").pax("mtime", b"7.000000001"),
            Entry::dir("dir/inner"),
        ]));
        let time = |name: &str| {
            let stat = fs::symlink_metadata(tree.join(name)).unwrap();
            (stat.mtime(), stat.mtime_nsec())
        };
        assert_eq!(time("dir"), (123_456_789, 987_654_321));
        assert_eq!(time("dir/old"), (-6, 500_000_000));
        assert_eq!(time("dir/link"), (7, 1));
    }

    fn only_the_images_own_attributes_are_kept(home) {
        let tree = import_tree(home, &archive([
            Entry::file("file", "x")
                .pax("SCHILY.xattr.user.mine", b"a\nb")
                .pax("SCHILY.xattr.user.overlay.metacopy", b"")
                .pax("SCHILY.xattr.user.overlay.redirect", b"/etc")
                .pax("SCHILY.xattr.user.containers.override_stat", b"5:5:0777")
                .pax("SCHILY.xattr.user.rootlesscontainers", b"x")
                .pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
                .pax("SCHILY.xattr.security.capability", b"\x01\x00\x00\x02"),
            Entry::dir("dir").pax("SCHILY.xattr.user.overlay.opaque", b"y"),
        ]));
        let file = tree.join("file");
        assert_eq!(xattr(&file, c"user.mine").as_deref(), Some("a\nb"));
        assert_eq!(xattr(&file, OVERRIDE).as_deref(), Some("0:0:0644:file"));
        for name in [c"user.overlay.metacopy", c"user.overlay.redirect", c"user.rootlesscontainers",
            c"trusted.overlay.opaque", c"security.capability"] {
            assert_eq!(xattr(&file, name), None, "{name:?}");
        }
        assert_eq!(xattr(&tree.join("dir"), OPAQUE), None);
    }

    fn the_last_entry_of_a_name_counts(home) {
        let tree = import_tree(home, &archive([
            Entry::file("a", "first"),
            Entry::file("a", "second"),
            Entry::file("b", "file"),
            Entry::dir("b"),
            Entry::file("b/in", "x"),
            Entry::dir("c"),
            Entry::file("c/in/deep", "x"),
            Entry::file("c", "file now"),
            Entry::symlink("d", "a"),
            Entry::file("d", "not through the link"),
            Entry::dir("e").mode(0o700),
            Entry::file("e/in", "kept"),
            Entry::dir("e").mode(0o711),
            Entry::hard_link("a", "a"),
        ]));
        let read = |name: &str| fs::read_to_string(tree.join(name)).unwrap();
        assert_eq!((read("a"), read("b/in"), read("c")), ("second".into(), "x".into(), "file now".into()));
        assert_eq!((read("d"), read("e/in")), ("not through the link".into(), "kept".into()));
        assert_eq!(true_mode(&tree.join("e")), 0o711);
    }

    fn a_file_is_read_as_the_merged_layers_show_it(home) {
        let lower = archive([
            Entry::file("etc/passwd", "lower"),
            Entry::file("etc/group", "lower"),
            Entry::file("gone/file", "lower"),
            Entry::file("opaque/file", "lower"),
            Entry::file("same/file", "lower"),
        ]);
        let upper = archive([
            Entry::file("etc/passwd", "upper"),
            Entry::file("etc/.wh.group", ""),
            Entry::file(".wh.gone", ""),
            Entry::file("opaque/.wh..wh..opq", ""),
            Entry::symlink("link", "etc/passwd"),
            Entry::new("null", b'3').device(1, 3),
            Entry::dir("same"),
        ]);
        crate::formats::layout(&home.join("oci"), &[lower, upper]);
        let (store, image) = import(home, "test", &home.join("oci"));
        let read = |path: &str| {
            let content = store.read_file(&image, Path::new(path), 100).unwrap();
            content.map(|content| String::from_utf8(content).unwrap())
        };
        assert_eq!(read("/etc/passwd").as_deref(), Some("upper"));
        assert_eq!(read("same/file").as_deref(), Some("lower"));
        for absent in ["/etc/group", "/gone/file", "/opaque/file", "/link", "/null", "/nowhere", "/etc"] {
            assert_eq!(read(absent), None, "{absent}");
        }
        let error = store.read_file(&image, Path::new("/etc/passwd"), 4).unwrap_err();
        assert!(error.to_string().contains("larger than 4 bytes"));
        assert!(store.read_file(&image, Path::new("../../oci/index.json"), 100).is_err());
    }

    fn layers_below_an_opaque_root_are_left_out(home) {
        let lower = archive([Entry::file("lower", "")]);
        let upper = archive([Entry::file(".wh..wh..opq", ""), Entry::file("upper", "")]);
        let top = archive([Entry::file("top", "")]);
        crate::formats::layout(&home.join("oci"), &[lower, upper, top]);
        let (_, image) = import(home, "test", &home.join("oci"));
        assert_eq!(image.config.diff_ids.len(), 3);
        assert_eq!(image.layers, image.config.diff_ids[1..]);
    }
}
