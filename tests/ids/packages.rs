//! Installing packages that make accounts of their own, and what these are for.

use std::time::Duration;

use crate::Scene;
use crate::common::{Image, image};

const PATIENCE: Duration = Duration::from_secs(600);

const INSTALL: &str = "apt-get -q update >/dev/null && apt-get -qy install dbus >/tmp/log 2>&1 || \
                       { cat /tmp/log; exit 1; }; grep '^[WE]:' /tmp/log; \
                       getent passwd messagebus | cut -d : -f 1,6; ";

#[test]
fn a_package_with_an_account_is_installed_with_many_ids() {
    let scene = Scene::new();
    let name = image(Image::Repository);
    for way in [&[][..], &["--scratch", "disk"]] {
        let options = [&["--image", &name, "-u", "root"], way].concat();
        let script =
            format!("{INSTALL} stat -c '%U:%G %a' /usr/lib/dbus-1.0/dbus-daemon-launch-helper");
        let text = scene.shell(&options, &script).timeout(PATIENCE).text();
        assert_eq!(text, "messagebus:/nonexistent\nroot:messagebus 4754", "{way:?}");
    }
}

#[test]
fn a_package_with_an_account_is_installed_with_one_id_that_passes_for_root() {
    let scene = Scene::with("");
    let name = image(Image::Repository);
    let script = format!(
        "{INSTALL} stat -c '%U:%G' /usr/lib/dbus-1.0/dbus-daemon-launch-helper; \
                          cd /tmp && touch f && tar -cf t --owner 33 --group 44 f && rm f && \
                          tar -xpf t && stat -c '%u %g' f"
    );
    let options = ["--image", &name, "--fake-root"];
    let text = scene.shell(&options, &script).timeout(PATIENCE).text();
    assert_eq!(text, "messagebus:/nonexistent\nroot:root\n0 0");
}

#[test]
fn postgres_runs_as_its_own_user() {
    let scene = Scene::new();
    let name = image(Image::Repository);
    let script = "apt-get -q update >/dev/null && apt-get -qy install --no-install-recommends \
                  postgresql >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }; \
                  stat -c '%U:%G %a' /etc/postgresql/*/main/pg_hba.conf; \
                  pg_ctlcluster $(ls /etc/postgresql) main start && \
                  su - postgres -c 'psql -Atc \"select current_user, 6 * 7\"' && \
                  stat -c %U /proc/$(head -n 1 /var/lib/postgresql/*/main/postmaster.pid)";
    let options = ["--image", &name, "-u", "root"];
    let text = scene.shell(&options, script).timeout(PATIENCE).text();
    assert_eq!(text, "postgres:postgres 640\npostgres|42\npostgres");
}
