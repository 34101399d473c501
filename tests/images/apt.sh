# Sourced by the recipes: where Debian's packages come from, and how a tree is made of them.

# The apt sources of this machine that are Debian's own, as one-line entries: the mirror that the
# machine is set up for, never a fixed host.
apt_sources() {
    local sources
    sources=$(apt-get indextargets --format '$(ORIGIN) deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' | sed -n 's/^Debian deb /deb /p' | sort -u)
    if [ -z "$sources" ]; then
        echo "${0##*/}: apt knows no Debian package source; run apt-get update" >&2
        return 1
    fi
    printf '%s\n' "$sources"
}

# debian_tree FILE PACKAGES OPTION...: a tar of a minimal Debian and these packages (a,b,c).
debian_tree() {
    local file=$1 packages=$2 sources suite
    shift 2
    sources=$(apt_sources)
    suite=$(awk '{print $3}' <<<"$sources" | grep -v -- - | head -n 1)
    mmdebstrap --quiet --variant=minbase --format=tar --include="$packages" \
        --aptopt='Acquire::Check-Valid-Until "false"' "$@" "$suite" "$file" - <<<"$sources"
}
