"""Which bakes may go, and their removal: only files of our layout, never through a link, never one that changed since.

It owns the choice and the deletion. It must not know scripts' texts or the terminal.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from hdrgen_server.cli.cache_scan import Bake, References, Stored, occupied
from nuke_hdrgen.wire.errors import BadParameter, StorageError

RECENT_S = 3600.0
_AGE = re.compile(r"(\d{1,6})([hdw])")
_UNIT_S = {"h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True)
class Criteria:
    """What may go: older than an age in seconds, named by no script, or both at once where both are given.

    A folder that changed within the last hour stays unless `recent`: somebody may be baking into it.
    """

    older_than_s: float | None = None
    references: References | None = None
    recent: bool = False

    def __post_init__(self) -> None:
        if self.older_than_s is None and self.references is None:
            raise BadParameter("prune needs --older-than AGE or --unreferenced, so that it knows what may go")


@dataclass(frozen=True)
class Removal:
    """Files of one bake that may go: all of them, or only what killed renders left (`whole` is false)."""

    bake: Bake
    files: tuple[Stored, ...]
    whole: bool


def parse_age(text: str) -> float:
    """`12h`, `30d` or `8w` in seconds. Raises BadParameter."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise BadParameter(f"--older-than {text!r} is no age; write hours, days or weeks as 12h, 30d or 8w")
    return int(match[1]) * _UNIT_S[match[2]]


def freed(removals: Iterable[Removal]) -> int:
    """Bytes that removals together give back: content that keeps another name elsewhere gives none."""
    files = [stored for removal in removals for stored in removal.files]
    going = Counter(stored.identity for stored in files)
    return occupied(stored for stored in files if going[stored.identity] >= stored.names)


def choose(bakes: Iterable[Bake], criteria: Criteria, now: float) -> list[Removal]:
    """What may go. Of a bake that stays, leftovers older than the age (an hour where none is given) go all the same."""
    removals: list[Removal] = []
    for bake in bakes:
        if _goes(bake, criteria, now):
            removals.append(Removal(bake, (*bake.results, *bake.leftovers), whole=True))
            continue
        limit = now - max(RECENT_S, criteria.older_than_s or 0.0)
        old = tuple(stored for stored in bake.leftovers if stored.changed < limit)
        if old:
            removals.append(Removal(bake, old, whole=False))
    return removals


def remove(removals: Iterable[Removal]) -> tuple[int, int]:
    """Delete; returns how many files went and the bytes given back. Folders that are empty then go too.

    A file that changed since it was looked at stays. Raises StorageError, after everything else has been tried, when
    files could not be removed.
    """
    count = given_back = 0
    failures: list[str] = []
    for removal in removals:
        try:
            with _opened(removal.bake) as (root, ident, params):
                for stored in removal.files:
                    names = _unlink(stored, params)
                    count += names > 0
                    given_back += stored.bytes if names == 1 else 0
                with contextlib.suppress(OSError):  # not empty: something else lies there
                    os.rmdir(removal.bake.params, dir_fd=ident)
                    os.rmdir(removal.bake.bake_id, dir_fd=root)
        except OSError as error:
            failures.append(f"{removal.bake.folder} ({error.strerror})")
    if failures:
        what = f"{len(failures)} of the folders could not be emptied, first {failures[0]}"
        raise StorageError(f"{what}; {count} files were removed; run it as the user who baked them")
    return count, given_back


def _goes(bake: Bake, criteria: Criteria, now: float) -> bool:
    if not criteria.recent and bake.changed > now - RECENT_S:
        return False
    if criteria.older_than_s is not None and bake.changed > now - criteria.older_than_s:
        return False
    return criteria.references is None or not criteria.references.of_id(bake)


def _unlink(stored: Stored, folder: int) -> int:
    """Remove it; returns how many names its content had. A file that is gone, or another one by now, stays: 0."""
    try:
        status = os.stat(stored.name, dir_fd=folder, follow_symlinks=False)
        if (status.st_dev, status.st_ino, status.st_mtime) != (*stored.identity, stored.changed):
            return 0
        os.unlink(stored.name, dir_fd=folder)
    except FileNotFoundError:
        return 0
    return status.st_nlink


@contextmanager
def _opened(bake: Bake) -> Generator[tuple[int, int, int]]:
    """Descriptors of root, bake id and parameters' folder, each opened inside the one before and through no link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as undo:
        descriptors: list[int] = []
        for name in (str(bake.root), bake.bake_id, bake.params):
            inside = descriptors[-1] if descriptors else None
            descriptors.append(os.open(name, flags, dir_fd=inside))
            undo.callback(os.close, descriptors[-1])
        yield descriptors[0], descriptors[1], descriptors[2]
