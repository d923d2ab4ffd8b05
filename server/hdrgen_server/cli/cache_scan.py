"""What lies in a cache of bakes: results and leftovers by bake id and parameters, and which scripts name them.

It owns the layout as it is read, `<root>/<bake_id>/<params8>/out[.VIEW].FRAME.exr`; whatever else lies there is counted
and never opened. It follows no link. It must not change anything, nor know the terminal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuke_hdrgen.wire.errors import BadInput, HDRGenError

BAKE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
PARAMS = re.compile(r"[0-9a-f]{8}")
RESULT = re.compile(r"out(?:\.(?P<view>[A-Za-z0-9_-]+))?\.(?P<frame>-?\d{3,9})\.exr")
LEFTOVER = re.compile(rf"\.{RESULT.pattern}\.[A-Za-z0-9_.-]+\.part")
SCRIPT = re.compile(r".+\.(?:nk|nknc|nkind|gizmo|gznc|gzind)(?:~|\.autosave\d*)?")
_WORD = re.compile(rb"[A-Za-z0-9_-]+")
_RESULT_PATH = re.compile(rb"([A-Za-z0-9_-]{1,64})[/\\]+([0-9a-f]{8})[/\\]+out\.")
_RECORD = ("operation", "pack", "seed")


@dataclass(frozen=True)
class Stored:
    """One file of a bake: its name in the folder, size in bytes and time of change in seconds since 1970.

    `identity` is the same for every name that shares the content, of which there are `names`: a bake that moves to
    other parameters carries unchanged frames along as hard links.
    """

    name: str
    bytes: int
    changed: float
    identity: tuple[int, int]
    names: int


@dataclass(frozen=True)
class Bake:
    """One folder of results: a node's bake id, the eight digits of its parameters, and what lies there.

    `changed` is the newest time of the folder and its files, `others` counts what is not ours.
    """

    root: Path
    bake_id: str
    params: str
    results: tuple[Stored, ...]
    leftovers: tuple[Stored, ...]
    others: int
    changed: float

    @property
    def folder(self) -> Path:
        """Where the results lie."""
        return self.root / self.bake_id / self.params

    @property
    def bytes(self) -> int:
        """Size of results and leftovers."""
        return occupied((*self.results, *self.leftovers))

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames that have a result in any view, ascending."""
        return tuple(sorted({int(match["frame"]) for match in self._matches()}))

    @property
    def views(self) -> tuple[str, ...]:
        """The views named by results; none in a script with one view."""
        return tuple(sorted({match["view"] for match in self._matches() if match["view"]}))

    def _matches(self) -> list[re.Match[str]]:
        return [match for stored in self.results if (match := RESULT.fullmatch(stored.name)) is not None]


@dataclass(frozen=True)
class References:
    """Which scripts name which bake: by the very result path, and by the bake id anywhere."""

    paths: dict[tuple[str, str], tuple[Path, ...]]
    ids: dict[str, tuple[Path, ...]]

    def of(self, bake: Bake) -> tuple[Path, ...]:
        """The scripts that hold this bake's result path."""
        return self.paths.get((bake.bake_id, bake.params), ())

    def of_id(self, bake: Bake) -> tuple[Path, ...]:
        """The scripts that hold its bake id, and so a node that may come back to these parameters."""
        return self.ids.get(bake.bake_id, ())


def occupied(files: Iterable[Stored]) -> int:
    """Bytes on disk: content under several names counts once."""
    return sum({stored.identity: stored.bytes for stored in files}.values())


def scan(root: Path) -> list[Bake]:
    """Every folder with results or leftovers below a cache root, in order of name.

    Raises BadInput when the root is no folder or cannot be read.
    """
    real = root.resolve()
    if not real.is_dir():
        raise BadInput(f"{root} is no folder; name the cache_root of the nodes, such as hdrgen_cache beside the script")
    bakes = [
        _bake(real, ident, params)
        for ident in _folders(real, BAKE_ID)
        for params in _folders(real / ident, PARAMS)
    ]  # fmt: skip
    return [bake for bake in bakes if bake.results or bake.leftovers]


def record(bake: Bake) -> dict[str, str]:
    """`operation`, `pack` and `seed` from the header of the newest result; `problem` when it cannot be read.

    Empty where the site keeps no provenance.
    """
    if not bake.results:
        return {}
    from hdrgen_server.image.exr import read_exr_header

    newest = max(bake.results, key=lambda stored: stored.changed)
    try:
        header = read_exr_header(bake.folder / newest.name)
    except HDRGenError as error:
        return {"problem": error.message}
    return {name: str(header[f"hdrgen/{name}"]) for name in _RECORD if f"hdrgen/{name}" in header}


def references(places: Iterable[Path]) -> References:
    """What the scripts of folders, or single scripts, name. They are read as text, never run.

    Raises BadInput when a place is missing or holds no script, or a script cannot be read: what it names would count
    as unused.
    """
    paths: dict[tuple[str, str], tuple[Path, ...]] = {}
    ids: dict[str, tuple[Path, ...]] = {}
    for script in sorted({script for place in places for script in _scripts(place)}):
        try:
            text = script.read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read the script {script}: {error.strerror}; make it readable or move it") from error
        for ident, params in {match.groups() for match in _RESULT_PATH.finditer(text)}:
            key = ident.decode("ascii"), params.decode("ascii")
            paths[key] = (*paths.get(key, ()), script)
        for word in {match[0] for match in _WORD.finditer(text)}:
            name = word.decode("ascii")
            ids[name] = (*ids.get(name, ()), script)
    return References(paths, ids)


def _scripts(place: Path) -> list[Path]:
    found = [place.resolve()] if place.is_file() else list(_scripts_below(place))
    if not found:
        raise BadInput(f"{place} holds no .nk file; name the folder of the scripts with --scripts")
    return found


def _scripts_below(place: Path) -> Iterator[Path]:
    if not place.is_dir():
        raise BadInput(f"{place} is neither a folder nor a script; correct --scripts")

    def refuse(error: OSError) -> None:
        raise BadInput(f"cannot read the folder {error.filename}: {error.strerror}; make it readable") from error

    for folder, _, names in os.walk(place.resolve(), onerror=refuse):
        yield from (Path(folder, name) for name in names if SCRIPT.fullmatch(name))


def _folders(folder: Path, wanted: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if wanted.fullmatch(e.name) and e.is_dir(follow_symlinks=False))
    except OSError as error:
        raise BadInput(f"cannot read the folder {folder}: {error.strerror}; make it readable") from error


def _bake(root: Path, bake_id: str, params: str) -> Bake:
    folder = root / bake_id / params
    found: dict[re.Pattern[str], list[Stored]] = {RESULT: [], LEFTOVER: []}
    others = 0
    try:
        changed = folder.stat(follow_symlinks=False).st_mtime
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = next((kind for kind in found if kind.fullmatch(entry.name)), None)
                if kind is None or not entry.is_file(follow_symlinks=False):
                    others += 1
                    continue
                stored = _stored(entry)
                if stored is not None:
                    found[kind].append(stored)
                    changed = max(changed, stored.changed)
    except OSError as error:
        raise BadInput(f"cannot read the folder {folder}: {error.strerror}; make it readable") from error
    results, leftovers = (tuple(sorted(found[kind], key=lambda s: s.name)) for kind in (RESULT, LEFTOVER))
    return Bake(root, bake_id, params, results, leftovers, others, changed)


def _stored(entry: os.DirEntry[Any]) -> Stored | None:
    """The file, or None when it went since the folder was read, as a leftover does that is renamed into place."""
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    identity = (status.st_dev, status.st_ino)
    return Stored(entry.name, status.st_size, status.st_mtime, identity, status.st_nlink)
