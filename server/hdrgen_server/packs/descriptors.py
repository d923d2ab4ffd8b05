"""Reads what each system says about itself from `systems/<system>.toml`.

It owns the table of systems and its strict reading. It must not know packs, torch or sockets.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from hdrgen_server.contracts.descriptor import Descriptor, Memory, Parameter, Sizes
from nuke_hdrgen.wire.errors import UnknownPack

SYSTEMS_FOLDER = Path(__file__).parent / "systems"


def system_names() -> tuple[str, ...]:
    """Every system that this package knows, in alphabetical order."""
    return tuple(sorted(path.stem for path in SYSTEMS_FOLDER.glob("*.toml")))


@cache
def load_descriptor(system: str) -> Descriptor:
    """The descriptor of a system. Raises UnknownPack when there is no such system."""
    if system not in system_names():
        raise UnknownPack(f"there is no system {system!r}; this version has: {', '.join(system_names())}")
    path = SYSTEMS_FOLDER / f"{system}.toml"
    return parse_descriptor(system, tomllib.loads(path.read_text(encoding="utf-8")))


def parse_descriptor(system: str, table: dict[str, Any]) -> Descriptor:
    """A descriptor from its TOML table. Raises ValueError for unknown, missing or mistyped fields."""
    _refuse_unknown(table, Descriptor, system)
    _refuse_unknown(table.get("sizes", {}), Sizes, f"{system}.sizes")
    _refuse_unknown(table.get("memory", {}), Memory, f"{system}.memory")
    for parameter in table.get("parameters", ()):
        _refuse_unknown(parameter, Parameter, f"{system}.parameters")
    descriptor = msgspec.convert({"system": system, **table}, Descriptor)
    descriptor.resolve({p.name: p.default for p in descriptor.parameters})  # every default passes its own check
    return descriptor


def _refuse_unknown(table: dict[str, Any], cls: type[Any], where: str) -> None:
    unknown = sorted(set(table) - {f.name for f in fields(cls)})
    if unknown:
        raise ValueError(f"{where} has unknown field {unknown[0]!r}")
