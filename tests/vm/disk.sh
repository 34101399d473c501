#!/bin/bash
# Builds the guest: disk.sh OUTPUT, a directory with
#
#   kernel   the kernel of Debian's cloud images
#   disk     a Debian 13 with systemd, as an ext4 file system for /dev/nvme0n1
#
# That kernel has NVMe, ext4 and the virtio console built in, so it needs no initrd. The guest's own
# part is small: as its user, in a session, it runs the program `start` of the disk /dev/vda, with its
# output on the port casemate.output, and then goes off.
#
# Runs as root, or as an ordinary user with a range in /etc/subuid.
set -euo pipefail

output=$(realpath -m "$1")
here=$(dirname "$(realpath "$0")")
. "$here/../images/apt.sh"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/casemate-guest.XXXXXX")
trap 'chmod -R u+rwX "$work" 2>/dev/null; rm -rf "$work"' EXIT

# What the tests call, and what an ordinary Debian has when somebody logs in.
packages=linux-image-cloud-amd64,systemd,systemd-sysv,udev,kmod,dbus,dbus-user-session,libpam-systemd
packages+=,systemd-container,libbpf1,uidmap,apparmor,sudo,passwd,procps,util-linux,keyutils,bubblewrap
packages+=,libseccomp2,libcap2-bin,python3-minimal,busybox-static,less

# The machine's own mirror, with the release that the guest is.
sources=$(apt_sources)
mirror=$(awk '$3 !~ /[-\/]/ {print $2; exit}' <<<"$sources")
mmdebstrap --quiet --variant=minbase --format=tar --include="$packages" \
    --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    trixie "$work/tree.tar" "deb $mirror trixie main"

# In a range of ids where we are not root: the owners of the files are then the disk's.
cat >"$work/finish" <<'SCRIPT'
set -eu
work=$1
output=$2
root=$work/root
mkdir "$root"
tar -C "$root" --numeric-owner --exclude='./dev/*' -xf "$work/tree.tar"
mkdir -p "$output"
cp "$root"/boot/vmlinuz-* "$output/kernel"
rm -rf "$root"/boot/* "$root/vmlinuz"* "$root/initrd.img"*

# The user, who is logged in as if from boot on, and may be root for what a test has to arrange.
chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 --user-group guest
mkdir -p "$root/var/lib/systemd/linger"
: >"$root/var/lib/systemd/linger/guest"
echo 'guest ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/guest"
chmod 440 "$root/etc/sudoers.d/guest"

# What it is started for runs in a session of that user, as after a login.
printf '%s\n' '@include common-account' '@include common-session' >"$root/etc/pam.d/casemate-guest"
cat >"$root/etc/systemd/system/casemate-guest.service" <<'UNIT'
[Unit]
Description=What this guest was started for
After=multi-user.target user@1000.service dev-vda.device
Requires=dev-vda.device

[Service]
Type=oneshot
User=guest
PAMName=casemate-guest
WorkingDirectory=/home/guest
Environment=LANG=C.UTF-8
TimeoutStartSec=infinity
ExecStartPre=+mount -o ro /dev/vda /payload
ExecStartPre=+chown guest /dev/virtio-ports/casemate.status
ExecStart=/payload/start
StandardOutput=file:/dev/virtio-ports/casemate.output
StandardError=inherit
# Off at once: the disk is thrown away.
ExecStopPost=+sh -c 'echo o >/proc/sysrq-trigger'
UNIT
mkdir -p "$root/payload" "$root/etc/systemd/system/graphical.target.wants" \
    "$root/etc/systemd/system/serial-getty@ttyS0.service.d"
ln -s ../casemate-guest.service "$root/etc/systemd/system/graphical.target.wants/"

# A shell on the console, for people, and the end of the machine with it.
cat >"$root/etc/systemd/system/serial-getty@ttyS0.service.d/guest.conf" <<'UNIT'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin guest --keep-baud 115200 - $TERM
Restart=no
ExecStopPost=+sh -c 'echo o >/proc/sysrq-trigger'
UNIT

echo casemate-guest >"$root/etc/hostname"
echo '127.0.0.1 localhost casemate-guest' >"$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo '/dev/nvme0n1 / ext4 defaults 0 0' >"$root/etc/fstab"

# What takes long at boot under emulation and serves nobody here: timers, the caches that a new
# system makes, and the profiles of programs that are not installed, whose compilation takes 17 s.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer e2scrub_reap.service systemd-firstboot.service modprobe@drm.service \
    modprobe@efi_pstore.service getty@tty1.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
find "$root/etc/apparmor.d" -maxdepth 1 -type f ! -name bwrap-userns-restrict \
    ! -name unprivileged_userns ! -name busybox -delete
chroot "$root" ldconfig
touch "$root/etc/.updated" "$root/var/.updated"

mke2fs -q -t ext4 -d "$root" "$output/disk" 4G >/dev/null
SCRIPT

rm -rf "$output"
if [ "$(id -u)" -eq 0 ]; then
    sh "$work/finish" "$work" "$output"
else
    # The range's ids cannot be removed by their user later.
    unshare --map-root-user --map-auto sh -c '
        sh "$1/finish" "$1" "$2"; code=$?; rm -rf "$1/root"; exit "$code"' sh "$work" "$output"
fi
chmod -R u+rwX,go+rX "$output"
