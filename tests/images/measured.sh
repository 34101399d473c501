#!/bin/bash
# Builds the images that `make bench` imports: measured.sh NAME OUTPUT
#
#   base    one layer, a Debian of about 170 MB
#   big     three layers, about 870 MB: that base; gcc and g++; python, git and node
#
# OUTPUT is a directory with the same layers in the forms that casemate and its peers read:
#
#   oci/              OCI layout, gzip layers, with the tag `latest`
#   zstd/             OCI layout, zstd layers, with the tag `latest`
#   docker.tar        docker-archive, whose layers are not compressed
#   layer-N.tar       the layers from the lowest, with .gz and .zst as they are in the layouts
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

# layer PACKAGES: one more layer, which adds these packages.
layers=0
packages=
layer() {
    packages=${packages:+$packages,}$1
    layers=$((layers + 1))
    debian_tree "$work/tree-$layers.tar" "$packages"
    if [ $layers -eq 1 ]; then
        ln "$work/tree-1.tar" "$output/layer-1.tar"
    else
        "$here/difference.py" "$work/tree-$((layers - 1)).tar" "$work/tree-$layers.tar" \
            "$output/layer-$layers.tar"
    fi
}

# blobs LAYOUT: the files of the image's layers in it, from the lowest.
blobs() {
    skopeo inspect --raw "oci:$1:latest" | python3 -c '
import json, sys
for layer in json.load(sys.stdin)["layers"]: print(layer["digest"].replace(":", "/"))'
}

rm -rf "$output"
mkdir -p "$output"
layer bash,ca-certificates,procps,util-linux
if [ "$name" = big ]; then
    layer gcc,g++,libc6-dev,make,cmake,gdb
    layer python3,python3-dev,python3-numpy,python3-pip,python3-venv,git,nodejs,npm
elif [ "$name" != base ]; then
    echo "measured.sh: no such image: $name" >&2
    exit 2
fi

umoci init --layout "$output/oci"
umoci new --image "$output/oci:latest"
umoci config --no-history --image "$output/oci:latest" --architecture "$(dpkg --print-architecture)" \
    --config.env PATH=/usr/local/bin:/usr/bin:/bin --config.cmd /bin/bash
for number in $(seq $layers); do
    umoci raw add-layer --image "$output/oci:latest" "$output/layer-$number.tar"
done
umoci gc --layout "$output/oci"
skopeo copy --quiet "oci:$output/oci:latest" "docker-archive:$output/docker.tar:$name:latest"
skopeo copy --quiet --dest-compress-format zstd "docker-archive:$output/docker.tar" \
    "oci:$output/zstd:latest"
for packed in oci:gz zstd:zst; do
    layout=$output/${packed%:*}
    number=0
    for blob in $(blobs "$layout"); do
        number=$((number + 1))
        ln "$layout/blobs/$blob" "$output/layer-$number.tar.${packed#*:}"
    done
done
chmod -R u+rwX,go+rX "$output"
