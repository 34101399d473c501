#!/usr/bin/env python3
"""Writes the layer that makes one tree of another: difference.py LOWER UPPER LAYER

LOWER and UPPER are tar archives of whole trees. LAYER gets what UPPER has and LOWER has not or has
otherwise, and a whiteout for what is gone. Owners, times and attributes stay what they are, which
needs no root.
"""

import hashlib
import os
import sys
import tarfile


def signature(archive, entry):
    """What two entries of one name must share to be the same."""
    content = b""
    if entry.isreg():
        digest = hashlib.sha256()
        data = archive.extractfile(entry)
        while block := data.read(1 << 20):
            digest.update(block)
        content = digest.digest()
    kept = sorted(pair for pair in entry.pax_headers.items() if pair[0].startswith("SCHILY."))
    return (entry.type, entry.mode, entry.uid, entry.gid, int(entry.mtime), entry.linkname, content, kept)


def signatures(path):
    with tarfile.open(path) as archive:
        return {os.path.normpath(entry.name): signature(archive, entry) for entry in archive}


def main(lower_path, upper_path, layer_path):
    lower, upper = signatures(lower_path), signatures(upper_path)
    changed = {name for name, what in upper.items() if lower.get(name) != what}
    # The names of one file go together: a link to a file that the layer has not would be broken.
    target = {name: os.path.normpath(what[5]) for name, what in upper.items() if what[0] == tarfile.LNKTYPE}
    families = {target[name] for name in changed if name in target} | (changed & set(target.values()))
    changed |= families | {name for name, file in target.items() if file in families}
    # Of what is gone, the topmost directory says it all.
    gone = {name for name in lower if name not in upper}
    gone = {name for name in gone if os.path.dirname(name) not in gone}
    with tarfile.open(upper_path) as archive, tarfile.open(layer_path, "w", format=tarfile.PAX_FORMAT) as layer:
        for entry in archive:
            if os.path.normpath(entry.name) in changed:
                layer.addfile(entry, archive.extractfile(entry) if entry.isreg() else None)
        for name in sorted(gone):
            directory, leaf = os.path.split(name)
            layer.addfile(tarfile.TarInfo(os.path.join(directory, ".wh." + leaf)))


if __name__ == "__main__":
    main(*sys.argv[1:])
