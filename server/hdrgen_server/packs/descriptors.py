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
from nuke_hdrgen.wire.errors import BadInput, UnknownPack

SYSTEMS_FOLDER = Path(__file__).parent / "systems"
OPERATIONS_FOLDER = Path(__file__).parent / "operations"


def system_names() -> tuple[str, ...]:
    """Every system that this package knows, in alphabetical order."""
    return tuple(sorted(path.stem for path in SYSTEMS_FOLDER.glob("*.toml")))


ONLY = "only"
"""The part of a system's table that says, by operation, what holds for that one alone."""


@cache
def load_descriptor(system: str, operation: str = "") -> Descriptor:
    """The descriptor of a system; of one that does several operations, what it is for `operation` alone, with that
    one's own fields and parameters, or without one what all have in common.

    Raises UnknownPack when there is no such system, BadInput when it does not do the operation.
    """
    if system not in system_names():
        raise UnknownPack(f"there is no system {system!r}; this version has: {', '.join(system_names())}")
    table = _read(SYSTEMS_FOLDER / f"{system}.toml")
    only = table.pop(ONLY, {})
    own = table.get("parameters", [])
    if operation:
        if operation not in table["operations"]:
            raise BadInput(
                f"system {system} does {', '.join(table['operations'])}, not {operation!r}; name one of them"
            )
        alone = only.get(operation, {})
        own = [*own, *alone.get("parameters", [])]
        table |= {**alone, "operations": [operation]}
    shared = _shared(table["operations"]) if operation or not only else []
    return parse_descriptor(system, {**table, "parameters": [*shared, *own]})


def has_parts(system: str) -> bool:
    """Whether a system is another thing for each of its operations. Raises UnknownPack."""
    load_descriptor(system)
    return ONLY in _read(SYSTEMS_FOLDER / f"{system}.toml")


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
