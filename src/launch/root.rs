//! Making the root: an empty directory, or the layers of an image under an overlay.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fstat, mkdirat};

use super::handover::Way;
use super::maker::{Maker, attach_clone, out_of_order};
use super::message::Message;
use super::overlay;
use crate::error::{During, Error, Result};
use crate::rootfs::Overlay;
use crate::sandbox::{Mount, Root, Sandbox, What};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Context};

const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// Makes the root and attaches it in the box's memory, to be pivoted to.
pub(super) fn make<'a>(sandbox: &'a Sandbox, maker: &mut Maker<'a>) -> Result<OwnedFd> {
    let place = maker.new_directory(0o755)?;
    match &sandbox.root {
        Root::Host => {
            attach_clone(place.fd.as_fd(), place.fd.as_fd(), Attributes::SAFE, Path::new("/"))?;
            // The place is covered by its own clone now; that is the mount to work in.
            maker.reopen(&place)
        }
        Root::Image { store, layers, overlay, .. } => {
            let mounted = match (overlay, maker.served.take()) {
                (Overlay::Fuse, Some(served)) => served,
                (Overlay::Hybrid, Some(served)) => {
                    // Below an overlay may only be what is attached in this namespace. It is left
                    // behind with the old root, and the overlay has a clone that has no place.
                    let below = maker.new_directory(0o755)?;
                    mount::attach(&served, &below.fd).during("attach", "the merged layers")?;
                    // With many ids this process is none that may look into the store.
                    let lowers = match sandbox.identity.has_many() {
                        true => Vec::new(),
                        false => open_layers(&store.path, layers, maker)?,
                    };
                    let upper = upper(&lowers, &sandbox.mounts, maker)?;
                    overlayfs(&[served], &upper, maker)?
                }
                (Overlay::Kernel, _) => {
                    let lowers = open_layers(&store.path, layers, maker)?;
                    let upper = upper(&lowers, &sandbox.mounts, maker)?;
                    overlayfs(&lowers, &upper, maker)?
                }
                (_, None) => return Err(out_of_order("what the overlay's server shows")),
            };
            mount::attach(&mounted, &place.fd).at("mount overlay at", "/")?;
            Ok(mounted)
        }
    }
}

/// Gives the server what it needs of the box, and mounts what it shows, attached nowhere yet.
pub(super) fn serve<'a>(
    sandbox: &'a Sandbox,
    overlay: Overlay,
    maker: &mut Maker<'a>,
) -> Result<OwnedFd> {
    let to = match (maker.overlay, maker.supervisor) {
        (Some(Way::Own(to)), _) => to,
        (Some(Way::Shared(server)), Some(supervisor)) => {
            return overlay::mount_shared(server, supervisor);
        }
        _ => return Err(out_of_order("the overlay's server")),
    };
    if let (Overlay::Fuse, Root::Image { store, layers, .. }) = (overlay, &sandbox.root)
        && !sandbox.identity.has_many()
    {
        let lowers = open_layers(&store.path, layers, maker)?;
        let upper = upper(&lowers, &sandbox.mounts, maker)?;
        to.send(&Message::Upper, Some(upper.both.as_fd()))?;
    }
    overlay::mount(sandbox, overlay, maker.device.take(), to)
}

/// The layers' trees, the topmost first, as overlayfs takes them.
fn open_layers(at: &Path, layers: &[PathBuf], maker: &mut Maker<'_>) -> Result<Vec<OwnedFd>> {
    let base = maker.layers.take().ok_or_else(|| out_of_order("the image store"))?;
    layers
        .iter()
        .rev()
        .map(|layer| {
            fs::openat2(base.as_fd(), layer, DIRECTORY, 0, Resolve::BeneathNoSymlinks)
                .at("open layer", at.join(layer))
                .map_err(|error| error.hint("import the image again"))
        })
        .collect()
}

/// The writable layer: the directory itself, and one to work in on the same file system.
struct Upper {
    /// What both are in.
    both: OwnedFd,
    upper: OwnedFd,
    work: OwnedFd,
}

/// Makes the writable layer, with what is in it from the beginning.
fn upper<'a>(lowers: &[OwnedFd], mounts: &'a [Mount], maker: &mut Maker<'a>) -> Result<Upper> {
    let both = match maker.writable.take() {
        Some(on_disk) => on_disk,
        None => maker.new_directory(0o700)?.fd,
    };
    let [upper, work] = ["upper", "work"].map(|name| directory(&both, name));
    let upper = Upper { upper: upper?, work: work?, both };
    maker.early = write_early(&upper.upper, lowers, mounts)?;
    Ok(upper)
}

/// An overlay of one directory of the host, with its writable layer in the box's memory; attached
/// nowhere yet.
pub(super) fn overlaid(source: OwnedFd, target: &Path, maker: &mut Maker<'_>) -> Result<OwnedFd> {
    let both = maker.new_directory(0o700)?.fd;
    // The top of the overlay has the mode of the upper layer's top.
    let mode = fstat(&source).at("stat", target)?.st_mode;
    let [upper, work] = ["upper", "work"].map(|name| directory(&both, name));
    let upper = Upper { upper: upper?, work: work?, both };
    nix::sys::stat::fchmodat(
        &upper.both,
        "upper",
        Mode::from_bits_truncate(mode & 0o7777),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )
    .at("set the mode of", target)?;
    overlayfs(&[source], &upper, maker).map_err(|error| error.within(target.display()))
}

/// The kernel's overlay, attached nowhere yet.
fn overlayfs(lowers: &[OwnedFd], upper: &Upper, maker: &mut Maker<'_>) -> Result<OwnedFd> {
    let named = |fd: &OwnedFd| mount::descriptor_path(fd);
    let options = [(c"upperdir", named(&upper.upper)), (c"workdir", named(&upper.work))];
    match with_new_api(lowers, &options) {
        // "lowerdir+" came with Linux 6.8; before, fsconfig(2) cannot take more than 256 bytes.
        Err((error, _)) if error.raw_os_error() == Some(libc::EINVAL) => {
            with_old_api(lowers, &options, maker).map_err(|old| refused(&old, None))
        }
        Err((error, said)) => Err(refused(&error, said)),
        Ok(mount) => Ok(mount),
    }
}

fn refused(error: &std::io::Error, said: Option<String>) -> Error {
    let failed = Error::os("mount overlay at", "/", error);
    match said {
        Some(said) => failed.hint(format!("the kernel says: {said}")),
        None => failed,
    }
    .hint("`casemate doctor` tries overlayfs and names what to change")
}

fn directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_bits_truncate(0o755))
        .during("make directory", name)
        .map_err(|error| error.within("writable layer"))?;
    fs::openat2(parent.as_fd(), name, DIRECTORY, 0, Resolve::BeneathNoSymlinks)
        .during("open directory", name)
}

/// Writes the files of /etc into the writable layer while it is still a plain directory: through
/// the overlay each would first be looked up in all layers and then whited out. Only where the
/// layers have /etc as a directory, whose mode the upper one takes over; else they are written
/// later, wherever the image's links lead.
fn write_early<'a>(
    upper: &OwnedFd,
    lowers: &[OwnedFd],
    mounts: &'a [Mount],
) -> Result<Vec<&'a Path>> {
    let files = mounts.iter().filter_map(|mount| match &mount.what {
        What::File { content } if mount.target.parent() == Some(Path::new("/etc")) => {
            mount.target.file_name().map(|name| (mount.target.as_path(), name, content))
        }
        _ => None,
    });
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let found = lowers.iter().find_map(|lower| {
        fs::openat2(lower.as_fd(), "etc", flags, 0, Resolve::BeneathNoSymlinks).ok()
    });
    let Some(etc) = found else { return Ok(Vec::new()) };
    let stat = fstat(&etc).at("stat", "/etc")?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Ok(Vec::new());
    }
    mkdirat(upper, "etc", Mode::from_bits_truncate(stat.st_mode)).at("make", "/etc")?;
    let etc = fs::openat2(upper.as_fd(), "etc", DIRECTORY, 0, Resolve::BeneathNoSymlinks)
        .at("open", "/etc")?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    files
        .map(|(target, name, content)| {
            let file = fs::openat2(etc.as_fd(), name, flags, 0o644, Resolve::BeneathNoSymlinks)
                .at("make", target)?;
            std::fs::File::from(file).write_all(content).at("write", target)?;
            Ok(target)
        })
        .collect()
}

type Options = [(&'static std::ffi::CStr, CString); 2];

/// The flags of every overlay: `user.overlay.*` marks, which need no privilege (5.11), and no
/// syncing of a layer that is thrown away (5.10).
const FLAGS: [&std::ffi::CStr; 2] = [c"userxattr", c"volatile"];

fn with_new_api(
    lowers: &[OwnedFd],
    options: &Options,
) -> Result<OwnedFd, (std::io::Error, Option<String>)> {
    let context = Context::open(c"overlay").map_err(|error| (error, None))?;
    let configure = || {
        for lower in lowers {
            context.set(c"lowerdir+", &mount::descriptor_path(lower))?;
        }
        for (key, value) in options {
            context.set(key, value)?;
        }
        FLAGS.iter().try_for_each(|flag| context.flag(flag))
    };
    if let Err(error) = configure() {
        return Err((error, context.message()));
    }
    context.mount_or_message(Attributes::SAFE)
}

/// mount(2), whose options are one string of at most a page.
fn with_old_api(
    lowers: &[OwnedFd],
    options: &Options,
    maker: &mut Maker<'_>,
) -> std::io::Result<OwnedFd> {
    let mut data = b"lowerdir=".to_vec();
    for (index, lower) in lowers.iter().enumerate() {
        if index > 0 {
            data.push(b':');
        }
        data.extend_from_slice(mount::descriptor_path(lower).as_bytes());
    }
    for (key, value) in options {
        data.extend_from_slice(&[b",", key.to_bytes(), b"=", value.as_bytes()].concat());
    }
    for flag in FLAGS {
        data.extend_from_slice(&[b",", flag.to_bytes()].concat());
    }
    let out_of_room = |_| std::io::Error::from_raw_os_error(libc::ENOSPC);
    let place = maker.new_directory(0o755).map_err(out_of_room)?;
    let data = CString::new(data).map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))?;
    mount::mount_overlay(&mount::descriptor_path(&place.fd), &data)?;
    let top = maker.reopen(&place).map_err(out_of_room)?;
    let tree = mount::clone_tree(top.as_fd(), c"", false)?;
    mount::set_attributes(tree.as_fd(), Attributes::SAFE, false, false)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels before 6.8 take the other way; it is proven on whatever kernel this is, in mount
    /// namespaces of its own, which need a user namespace and a process for it.
    #[test]
    fn both_ways_to_an_overlay_give_the_same() {
        if std::env::var_os("CASEMATE_TEST_INNER").is_none() {
            let exe = std::env::current_exe().unwrap();
            let inner = std::process::Command::new("unshare")
                .args(["--user", "--map-root-user", "--mount"])
                .arg(exe)
                .args(["--exact", "launch::root::tests::both_ways_to_an_overlay_give_the_same"])
                .env("CASEMATE_TEST_INNER", "1")
                .output()
                .unwrap();
            assert!(inner.status.success(), "{}", String::from_utf8_lossy(&inner.stdout));
            return;
        }
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let lowers: Vec<OwnedFd> = ["high", "low"]
            .iter()
            .map(|name| {
                let path = place.path().join(name);
                std::fs::create_dir_all(path.join("directory")).unwrap();
                std::fs::write(path.join("both"), name).unwrap();
                std::fs::write(path.join("directory").join(name), name).unwrap();
                fs::open_path(&path).unwrap()
            })
            .collect();
        for old in [false, true] {
            let mut maker = Maker::new(None);
            maker.make_memory("10%").unwrap();
            let writable = maker.new_directory(0o700).unwrap().fd;
            let [upper, work] = ["upper", "work"].map(|name| directory(&writable, name).unwrap());
            let options = [
                (c"upperdir", mount::descriptor_path(&upper)),
                (c"workdir", mount::descriptor_path(&work)),
            ];
            let made = if old {
                with_old_api(&lowers, &options, &mut maker).unwrap()
            } else {
                with_new_api(&lowers, &options).map_err(|(error, _)| error).unwrap()
            };
            let place = maker.new_directory(0o755).unwrap();
            mount::attach(&made, &place.fd).unwrap();
            let root = maker.reopen(&place).unwrap();
            let name = mount::descriptor_path(&root);
            let at = Path::new(name.to_str().unwrap());
            assert_eq!(std::fs::read_to_string(at.join("both")).unwrap(), "high");
            assert_eq!(std::fs::read_dir(at.join("directory")).unwrap().count(), 2);
            std::fs::remove_dir_all(at.join("directory")).unwrap();
            std::fs::create_dir(at.join("directory")).unwrap();
            assert_eq!(std::fs::read_dir(at.join("directory")).unwrap().count(), 0);
        }
        assert!(place.path().join("low/directory/low").exists());
    }
}
