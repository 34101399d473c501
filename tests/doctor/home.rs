//! The user's own directories: where the store would be, and what lasts as long as the session.

use crate::common::{Run, Workspace, require_root};
use crate::{Report, after, doctor};

/// The doctor with a store in `$dir/home`, where root has mounted something that all may write to.
fn on(mount: &str, space: &Workspace) -> Run {
    space.directory("home");
    after(mount, space).env("XDG_DATA_HOME", space.at("home"))
}

#[test]
fn file_systems_that_images_cannot_be_on() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    let well = on("mount -t tmpfs -o mode=777 none $dir/home", &space);
    Report::of(well).is_well();
    let report = Report::of(on("mount -t ramfs -o mode=777 none $dir/home", &space));
    report.has("home-fs", "warning", "store-attributes");
    assert!(report.finding("home-fs")["cause"].as_str().unwrap().contains("(ramfs)"));
    assert_eq!(report.0["exit"], 1);
    space.directory("lower");
    let overlay = "mount -t tmpfs none $dir/lower && mkdir -m 777 $dir/lower/l $dir/lower/u $dir/lower/w && \
        mount -t overlay -o lowerdir=$dir/lower/l,upperdir=$dir/lower/u,workdir=$dir/lower/w none $dir/home";
    let report = Report::of(on(overlay, &space));
    report.has("home-overlay", "warning", "store-overlay");
    assert!(report.finding("home-overlay")["cause"].as_str().unwrap().contains("(overlay)"));
}

#[test]
fn a_place_that_cannot_be_written() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    let foreign = Report::of(doctor().with_fuse().env("XDG_DATA_HOME", "/usr/share"));
    foreign.has("home-write", "warning", "store-write");
    let read_only = "mount -t tmpfs -o mode=777 none $dir/home && mount -o remount,ro $dir/home";
    Report::of(on(read_only, &space)).has("home-write", "warning", "store-write");
    let full = "mount -t tmpfs -o mode=777,nr_inodes=1 none $dir/home";
    Report::of(on(full, &space)).has("home-full", "warning", "store-write");
}

#[test]
fn nothing_can_be_executed_below_the_home() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    let report = Report::of(on("mount -t tmpfs -o mode=777,noexec none $dir/home", &space));
    report.has("home-noexec", "note", "store-execute");
    report.is_well();
}

#[test]
fn no_home_at_all() {
    if !require_root() {
        return;
    }
    let space = Workspace::new();
    let nobody = after("user=54321", &space)
        .without_env("HOME")
        .without_env("USER")
        .without_env("XDG_DATA_HOME");
    Report::of(nobody).has("home-none", "warning", "store-write");
}

#[test]
fn a_runtime_directory_that_is_missing_or_not_ones_own() {
    let run = |path: Option<&str>| match path {
        Some(path) => Report::of(doctor().with_fuse().env("XDG_RUNTIME_DIR", path)),
        None => Report::of(doctor().with_fuse().without_env("XDG_RUNTIME_DIR")),
    };
    let space = Workspace::new();
    let own = space.directory("own");
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    run(Some(&own)).is_well();
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for path in [None, Some("/tmp"), Some("/nonexistent"), Some("relative"), Some(own.as_str())] {
        let report = run(path);
        report.has("runtime-dir", "warning", "runtime-directory");
        assert_eq!(report.0["exit"], 1, "{path:?}");
    }
}
