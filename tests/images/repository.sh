#!/bin/bash
# Builds the image in which tests/ids installs packages: repository.sh NAME OUTPUT
#
#   repository   OUTPUT is an OCI layout (directory) of two layers: a minimal Debian, and a package
#                source in /srv/repository that apt knows, with a message bus and postgres and what they
#                need; in /srv/owners a file each of five owners
#
# Runs as root or as an ordinary user; the layers have their true owners either way.
set -euo pipefail

name=$1
output=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
. "$here/apt.sh"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/casemate-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
[ "$name" = repository ] || { echo "repository.sh: no such image: $name" >&2; exit 2; }

debian_tree "$work/tree.tar" bash,coreutils,findutils,procps,util-linux,passwd \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*'

# What this machine's apt would install into that tree, and nothing of it is this machine's.
repository=$work/layer/srv/repository
mkdir -p "$repository/partial" "$work/layer/srv/owners" "$work/layer/etc/apt"
tar -xOf "$work/tree.tar" ./var/lib/dpkg/status >"$work/status"
apt-get --quiet=2 --yes --no-install-recommends --download-only \
    -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::State::status="$work/status" \
    -o Dir::Cache::archives="$repository" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
    install dbus postgresql >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
rm -rf "$repository/partial" "$repository/lock"

# The index of a flat repository (Debian's "Repository Format", Packages).
for deb in "$repository"/*.deb; do
    dpkg-deb --field "$deb"
    echo "Filename: ./${deb##*/}"
    echo "Size: $(stat -c %s "$deb")"
    echo "SHA256: $(sha256sum "$deb" | cut -d ' ' -f 1)"
    echo
done >"$repository/Packages"
echo 'deb [trusted=yes] file:/srv/repository ./' >"$work/layer/etc/apt/sources.list"

umoci init --layout "$work/layout"
umoci new --image "$work/layout:latest"
umoci config --no-history --image "$work/layout:latest" \
    --architecture "$(dpkg --print-architecture)" --config.env LANG=C.UTF-8 \
    --config.env DEBIAN_FRONTEND=noninteractive \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --config.cmd /bin/bash
umoci raw add-layer --image "$work/layout:latest" "$work/tree.tar"
tar -C "$work/layer" --sort=name --owner=0 --group=0 --mode=u+rwX,go+rX \
    -cf "$work/layer.tar" etc srv/repository
for owner in 1 33 1000 40000 65534; do
    echo "$owner" >"$work/layer/srv/owners/$owner"
    tar -C "$work/layer" --owner="$owner" --group="$((65535 - owner))" \
        -rf "$work/layer.tar" "srv/owners/$owner"
done
umoci raw add-layer --image "$work/layout:latest" "$work/layer.tar"
umoci gc --layout "$work/layout"
rm -rf "$output"
mv "$work/layout" "$output"
chmod -R u+rwX,go+rX "$output"
