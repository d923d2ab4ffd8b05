"""The knobs of every class as `Spec`s: the cited table of `classes`, and the test's own class Plate.

It owns the translation of the table and of addUserKnob lines. It must not know nodes.
"""

from __future__ import annotations

from functools import lru_cache

from tests.fakes.nuke.classes import CLASSES, COMMON, DEFAULTS, INPUTS, LACKING, Kind
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.knobs import Spec
from tests.fakes.nuke.script import UserKnob
from tests.fakes.nuke.tcl import list_items

# A test's picture; the one class that Nuke does not have. `picture` names an entry of FakeNuke's `plates`.
PLATE: dict[str, Kind] = {"picture": "text"}
# Knobs of a Write that exist only once file_type is exr (Foundry's reference of the Write node).
EXR_ONLY = frozenset({"datatype", "compression", "autocrop", "interleave", "metadata", "heroview"})
ROOT_DEFAULTS = {
    "format": "2048 1556 0 0 2048 1556 1 2K_Super_35(full-ap)",
    "proxy_scale": "0.5",
    "views": "main #ffffff",
    "project_directory": "",
    "workingSpaceLUT": "linear",
}
NOT_SAVED = frozenset({"selected", "name"})


@lru_cache(maxsize=None)  # noqa: UP033
def specs(kind: str) -> tuple[Spec, ...]:
    """The knobs of a fresh node of a class of the table, Group for gizmos. Raises KeyError for others."""
    own: dict[str, Kind] = PLATE if kind == "Plate" else CLASSES[kind]
    lacking = LACKING.get(kind, frozenset())
    defaults = {**DEFAULTS.get(kind, {}), **(ROOT_DEFAULTS if kind == "Root" else {})}
    found = {**{name: what for name, what in COMMON.items() if name not in lacking}, **own}
    return tuple(_spec(name, what, defaults.get(name)) for name, what in found.items())


def _spec(name: str, what: Kind, default: str | None) -> Spec:
    if isinstance(what, tuple):
        return Spec(name, "enum", what, default if default is not None else what[0])
    empty = {"bool": "false", "int": "0", "double": "0", "colour": "0", "box": "0"}.get(what, "")
    return Spec(name, what, (), empty if default is None else default)


def is_class(kind: str) -> bool:
    """Whether the table knows this class as one that scripts may hold."""
    return kind == "Plate" or (kind in CLASSES and kind != "Root")


def most_inputs(kind: str) -> int:
    """How many inputs a class takes at most."""
    return 0 if kind == "Plate" else INPUTS.get(kind, (1, 1))[1]


def user_spec(line: UserKnob) -> Spec:
    """The knob that an addUserKnob line makes. Raises NukeError for an enum without items."""
    items = tuple(list_items(line.options.get("M", "")))
    if line.kind == "enum" and (not items or len(set(items)) != len(items)):
        raise NukeError(f"addUserKnob {line.name}: an enum needs items, each once, not {items}")
    default = line.options.get("T", "")
    if line.kind == "enum":
        default = items[0]
    elif line.kind in {"bool", "int", "double"}:
        default = {"bool": "false"}.get(line.kind, "0")
    label = line.options.get("l", line.name)
    return Spec(line.name, line.kind, items, default, label, line.options.get("t", ""), line.flags)
