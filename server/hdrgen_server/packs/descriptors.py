"""Reads what each system says about itself from `systems/<system>.toml`, and what all systems of an operation have in
common from `operations/<operation>.toml`.

It owns the tables of systems and operations and their strict reading. It must not know packs, torch or sockets.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from hdrgen_server.contracts.descriptor import Descriptor, Memory, Parameter, Sizes
from nuke_hdrgen.wire.errors import UnknownPack

SYSTEMS_FOLDER = Path(__file__).parent / "systems"
OPERATIONS_FOLDER = Path(__file__).parent / "operations"


def system_names() -> tuple[str, ...]:
    """Every system that this package knows, in alphabetical order."""
    return tuple(sorted(path.stem for path in SYSTEMS_FOLDER.glob("*.toml")))


@cache
def load_descriptor(system: str) -> Descriptor:
    """The descriptor of a system. Raises UnknownPack when there is no such system."""
    if system not in system_names():
        raise UnknownPack(f"there is no system {system!r}; this version has: {', '.join(system_names())}")
    table = _read(SYSTEMS_FOLDER / f"{system}.toml")
    own = table.get("parameters", [])
    return parse_descriptor(system, {**table, "parameters": [*_shared(table.get("operations", ())), *own]})


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


def _shared(operations: Iterable[str]) -> list[dict[str, Any]]:
    """The parameters that every system of these operations has."""
    paths = (OPERATIONS_FOLDER / f"{operation}.toml" for operation in operations)
    return [parameter for path in paths if path.is_file() for parameter in _read(path)["parameters"]]


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _refuse_unknown(table: dict[str, Any], cls: type[Any], where: str) -> None:
    unknown = sorted(set(table) - {f.name for f in fields(cls)})
    if unknown:
        raise ValueError(f"{where} has unknown field {unknown[0]!r}")
