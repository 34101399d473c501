#!/bin/bash
# The crate pjdfstest on the kernel's overlayfs, beside a plain directory: pjdfstest.sh [PROGRAM]
#
#   cargo install pjdfstest --version 0.2.2 --root DIR; tests/overlay/pjdfstest.sh DIR/bin/pjdfstest
#
# By hand and as root, since it wants several users: root maps 65,536 ids that own nothing into a user
# namespace, in which the suite's own root has no rights over the machine. It takes some seconds.
#
# What fails on a plain directory there, 45 of 398, makes block and character devices, which nobody can
# in a user namespace. On the overlay 41 more fail, which make the character device 0:0: any user may,
# but to an overlay it is a whiteout, and refused. Anything else is printed, and the exit status is 1.
set -euo pipefail

program=$(realpath "${1:-pjdfstest}")
base=$(mktemp -d /var/tmp/casemate-pjdfstest.XXXXXX)
holder=
trap 'test -z "$holder" || kill "$holder"; rm -rf "$base"' EXIT
cp "$program" "$base/pjdfstest"
cp "$(dirname "$0")/../lowers/pjdfstest.toml" "$base/config.toml"
mkdir "$base"/{lower,upper,work,overlay,plain}
chown -R 100000:100000 "$base"
chmod 755 "$base"

unshare --user sleep 600 &
holder=$!
until [ "$(readlink "/proc/$holder/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
echo '0 100000 65536' >"/proc/$holder/uid_map"
echo '0 100000 65536' >"/proc/$holder/gid_map"

# failures PLACE: the names of the tests that fail there.
failures() {
    nsenter --target "$holder" --user --setuid 0 --setgid 0 unshare --mount bash -ec '
        cd "$0"
        test "$1" = plain || mount -t overlay overlay -o userxattr,volatile,lowerdir=lower,upperdir=upper,workdir=work overlay
        cd "$1"
        ../pjdfstest -c ../config.toml -p . || true
    ' "$base" "$1" >"$base/log-$1" 2>&1
    grep -a '^Summary: ' "$base/log-$1" >&2 || { cat "$base/log-$1" >&2; exit 1; }
    grep -aE '^[a-z_:0-9]+ +FAILED' "$base/log-$1" | awk '{print $1}' | sort
}

plain=$(failures plain)
overlay=$(failures overlay)
unexpected=$(comm -13 <(echo "$plain") <(echo "$overlay") | grep -v '::char$' || true)
test -z "$unexpected" || { printf 'fails on the overlay only:\n%s\n' "$unexpected"; exit 1; }
echo "nothing fails on the overlay only, but for character devices"
