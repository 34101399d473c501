#!/bin/bash
# Shows casemate at work: a real Debian image, made here, and what a program sees in a box from it.
# demo.sh BINARY; root makes a user casemate-demo and runs everything as it.
set -euo pipefail

binary=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
name=casemate-demo

if [ "$(id -u)" -eq 0 ]; then
    id "$name" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$name"
    place=$(getent passwd "$name" | cut -d: -f6)
    cache=/var/cache/casemate-demo
    as_user() {
        setpriv --reuid "$name" --regid "$(id -g "$name")" --clear-groups --reset-env -- "$@"
    }
else
    place=$HOME
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/casemate-demo
    as_user() { "$@"; }
fi
mkdir -p "$cache"
chmod 755 "$cache"
# The build directory may be out of the user's reach.
install -m 755 "$binary" "$cache/casemate"
casemate=$cache/casemate

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
# Shows a command as one would type it, and runs it; a refusal is what some of them are here for.
show() {
    printf '\033[32m$ %s\033[0m\n' "$(sed "s|$cache/||" <<<"${*@Q}" | sed "s/'\([A-Za-z0-9_./:=,-]*\)'/\1/g")"
    local code=0
    as_user "$@" || code=$?
    [ "$code" -eq 0 ] || echo "(exit code $code)"
}

image=$cache/debian-$(cat "$here/images/build.sh" | sha256sum | cut -c 1-12)
if [ ! -d "$image" ]; then
    title "A Debian image, made with mmdebstrap from this machine's package sources (a minute or two)"
    rm -rf "$cache"/debian-* "$cache/partial"
    "$here/images/build.sh" debian "$cache/partial"
    mv "$cache/partial" "$image"
fi
cd "$place"

title "Into the store of $(as_user id -un), an ordinary user"
show "$casemate" import debian "$image"
show "$casemate" images

title "Who am I?"
show "$casemate" run --image debian -- id
show "$casemate" run --image debian -- grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status

title "What do I see?"
show "$casemate" run --image debian -- sh -c '. /etc/os-release; echo "$PRETTY_NAME"; ls /; ls -A ~ /home'
show "$casemate" run --image debian -- ps -ef
show "$casemate" run --image debian -- cat /proc/net/dev

title "What is refused?"
as_user sh -c 'echo "a secret of the user" >~/casemate-demo-secret'
show "$casemate" run -- cat "$place/casemate-demo-secret"
show "$casemate" run -- touch /usr/bin/made-in-the-box
show "$casemate" run --image debian -- unshare --user --map-root-user true
show "$casemate" run --image debian -- mount -t tmpfs none /mnt
show "$casemate" run --image debian -- bash -c 'exec 3<>/dev/tcp/127.0.0.1/80'
show "$casemate" run --image debian -- keyctl show
as_user sh -c 'rm ~/casemate-demo-secret'

title "Real work, with one directory granted"
as_user sh -c 'mkdir -p ~/casemate-demo-project && cd ~/casemate-demo-project &&
    printf "%s\n" "#include <stdio.h>" "int main(void) { puts(\"built in a box\"); }" >hello.c'
show "$casemate" run --image debian -v "$place/casemate-demo-project:/project:rw,exec" -w /project -- \
    bash -c 'gcc -o hello hello.c && ./hello && git init -q . && git status --short'
show ls -l "$place/casemate-demo-project"
as_user sh -c 'rm -rf ~/casemate-demo-project'
show "$casemate" run --image debian -- python3 -c 'import os, hashlib; print(os.uname().nodename, hashlib.sha256(b"x").hexdigest()[:16])'
show "$casemate" run --image debian -- node -e 'console.log("node", process.version, "as uid", process.getuid())'

title "What would be run, and what this machine can enforce"
show "$casemate" explain --image debian -- bash
show "$casemate" doctor

title "How long a box takes"
as_user bash -c '
    begin=${EPOCHREALTIME/[.,]/}
    for _ in $(seq 50); do "$0" run --image debian -- true; done
    echo "$(((${EPOCHREALTIME/[.,]/} - begin) / 50)) microseconds for a box from the image, over 50 runs"
' "$casemate"
