#!/bin/sh
# Installs those of the named Debian packages that are missing: packages.sh PACKAGE...
# PROGRAM=PACKAGE stands for a package that is needed only if there is no such program.
set -eu

missing=
for package in "$@"; do
    case $package in
        *=*)
            command -v "${package%%=*}" >/dev/null && continue
            package=${package#*=}
            ;;
    esac
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "packages.sh: this is not a Debian; install what these packages hold:$missing" >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "packages.sh: run as root, or install sudo; missing:$missing" >&2
    exit 1
fi
echo "Installing:$missing"
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
# shellcheck disable=SC2086 # the list is to be split
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $missing >/dev/null
