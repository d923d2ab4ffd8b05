"""Hashes a pack's files and compares them with its manifest.

It owns the reading and the comparison. It must not know where packs are kept, torch or sockets.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from hdrgen_server.packs.manifest import Pack

_CHUNK = 1 << 22


def hash_file(path: Path) -> str:
    """The sha256 of a file in hex, read in pieces. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verify(pack: Pack) -> tuple[str, ...]:
    """What is wrong with a pack's files, one line each; empty when every one is as its manifest says."""
    problems: list[str] = []
    for entry in pack.files:
        path = pack.path / entry.path
        try:
            size = path.stat().st_size
            if size != entry.bytes:
                problems.append(f"{path} has {size} bytes, the manifest says {entry.bytes}")
            elif hash_file(path) != entry.sha256:
                problems.append(f"{path} is not the file that the manifest records (sha256 differs)")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
    return tuple(problems)
