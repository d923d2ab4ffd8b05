"""Which packs are here: embedded ones, the user's and the site's, and which of them an operation uses by
default.

It owns the folders, their order and the table of defaults. It must not know torch or sockets, nor hash any
weights.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hdrgen_server.packs.manifest import MANIFEST_NAME, Pack, read_pack
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire.errors import BadInput, HDRGenError, UnknownPack

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
DEFAULTS_FILE = Path(__file__).parent / "defaults.toml"
SHOT = ".shot"
"""What follows an operation's name in the table of defaults for its shots."""


@dataclass(frozen=True)
class Registry:
    """The packs found, by name, and what is wrong with the others.

    `packs` are in the order of their folders. `problems` maps the name (of the pack, or of its folder when the manifest
    cannot be read) to one line.
    """

    packs: dict[str, Pack]
    problems: dict[str, str]
    defaults: dict[str, dict[str, list[str]]]

    def get(self, name: str) -> Pack:
        """The pack of that name. Raises BadInput when it is broken or there twice, UnknownPack when not
        there.
        """
        if name in self.problems:
            raise BadInput(self.problems[name])
        if name not in self.packs:
            here = ", ".join(sorted(self.packs))
            raise UnknownPack(f"no pack {name!r} here; there are: {here}; `hdrgen packs add FOLDER` adds one")
        return self.packs[name]

    def based(self, pack: Pack) -> Pack:
        """A pack on the base that it names, itself where it names none. Raises BadInput for a base that is not here or
        is broken.
        """
        if not pack.base_name or pack.base is not None:
            return pack
        if pack.base_name in self.problems:
            raise BadInput(f"pack {pack.name} is on {pack.base_name}, which is broken: {self.problems[pack.base_name]}")
        if pack.base_name not in self.packs:
            raise BadInput(
                f"pack {pack.name} is on pack {pack.base_name}, which is not here; add that one with `hdrgen packs add`"
            )
        return pack.on(self.packs[pack.base_name])

    def all(self) -> tuple[Pack, ...]:
        """Every usable pack, by name."""
        return tuple(self.packs[name] for name in sorted(self.packs))

    def default_names(self) -> dict[str, str]:
        """The pack that is used when none is named, by `operation/quality`, and for shots by `operation.shot/quality`
        where another one comes first; where there is none, no entry.
        """
        found = {
            f"{operation}/{quality}": self._first(names)
            for operation, by_quality in self.defaults.items()
            for quality, names in by_quality.items()
        }
        return {key: pack.name for key, pack in found.items() if pack is not None}

    def default_for(self, operation: str, quality: str, *, shot: bool = False) -> Pack:
        """The pack that an operation uses when none is named; for a shot, frames that follow each other, one that is
        made for these where it is here. Raises UnknownPack when there is none, naming those that must be asked for.
        """
        for table in (operation + SHOT, operation) if shot else (operation,):
            pack = self._first(self.defaults.get(table, {}).get(quality, []))
            if pack is not None:
                return pack
        others = [f"`{p.name}`, {p.summary}" for p in self.all() if operation in p.descriptor.operations]
        hint = f", or name {' or '.join(others)}" if others else ""
        raise UnknownPack(f"no pack can do {operation}; add one with `hdrgen packs add`{hint}")

    def _first(self, names: Sequence[str]) -> Pack | None:
        """The first that is here of names of packs or systems, of a system's packs as `defaults.toml` says."""
        for name in names:
            if name in self.packs:
                return self.packs[name]
            of_system = [pack for pack in self.packs.values() if pack.system == name]
            if of_system:
                return min(of_system, key=lambda pack: pack.preview)
        return None


def packs_folders(settings: Settings) -> tuple[Path, ...]:
    """Where packs are looked for: embedded, the user's, then the settings' folders."""
    return (EMBEDDED_FOLDER, user_packs_folder(settings), *settings.packs_folders)


def user_packs_folder(settings: Settings) -> Path:
    """Where `hdrgen packs add` puts packs."""
    return settings.data_folder / "packs"


def load_registry(settings: Settings) -> Registry:
    """Read every manifest in the folders of packs; a broken or doubled pack, or one without its base, becomes a
    problem, not a failure.
    """
    found: dict[str, list[Pack]] = {}
    problems: dict[str, str] = {}
    for folder in _pack_folders(packs_folders(settings)):
        try:
            pack = read_pack(folder)
        except HDRGenError as error:
            problems[folder.name] = error.message
        else:
            found.setdefault(pack.name, []).append(pack)
    for name, alike in found.items():
        if len(alike) > 1:
            places = " and ".join(str(p.path) for p in alike)
            problems[name] = f"pack {name} is there {len(alike)} times: {places}; remove or rename all but one"
    read = {name: alike[0] for name, alike in found.items() if name not in problems}
    whole = Registry(read, problems, tomllib.loads(DEFAULTS_FILE.read_text(encoding="utf-8")))
    usable: dict[str, Pack] = {}
    baseless: dict[str, str] = {}
    for name, pack in read.items():
        try:
            usable[name] = whole.based(pack)
        except BadInput as error:
            baseless[name] = error.message
    return replace(whole, packs=usable, problems={**problems, **baseless})


def _pack_folders(roots: tuple[Path, ...]) -> Iterator[Path]:
    for root in dict.fromkeys(roots):
        if root.is_dir():
            yield from sorted(p for p in root.iterdir() if (p / MANIFEST_NAME).is_file())
