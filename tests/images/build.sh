#!/bin/bash
# Builds one of casemate's test images: build.sh NAME OUTPUT
#
#   debian        OUTPUT is an OCI layout (directory): Debian with shell, git, gcc, make, python, node
#   small         OUTPUT is an OCI layout (tar): busybox in three layers, with whiteouts, an opaque
#                 directory, Cmd, User, WorkingDir and Env
#   entry         OUTPUT is an OCI layout (tar): busybox with an Entrypoint and a Cmd
#   small-docker  OUTPUT is a docker-archive of the same image
#   rootfs        OUTPUT is a plain root file system, tar.gz or tar.zst by its name
#   static        OUTPUT is an OCI layout (tar) with a single static program and no shell
#   hostile-*     OUTPUT is an OCI layout (tar) whose mount points or tables are not what they seem:
#                 dev-link, null-link, proc-link, proc-file, passwd-link, tmp-link, suid
#
# Runs as root or as an ordinary user (then umoci and mmdebstrap work in their rootless modes).
set -euo pipefail

name=$1
output=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d "${TMPDIR:-/var/tmp}/casemate-image.XXXXXX")
trap 'chmod -R u+rwX "$work" 2>/dev/null; rm -rf "$work"' EXIT
. "$here/apt.sh"
rootless=()
if [ "$(id -u)" -ne 0 ]; then rootless=(--rootless); fi

# The layout under construction, and one image in it with the tag `latest`.
layout=$work/layout
new_image() {
    umoci init --layout "$layout"
    umoci new --image "$layout:latest"
    umoci config --no-history --image "$layout:latest" --architecture "$(dpkg --print-architecture)"
}

# layer TREE: makes the image's root equal to the tree, as one more layer.
unpack_root() { umoci unpack "${rootless[@]}" --image "$layout:latest" "$work/bundle"; }
pack_layer() {
    umoci repack --refresh-bundle --image "$layout:latest" "$work/bundle"
}
config() { umoci config --no-history --image "$layout:latest" "$@"; }

busybox_tree() {
    local root=$1 applet
    mkdir -p "$root"/{bin,etc,home,tmp,var/tmp,root,usr/bin,proc,dev,sys,run}
    chmod 1777 "$root/tmp" "$root/var/tmp"
    chmod 700 "$root/root"
    cp /bin/busybox "$root/bin/busybox"
    chmod 755 "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
    done
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'worker:x:1234:2345:Worker:/home/worker:/bin/sh' \
        'nobody:x:65534:65534:nobody:/:/bin/false' >"$root/etc/passwd"
    printf '%s\n' 'root:x:0:' 'staff:x:50:worker' 'worker:x:2345:' 'nogroup:x:65534:' \
        >"$root/etc/group"
}

write_tar() { tar -C "$layout" --sort=name -cf "$output" .; }

# hostile KIND: a busybox image with one trap in it. The targets are fixed names that the tests look at.
hostile() {
    local root=$work/bundle/rootfs trap_target=/var/tmp/casemate-trap
    new_image
    unpack_root
    busybox_tree "$root"
    case $1 in
    dev-link) rmdir "$root/dev"; ln -s "$trap_target" "$root/dev" ;;
    null-link) ln -s /proc/sys/kernel/core_pattern "$root/dev/null" ;;
    proc-link) rmdir "$root/proc"; ln -s /etc "$root/proc" ;;
    proc-file) rmdir "$root/proc"; echo 'not a directory' >"$root/proc" ;;
    passwd-link) rm "$root/etc/passwd"; ln -s "$trap_target/passwd" "$root/etc/passwd" ;;
    tmp-link) rmdir "$root/tmp"; ln -s "$trap_target" "$root/tmp" ;;
    suid)
        # A setuid-root program: no privilege may come of it.
        cc -static -O1 -o "$root/bin/suid" "$here/effective.c"
        chmod 4755 "$root/bin/suid"
        ;;
    *) echo "build.sh: no such trap: $1" >&2; exit 2 ;;
    esac
    pack_layer
    config --config.env PATH=/bin --config.cmd /bin/sh
    write_tar
}

small() {
    local root=$work/bundle/rootfs
    new_image
    unpack_root
    busybox_tree "$root"
    # Layer 1: what later layers remove, replace and cover.
    mkdir -p "$root"/data/{kept,removed,replaced,covered}
    echo first >"$root/data/kept/file"
    echo first >"$root/data/removed/file"
    echo first >"$root/data/replaced/file"
    echo first >"$root/data/covered/hidden"
    echo first >"$root/data/gone"
    ln "$root/data/kept/file" "$root/data/hardlink"
    ln -s kept/file "$root/data/symlink"
    pack_layer
    # Layer 2: whiteouts of a file and of a directory.
    rm "$root/data/gone"
    rm -r "$root/data/removed"
    mkdir -p "$root/srv/second"
    echo second >"$root/srv/second/file"
    pack_layer
    # Layer 3: a directory removed and made anew, which its archive says with an opaque mark, and a
    # directory that became a file, which it says by naming the file.
    mkdir -p "$work/opaque/data/covered"
    : >"$work/opaque/data/covered/.wh..wh..opq"
    echo third >"$work/opaque/data/covered/shown"
    echo third >"$work/opaque/data/replaced"
    tar -C "$work/opaque" --owner=0 --group=0 --numeric-owner -cf "$work/opaque.tar" data
    umoci raw add-layer --image "$layout:latest" "$work/opaque.tar"
    config --config.env PATH=/bin --config.env GREETING='hello from the image' \
        --config.env EMPTY= --config.user worker --config.workingdir /work/deep \
        --config.cmd /bin/echo --config.cmd 'the default command'
    umoci gc --layout "$layout"
}

case $name in
debian)
    debian_tree "$work/tree.tar" \
        bash,coreutils,git,gcc,libc6-dev,make,python3,nodejs,ca-certificates,procps,util-linux,keyutils \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*'
    new_image
    umoci raw add-layer --image "$layout:latest" "$work/tree.tar"
    config --config.env PATH=/usr/local/bin:/usr/bin:/bin --config.env LANG=C.UTF-8 \
        --config.cmd /bin/bash
    umoci gc --layout "$layout"
    rm -rf "$output"
    mv "$layout" "$output"
    ;;
small)
    small
    write_tar
    ;;
small-docker)
    small
    skopeo copy --quiet "oci:$layout:latest" "docker-archive:$output:small:latest"
    ;;
entry)
    new_image
    unpack_root
    busybox_tree "$work/bundle/rootfs"
    pack_layer
    config --config.env PATH=/bin --config.entrypoint /bin/echo --config.entrypoint entry \
        --config.cmd one --config.cmd two
    write_tar
    ;;
rootfs)
    busybox_tree "$work/rootfs"
    mkdir "$work/rootfs/data"
    echo plain >"$work/rootfs/data/file"
    tar -C "$work/rootfs" --owner=0 --group=0 --numeric-owner --sort=name --auto-compress \
        -cf "$output" .
    ;;
static)
    new_image
    unpack_root
    mkdir -p "$work/bundle/rootfs/app"
    cc -static -O1 -o "$work/bundle/rootfs/app/hello" "$here/hello.c"
    pack_layer
    config --config.cmd /app/hello
    write_tar
    ;;
hostile-*)
    hostile "${name#hostile-}"
    ;;
*)
    echo "build.sh: no such image: $name" >&2
    exit 2
    ;;
esac
chmod -R u+rwX,go+rX "$output"
