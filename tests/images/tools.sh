#!/bin/bash
# Builds the image in which tests/overlay does real work: tools.sh NAME OUTPUT
#
#   tools   OUTPUT is an OCI layout (directory) of three layers: a small Debian; gcc, make, git, rsync
#           and sqlite; python with its own tests, node and npm
#
# Runs as root or as an ordinary user; the layers have their true owners either way.
set -euo pipefail

name=$1
output=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
. "$here/apt.sh"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/casemate-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
# Times beyond this are set to it, so that trees made one after the other have equal ones.
SOURCE_DATE_EPOCH=$(date +%s)
export SOURCE_DATE_EPOCH
[ "$name" = tools ] || { echo "tools.sh: no such image: $name" >&2; exit 2; }

umoci init --layout "$work/layout"
umoci new --image "$work/layout:latest"
umoci config --no-history --image "$work/layout:latest" \
    --architecture "$(dpkg --print-architecture)" --config.env LANG=C.UTF-8 \
    --config.env PATH=/usr/local/bin:/usr/bin:/bin --config.cmd /bin/bash

# layer PACKAGES: one more layer, which adds these packages.
packages=
layer() {
    packages=${packages:+$packages,}$1
    debian_tree "$work/tree.tar" "$packages" \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*'
    if [ -e "$work/below.tar" ]; then
        "$here/difference.py" "$work/below.tar" "$work/tree.tar" "$work/layer.tar"
        umoci raw add-layer --image "$work/layout:latest" "$work/layer.tar"
        rm "$work/layer.tar"
    else
        umoci raw add-layer --image "$work/layout:latest" "$work/tree.tar"
    fi
    mv "$work/tree.tar" "$work/below.tar"
}

layer bash,coreutils,findutils,procps,util-linux
layer gcc,libc6-dev,make,git,rsync,sqlite3
# The package has the version in its name.
testsuite=$(apt-cache depends python3 | sed -n "s/^ *Depends: \(python3\.[0-9]*\)$/lib\1-testsuite/p" | head -n 1)
layer "python3,${testsuite:?},nodejs,npm"
umoci gc --layout "$work/layout"
rm -rf "$output"
mv "$work/layout" "$output"
chmod -R u+rwX,go+rX "$output"
