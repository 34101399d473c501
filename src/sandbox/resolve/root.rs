//! What lies at /, and what every box has below it.

use std::path::{Path, PathBuf};

use super::super::{Mount, Root, What};
use super::ImageInput;
use crate::error::{During, Error, Result};
use crate::host::{Host, World};
use crate::identity::{Identity, Names, find_user};
use crate::profile::{NetworkMode, Overlay, Profile, Scratch};
use crate::rootfs::host::How;
use crate::rootfs::{self, host as system};

/// /etc/resolv.conf and the like are small; more is not one.
const SMALL: u64 = 1 << 20;

pub(super) fn choose(
    profile: &Profile,
    host: &Host,
    image: Option<&ImageInput>,
    identity: &Identity,
) -> Result<Root> {
    let Some(image) = image else { return Ok(Root::Host) };
    let asked = profile.root.scratch.unwrap_or(Scratch::Auto);
    let (scratch, why) = rootfs::scratch(asked, host.tmpfs_xattrs);
    let on_disk = scratch == rootfs::Scratch::Disk;
    if on_disk && profile.root.scratch_size.is_some() {
        return Err(Error::new(format!(
            "root.scratch-size: cannot be enforced where writes go to disk ({why})"
        ))
        .hint("leave it out, or say scratch = \"memory\""));
    }
    let asked = profile.root.overlay.unwrap_or(Overlay::Auto);
    let (overlay, overlay_why) = if identity.has_many() {
        rootfs::overlay_for_many(asked, on_disk, host.fuse)?
    } else {
        rootfs::overlay(asked, host.kernel_overlay, host.fuse)?
    };
    // What was not looked at may be there.
    let in_layers = image.has_xattrs.unwrap_or(true);
    let (xattrs, xattrs_why) = rootfs::xattrs(profile.root.xattrs, overlay, in_layers);
    Ok(Root::Image {
        name: image.name.clone(),
        digest: image.digest.as_str().into(),
        store: image.store.clone(),
        layers: image.layers.clone(),
        overlay,
        overlay_why: overlay_why.into(),
        xattrs,
        xattrs_why,
        scratch,
        scratch_dir: on_disk.then(|| image.scratch_dir.clone()),
        why: why.into(),
        read_only: profile.root.read_only.unwrap_or(false),
    })
}

/// A file of apt.conf(5) that is read after those of the distribution.
const APT_SETTING: &str = "/etc/apt/apt.conf.d/99casemate-fake-root";

/// The mounts that are there without being asked for.
pub(super) fn base(
    root: &Root,
    identity: &Identity,
    names: &Names,
    hostname: &str,
    network: NetworkMode,
    world: &mut dyn World,
) -> Result<Vec<Mount>> {
    let mut list = List(Vec::new());
    match root {
        Root::Host => {
            host_system(&mut list, network, world)?;
            for (path, mode) in [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755)] {
                list.add(path, What::Private { mode }, "every box");
            }
            list.add(&identity.home, What::Private { mode: 0o700 }, "every box");
            list.add("/etc/passwd", What::File { content: host_passwd(identity) }, "identity");
            list.add("/etc/group", What::File { content: host_group(identity) }, "identity");
        }
        Root::Image { read_only, .. } => {
            // With a writable root these are the image's own, made where it lacks them.
            let writable = |mode| {
                if *read_only { What::Private { mode } } else { What::Directory { mode } }
            };
            list.add("/tmp", writable(0o1777), "every box");
            list.add("/var/tmp", writable(0o1777), "every box");
            list.add("/run", writable(0o755), "every box");
            if !identity.known.user {
                list.add(&identity.home, writable(0o700), "every box");
                let content = with_line(&names.passwd, &identity.passwd_line());
                list.add("/etc/passwd", What::File { content }, "identity");
            }
            if !identity.known.group {
                let content = with_line(&names.group, &identity.group_line());
                list.add("/etc/group", What::File { content }, "identity");
            }
            // apt(8) looks whether it has become the account that it downloads as, and would stop.
            if identity.fake_root && find_user(&names.passwd, |user| user.name == "_apt").is_some()
            {
                let content = b"APT::Sandbox::User \"root\";\n".to_vec();
                list.add(APT_SETTING, What::File { content }, "fake root");
            }
            if network == NetworkMode::Host {
                for (name, _) in system::ETC_NETWORK {
                    let path = Path::new("/etc").join(name);
                    // Copied, not bound: what the image has at this name may be anything.
                    if let Ok(content) = world.read(&path, SMALL) {
                        list.add(&path, What::File { content }, "network");
                    }
                }
            }
        }
    }
    let hosts = match network {
        NetworkMode::Host => world.read(Path::new("/etc/hosts"), SMALL).unwrap_or_default(),
        NetworkMode::None => hosts(hostname),
    };
    list.add("/etc/hosts", What::File { content: hosts }, "network");
    let content = format!("{hostname}\n").into_bytes();
    list.add("/etc/hostname", What::File { content }, "identity");
    list.add("/proc", What::Proc, "every box");
    list.add("/dev", What::Devices, "every box");
    Ok(list.0)
}

struct List(Vec<Mount>);

impl List {
    fn add(&mut self, target: impl Into<PathBuf>, what: What, origin: &str) {
        self.0.push(Mount { target: target.into(), what, origin: origin.to_owned() });
    }
}

fn host_system(list: &mut List, network: NetworkMode, world: &mut dyn World) -> Result<()> {
    let mut found = false;
    for path in system::SYSTEM {
        match world.link(Path::new(path)) {
            Ok(Some(to)) => list.add(path, What::Link { to }, "the host's system"),
            Ok(None) => {
                let source = world.open(Path::new(path)).at("open", path)?;
                found |= path == "/usr";
                list.add(
                    path,
                    What::Bind { source, write: false, exec: true },
                    "the host's system",
                );
            }
            // /lib32 and its kind are on some systems only.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::os("look at", path, &error)),
        }
    }
    if !found {
        return Err(Error::new("host root: this system has no /usr of its own")
            .hint("use an image: casemate run --image NAME"));
    }
    let names = system::ETC.iter().chain(match network {
        NetworkMode::Host => system::ETC_NETWORK.iter(),
        NetworkMode::None => [].iter(),
    });
    for (name, how) in names {
        let path = Path::new("/etc").join(name);
        let what = match world.link(&path) {
            // A link into the system that is there anyway stays a link (os-release, localtime).
            Ok(Some(to)) if stays_inside(&to) => What::Link { to },
            // One of the short list may be missing, or not ours to read: then it is not there.
            Ok(_) => match copied_or_bound(&path, *how, world) {
                Some(what) => what,
                None => continue,
            },
            Err(_) => continue,
        };
        list.add(path, what, "the host's system");
    }
    Ok(())
}

fn copied_or_bound(path: &Path, how: How, world: &mut dyn World) -> Option<What> {
    const COPIED: u64 = 16 << 10;
    if how == How::Copy
        && let Ok(content) = world.read(path, COPIED)
    {
        return Some(What::File { content });
    }
    let source = world.open(path).ok()?;
    let usable = source.identity.is_dir() || source.identity.is_file();
    usable.then_some(What::Bind { source, write: false, exec: true })
}

fn stays_inside(to: &Path) -> bool {
    let clean = !to.components().skip(1).any(|part| part == std::path::Component::ParentDir);
    clean && (to.starts_with("/usr") || to.starts_with("../usr"))
}

/// A file of the image with one more line.
fn with_line(text: &[u8], line: &[u8]) -> Vec<u8> {
    let mut content = text.to_vec();
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    content.extend_from_slice(line);
    content
}

fn host_passwd(identity: &Identity) -> Vec<u8> {
    let mut text = Vec::new();
    if identity.uid != 0 {
        text.extend(b"root:x:0:0:root:/root:/usr/sbin/nologin\n");
    }
    text.extend(identity.passwd_line());
    // What the kernel shows for every id that the box does not have (user_namespaces(7)).
    text.extend(b"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    text
}

fn host_group(identity: &Identity) -> Vec<u8> {
    let mut text = Vec::new();
    if identity.gid != 0 {
        text.extend(b"root:x:0:\n");
    }
    text.extend(identity.group_line());
    text.extend(b"nogroup:x:65534:\n");
    text
}

fn hosts(hostname: &str) -> Vec<u8> {
    format!("127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost ip6-loopback\n")
        .into_bytes()
}
